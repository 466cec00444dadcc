"""By how much pairs turn, as the C library takes it."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi
from ._call import Call
from .errors import InvalidArgumentError


def rope_options(
    rotary_dim: int | None, interleave: bool, scaling: int, rope_scale: float, rope_theta: float, low: float = 1.0,
    high: float = 4.0, context: int = 8192,
) -> _abi.RopeOptions:
    if not rope_scale > 0:
        raise InvalidArgumentError(f"rope_scale is {rope_scale}, but must be above 0")
    if scaling == _abi.ROPE_LINEAR and rope_scale == 1:
        scaling = _abi.ROPE_UNSCALED
    return _abi.RopeOptions(
        struct_size=ctypes.sizeof(_abi.RopeOptions), theta=rope_theta, rotary_dim=rotary_dim or 0, interleave=int(interleave),
        scaling=scaling, factor=rope_scale, low_freq_factor=low, high_freq_factor=high, original_context=int(context))


def table_options(call: Call, cos_sin_cache: Any, is_neox: bool) -> _abi.RopeOptions:
    """The options of angles that are looked up."""
    table = call.read(cos_sin_cache, "cos_sin_cache")
    if table.dtype != "float32":
        raise InvalidArgumentError(f"cos_sin_cache is of {table.dtype}: cos_sin_cache should be float32")
    if len(table.shape) != 2 or table.shape[1] < 2:
        raise InvalidArgumentError(f"cos_sin_cache is of shape {tuple(table.shape)}, but must be [positions, rotary_dim]")
    return _abi.RopeOptions(
        struct_size=ctypes.sizeof(_abi.RopeOptions), rotary_dim=table.shape[1], interleave=int(not is_neox),
        cos_sin_cache=call.view(table, "cos_sin_cache"))
