"""Packing of bits."""

from __future__ import annotations

import struct
from typing import Any

from . import _compile
from ._arrays import CPU, TorchLibrary, is_contiguous
from ._call import Call, host_ints
from .errors import InvalidArgumentError


def _order(bitorder: str) -> int:
    if bitorder not in ("big", "little"):
        raise InvalidArgumentError(f"bitorder is {bitorder!r}, but must be 'big' or 'little'")
    return int(bitorder == "big")


def packbits(x: Any, bitorder: str = "big") -> Any:
    """Eight truth values a byte: ``x [n]`` of bool or uint8 gives uint8 ``[ceil(n / 8)]``.

    :param bitorder: "big" puts the first into the highest bit; masks of attention need "little".

    On a CPU by the library; on a GPU composed of the array library's operations.
    """
    big = _order(bitorder)
    if _compile.is_compiling():
        return _compile.ops.packbits(x, big)
    call = Call(x, "x")
    _check_bits(call)
    count = 1
    for extent in call.first.shape:
        count *= extent
    if call.first.device != CPU:
        return _packbits_composed(call.arrays, x, count, big)
    flat = call.first.with_shape((count,), (1,))
    if not is_contiguous(call.first):
        x = call.arrays.contiguous_vector(x)
        flat = call.arrays.view(x)
    out = call.empty(((count + 7) // 8,), "uint8")
    status = call.library.fi_packbits(call.view(flat, "x"), big, call.output(out, "out"))
    if status:
        call.library.fail(status, "packbits")
    return out


def segment_packbits(x: Any, indptr: Any, bitorder: str = "big") -> tuple[Any, Any]:
    """``packbits`` segment by segment, each padded to a whole byte.

    :param indptr: ``[segments + 1]`` int32, in elements of ``x``; read on the host.
    :returns: the bytes, and where each segment starts in them, int32 ``[segments + 1]``.
    """
    big = _order(bitorder)
    call = Call(x, "x")
    _check_bits(call)
    starts = [int(value) for value in call.arrays.to_list(indptr)]
    new_starts = [0]
    for segment, (start, end) in enumerate(zip(starts, starts[1:])):
        if not 0 <= start <= end <= call.first.shape[0]:
            raise InvalidArgumentError(
                f"segment {segment}: indptr goes from {start} to {end}, but must ascend within 0 ... {call.first.shape[0]}")
        new_starts.append(new_starts[-1] + (end - start + 7) // 8)
    new_indptr = call.arrays.from_host(struct.pack(f"{len(new_starts)}i", *new_starts), "int32", (len(new_starts),), x)
    if call.first.device != CPU:
        return _segments_composed(call.arrays, x, starts, new_starts, big), new_indptr
    out = call.empty((new_starts[-1],), "uint8")
    x = x if call.first.strides == (1,) else call.arrays.contiguous_vector(x)
    status = call.library.fi_segment_packbits(
        call.view(call.arrays.view(x), "x"), call.view(host_ints(starts), "indptr"), big, call.output(out, "out"),
        call.output(new_indptr, "out_indptr"))
    if status:
        call.library.fail(status, "segment_packbits")
    return out, new_indptr


def _check_bits(call: Call) -> None:
    if call.first.dtype not in ("bool", "uint8"):
        raise InvalidArgumentError(f"x is of {call.first.dtype}, but must be of bool or uint8")


def _weights(arrays: Any, x: Any, big: int) -> Any:
    values = [1 << (7 - bit if big else bit) for bit in range(8)]
    return arrays.from_host(bytes(values), "uint8", (8,), x)


def _packbits_composed(arrays: Any, x: Any, count: int, big: int) -> Any:
    size = (count + 7) // 8
    bits = arrays.empty((size * 8,), "uint8", x)
    bits[...] = 0
    bits[:count] = arrays.cast(x.reshape(-1) != 0, "uint8")
    return arrays.cast((bits.reshape(size, 8) * _weights(arrays, x, big)).sum(-1), "uint8")


def _segments_composed(arrays: Any, x: Any, starts: list[int], new_starts: list[int], big: int) -> Any:
    """One gather puts every segment at the byte where it starts."""
    bits = arrays.empty((new_starts[-1] * 8,), "uint8", x)
    bits[...] = 0
    flat = arrays.cast(x.reshape(-1) != 0, "uint8")
    total = starts[-1] - starts[0]
    if total:
        packed = struct.pack(f"{len(starts)}q", *starts)
        first = arrays.from_host(packed, "int64", (len(starts),), x)
        to = arrays.from_host(struct.pack(f"{len(new_starts)}q", *(8 * start for start in new_starts)), "int64", (len(starts),), x)
        module = arrays.module
        source = module.arange(starts[0], starts[-1], device=x.device) if isinstance(arrays, TorchLibrary) else (
            module.arange(starts[0], starts[-1]))
        segment = module.searchsorted(first, source, right=True) - 1 if isinstance(arrays, TorchLibrary) else (
            module.searchsorted(first, source, side="right") - 1)
        bits[to[segment] + source - first[segment]] = flat[starts[0]:starts[-1]]
    return arrays.cast((bits.reshape(-1, 8) * _weights(arrays, x, big)).sum(-1), "uint8")


__all__ = ["packbits", "segment_packbits"]
