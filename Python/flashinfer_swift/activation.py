"""Gated activations of a fused projection: ``activation(x[..., :h]) * x[..., h:]``."""

from __future__ import annotations

from typing import Any

from . import _abi, _compile
from ._call import Call, as_rows
from .errors import InvalidArgumentError


def _act_and_mul(function: int, name: str, input: Any, out: Any) -> Any:
    call = Call(input, "input")
    shape = call.first.shape
    if not shape or shape[-1] % 2:
        raise InvalidArgumentError(f"input is of shape {tuple(shape)}, but the last dimension must be even: gate and up")
    if out is None:
        out = call.empty((*shape[:-1], shape[-1] // 2))
    rows = as_rows(call.first, "input")
    target = call.read(out, "out")
    if target.shape != (*shape[:-1], shape[-1] // 2):
        raise InvalidArgumentError(f"out is of shape {target.shape}, but must be {(*shape[:-1], shape[-1] // 2)}")
    call.run("fi_act_and_mul", function, call.view(rows, "input"), call.output(as_rows(target, "out"), "out"))
    return out


def _traced(function: int, input: Any, out: Any) -> Any:
    if out is None:
        return _compile.ops.act_and_mul(input, function)
    _compile.ops.act_and_mul_out(input, out, function)
    return out


def silu_and_mul(input: Any, out: Any = None, enable_pdl: bool | None = None) -> Any:
    """``silu(input[..., :h]) * input[..., h:]`` (SwiGLU).

    :param input: ``[..., 2 h]``, float32, float16 or bfloat16.
    :param out: ``[..., h]``; made where not given.
    :param enable_pdl: accepted; does nothing.
    """
    if _compile.is_compiling():
        return _traced(_abi.SILU, input, out)
    return _act_and_mul(_abi.SILU, "silu_and_mul", input, out)


def gelu_tanh_and_mul(input: Any, out: Any = None, enable_pdl: bool | None = None) -> Any:
    """``gelu(input[..., :h]) * input[..., h:]`` with GELU's tanh form; arguments as of ``silu_and_mul``."""
    if _compile.is_compiling():
        return _traced(_abi.GELU_TANH, input, out)
    return _act_and_mul(_abi.GELU_TANH, "gelu_tanh_and_mul", input, out)


def gelu_and_mul(input: Any, out: Any = None, enable_pdl: bool | None = None) -> Any:
    """``gelu(input[..., :h]) * input[..., h:]`` with the exact GELU; arguments as of ``silu_and_mul``."""
    if _compile.is_compiling():
        return _traced(_abi.GELU, input, out)
    return _act_and_mul(_abi.GELU, "gelu_and_mul", input, out)


__all__ = ["gelu_and_mul", "gelu_tanh_and_mul", "silu_and_mul"]
