"""The peer's name for the reduction of decode-context parallelism, on a communicator of ours."""

from __future__ import annotations

from typing import Any

from .cascade import merge_states
from .errors import InvalidArgumentError
from .parallel import Communicator

_LOG2_E = 1.4426950408889634


def decode_cp_a2a_lse_reduce(
    partial_o: Any, partial_lse: Any, workspace: Communicator, cp_rank: int, cp_size: int, lse_mode: str = "base2",
) -> Any:
    """Each rank's slice of the heads, merged over all ranks' keys.

    Everything is gathered and each rank merges its slice: as many messages as the peer's exchange, with ``cp_size`` times the bytes.

    :param partial_o: ``[…, cp_size, head_dim]``: slice ``peer`` is what that rank gets.
    :param partial_lse: ``[…, cp_size]``, float32.
    :param workspace: a ``Communicator`` in the place of the peer's symmetric memory.
    :param lse_mode: ``"base2"`` or ``"basee"``.
    :returns: ``[…, head_dim]``.
    """
    if (cp_rank, cp_size) != (workspace.rank, workspace.world_size):
        raise InvalidArgumentError(
            f"cp_rank and cp_size are {cp_rank} and {cp_size}, but the communicator is rank {workspace.rank} of "
            f"{workspace.world_size}")
    if lse_mode not in ("base2", "basee"):
        raise InvalidArgumentError(f"lse_mode is {lse_mode!r}, but must be 'base2' or 'basee'")
    shape = tuple(partial_o.shape)
    if len(shape) < 2 or shape[-2] != cp_size or tuple(partial_lse.shape) != shape[:-1]:
        raise InvalidArgumentError(
            f"partial_o is of shape {shape} and partial_lse of {tuple(partial_lse.shape)}, but they must be "
            f"[…, {cp_size}, head_dim] and […, {cp_size}]")
    if lse_mode == "basee":
        partial_lse = partial_lse * _LOG2_E
    rows = 1
    for extent in shape[:-2]:
        rows *= extent
    # [rank, rows, slice, dim] → this rank's slice → [rows, rank, 1, dim]
    values = workspace.all_gather(_contiguous(partial_o)).reshape(cp_size, rows, cp_size, shape[-1])[:, :, cp_rank]
    sums = workspace.all_gather(_contiguous(partial_lse)).reshape(cp_size, rows, cp_size)[:, :, cp_rank]
    out, _ = merge_states(_swap(values)[:, :, None], _swap(sums)[:, :, None])
    return out.reshape(*shape[:-2], shape[-1])


def _contiguous(array: Any) -> Any:
    if hasattr(array, "contiguous"):
        return array.contiguous()
    flags = getattr(array, "flags", None)
    return array if flags is None or flags.c_contiguous else array.copy()


def _swap(array: Any) -> Any:
    return array.transpose(0, 1) if hasattr(array, "contiguous") else array.swapaxes(0, 1)
