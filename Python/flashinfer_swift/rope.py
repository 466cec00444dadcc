"""Rotary position embedding of queries and keys."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi, _compile
from ._arrays import View
from ._call import Call
from ._rope import rope_options as rope_options
from ._rope import table_options
from .errors import InvalidArgumentError
from .rope_quantize import mla_rope_quantize_fp8 as mla_rope_quantize_fp8
from .rope_quantize import rope_quantize_fp8 as rope_quantize_fp8
from .rope_quantize import rope_quantize_fp8_append_paged_kv_cache as rope_quantize_fp8_append_paged_kv_cache


def rotate(q: Any, k: Any, positions: Any, options: _abi.RopeOptions, in_place: bool) -> tuple[Any, Any]:
    """The rotated tensors; q and k themselves where in place."""
    call = Call(q, "q")
    positions = _int32(call, positions, "pos_ids")
    if in_place and (call.first.readonly or call.read(k, "k").readonly):
        raise InvalidArgumentError("q or k is read-only memory, but is written")
    q_out, k_out = (q, k) if in_place else (call.empty(call.first.shape), call.empty(call.read(k, "k").shape, call.read(k, "k").dtype))
    call.run(
        "fi_rope", call.tensor(q, "q"), call.tensor(k, "k"), call.tensor(positions, "pos_ids"),
        0 if in_place else call.output(q_out, "q_out"), 0 if in_place else call.output(k_out, "k_out"),
        ctypes.addressof(options))
    return q_out, k_out


def _int32(call: Call, positions: Any, name: str) -> Any:
    """Positions may be int64, as the peer takes them: they are converted, not misread."""
    dtype = call.read(positions, name).dtype
    if dtype == "int32":
        return positions
    if dtype != "int64":
        raise InvalidArgumentError(f"{name} is of {dtype}, but must be of int32 or int64")
    return call.arrays.cast(positions, "int32")


def ragged_positions(q: Any, indptr: Any, offsets: Any) -> Any:
    """``positions[indptr[b] + i] = offsets[b] + i``; reads both on the host."""
    call = Call(q, "q")
    indptr, offsets = _int32(call, indptr, "indptr"), _int32(call, offsets, "offsets")
    positions = call.arrays.empty((call.first.shape[0],), "int32", q)
    call.run(
        "fi_rope_positions", call.tensor(indptr, "indptr"), call.tensor(offsets, "offsets"),
        call.output(positions, "positions"))
    return positions


def apply_rope(
    q: Any, k: Any, indptr: Any, offsets: Any, rotary_dim: int | None = None, interleave: bool = False,
    rope_scale: float = 1, rope_theta: float = 1e4,
) -> tuple[Any, Any]:
    """Rotates a ragged batch: token ``i`` of request ``b`` is at position ``offsets[b] + i``.

    :param q: ``[nnz, num_qo_heads, head_dim]``, float32, float16 or bfloat16.
    :param k: ``[nnz, num_kv_heads, head_dim]``.
    :param indptr: ``[batch + 1]``, int32 or int64; read on the host. In a CUDA graph use the ``pos_ids`` form.
    :param rotary_dim: leading elements of a head that turn; None for all.
    :param interleave: pairs ``(2i, 2i + 1)`` instead of ``(i, i + rotary_dim / 2)``.
    """
    if _compile.is_compiling():
        return _compile.ops.rope_ragged(
            q, k, indptr, offsets, rotary_dim or 0, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta, 1.0, 4.0, 8192)
    return rotate(
        q, k, ragged_positions(q, indptr, offsets),
        rope_options(rotary_dim, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta), False)


def apply_rope_inplace(
    q: Any, k: Any, indptr: Any, offsets: Any, rotary_dim: int | None = None, interleave: bool = False,
    rope_scale: float = 1, rope_theta: float = 1e4,
) -> None:
    """``apply_rope`` in place."""
    if _compile.is_compiling():
        _compile.ops.rope_ragged_(
            q, k, indptr, offsets, rotary_dim or 0, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta, 1.0, 4.0, 8192)
        return
    rotate(
        q, k, ragged_positions(q, indptr, offsets),
        rope_options(rotary_dim, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta), True)


def apply_rope_pos_ids(
    q: Any, k: Any, pos_ids: Any, rotary_dim: int | None = None, interleave: bool = False, rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> tuple[Any, Any]:
    """``apply_rope`` with each token's position: ``pos_ids [nnz]``, int32 or int64 (converted)."""
    if _compile.is_compiling():
        return _compile.ops.rope(
            q, k, pos_ids, rotary_dim or 0, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta, 1.0, 4.0, 8192)
    return rotate(q, k, pos_ids, rope_options(rotary_dim, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta), False)


