"""Calls that the C library has no kernel for yet, composed of the operations of the caller's own array library.

They give the peer's results on torch, NumPy and CuPy arrays, on any device, at that library's speed. `Docs/conformance.md` lists
them, so that nobody takes them for kernels of this library.
"""

from __future__ import annotations

from typing import Any

from ._arrays import ArrayLibrary, TorchLibrary, library_of
from .errors import InvalidArgumentError


def check_parameter(value: Any, sizes: tuple[int, ...], name: str) -> None:
    """A sampling parameter that is a tensor has one number for each row."""
    if not hasattr(value, "shape"):
        raise InvalidArgumentError(f"{name} is a {type(value).__name__}, but must be a number, or a tensor with one for each row")
    shape = tuple(value.shape)
    if not shape:
        raise InvalidArgumentError(f"{name}: Expected a 1D tensor of shape (batch_size,) or scalar, got a 0-dimensional tensor")
    if len(shape) != 1:
        raise InvalidArgumentError(f"{name}: Expected a 1D tensor or scalar, got a {len(shape)}D tensor")
    if shape[0] not in sizes:
        raise InvalidArgumentError(
            f"Sampling parameter tensor batch size mismatch: {name} has {shape[0]} numbers, but there are {sizes[0]} rows")


def per_row(arrays: ArrayLibrary, value: Any, like: Any, name: str) -> Any:
    """A parameter as a column ``[rows, 1]``, or the number itself."""
    if isinstance(value, (int, float)):
        return value
    check_parameter(value, (like.shape[0],), name)
    return value[:, None]


def _sorted_descending(arrays: ArrayLibrary, values: Any) -> Any:
    if isinstance(arrays, TorchLibrary):
        return arrays.module.sort(values, dim=-1, descending=True).values
    return arrays.module.sort(values, -1)[..., ::-1]


def top_k_threshold(arrays: ArrayLibrary, values: Any, top_k: Any) -> Any:
    """The k-th greatest value of each row, ``[rows, 1]``; of all equal to it none is left out."""
    width = values.shape[-1]
    k = per_row(arrays, top_k, values, "top_k")
    if isinstance(k, (int, float)):
        if k < 1:
            raise InvalidArgumentError(f"top_k is {k}, but must be at least 1")
        k = min(int(k), width)
        if isinstance(arrays, TorchLibrary):
            return arrays.module.topk(values, k, -1).values[..., -1:]
        return -arrays.module.partition(-values, k - 1, -1)[..., k - 1:k]
    ordered = _sorted_descending(arrays, values)
    place = arrays.cast(k, "int64").clip(1, width) - 1
    if isinstance(arrays, TorchLibrary):
        return ordered.gather(-1, place.expand(values.shape[0], 1))
    return arrays.module.take_along_axis(ordered, arrays.module.broadcast_to(place, (values.shape[0], 1)), -1)


def top_k_mask_logits(logits: Any, top_k: Any) -> Any:
    arrays = library_of(logits, "logits")
    threshold = top_k_threshold(arrays, logits, top_k)
    return arrays.module.where(logits >= threshold, logits, arrays.cast(threshold * 0 - float("inf"), arrays.view(logits).dtype))


def top_k_renorm_probs(probs: Any, top_k: Any) -> Any:
    arrays = library_of(probs, "probs")
    return _renormalise(arrays, probs, probs >= top_k_threshold(arrays, probs, top_k))


def top_p_renorm_probs(probs: Any, top_p: Any) -> Any:
    arrays = library_of(probs, "probs")
    p = per_row(arrays, top_p, probs, "top_p")
    wide = arrays.cast(probs, "float32")
    ordered = _sorted_descending(arrays, wide)
    # A value is kept where the strictly greater ones have less than top_p: the last such in order is the threshold.
    before = ordered.cumsum(-1) - ordered
    kept = before < p
    count = arrays.cast(kept, "int64").sum(-1)[..., None].clip(1, None) - 1
    if isinstance(arrays, TorchLibrary):
        threshold = ordered.gather(-1, count)
    else:
        threshold = arrays.module.take_along_axis(ordered, count, -1)
    return _renormalise(arrays, probs, wide >= threshold)


def _renormalise(arrays: ArrayLibrary, probs: Any, kept: Any) -> Any:
    wide = arrays.cast(probs, "float32") * arrays.cast(kept, "float32")
    total = wide.sum(-1)[..., None]
    return arrays.cast(wide / total, arrays.view(probs).dtype)


def top_k(input: Any, k: int, sorted: bool, tie_break: int) -> tuple[Any, Any]:
    arrays = library_of(input, "input")
    width = input.shape[-1]
    if not 1 <= k <= width:
        raise InvalidArgumentError(f"k is {k}, but must be in 1 ... {width}")
    if k == width and not sorted:
        # All of them, as they are.
        places = arrays.module.arange(width, device=input.device) if isinstance(arrays, TorchLibrary) else arrays.module.arange(width)
        places = (
            places.expand(input.shape).contiguous() if isinstance(arrays, TorchLibrary)
            else arrays.module.broadcast_to(places, input.shape).copy())
        return arrays.cast(input * 1, arrays.view(input).dtype), places
    if tie_break == 0 and isinstance(arrays, TorchLibrary):
        values, places = arrays.module.topk(input, k, -1, sorted=sorted)
        return values, places
    # A stable sort keeps equal values in the order of their places; of the greatest places first, it is turned round twice.
    if isinstance(arrays, TorchLibrary):
        torch = arrays.module
        source = input.flip(-1) if tie_break == 2 else input
        places = torch.sort(source, dim=-1, descending=True, stable=True).indices[..., :k]
        if tie_break == 2:
            places = width - 1 - places
        return input.gather(-1, places), places
    numpy = arrays.module
    source = input[..., ::-1] if tie_break == 2 else input
    places = numpy.argsort(-arrays.cast(source, "float32"), -1, kind="stable")[..., :k]
    if tie_break == 2:
        places = width - 1 - places
    return numpy.take_along_axis(input, places, -1), places
