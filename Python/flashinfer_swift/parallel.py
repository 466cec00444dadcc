"""Several ranks: one process and one device each, the keys of a request spread over them, and the states of attention merged.

Launched as torchrun does it (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``)::

    ranks = Communicator(workspace)                     # meets the others; workspace says the device and its stream
    share = KVShare("interleaved", ranks.rank, ranks.world_size, page_size=16)
    wrapper = BatchKVParallelWithPagedKVCacheWrapper(ranks, workspace)
    wrapper.plan(qo_indptr, kv_lens, kv_indptr, kv_indices, share, 32, 8, 128, causal=True)
    out = wrapper.run(q, cache)                         # q and out are whole on every rank, cache is this rank's
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple, Sequence

from . import _abi, _library
from ._call import Call
from ._planned import Options, default_scale, indptr_last
from ._wrapper import BatchWrapper, paged_cache
from .errors import InvalidArgumentError

_SPLITS = {"chunks": _abi.SHARE_CHUNKS, "interleaved": _abi.SHARE_INTERLEAVED, "zigzag": _abi.SHARE_ZIGZAG}
_TRANSPORTS = {"automatic": _abi.TRANSPORT_AUTOMATIC, "host": _abi.TRANSPORT_HOST}


def _call_library(function: str, *arguments: Any) -> None:
    library = _library.get()
    status = getattr(library, function)(*arguments)
    if status:
        library.fail(status)


@dataclass(frozen=True)
class KVShare:
    """The part of a request's keys that a rank has: runs of ``run_pages`` whole pages.

    :param split: ``"chunks"`` (one run a rank, in order; the last rank also has what is appended later), ``"interleaved"`` (every
        ``world_size``-th run: appended tokens spread over all ranks) or ``"zigzag"`` (a run from the front and one from the back).
    """

    split: str
    rank: int
    world_size: int
    page_size: int
    run_pages: int = 1

    def native(self) -> _abi.KVShare:
        code = _SPLITS.get(self.split)
        if code is None:
            raise InvalidArgumentError(f"split is {self.split!r}, but must be 'chunks', 'interleaved' or 'zigzag'")
        return _abi.KVShare(
            ctypes.sizeof(_abi.KVShare), code, self.rank, self.world_size, 0, self.page_size, self.run_pages)

    def key_count(self, position: int) -> int:
        """How many of the keys before ``position`` are this rank's: its keys of a request of that length."""
        count = ctypes.c_int64()
        _call_library("fi_kv_share_key_count", ctypes.byref(self.native()), position, ctypes.byref(count))
        return count.value

    def page_count(self, length: int) -> int:
        """Pages that this rank needs for its part of a request of ``length`` keys."""
        return -(-self.key_count(length) // self.page_size)

    def owner(self, position: int) -> tuple[int, int]:
        """The rank that has the key at ``position``, and where the key lies among that rank's keys."""
        rank, local = ctypes.c_int32(), ctypes.c_int64()
        _call_library(
            "fi_kv_share_owner", ctypes.byref(self.native()), position, ctypes.byref(rank), ctypes.byref(local))
        return rank.value, local.value

    def page(self, local_page: int) -> int:
        """Which of the request's pages is this rank's page ``local_page``."""
        page = ctypes.c_int64()
        _call_library("fi_kv_share_page", ctypes.byref(self.native()), local_page, ctypes.byref(page))
        return page.value


class HeadShare(NamedTuple):
    """The heads of a rank of tensor parallelism, counted over the whole model."""

    qo_heads: range
    kv_heads: range


def head_share(num_qo_heads: int, num_kv_heads: int, rank: int, world_size: int) -> HeadShare:
    """The heads that a rank has. With fewer key/value heads than ranks, neighbouring ranks have a copy of the same one."""
    qo, kv = (ctypes.c_int64 * 2)(), (ctypes.c_int64 * 2)()
    _call_library("fi_head_share", num_qo_heads, num_kv_heads, rank, world_size, qo, kv)
    return HeadShare(range(qo[0], qo[0] + qo[1]), range(kv[0], kv[0] + kv[1]))


class Communicator:
    """One rank, and the way to the others; made when all have met.

    :param like: a tensor of the device that this rank computes on. Collectives are enqueued on the stream that is current now.
    :param rank, world_size, address, port: where the ranks meet; the environment's where not given.
    :param transport: ``"automatic"`` (NCCL between GPUs, TCP between CPUs) or ``"host"`` (TCP; slow on GPUs, and not in graphs).
    :param timeout: seconds to wait for the other ranks, now and in waits of the host.
    """

    def __init__(
        self, like: Any, rank: int | None = None, world_size: int | None = None, address: str | None = None,
        port: int | None = None, transport: str = "automatic", timeout: float = 60.0,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise InvalidArgumentError(
                f"rank is {rank} and world_size {world_size}, but must be given both or taken both from the environment")
        if transport not in _TRANSPORTS:
            raise InvalidArgumentError(f"transport is {transport!r}, but must be 'automatic' or 'host'")
        if world_size is not None and world_size < 1:
            raise InvalidArgumentError(f"world_size is {world_size}, but must be 1 or more")
        call = Call(like, "like")
        options = _abi.CommunicatorOptions(
            ctypes.sizeof(_abi.CommunicatorOptions), rank or 0, world_size or 0, address.encode() if address else None,
            port or 0, _TRANSPORTS[transport], max(int(timeout * 1000), 1))
        handle = ctypes.c_void_p()
        call.run("fi_communicator_create", ctypes.byref(options), ctypes.byref(handle))
        self.handle = handle.value or 0
        self._close = weakref.finalize(self, call.library.fi_communicator_destroy, self.handle)
        self._close.atexit = False  # the driver may be gone by then
        found = (ctypes.c_int32(), ctypes.c_int32())
        _call_library("fi_communicator_get_rank", self.handle, *(ctypes.byref(value) for value in found))
        #: This rank, and the number of ranks.
        self.rank, self.world_size = found[0].value, found[1].value

    def close(self) -> None:
        """Leaves. Graphs that have captured this rank's collectives must be gone."""
        self._close()

    def barrier(self) -> None:
        """Waits until every rank is here."""
        _call_library("fi_communicator_barrier", self.handle)

    def all_gather(self, x: Any, out: Any = None) -> Any:
        """Every rank's ``x``, contiguous and of one shape, as ``[world_size, …]``."""
        call = Call(x, "x")
        if out is None:
            out = call.empty((self.world_size, *call.first.shape))
        _call_library("fi_communicator_all_gather", self.handle, call.tensor(x, "x"), call.output(out, "out"))
        return out

    def merge_states(self, v: Any, s: Any, out: Any = None, lse: Any = None) -> tuple[Any, Any]:
        """Exchanges and merges the states that all ranks have of the same rows, each over its own keys.

        :param v: ``[rows, heads, head_dim]``, this rank's outputs; they travel in this type.
        :param s: ``[rows, heads]``, float32, base-2 log-sum-exps.
        :returns: the attention over all keys and its log-sum-exp, the same bits on every rank.
        """
        call = Call(v, "v")
        if out is None:
            out = call.empty(call.first.shape)
        if lse is None:
            lse = call.empty(call.first.shape[:-1], "float32")
        _call_library(
            "fi_merge_states_across_ranks", self.handle, call.tensor(v, "v"), call.tensor(s, "s"),
            call.output(out, "out"), call.output(lse, "lse"))
        return out, lse


class BatchKVParallelWithPagedKVCacheWrapper(BatchWrapper):
    """Attention over requests whose keys are spread over ranks: each rank attends to its own, and the states are merged."""

    _name = "BatchKVParallelWithPagedKVCacheWrapper"

    def __init__(self, communicator: Communicator, float_workspace_buffer: Any = None, kv_layout: str = "NHD") -> None:
        super().__init__(float_workspace_buffer, kv_layout, False)
        self.communicator = communicator

    def plan(
        self, qo_indptr: Any, kv_lens: Any, kv_indptr: Any, kv_indices: Any, shares: KVShare | Sequence[KVShare],
        num_qo_heads: int, num_kv_heads: int, head_dim: int, causal: bool = True, sm_scale: float | None = None,
        logits_soft_cap: float | None = None, q_data_type: Any = "float16", kv_data_type: Any = None,
        state_data_type: Any = "float32",
    ) -> None:
        """Plans this rank's part.

        :param qo_indptr: ``[requests + 1]``, query rows, the same on every rank; None for decode.
        :param kv_lens: ``[requests]``, keys of each request on all ranks together.
        :param kv_indptr, kv_indices: this rank's pages of each request, in order.
        :param shares: this rank's part of every request, or one for each request.
        :param state_data_type: in which states travel: float32 is exact, and 16-bit types halve the traffic.
        """
        call = self._call(kv_lens, "kv_lens")
        given = [shares] if isinstance(shares, KVShare) else list(shares)
        q_name, kv_name, state = self._dtypes(call, q_data_type, kv_data_type, state_data_type)
        rows = int(call.read(kv_lens, "kv_lens").shape[0]) if qo_indptr is None else indptr_last(call.arrays, qo_indptr)
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim, head_dim, q_name, kv_name, state, self._kv_layout,
            mask_mode=_abi.MASK_CAUSAL if causal else _abi.MASK_NONE, logits_soft_cap=logits_soft_cap or 0.0,
            sm_scale=default_scale(sm_scale)))
        native = (_abi.KVShare * len(given))(*(share.native() for share in given))
        self._core.plan(
            "fi_attention_plan_kv_share", call.arrays.stream(call.like), ctypes.addressof(native), len(given),
            0 if qo_indptr is None else call.index(qo_indptr, "qo_indptr"), call.index(kv_lens, "kv_lens"),
            call.index(kv_indptr, "kv_indptr"), call.index(kv_indices, "kv_indices"), 0, queries=rows)

    def run(self, q: Any, paged_kv_cache: Any, out: Any = None, return_lse: bool = False) -> Any:
        """A collective: ``q [rows, num_qo_heads, head_dim]`` over the keys of all ranks; ``out`` is of q's type where not given."""
        v, s = self._run(q, paged_cache(paged_kv_cache, self._kv_layout), None, None, True)
        if out is None:
            out = Call(q, "q").empty(tuple(q.shape[:-1]) + (self._v_width,))
        out, lse = self.communicator.merge_states(v, s, out)
        return (out, lse) if return_lse else out
