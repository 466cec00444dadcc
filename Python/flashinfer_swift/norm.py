"""Normalisation of rows."""

from __future__ import annotations

from typing import Any

from . import _compile, composed
from ._call import Call, as_rows
from .errors import InvalidArgumentError


def _rmsnorm(input: Any, weight: Any, eps: float, out: Any, offset: float) -> Any:
    call = Call(input, "input")
    if out is None:
        out = call.empty(call.first.shape)
    call.run(
        "fi_rmsnorm", call.view(as_rows(call.first, "input"), "input"), call.tensor(weight, "weight"),
        call.output(as_rows(call.read(out), "out"), "out"), eps, offset)
    return out


def _fused_add(input: Any, residual: Any, weight: Any, eps: float, offset: float) -> None:
    call = Call(input, "input")
    rows = as_rows(call.first, "input")
    if rows.readonly:
        raise InvalidArgumentError("input is read-only memory, but is written")
    source = call.view(rows, "input")
    call.run(
        "fi_fused_add_rmsnorm", source, call.output(as_rows(call.read(residual), "residual"), "residual"),
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


def rmsnorm_quant(
    out: Any, input: Any, weight: Any, scale: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """``out = rmsnorm(input) / scale`` in float8 (or int8), in two launches through float32.

    :param scale: a number, or a tensor of one, which is read on the host.
    """
    call = Call(input, "input")
    wide = call.empty(call.first.shape, "float32")
    _rmsnorm(input, weight, eps, wide, 0.0)
    convert(wide, out, 1.0 / _scale(call, scale))


def fused_add_rmsnorm_quant(
    out: Any, input: Any, residual: Any, weight: Any, scale: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """``residual += input``, ``out = rmsnorm(residual) / scale`` in float8 (or int8), in two launches."""
    call = Call(input, "input")
    rows = as_rows(call.first, "input")
    wide = call.empty(call.first.shape)
    call.run(
        "fi_fused_add_rmsnorm", call.view(rows, "input"), call.output(as_rows(call.read(residual), "residual"), "residual"),
        call.tensor(weight, "weight"), call.output(as_rows(call.read(wide), "out"), "out"), eps, 0.0)
    convert(wide, out, 1.0 / _scale(call, scale))


def convert(input: Any, out: Any, scale: float = 1.0) -> Any:
    """``out = round(input * scale)`` between any two cache types; float8 and int8 saturate. Returns ``out``."""
    call = Call(input, "input")
    call.run(
        "fi_convert", call.view(as_rows(call.first, "input"), "input"),
        call.output(as_rows(call.read(out), "out"), "out"), scale)
    return out


def _scale(call: Call, scale: Any) -> float:
    value = float(scale) if isinstance(scale, (int, float)) else float(call.arrays.to_list(scale)[0])
    if not value:
        raise InvalidArgumentError("scale is 0, but must be another number")
    return value


def layernorm(input: Any, gemma: Any, beta: Any, eps: float = 1e-6) -> Any:
    """``(input - mean) / sqrt(variance + eps) * gemma + beta`` for each row of ``[rows, width]``; gemma and beta float32.

    Composed of the array library's operations: there is no kernel for it yet.
    """
    return composed.layernorm(input, gemma, beta, eps)


__all__ = [
    "convert", "fused_add_rmsnorm", "fused_add_rmsnorm_quant", "gemma_fused_add_rmsnorm", "gemma_rmsnorm", "layernorm",
    "rmsnorm", "rmsnorm_quant",
]
