"""Packing of bits, and conversion to 8 bits with a scale for each group."""

from __future__ import annotations

import ctypes
import operator
import struct
from typing import Any

from . import _abi, _compile
from ._arrays import element_count, is_contiguous
from ._call import Call, as_rows
from ._planned import integer
from .errors import InvalidArgumentError, UnsupportedError


def _order(bitorder: str) -> int:
    if bitorder not in ("big", "little"):
        raise InvalidArgumentError(f"bitorder is {bitorder!r}, but must be 'big' or 'little'")
    return int(bitorder == "big")


def packbits(x: Any, bitorder: str = "big") -> Any:
    """Eight truth values a byte: ``x [n]`` of bool or uint8 gives uint8 ``[ceil(n / 8)]``.

    :param bitorder: "big" puts the first into the highest bit; masks of attention need "little".
    """
    big = _order(bitorder)
    if _compile.is_compiling():
        return _compile.ops.packbits(x, big)
    call = Call(x, "x")
    _check_bits(call)
    count = element_count(call.first)
    if not is_contiguous(call.first):
        x = call.arrays.contiguous_vector(x)
        call = Call(x, "x")
    out = call.empty(((count + 7) // 8,), "uint8")
    call.run("fi_pack_bits", call.view(call.first.with_shape((count,), (1,)), "x"), big, call.output(out, "out"))
    return out


def segment_packbits(x: Any, indptr: Any, bitorder: str = "big") -> tuple[Any, Any]:
    """``packbits`` segment by segment, each padded to a whole byte.

    :param indptr: ``[segments + 1]`` int32, in elements of ``x``; read on the host.
    :returns: the bytes, and where each segment starts in them, int32 ``[segments + 1]``.
    """
    big = _order(bitorder)
    call = Call(x, "x")
    _check_bits(call)
    try:
        starts = [operator.index(value) for value in call.arrays.to_list(indptr)]
    except TypeError:
        raise InvalidArgumentError(f"indptr is {indptr!r}, but must be of integers") from None
    new_starts = [0]
    for segment, (start, end) in enumerate(zip(starts, starts[1:])):
        if not 0 <= start <= end <= call.first.shape[0]:
            raise InvalidArgumentError(
                f"segment {segment}: indptr goes from {start} to {end}, but must ascend within 0 ... {call.first.shape[0]}")
        new_starts.append(new_starts[-1] + (end - start + 7) // 8)
    def on_device(values: list[int]) -> Any:
        return call.arrays.from_host(struct.pack(f"{len(values)}i", *values), "int32", (len(values),), x)

    new_indptr = on_device(new_starts)
    out = call.empty((new_starts[-1],), "uint8")
    flat = call.first
    if flat.strides != (1,):
        x = call.arrays.contiguous_vector(x)
        flat = call.arrays.view(x, "x")
    call.run(
        "fi_segment_pack_bits", call.view(flat, "x"), call.tensor(on_device(starts), "indptr"),
        call.tensor(new_indptr, "out_indptr"), big, call.output(out, "out"))
    return out, new_indptr


def _check_bits(call: Call) -> None:
    if call.first.dtype not in ("bool", "uint8"):
        raise InvalidArgumentError(f"x is of {call.first.dtype}, but must be of bool or uint8")


def per_token_group_quant_8bit(
    x: Any, group_size: int, eps: float = 1e-10, dst_dtype: Any = None, column_major_scales: bool = False,
    scale_tma_aligned: bool = False, scale_ue8m0: bool = False, backend: str = "cuda",
) -> tuple[Any, Any]:
    """Every ``group_size`` neighbours of a row in 8 bits, with a scale of their own: ``max(greatest magnitude, eps) / largest``.

    :param x: ``[..., width]``, float32, float16 or bfloat16, at most three dimensions or contiguous.
    :param group_size: 32, 64 or 128, a divisor of the width.
    :param eps: 1e-10 and no other.
    :param dst_dtype: float8 e4m3fn (also None), float8 e5m2 or int8.
    :param column_major_scales: the scales of one column of groups lie next to each other.
    :param scale_tma_aligned: each such column starts at a multiple of 16 bytes.
    :param backend: accepted; does nothing.
    :returns: the numbers, of the shape of ``x``, and float32 scales ``[..., width / group_size]``.
    """
    if scale_ue8m0:
        raise UnsupportedError("per_token_group_quant_8bit: scales of powers of two (ue8m0) are not written; float32 scales are")
    if eps != 1e-10:
        raise UnsupportedError(f"per_token_group_quant_8bit: eps is {eps}; 1e-10 works")
    call = Call(x, "x")
    grouped = GroupedOutput(call, "x", group_size, dst_dtype, column_major_scales, scale_tma_aligned)
    call.run("fi_quantize", call.view(as_rows(call.first, "x"), "x"), grouped.out_address, grouped.options_address)
    return grouped.out, grouped.scales


class GroupedOutput:
    """An output in 8 bits of the call's first tensor's shape, with a scale for each group, and the options of a call that makes it."""

    def __init__(
        self, call: Call, name: str, group_size: int, dst_dtype: Any, column_major_scales: bool, scale_tma_aligned: bool,
    ) -> None:
        shape = tuple(call.first.shape)
        group_size = integer(group_size, "group_size")
        if not shape or group_size < 1 or shape[-1] % group_size:
            raise InvalidArgumentError(f"{name} is of shape {shape}, but its rows must be whole groups of {group_size}")
        self.out = call.empty(shape, "float8_e4m3fn" if dst_dtype is None else call.arrays.dtype_name(dst_dtype))
        rows, groups = element_count(call.first) // max(shape[-1], 1), shape[-1] // group_size
        if column_major_scales:
            pitch = (rows + 3) // 4 * 4 if scale_tma_aligned else rows
            memory = call.empty((groups, pitch), "float32")
            scales = memory[:, :rows].T
            view = call.read(memory).with_shape((rows, groups), (1, pitch))
        else:
            scales = call.empty((*shape[:-1], groups), "float32")
            view = call.read(scales, "scales").with_shape((rows, groups), (groups, 1))
        self.scales = scales if len(scales.shape) == len(shape) else scales.reshape(*shape[:-1], groups)
        self.out_address = call.output(as_rows(call.read(self.out), "out"), "out")
        self._options = _abi.QuantizeOptions(
            struct_size=ctypes.sizeof(_abi.QuantizeOptions), group_scales=call.view(view, "scales"), group_size=group_size)
        self.options_address = ctypes.addressof(self._options)


__all__ = ["packbits", "per_token_group_quant_8bit", "segment_packbits"]
