"""Normalisation of rows."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi, _compile
from ._arrays import CPU, element_count
from ._call import Call, as_rows
from .errors import InvalidArgumentError
from .quantization import GroupedOutput


def _rmsnorm(input: Any, weight: Any, eps: float, out: Any, offset: float) -> Any:
    call = Call(input, "input")
    if out is None:
        out = call.empty(call.first.shape)
    call.run(
        "fi_rmsnorm", call.view(as_rows(call.first, "input"), "input"), call.tensor(weight, "weight"),
        call.output(as_rows(call.read(out, "out"), "out"), "out"), eps, offset)
    return out


def _fused_add(input: Any, residual: Any, weight: Any, eps: float, offset: float) -> None:
    call = Call(input, "input")
    rows = as_rows(call.first, "input")
    if rows.readonly:
        raise InvalidArgumentError("input is read-only memory, but is written")
    source = call.view(rows, "input")
    call.run(
        "fi_fused_add_rmsnorm", source, call.output(as_rows(call.read(residual, "residual"), "residual"), "residual"),
        call.tensor(weight, "weight"), source, eps, offset)


def _traced(input: Any, weight: Any, eps: float, out: Any, offset: float) -> Any:
    if out is None:
        return _compile.ops.rmsnorm(input, weight, eps, offset)
    _compile.ops.rmsnorm_out(input, weight, eps, out, offset)
    return out


def rmsnorm(input: Any, weight: Any, eps: float = 1e-6, out: Any = None, enable_pdl: bool | None = None) -> Any:
    """``input / sqrt(mean(input²) + eps) * weight`` for each row.

    :param input: ``[rows, width]`` or ``[rows, heads, width]``, any strides of the rows.
    :param weight: ``[width]``.
    :param enable_pdl: accepted; does nothing.
    """
    if _compile.is_compiling():
        return _traced(input, weight, eps, out, 0.0)
    return _rmsnorm(input, weight, eps, out, 0.0)


def gemma_rmsnorm(input: Any, weight: Any, eps: float = 1e-6, out: Any = None, enable_pdl: bool | None = None) -> Any:
    """``rmsnorm`` with ``weight + 1``."""
    if _compile.is_compiling():
        return _traced(input, weight, eps, out, 1.0)
    return _rmsnorm(input, weight, eps, out, 1.0)


def fused_add_rmsnorm(input: Any, residual: Any, weight: Any, eps: float = 1e-6, enable_pdl: bool | None = None) -> None:
    """``residual += input``, then ``input = rmsnorm(residual) * weight``, both in place."""
    if _compile.is_compiling():
        _compile.ops.fused_add_rmsnorm(input, residual, weight, eps, 0.0)
    else:
        _fused_add(input, residual, weight, eps, 0.0)


def gemma_fused_add_rmsnorm(
    input: Any, residual: Any, weight: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """``fused_add_rmsnorm`` with ``weight + 1``."""
    if _compile.is_compiling():
        _compile.ops.fused_add_rmsnorm(input, residual, weight, eps, 1.0)
    else:
        _fused_add(input, residual, weight, eps, 1.0)


def _scaled(call: Call, scale: Any) -> _abi.QuantizeOptions:
    """The options of one scale: a number, or a tensor that the kernel reads."""
    options = _abi.QuantizeOptions(struct_size=ctypes.sizeof(_abi.QuantizeOptions))
    if not isinstance(scale, (int, float)) and call.first.device != CPU and call.read(scale, "scale").device == CPU:
        scale = call.arrays.to_list(scale)[0]  # a number of the host's
    if isinstance(scale, (int, float)):
        if not scale:
            raise InvalidArgumentError("scale is 0, but must be above 0")
        options.scale = scale
    else:
        view = call.read(scale, "scale")
        if view.dtype != "float32" or element_count(view) != 1:
            raise InvalidArgumentError(f"scale is of {view.dtype} and shape {tuple(view.shape)}, but must be one float32")
        options.scale_tensor = call.view(view.with_shape((1,), (1,)), "scale")
    return options


def _quantised(out: Any, input: Any, residual: Any, weight: Any, scale: Any, eps: float) -> None:
    call = Call(input, "input")
    options = _scaled(call, scale)
    rows = call.view(as_rows(call.first, "input"), "input")
    sums = () if residual is None else (call.output(as_rows(call.read(residual, "residual"), "residual"), "residual"),)
    call.run(
        "fi_rmsnorm_quantize" if residual is None else "fi_fused_add_rmsnorm_quantize", rows, *sums,
        call.tensor(weight, "weight"), call.output(as_rows(call.read(out, "out"), "out"), "out"), eps, 0.0,
        ctypes.addressof(options))


def rmsnorm_quant(
    out: Any, input: Any, weight: Any, scale: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """``out = rmsnorm(input) / scale`` in float8 or int8, rounded once.

    :param out: the shape of ``input``; float8 e4m3fn, float8 e5m2 or int8. Saturates.
    :param scale: above 0: a float32 tensor of one, where ``input`` is, which is read when the kernel runs; or a number.
    """
    if _compile.is_compiling():
        _compile.ops.rmsnorm_quant(out, input, weight, *_traced_scale(scale), eps)
    else:
        _quantised(out, input, None, weight, scale, eps)


def fused_add_rmsnorm_quant(
    out: Any, input: Any, residual: Any, weight: Any, scale: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """``residual += input``, then ``out = rmsnorm(residual) / scale``; arguments as of ``rmsnorm_quant``."""
    if _compile.is_compiling():
        _compile.ops.fused_add_rmsnorm_quant(out, input, residual, weight, *_traced_scale(scale), eps)
    elif residual is None:
        raise InvalidArgumentError("residual is None, but must be a tensor")
    else:
        _quantised(out, input, residual, weight, scale, eps)


def _traced_scale(scale: Any) -> tuple[Any, float]:
    return (None, float(scale)) if isinstance(scale, (int, float)) else (scale, 0.0)


def convert(input: Any, out: Any, scale: float = 1.0) -> Any:
    """``out = round(input * scale)`` between any two cache types; float8 and int8 saturate. Returns ``out``."""
    call = Call(input, "input")
    call.run(
        "fi_convert", call.view(as_rows(call.first, "input"), "input"),
        call.output(as_rows(call.read(out, "out"), "out"), "out"), scale)
    return out


def _layernorm(input: Any, gemma: Any, beta: Any, eps: float) -> Any:
    call = Call(input, "input")
    out = call.empty(call.first.shape)
    call.run(
        "fi_layernorm", call.view(as_rows(call.first, "input"), "input"), 0, call.tensor(gemma, "gemma"),
        call.tensor(beta, "beta"), call.output(as_rows(call.read(out, "out"), "out"), "out"), eps, 0)
    return out


def _layernorm_quantised(out: Any, input: Any, gemma: Any, beta: Any, scale: Any, eps: float) -> None:
    call = Call(input, "input")
    options = _scaled(call, scale)
    call.run(
        "fi_layernorm", call.view(as_rows(call.first, "input"), "input"), 0, call.tensor(gemma, "gemma"),
        call.tensor(beta, "beta"), call.output(as_rows(call.read(out, "out"), "out"), "out"), eps, ctypes.addressof(options))


def layernorm(input: Any, gemma: Any, beta: Any, eps: float = 1e-6) -> Any:
    """``(input - mean) / sqrt(variance + eps) * gemma + beta`` for each row, in the type of ``input``.

    :param input: ``[rows, width]``, float32, float16 or bfloat16, any strides of the rows.
    :param gemma, beta: ``[width]``, of one such type: float32 as a rule.
    """
    if _compile.is_compiling():
        return _compile.ops.layernorm(input, gemma, beta, eps)
    return _layernorm(input, gemma, beta, eps)


def layernorm_quant(out: Any, input: Any, gemma: Any, beta: Any, scale: Any, eps: float = 1e-6) -> None:
    """``out = layernorm(input) / scale`` in float8 or int8, rounded once; ``out`` and ``scale`` as of ``rmsnorm_quant``."""
    if _compile.is_compiling():
        _compile.ops.layernorm_quant(out, input, gemma, beta, *_traced_scale(scale), eps)
    else:
        _layernorm_quantised(out, input, gemma, beta, scale, eps)


def rmsnorm_group_quant(
    input: Any, weight: Any, group_size: int, residual: Any = None, eps: float = 1e-6, weight_offset: float = 0.0,
    dst_dtype: Any = None, column_major_scales: bool = False, scale_tma_aligned: bool = False,
) -> tuple[Any, Any]:
    """(Not the peer's.) ``rmsnorm`` stored as ``per_token_group_quant_8bit`` stores it, in one kernel and rounded once.

    :param residual: as of ``fused_add_rmsnorm``: ``residual += input`` first, and the norm is of the sum.
    :param weight_offset: 1 for Gemma's norm.
    :param group_size, dst_dtype, column_major_scales, scale_tma_aligned: as of ``per_token_group_quant_8bit``.
    :returns: the numbers, of the shape of ``input``, and float32 scales ``[..., width / group_size]``.
    """
    call = Call(input, "input")
    grouped = GroupedOutput(call, "input", group_size, dst_dtype, column_major_scales, scale_tma_aligned)
    rows = call.view(as_rows(call.first, "input"), "input")
    sums = () if residual is None else (call.output(as_rows(call.read(residual, "residual"), "residual"), "residual"),)
    call.run(
        "fi_rmsnorm_quantize" if residual is None else "fi_fused_add_rmsnorm_quantize", rows, *sums,
        call.tensor(weight, "weight"), grouped.out_address, eps, weight_offset, grouped.options_address)
    return grouped.out, grouped.scales


def layernorm_group_quant(
    input: Any, gemma: Any, beta: Any, group_size: int, residual: Any = None, eps: float = 1e-6, dst_dtype: Any = None,
    column_major_scales: bool = False, scale_tma_aligned: bool = False,
) -> tuple[Any, Any]:
    """(Not the peer's.) ``layernorm`` with the output of ``rmsnorm_group_quant``."""
    call = Call(input, "input")
    grouped = GroupedOutput(call, "input", group_size, dst_dtype, column_major_scales, scale_tma_aligned)
    call.run(
        "fi_layernorm", call.view(as_rows(call.first, "input"), "input"),
        0 if residual is None else call.output(as_rows(call.read(residual, "residual"), "residual"), "residual"),
        call.tensor(gemma, "gemma"), call.tensor(beta, "beta"), grouped.out_address, eps, grouped.options_address)
    return grouped.out, grouped.scales


__all__ = [
    "convert", "fused_add_rmsnorm", "fused_add_rmsnorm_quant", "gemma_fused_add_rmsnorm", "gemma_rmsnorm", "layernorm",
    "layernorm_group_quant", "layernorm_quant", "rmsnorm", "rmsnorm_group_quant", "rmsnorm_quant",
]
