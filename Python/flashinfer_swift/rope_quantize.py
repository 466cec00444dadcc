"""Rotary position embedding of heads in two parts, quantised, and stored in a paged cache: one kernel."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from . import _abi
from ._call import Call
from ._planned import layout_code
from ._rope import table_options
from .errors import InvalidArgumentError
from .page import place


def rope_quantize_fp8(
    q_rope: Any, k_rope: Any, q_nope: Any, k_nope: Any, cos_sin_cache: Any, pos_ids: Any, is_neox: bool = True,
    quantize_dtype: Any = None, quant_scale_q: float = 1.0, quant_scale_kv: float = 1.0, q_rope_out: Any = None,
    k_rope_out: Any = None, q_nope_out: Any = None, k_nope_out: Any = None, enable_pdl: bool = False, backend: str = "cuda",
) -> tuple[Any, Any, Any, Any]:
    """Rotates the turning parts of heads by a table, multiplies both parts by a scale, and rounds once to 8 bits.

    :param q_rope: ``[nnz, num_qo_heads, rope_dim]``, float32, float16 or bfloat16, as all inputs.
    :param k_rope: ``[nnz, num_kv_heads, rope_dim]``, or ``[nnz, rope_dim]`` (latent attention).
    :param q_nope, k_nope: the elements that stay, of any number; None for none.
    :param cos_sin_cache: ``[max_position, rope_dim]``, float32: cosines, then sines.
    :param quantize_dtype: that of the first output given, or float8 e4m3fn; any type of a cache.
    :param quant_scale_q, quant_scale_kv: multiply before the rounding, which saturates.
    :param enable_pdl, backend: accepted; do nothing.
    :returns: ``q_rope_out, k_rope_out, q_nope_out, k_nope_out``.
    """
    call = Call(q_rope, "q_rope")
    dtype = _quantised_dtype(call, quantize_dtype, q_rope_out, k_rope_out, q_nope_out, k_nope_out)
    args = _arguments(call, q_rope, k_rope, q_nope, k_nope, pos_ids, quant_scale_q, quant_scale_kv)
    outputs = [
        _output(call, out, source, model, dtype) for out, source, model in (
            (q_rope_out, q_rope, q_rope), (k_rope_out, k_rope, k_rope), (q_nope_out, q_nope, q_rope),
            (k_nope_out, k_nope, k_rope))]
    for field, output in zip(("q_rope_out", "k_rope_out", "q_nope_out", "k_nope_out"), outputs):
        if _has_elements(call, output):
            setattr(args, field, call.output(output, field))
    options = table_options(call, cos_sin_cache, is_neox)
    args.rope = ctypes.pointer(options)
    call.run("fi_split_rope", ctypes.addressof(args))
    return tuple(outputs)  # type: ignore[return-value]


def mla_rope_quantize_fp8(
    q_rope: Any, k_rope: Any, q_nope: Any, k_nope: Any, cos_sin_cache: Any, pos_ids: Any, is_neox: bool = True,
    quantize_dtype: Any = None, quant_scale_q: float = 1.0, quant_scale_kv: float = 1.0, q_rope_out: Any = None,
    k_rope_out: Any = None, q_nope_out: Any = None, k_nope_out: Any = None, enable_pdl: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """``rope_quantize_fp8`` under the name that latent attention has for it."""
    return rope_quantize_fp8(
        q_rope, k_rope, q_nope, k_nope, cos_sin_cache, pos_ids, is_neox, quantize_dtype, quant_scale_q, quant_scale_kv,
        q_rope_out, k_rope_out, q_nope_out, k_nope_out, enable_pdl)


def rope_quantize_fp8_append_paged_kv_cache(
    q_rope: Any, k_rope: Any, q_nope: Any, k_nope: Any, v: Any, cos_sin_cache: Any, pos_ids: Any, paged_kv_cache: Any,
    kv_indices: Any, kv_indptr: Any, batch_indices: Any, positions: Any, is_neox: bool = True, quantize_dtype: Any = None,
    quant_scale_q: float = 1.0, quant_scale_kv: float = 1.0, page_size: int = 16, kv_layout: str = "NHD",
    q_rope_out: Any = None, q_nope_out: Any = None, enable_pdl: bool = False,
) -> tuple[Any, Any]:
    """``rope_quantize_fp8`` with the keys, and the values, stored in a paged cache of that type.

    :param v: ``[nnz, num_kv_heads, head_dim]``, quantised by ``quant_scale_kv``; None where ``k_rope`` has two dimensions.
    :param paged_kv_cache: a pair: keys (heads of ``rope_dim + no_rope_dim`` elements, those that turn first) and values, by
        ``kv_layout``; or, where ``k_rope`` has two dimensions, ``ckv [pages, page_size, no_rope_dim]`` and ``kpe [pages, page_size,
        rope_dim]``.
    :param kv_indices, kv_indptr: the page table; ``batch_indices`` and ``positions`` say where each token goes in it.
    :param page_size: that of the cache.
    :returns: ``q_rope_out, q_nope_out``.
    """
    call = Call(q_rope, "q_rope")
    is_latent = len(call.read(k_rope, "k_rope").shape) == 2
    if len(paged_kv_cache) != 2:
        raise InvalidArgumentError(f"paged_kv_cache has {len(paged_kv_cache)} tensors, but must be a tuple of 2 tensors")
    if is_latent and v is not None:
        raise InvalidArgumentError("v is a tensor, but MLA should not have V input (pass None)")
    if not is_latent and v is None:
        raise InvalidArgumentError("v is None: GQA/MHA expects a V tensor")
    dtype = _quantised_dtype(call, quantize_dtype, q_rope_out, q_nope_out)
    for cache, rank in zip(paged_kv_cache, (3, 3) if is_latent else (4, 4)):
        view = call.read(cache)
        if view.dtype != dtype or len(view.shape) != rank:
            raise InvalidArgumentError(
                f"a cache is of {view.dtype} and has {len(view.shape)} dimensions (cache dtype mismatch, or not {rank}D): it must be "
                f"of {dtype} with {rank}")
    layout = "NHD" if is_latent else kv_layout
    found = call.read(paged_kv_cache[0]).shape[1 if layout == "NHD" else 2]
    if found != page_size:
        raise InvalidArgumentError(f"page_size is {page_size}, but must be {found}, the cache's")
    args = _arguments(call, q_rope, k_rope, q_nope, k_nope, pos_ids, quant_scale_q, quant_scale_kv)
    if v is not None:
        args.v = call.tensor(v, "v")
    outputs = [_output(call, out, source, q_rope, dtype) for out, source in ((q_rope_out, q_rope), (q_nope_out, q_nope))]
    args.q_rope_out = call.output(outputs[0], "q_rope_out")
    if _has_elements(call, outputs[1]):
        args.q_nope_out = call.output(outputs[1], "q_nope_out")
    append = _abi.AppendArgs(struct_size=ctypes.sizeof(_abi.AppendArgs), kv_layout=layout_code(layout))
    append.k_cache = call.output(paged_kv_cache[0], "paged_kv_cache[0]")
    append.v_cache = call.output(paged_kv_cache[1], "paged_kv_cache[1]")
    kv_indices, kv_indptr, batch_indices, positions = (
        _int32(call, array) for array in (kv_indices, kv_indptr, batch_indices, positions))
    # The peer has no lengths: pages are as long as they can be.
    requests = call.read(kv_indptr, "kv_indptr").shape[0] - 1
    full = call.arrays.from_host(struct.pack(f"{requests}i", *[page_size] * requests), "int32", (requests,), q_rope)
    place(call, append, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr, full, layout)
    args.append = ctypes.pointer(append)
    options = table_options(call, cos_sin_cache, is_neox)
    args.rope = ctypes.pointer(options)
    call.run("fi_split_rope", ctypes.addressof(args))
    return outputs[0], outputs[1]


def _int32(call: Call, array: Any) -> Any:
    return array if call.read(array).dtype == "int32" else call.arrays.cast(array, "int32")


def _quantised_dtype(call: Call, dtype: Any, *outputs: Any) -> str:
    if dtype is not None:
        return call.arrays.dtype_name(dtype)
    for output in outputs:
        if output is not None:
            return call.read(output).dtype
    return "float8_e4m3fn"


def _has_elements(call: Call, array: Any) -> bool:
    return array is not None and 0 not in call.read(array).shape[1:]


def _output(call: Call, out: Any, source: Any, model: Any, dtype: str) -> Any:
    """The output given, or one of the source's shape; of no elements where there is no source."""
    if out is not None:
        return out
    shape = (*call.read(model).shape[:-1], 0) if source is None else call.read(source).shape
    return call.empty(shape, dtype)


def _arguments(
    call: Call, q_rope: Any, k_rope: Any, q_nope: Any, k_nope: Any, pos_ids: Any, q_factor: float, kv_factor: float
) -> _abi.SplitRopeArgs:
    args = _abi.SplitRopeArgs(struct_size=ctypes.sizeof(_abi.SplitRopeArgs))
    args.q_rope = call.tensor(q_rope, "q_rope")
    args.k_rope = call.tensor(k_rope, "k_rope")
    if _has_elements(call, q_nope):
        args.q_nope = call.tensor(q_nope, "q_nope")
    if _has_elements(call, k_nope):
        args.k_nope = call.tensor(k_nope, "k_nope")
    for name, factor in (("quant_scale_q", q_factor), ("quant_scale_kv", kv_factor)):
        if not factor > 0:
            raise InvalidArgumentError(f"{name} is {factor}, but must be above 0")
    args.q_factor, args.kv_factor = q_factor, kv_factor
    args.positions = call.tensor(_int32(call, pos_ids), "pos_ids")
    return args


__all__ = ["mla_rope_quantize_fp8", "rope_quantize_fp8", "rope_quantize_fp8_append_paged_kv_cache"]
