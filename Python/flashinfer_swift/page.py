"""Paged KV cache: appending, and the arithmetic of page tables."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi, _compile, _library
from ._arrays import CUDA, library_of
from ._call import Call, Slot
from ._planned import layout_code, scale_value
from ._rope import rope_options
from ._wrapper import paged_cache
from .errors import InvalidArgumentError


def get_seq_lens(kv_indptr: Any, kv_last_page_len: Any, page_size: int) -> Any:
    """Keys of each request, ``[requests]`` int32: ``(pages - 1) * page_size + last``, 0 without pages."""
    call = Call(kv_indptr, "kv_indptr")
    count = call.read(kv_last_page_len, "kv_last_page_len").shape[0]
    lengths = call.empty((count,), "int32")
    call.run(
        "fi_seq_lens", call.index(kv_indptr, "kv_indptr"), call.index(kv_last_page_len, "kv_last_page_len"), page_size,
        call.output(lengths, "seq_lens"))
    return lengths


def get_batch_indices_positions(
    append_indptr: Any, seq_lens: Any, nnz: int, batch_indices: Any = None, positions: Any = None
) -> tuple[Any, Any]:
    """The request and position of each of ``nnz`` appended tokens; past ``append_indptr[-1]`` they are -1 and 0.

    :param seq_lens: keys of each request after the append.
    """
    call = Call(append_indptr, "append_indptr")
    if batch_indices is None:
        batch_indices = call.empty((nnz,), "int32")
    if positions is None:
        positions = call.empty((nnz,), "int32")
    call.run(
        "fi_batch_indices_positions", call.index(append_indptr, "append_indptr"), call.index(seq_lens, "seq_lens"),
        call.output(batch_indices, "batch_indices"), call.output(positions, "positions"))
    return batch_indices, positions


def append_paged_kv_cache(
    append_key: Any, append_value: Any, batch_indices: Any, positions: Any, paged_kv_cache: Any, kv_indices: Any,
    kv_indptr: Any, kv_last_page_len: Any, kv_layout: str = "NHD", k_scale: Any = None, v_scale: Any = None,
) -> None:
    """Stores new tokens' keys and values in a paged cache, converting to its type.

    :param append_key: ``[nnz, num_kv_heads, head_dim]``, float32, float16 or bfloat16.
    :param batch_indices, positions: ``[nnz]`` int32: the request and position of each token; a request of -1 is not stored.
    :param paged_kv_cache: ``[pages, 2, page_size, num_kv_heads, head_dim]`` (HND: heads first), or a pair without the 2.
    :param kv_indices, kv_indptr, kv_last_page_len: the page table after the append.
    :param k_scale, v_scale: (not the peer's) stored numbers are ``value / scale``.
    """
    if _compile.is_compiling():
        cache = paged_kv_cache if isinstance(paged_kv_cache, (tuple, list)) else (paged_kv_cache, None)
        _compile.ops.append_paged_kv_cache(
            append_key, append_value, batch_indices, positions, cache[0], cache[1], kv_indices, kv_indptr, kv_last_page_len,
            kv_layout)
        return
    call, args = _append_call(append_key, append_value, paged_kv_cache, kv_layout, k_scale, v_scale)
    place(call, args, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr, kv_last_page_len, kv_layout)
    call.run("fi_append_paged_kv", ctypes.addressof(args))


def place(
    call: Call, args: _abi.AppendArgs, batch_indices: Any, positions: Any, paged_kv_cache: Any, kv_indices: Any, kv_indptr: Any,
    kv_last_page_len: Any, kv_layout: str,
) -> None:
    """Says where the tokens go; in a capture by a table that the GPU computes."""
    if call.first.device == CUDA and call.arrays.name == "torch" and call.arrays.module.cuda.is_current_stream_capturing():
        table = _captured_slots(call, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr, kv_last_page_len, kv_layout)
        args.slot_table = call.tensor(table, "slot_table")
        return
    args.kv_indptr = call.tensor(kv_indptr, "kv_indptr")
    args.kv_indices = call.tensor(kv_indices, "kv_indices")
    args.last_page_len = call.tensor(kv_last_page_len, "kv_last_page_len")
    args.batch_indices = call.tensor(batch_indices, "batch_indices")
    args.positions = call.tensor(positions, "positions")


def append_paged_kv_cache_at(
    append_key: Any, append_value: Any, slot_table: Any, paged_kv_cache: Any, kv_layout: str = "NHD", k_scale: Any = None,
    v_scale: Any = None,
) -> None:
    """(Not the peer's.) ``append_paged_kv_cache`` by a table of slots, which never waits and can be captured in a CUDA graph.

    :param slot_table: ``[2, nnz]`` int32, contiguous, from ``get_slot_table``: pages (-1: not stored), then rows. It is read when
        the append runs, so a replay stores where it says by then.
    """
    call, args = _append_call(append_key, append_value, paged_kv_cache, kv_layout, k_scale, v_scale)
    args.slot_table = call.tensor(slot_table, "slot_table")
    call.run("fi_append_paged_kv", ctypes.addressof(args))


class SlotAppend:
    """``append_paged_kv_cache_at`` for torch tensors, again and again: its structs are kept, which takes half of its host time. One
    thread at a time."""

    def __init__(self, torch_tensor: Any, kv_layout: str = "NHD", k_scale: float | None = None, v_scale: float | None = None) -> None:
        self._arrays = library_of(torch_tensor, "append_key")
        self._slots = [Slot() for _ in range(5)]
        self._args = _abi.AppendArgs(struct_size=ctypes.sizeof(_abi.AppendArgs), kv_layout=layout_code(kv_layout))
        for name, slot in zip(("k", "v", "slot_table", "k_cache", "v_cache"), self._slots):
            setattr(self._args, name, slot.address)
        self._args.k_scale = scale_value(self._arrays, k_scale, "k_scale")
        self._args.v_scale = scale_value(self._arrays, v_scale, "v_scale")
        self._address = ctypes.addressof(self._args)
        self._library = _library.get()
        view = self._arrays.view(torch_tensor)
        self._device = self._library.device(view.device, view.index).handle

    def run(self, append_key: Any, append_value: Any, slot_table: Any, k_cache: Any, v_cache: Any) -> None:
        """As of ``append_paged_kv_cache_at``, with a cache of two tensors on the device of the first tensor."""
        arrays = self._arrays
        k, v, table, keys, values = self._slots
        k.fill_torch(append_key, arrays, "append_key")
        v.fill_torch(append_value, arrays, "append_value")
        table.fill_torch(slot_table, arrays, "slot_table")
        keys.fill_torch(k_cache, arrays, "paged_kv_cache[0]")
        values.fill_torch(v_cache, arrays, "paged_kv_cache[1]")
        status = self._library.fi_append_paged_kv(self._device, arrays.stream(append_key), self._address)
        if status:
            self._library.fail(status)


def rope_append_paged_kv_cache(
    q: Any, append_key: Any, append_value: Any, batch_indices: Any, positions: Any, paged_kv_cache: Any, kv_indices: Any,
    kv_indptr: Any, kv_last_page_len: Any, kv_layout: str = "NHD", k_scale: Any = None, v_scale: Any = None, *,
    out: Any = None, q_scale: Any = None, pos_ids: Any = None, rotary_dim: int | None = None, interleave: bool = False,
    rope_scale: float = 1, rope_theta: float = 1e4, low_freq_factor: float = 1, high_freq_factor: float = 4,
    old_context_len: int | None = None,
) -> Any:
    """(Not the peer's.) ``apply_rope_pos_ids`` and ``append_paged_kv_cache`` in one kernel: the rotated ``q``, with the rotated
    keys and the values stored. Rotated numbers are rounded once, to the type that they are stored in.

    :param q: ``[nnz, num_qo_heads, head_dim]``, float32, float16 or bfloat16; keys and values have its type.
    :param append_key, append_value: as of ``append_paged_kv_cache``, as is the rest up to ``v_scale``; they are not changed.
    :param out: the shape of ``q``, any of the cache's types; None: ``q`` turns in place. Returned.
    :param q_scale: a number of a float8 or int8 ``out`` stands for ``number * q_scale``; a number, or a tensor read on the host.
    :param pos_ids: ``[nnz]``, int32 or int64: what q and k turn by; None: ``positions``.
    :param old_context_len: with it, Llama 3.1's frequencies, as of ``apply_llama31_rope``; the rest as of ``apply_rope``.
    """
    call, args = _append_call(append_key, append_value, paged_kv_cache, kv_layout, k_scale, v_scale)
    place(call, args, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr, kv_last_page_len, kv_layout)
    return _rope_append(
        call, args, q, out, q_scale, positions if pos_ids is None else pos_ids, rotary_dim, interleave, rope_scale, rope_theta,
        low_freq_factor, high_freq_factor, old_context_len)


def rope_append_paged_kv_cache_at(
    q: Any, append_key: Any, append_value: Any, pos_ids: Any, slot_table: Any, paged_kv_cache: Any, kv_layout: str = "NHD",
    k_scale: Any = None, v_scale: Any = None, *, out: Any = None, q_scale: Any = None, rotary_dim: int | None = None,
    interleave: bool = False, rope_scale: float = 1, rope_theta: float = 1e4, low_freq_factor: float = 1,
    high_freq_factor: float = 4, old_context_len: int | None = None,
) -> Any:
    """(Not the peer's.) ``rope_append_paged_kv_cache`` by a table of slots, as ``append_paged_kv_cache_at`` takes it."""
    call, args = _append_call(append_key, append_value, paged_kv_cache, kv_layout, k_scale, v_scale)
    args.slot_table = call.tensor(slot_table, "slot_table")
    return _rope_append(
        call, args, q, out, q_scale, pos_ids, rotary_dim, interleave, rope_scale, rope_theta, low_freq_factor,
        high_freq_factor, old_context_len)


def _rope_append(
    call: Call, args: _abi.AppendArgs, q: Any, out: Any, q_scale: Any, pos_ids: Any, rotary_dim: int | None, interleave: bool,
    rope_scale: float, rope_theta: float, low: float, high: float, context: int | None,
) -> Any:
    options = rope_options(
        rotary_dim, interleave, _abi.ROPE_LINEAR if context is None else _abi.ROPE_LLAMA3, rope_scale, rope_theta, low, high,
        context or 8192)
    call.run(
        "fi_rope_append", call.output(q, "q") if out is None else call.tensor(q, "q"),
        0 if out is None else call.output(out, "out"), scale_value(call.arrays, q_scale, "q_scale"),
        call.index(pos_ids, "pos_ids"), ctypes.addressof(args), ctypes.addressof(options))
    return q if out is None else out


def _append_call(
    append_key: Any, append_value: Any, paged_kv_cache: Any, kv_layout: str, k_scale: Any, v_scale: Any
) -> tuple[Call, _abi.AppendArgs]:
    """The arguments that all ways of appending share."""
    call = Call(append_key, "append_key")
    cache = paged_cache(paged_kv_cache, kv_layout)
    args = _abi.AppendArgs(struct_size=ctypes.sizeof(_abi.AppendArgs), kv_layout=layout_code(kv_layout))
    args.k = call.tensor(append_key, "append_key")
    args.v = call.tensor(append_value, "append_value")
    if isinstance(cache, (tuple, list)):
        args.k_cache = call.output(cache[0], "paged_kv_cache[0]")
        args.v_cache = call.output(cache[1], "paged_kv_cache[1]")
    else:
        args.kv_cache = call.output(cache, "paged_kv_cache")
    args.k_scale = scale_value(call.arrays, k_scale, "k_scale")
    args.v_scale = scale_value(call.arrays, v_scale, "v_scale")
    return call, args


def _captured_slots(
    call: Call, batch_indices: Any, positions: Any, paged_kv_cache: Any, kv_indices: Any, kv_indptr: Any,
    kv_last_page_len: Any, kv_layout: str,
) -> Any:
    """The slots computed on the GPU, as a capture cannot wait: tokens that are out of range get -1 and are not stored."""
    torch = call.arrays.module
    cache = paged_kv_cache[0] if isinstance(paged_kv_cache, (tuple, list)) else paged_kv_cache
    pair = isinstance(paged_kv_cache, (tuple, list))
    page_size = cache.shape[(1 if kv_layout == "NHD" else 2) + (0 if pair else 1)]
    requests = kv_last_page_len.shape[0]
    request = batch_indices.long().clamp(0, max(requests - 1, 0))
    first = kv_indptr.long()[request]
    pages = kv_indptr.long()[request + 1] - first
    length = (pages - 1) * page_size + kv_last_page_len.long()[request]
    position = positions.long()
    stored = (batch_indices >= 0) & (batch_indices < requests) & (position >= 0) & (position < length) & (pages > 0)
    entry = (first + position // page_size).clamp(0, max(kv_indices.shape[0] - 1, 0))
    page = torch.where(stored, kv_indices.long()[entry], -1)
    return torch.stack((page, torch.where(stored, position % page_size, 0))).to(torch.int32)


def get_slot_table(
    batch_indices: Any, positions: Any, kv_indices: Any, kv_indptr: Any, kv_last_page_len: Any, page_size: int, out: Any = None
) -> Any:
    """(Not the peer's.) Where each token goes, ``[2, nnz]`` int32, for ``append_paged_kv_cache_at``."""
    call = Call(batch_indices, "batch_indices")
    count = call.first.shape[0]
    if out is None:
        out = call.empty((2, count), "int32")
    elif call.read(out, "out").shape != (2, count):
        raise InvalidArgumentError(f"out is of shape {call.read(out).shape}, but must be (2, {count})")
    call.run(
        "fi_slot_table", call.tensor(kv_indptr, "kv_indptr"), call.tensor(kv_indices, "kv_indices"),
        call.tensor(kv_last_page_len, "kv_last_page_len"), page_size, call.tensor(batch_indices, "batch_indices"),
        call.tensor(positions, "positions"), call.output(out, "out"))
    return out


__all__ = [
    "append_paged_kv_cache", "append_paged_kv_cache_at", "get_batch_indices_positions", "get_seq_lens", "get_slot_table",
    "rope_append_paged_kv_cache", "rope_append_paged_kv_cache_at",
]