def apply_rope_pos_ids_inplace(
    q: Any, k: Any, pos_ids: Any, rotary_dim: int | None = None, interleave: bool = False, rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> None:
    """``apply_rope_pos_ids`` in place."""
    if _compile.is_compiling():
        _compile.ops.rope_(
            q, k, pos_ids, rotary_dim or 0, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta, 1.0, 4.0, 8192)
        return
    rotate(q, k, pos_ids, rope_options(rotary_dim, interleave, _abi.ROPE_LINEAR, rope_scale, rope_theta), True)


def apply_llama31_rope(
    q: Any, k: Any, indptr: Any, offsets: Any, rotary_dim: int | None = None, interleave: bool = False,
    rope_scale: float = 8, rope_theta: float = 5e5, low_freq_factor: float = 1, high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> tuple[Any, Any]:
    """``apply_rope`` with Llama 3.1's frequencies: low ones divided by ``rope_scale``, high ones kept, a ramp between."""
    if _compile.is_compiling():
        return _compile.ops.rope_ragged(
            q, k, indptr, offsets, rotary_dim or 0, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor,
            high_freq_factor, old_context_len)
    options = rope_options(
        rotary_dim, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len)
    return rotate(q, k, ragged_positions(q, indptr, offsets), options, False)


def apply_llama31_rope_inplace(
    q: Any, k: Any, indptr: Any, offsets: Any, rotary_dim: int | None = None, interleave: bool = False,
    rope_scale: float = 8, rope_theta: float = 5e5, low_freq_factor: float = 1, high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> None:
    """``apply_llama31_rope`` in place."""
    if _compile.is_compiling():
        _compile.ops.rope_ragged_(
            q, k, indptr, offsets, rotary_dim or 0, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor,
            high_freq_factor, old_context_len)
        return
    options = rope_options(
        rotary_dim, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len)
    rotate(q, k, ragged_positions(q, indptr, offsets), options, True)


def apply_llama31_rope_pos_ids(
    q: Any, k: Any, pos_ids: Any, rotary_dim: int | None = None, interleave: bool = False, rope_scale: float = 8,
    rope_theta: float = 5e5, low_freq_factor: float = 1, high_freq_factor: float = 4, old_context_len: int = 8192,
) -> tuple[Any, Any]:
    """``apply_rope_pos_ids`` with Llama 3.1's frequencies."""
    if _compile.is_compiling():
        return _compile.ops.rope(
            q, k, pos_ids, rotary_dim or 0, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor,
            high_freq_factor, old_context_len)
    options = rope_options(
        rotary_dim, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len)
    return rotate(q, k, pos_ids, options, False)


def apply_llama31_rope_pos_ids_inplace(
    q: Any, k: Any, pos_ids: Any, rotary_dim: int | None = None, interleave: bool = False, rope_scale: float = 8,
    rope_theta: float = 5e5, low_freq_factor: float = 1, high_freq_factor: float = 4, old_context_len: int = 8192,
) -> None:
    """``apply_llama31_rope_pos_ids`` in place."""
    if _compile.is_compiling():
        _compile.ops.rope_(
            q, k, pos_ids, rotary_dim or 0, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor,
            high_freq_factor, old_context_len)
        return
    options = rope_options(
        rotary_dim, interleave, _abi.ROPE_LLAMA3, rope_scale, rope_theta, low_freq_factor, high_freq_factor, old_context_len)
    rotate(q, k, pos_ids, options, True)


def as_heads(view: View, head_size: int, name: str) -> View:
    """``[tokens, heads * head_size]`` as ``[tokens, heads, head_size]``; three dimensions as they are."""
    if len(view.shape) == 3:
        return view
    if len(view.shape) != 2 or head_size < 1 or view.shape[1] % head_size or (view.strides[1] != 1 and view.shape[1] > 1):
        raise InvalidArgumentError(
            f"{name} is of shape {tuple(view.shape)}, but must be [tokens, heads * {head_size}] with stride 1 in a row")
    return view.with_shape((view.shape[0], view.shape[1] // head_size, head_size), (view.strides[0], head_size, 1))


def rotate_by_table(
    positions: Any, query: Any, key: Any, head_size: int, cos_sin_cache: Any, is_neox: bool, in_place: bool
) -> tuple[Any, Any]:
    """The rotated tensors; query and key themselves where in place."""
    call = Call(query, "query")
    positions = _int32(call, positions, "positions")
    outputs = (query, key) if in_place else (
        call.empty(call.first.shape), call.empty(call.read(key, "key").shape, call.read(key, "key").dtype))
    options = table_options(call, cos_sin_cache, is_neox)
    views = [as_heads(call.read(array, name), head_size, name) for array, name in ((query, "query"), (key, "key"))]
    targets = [0, 0]
    for index, (view, array) in enumerate(zip(views, outputs)):
        target = call.read(array)
        if target.readonly:
            raise InvalidArgumentError("query or key is read-only memory, but is written")
        if not in_place:
            targets[index] = call.view(as_heads(target, head_size, "output"), "output")
    call.run(
        "fi_rope", call.view(views[0], "query"), call.view(views[1], "key"), call.tensor(positions, "positions"), *targets,
        ctypes.addressof(options))
    return outputs


def apply_rope_with_cos_sin_cache(
    positions: Any, query: Any, key: Any, head_size: int, cos_sin_cache: Any, is_neox: bool = True
) -> tuple[Any, Any]:
    """Rotates by a table of angles.

    :param positions: ``[nnz]``, int32 or int64 (converted). On a GPU a position outside of the table gives NaN.
    :param query: ``[nnz, num_qo_heads * head_size]``, float32, float16 or bfloat16; ``key`` likewise.
    :param cos_sin_cache: ``[max_position, rotary_dim]``, float32: cosines, then sines.
    :param is_neox: pairs ``(i, i + rotary_dim / 2)``; False for ``(2i, 2i + 1)``.
    """
    if _compile.is_compiling():
        return _compile.ops.rope_by_table(positions, query, key, head_size, cos_sin_cache, is_neox)
    return rotate_by_table(positions, query, key, head_size, cos_sin_cache, is_neox, False)


def apply_rope_with_cos_sin_cache_inplace(
    positions: Any, query: Any, key: Any, head_size: int, cos_sin_cache: Any, is_neox: bool = True
) -> None:
    """``apply_rope_with_cos_sin_cache`` in place."""
    if _compile.is_compiling():
        _compile.ops.rope_by_table_(positions, query, key, head_size, cos_sin_cache, is_neox)
        return
    rotate_by_table(positions, query, key, head_size, cos_sin_cache, is_neox, True)


__all__ = [name for name in dir() if name.startswith("apply_")] + [
    "mla_rope_quantize_fp8", "rope_quantize_fp8", "rope_quantize_fp8_append_paged_kv_cache",
]
