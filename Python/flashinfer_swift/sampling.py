"""Sampling of tokens from logits or probabilities, and the filters on their own.

A draw depends on its row's distribution, parameters, seed and offset alone. Where one seed serves a batch, row ``r`` draws with
``seed + r * 0x9E3779B97F4A7C15`` (mod 2^64); a tensor of seeds gives each row its own, which the peer accepts but does not do.
"""

from __future__ import annotations

import ctypes
import random
import threading
from typing import Any

from . import _abi, _compile, composed
from ._arrays import CUDA, TorchLibrary, is_contiguous, library_of
from ._call import Call, host_floats
from .errors import InvalidArgumentError

_MASK64 = (1 << 64) - 1
_own_generator = random.Random()
_generator_lock = threading.Lock()


# ------------------------------------------------------------------------------------------------------------- probabilities

def softmax(logits: Any, temperature: Any = None, enable_pdl: bool | None = None) -> Any:
    """``softmax(logits / temperature)`` for each row, float32.

    :param logits: ``[rows, vocabulary]``, float32, float16 or bfloat16.
    :param temperature: a number, or float32 ``[rows]`` (read on the host), above 0.
    """
    if _compile.is_compiling():
        return _compile.ops.softmax(logits, temperature if not isinstance(temperature, (int, float)) else None, (
            float(temperature) if isinstance(temperature, (int, float)) else 1.0))
    call = Call(logits, "logits")
    out = call.empty(call.first.shape, "float32")
    held: Any = None
    if temperature is None:
        temperatures = 0
    elif isinstance(temperature, (int, float)):
        held = host_floats([float(temperature)])
        temperatures = call.view(held, "temperature")
    else:
        held = temperature if call.arrays.view(temperature, "temperature").dtype == "float32" else call.arrays.cast(temperature, "float32")
        temperatures = call.tensor(held.reshape(-1), "temperature")
    call.run("fi_softmax", call.tensor(logits, "logits"), temperatures, call.output(out, "out"), 0)
    return out


def top_p_renorm_probs(probs: Any, top_p: Any, is_deterministic: bool = False) -> Any:
    """Probabilities outside the top-p set become 0, and the rest sum to 1.

    :param top_p: a number or a tensor ``[rows]``.
    :param is_deterministic: accepted; results are always deterministic.
    """
    if _compile.is_compiling():
        return composed.top_p_renorm_probs(probs, top_p)
    return _filter(probs, "probs", _abi.PROBABILITIES, top_p=top_p)


def top_k_renorm_probs(probs: Any, top_k: Any) -> Any:
    """All but the ``top_k`` greatest probabilities (of equal ones the lowest ids) become 0, and the rest sum to 1.

    :param top_k: a number or a tensor ``[rows]``.
    """
    if _compile.is_compiling():
        return composed.top_k_renorm_probs(probs, top_k)
    return _filter(probs, "probs", _abi.PROBABILITIES, top_k=top_k)


def min_p_renorm_probs(probs: Any, min_p: Any) -> Any:
    """(Not the peer's.) Probabilities below ``min_p`` times the greatest become 0, and the rest sum to 1."""
    return _filter(probs, "probs", _abi.PROBABILITIES, min_p=min_p)


def top_k_mask_logits(logits: Any, top_k: Any) -> Any:
    """All but the ``top_k`` greatest logits (of equal ones the lowest ids) become -inf.

    :param top_k: a number or a tensor ``[rows]``.
    """
    if _compile.is_compiling():
        return composed.top_k_mask_logits(logits, top_k)
    return _filter(logits, "logits", _abi.LOGITS, top_k=top_k)


def _filter(source: Any, name: str, form: int, top_k: Any = None, top_p: Any = None, min_p: Any = None) -> Any:
    """What the filters keep of rows, in the source's type."""
    arrays = library_of(source, name)
    if source.ndim != 2:
        raise InvalidArgumentError(f"{name} is of shape {tuple(source.shape)}, but must be [rows, vocabulary]")
    rows = source.shape[0]
    top_k, top_p, min_p = (
        _parameter(arrays, value, rows, rows, None, what)
        for value, what in ((top_k, "top_k"), (top_p, "top_p"), (min_p, "min_p")))
    dtype = arrays.view(source, name).dtype
    wide = readable(arrays, source, "float32" if form == _abi.PROBABILITIES else None, name)
    parameters, count = _rows(rows, 0, 0, top_k, top_p, min_p)
    call = Call(wide, name)
    out = call.empty(tuple(wide.shape))
    call.run(
        "fi_filter", call.tensor(wide, name), form, ctypes.addressof(parameters), count, _abi.TOP_K_FIRST,
        call.output(out, "out"), 0)
    return out if arrays.view(out).dtype == dtype else arrays.cast(out, dtype)


def readable(arrays: Any, rows: Any, dtype: str | None = None, name: str = "tensor") -> Any:
    """Rows as a kernel reads them, of a type: as they are, where they lie so, else a copy."""
    view = arrays.view(rows, name)
    if dtype is not None and view.dtype != dtype:
        rows = arrays.cast(rows, dtype)
        view = arrays.view(rows)
    if view.strides[-1] == 1 and min(view.strides) >= 0 or 0 in view.shape:
        return rows
    return rows.contiguous() if isinstance(arrays, TorchLibrary) else arrays.module.ascontiguousarray(rows)


top_p_renorm_prob = top_p_renorm_probs
top_k_renorm_prob = top_k_renorm_probs


# -------------------------------------------------------------------------------------------------------------------- draws

def sampling_from_logits(
    logits: Any, indices: Any = None, deterministic: bool = True, generator: Any = None, check_nan: bool = False,
    seed: Any = None, offset: Any = None,
) -> Any:
    """A token for each row, from softmax(logits); int32 ``[rows]``.

    :param indices: int32 or int64: output row ``i`` draws from row ``indices[i]``; the output has its type.
    :param generator: a torch or NumPy generator; the default one of the device without it.
    :param seed, offset: both numbers, or both int64 or uint64 tensors ``[1]`` or ``[rows]``; instead of the generator.
    :param deterministic: accepted; draws are always deterministic.
    """
    return _sample(logits, False, indices, generator, check_nan, seed, offset, False)


def sampling_from_probs(
    probs: Any, indices: Any = None, deterministic: bool = True, generator: Any = None, check_nan: bool = False,
    seed: Any = None, offset: Any = None, return_valid: bool = False,
) -> Any:
    """A token for each row of probabilities; arguments as of ``sampling_from_logits``.

    :param return_valid: also a bool for each row: False, and token 0, for a row without a distribution (NaN, or all zeros).
        Without it such a row gives -1.
    """
    return _sample(probs, True, indices, generator, check_nan, seed, offset, return_valid)


def top_p_sampling_from_probs(
    probs: Any, top_p: Any, indices: Any = None, deterministic: bool = True, generator: Any = None,
    check_nan: bool = False, seed: Any = None, offset: Any = None, return_valid: bool = False,
) -> Any:
    """A token of those whose strictly likelier ones have less than ``top_p``: a number or float32 ``[rows]``."""
    return _sample(probs, True, indices, generator, check_nan, seed, offset, return_valid, top_p=top_p)


def top_k_sampling_from_probs(
    probs: Any, top_k: Any, indices: Any = None, deterministic: bool = True, generator: Any = None,
    check_nan: bool = False, seed: Any = None, offset: Any = None, return_valid: bool = False,
) -> Any:
    """A token of the ``top_k`` most likely (of equal ones the lowest ids): a number or integers ``[rows]``."""
    return _sample(probs, True, indices, generator, check_nan, seed, offset, return_valid, top_k=top_k)


def min_p_sampling_from_probs(
    probs: Any, min_p: Any, indices: Any = None, deterministic: bool = True, generator: Any = None,
    check_nan: bool = False, seed: Any = None, offset: Any = None, return_valid: bool = False,
) -> Any:
    """A token of those at least ``min_p`` times as likely as the most likely: a number or float32 ``[rows]``."""
    return _sample(probs, True, indices, generator, check_nan, seed, offset, return_valid, min_p=min_p)


def top_k_top_p_sampling_from_logits(
    logits: Any, top_k: Any, top_p: Any, indices: Any = None, filter_apply_order: str = "top_k_first",
    deterministic: bool = True, generator: Any = None, check_nan: bool = False, seed: Any = None, offset: Any = None,
) -> Any:
    """Top-k and top-p on logits. ``filter_apply_order``: "top_k_first" (top-p of what top-k left) or "joint" (of the whole)."""
    return _sample(
        logits, False, indices, generator, check_nan, seed, offset, False, top_k=top_k, top_p=top_p, order=filter_apply_order)


def top_k_top_p_sampling_from_probs(
    probs: Any, top_k: Any, top_p: Any, indices: Any = None, filter_apply_order: str = "top_k_first",
    deterministic: bool = True, generator: Any = None, check_nan: bool = False, seed: Any = None, offset: Any = None,
    return_valid: bool = False,
) -> Any:
    """Top-k and top-p on probabilities; see ``top_k_top_p_sampling_from_logits``."""
    return _sample(
        probs, True, indices, generator, check_nan, seed, offset, return_valid, top_k=top_k, top_p=top_p,
        order=filter_apply_order)


_ORDERS = {"top_k_first": _abi.TOP_K_FIRST, "joint": _abi.JOINT}


def _sample(
    source: Any, are_probs: bool, indices: Any, generator: Any, check_nan: bool, seed: Any, offset: Any, return_valid: bool,
    top_k: Any = None, top_p: Any = None, min_p: Any = None, order: str = "top_k_first",
) -> Any:
    if order not in _ORDERS:
        raise InvalidArgumentError(f"filter_apply_order is {order!r}, but must be 'top_k_first' or 'joint'")
    if _compile.is_compiling():
        raise InvalidArgumentError(
            "sampling cannot be part of a graph of torch.compile, as its random numbers are drawn on the host; call it outside")
    arrays = library_of(source, "probs" if are_probs else "logits")
    if source.ndim != 2:
        raise InvalidArgumentError(
            f"{'probs' if are_probs else 'logits'} is of shape {tuple(source.shape)}, but must be [rows, vocabulary]")
    if check_nan and bool((source != source).any()):
        raise InvalidArgumentError("the input holds a NaN")
    rows = source.shape[0] if indices is None else indices.shape[0]
    top_k, top_p, min_p = (
        _parameter(arrays, value, source.shape[0], rows, indices, name)
        for value, name in ((top_k, "top_k"), (top_p, "top_p"), (min_p, "min_p")))
    given = readable(arrays, source, "float32" if are_probs else None, "probs" if are_probs else "logits")
    if indices is not None:
        # One distribution drawn from many times is read in place; others are gathered.
        given = _repeat(arrays, given, rows) if given.shape[0] == 1 else given[arrays.cast(indices, "int64")]
    seeds, steps = _seeds(arrays, source, rows, generator, seed, offset)
    parameters, count = _rows(rows, seeds, steps, top_k, top_p, min_p)
    call = Call(given, "probs" if are_probs else "logits")
    tokens = arrays.empty((rows,), "int32", source)
    status = arrays.empty((rows,), "uint8", source) if return_valid else None
    call.run(
        "fi_sample_probabilities" if are_probs else "fi_sample", call.tensor(given, "probs" if are_probs else "logits"),
        ctypes.addressof(parameters), count, _ORDERS[order],
        call.output(tokens, "tokens"), call.output(status, "status") if status is not None else 0)
    if status is not None:
        valid = status == _abi.ROW_OK
        tokens = arrays.cast(tokens * valid, "int32")
    if indices is not None:
        tokens = arrays.cast(tokens, arrays.view(indices).dtype)
    return (tokens, valid) if status is not None else tokens


def _repeat(arrays: Any, logits: Any, rows: int) -> Any:
    """One row seen as many, without a copy."""
    if isinstance(arrays, TorchLibrary):
        return logits.expand(rows, logits.shape[1])
    return arrays.module.broadcast_to(logits, (rows, logits.shape[1]))


def _parameter(arrays: Any, value: Any, source_rows: int, rows: int, indices: Any, name: str) -> Any:
    """None, a number, or a list of one number for each output row."""
    if value is None or isinstance(value, (int, float)):
        return value
    composed.check_parameter(value, (rows, source_rows), name)
    values = arrays.to_list(value)
    if len(values) != rows:
        values = [values[index] for index in arrays.to_list(indices)]
    return values


def _seeds(arrays: Any, like: Any, rows: int, generator: Any, seed: Any, offset: Any) -> tuple[Any, Any]:
    """Numbers, or lists with one for each row."""
    if seed is None or offset is None:
        return draw_seed(arrays, like, generator)
    scalar = isinstance(seed, int), isinstance(offset, int)
    if scalar[0] != scalar[1]:
        raise InvalidArgumentError("seed and offset must both be tensors, or both be numbers")
    if scalar[0]:
        return seed & _MASK64, offset & _MASK64
    result = []
    for name, value in (("seed", seed), ("offset", offset)):
        view = arrays.view(value, name)
        if view.dtype not in ("int64", "uint64"):
            raise InvalidArgumentError(f"{name} is of {view.dtype}, but must be of int64 or uint64")
        if len(view.shape) != 1 or view.shape[0] not in (1, rows):
            raise InvalidArgumentError(f"{name} is of shape {view.shape}, but must be (1,) or ({rows},)")
        if view.device != arrays.view(like).device:
            raise InvalidArgumentError(f"{name} is on {view.place}, but must be on {arrays.view(like).place}")
        numbers = [number & _MASK64 for number in arrays.to_list(value)]
        result.append(numbers[0] if len(numbers) == 1 else numbers)
    return result[0], result[1]


def draw_seed(arrays: Any, like: Any, generator: Any) -> tuple[int, int]:
    """A seed and an offset of a generator, which moves on by one draw."""
    if isinstance(arrays, TorchLibrary):
        torch = arrays.torch
        if generator is None:
            if like.device.type == CUDA:
                index = like.device.index or 0
                generator = torch.cuda.default_generators[index]
            else:
                generator = torch.default_generator
        if generator.device.type == CUDA:
            # A CUDA generator is a seed and an offset already; offsets count in fours.
            state = generator.get_state()
            numbers = state.view(torch.int64)
            seed, offset = int(numbers[0]), int(numbers[1])
            numbers[1] = offset + 4
            generator.set_state(state)
            return seed & _MASK64, offset & _MASK64
        low = torch.randint(0, 1 << 62, (), generator=generator, dtype=torch.int64, device="cpu")
        return int(low), 0
    if generator is not None:
        if hasattr(generator, "integers"):
            return int(generator.integers(0, 1 << 62)), 0
        raise InvalidArgumentError(
            f"generator is a {type(generator).__name__}, but must be a numpy.random.Generator for arrays of {arrays.name}")
    with _generator_lock:
        return _own_generator.getrandbits(62), 0


def seed(value: int) -> None:
    """(Not the peer's.) Seeds the draws of calls on NumPy and other arrays that are given no generator and no seed."""
    with _generator_lock:
        _own_generator.seed(value)


def _rows(rows: int, seeds: Any, steps: Any, top_k: Any, top_p: Any, min_p: Any) -> tuple[Any, int]:
    """The parameters as the C library takes them: one struct for all rows, or one for each."""

    def number(value: Any, default: Any) -> Any:
        return default if value is None else value

    if not any(isinstance(value, list) for value in (seeds, steps, top_k, top_p, min_p)):
        return _abi.SamplingParameters(1.0, _k(number(top_k, 0), top_k), float(number(top_p, 1.0)), float(number(min_p, 0.0)), seeds, steps), 1

    def column(value: Any, default: Any) -> list[Any]:
        return value if isinstance(value, list) else [number(value, default)] * rows

    seed_column = seeds if isinstance(seeds, list) else [
        (seeds + row * _abi.ROW_SEED_STEP) & _MASK64 for row in range(rows)]
    array = (_abi.SamplingParameters * max(rows, 1))()
    for row, values in enumerate(zip(
            column(top_k, 0), column(top_p, 1.0), column(min_p, 0.0), seed_column, column(steps, 0))):
        k, p, least, seed_value, step = values
        array[row] = _abi.SamplingParameters(1.0, _k(k, top_k), p, least, seed_value, step)
    return array, rows


def _k(k: Any, given: Any) -> int:
    """The peer has no 'all': a k of 0 is an error, not a default."""
    if given is not None and not k >= 1:
        raise InvalidArgumentError(f"top_k is {k}, but must be at least 1")
    # A row's k comes of a tensor of any type, as a float too; it must still be a whole number.
    if isinstance(k, float) and not k.is_integer():
        raise InvalidArgumentError(f"top_k is {k}, but must be a whole number")
    return min(int(k), 0x7FFFFFFF)


def chain_speculative_sampling(
    draft_probs: Any, draft_token_ids: Any, target_probs: Any, maybe_output_accepted_token_num: Any = None,
    maybe_output_emitted_draft_token_num: Any = None, deterministic: bool = True, generator: Any = None, seed: Any = None,
    offset: Any = None,
) -> tuple[Any, Any, Any]:
    """Verifies drafted tokens against the target model (Leviathan et al., arXiv 2211.17192), in one kernel.

    Token ``i`` is accepted where ``u * draft <= target`` and ``target > 0``; at the first that is not, one is drawn from
    ``max(target - draft, 0)``, and after the last accepted one from the target.

    :param draft_probs: ``[rows, n, vocabulary]``.
    :param target_probs: ``[rows, n + 1, vocabulary]``.
    :returns: tokens ``[rows, n + 1]`` int32 (-1 past the emitted ones), accepted counts (as if each token were alone), emitted
        counts; given counters are added to, in place.
    """
    arrays = library_of(draft_probs, "draft_probs")
    if draft_probs.ndim != 3:
        raise InvalidArgumentError(f"draft_probs is of shape {tuple(draft_probs.shape)}, but must be [rows, n, vocabulary]")
    rows, drafted, vocabulary = draft_probs.shape
    library_of(target_probs, "target_probs")
    library_of(draft_token_ids, "draft_token_ids")
    if tuple(target_probs.shape) != (rows, drafted + 1, vocabulary) or tuple(draft_token_ids.shape) != (rows, drafted):
        raise InvalidArgumentError(
            f"draft_probs {tuple(draft_probs.shape)}, draft_token_ids {tuple(draft_token_ids.shape)} and target_probs "
            f"{tuple(target_probs.shape)} do not agree; they must be [rows, n, vocabulary], [rows, n], [rows, n + 1, vocabulary]")
    tokens, _, accepted, emitted = _verify(
        arrays, target_probs, draft_probs, draft_token_ids, None, None, _seeds(arrays, draft_probs, rows, generator, seed, offset))
    outputs = []
    for count, given in (
            (accepted, maybe_output_accepted_token_num), (emitted, maybe_output_emitted_draft_token_num)):
        if given is not None:
            given += arrays.cast(count, arrays.view(given).dtype)
            count = given
        outputs.append(count)
    return tokens, outputs[0], outputs[1]


def tree_speculative_sampling(
    target_probs: Any, token_ids: Any, first_child: Any, next_sibling: Any, draft_probs: Any = None, generator: Any = None,
    seed: Any = None, offset: Any = None,
) -> tuple[Any, Any, Any]:
    """(Not the peer's.) Verifies a tree of drafted tokens for each row; what is emitted has the target's distribution.

    Node 0 is the last token of the text, and ``target_probs[r, n]`` the distribution after node ``n``. Children are tried in their
    order: those that were drawn (``draft_probs[r, n]`` is what the children of ``n`` were drawn from) by rejection with what each
    rejection leaves, others by their share of the target.

    :param target_probs, draft_probs: ``[rows, nodes, vocabulary]``, at most 256 nodes.
    :param token_ids, first_child, next_sibling: ``[rows, nodes]``; -1 for no child and no sibling.
    :returns: tokens ``[rows, nodes]``, the drawn one last and -1 after it; the nodes that stand ``[rows, nodes]``, -1 after them; how
        many stand ``[rows]``. All int32.
    """
    arrays = library_of(target_probs, "target_probs")
    draw = _seeds(arrays, target_probs, target_probs.shape[0], generator, seed, offset)
    tokens, nodes, _, emitted = _verify(arrays, target_probs, draft_probs, token_ids, first_child, next_sibling, draw)
    return tokens, nodes, emitted


def _verify(
    arrays: Any, target: Any, draft: Any, token_ids: Any, first_child: Any, next_sibling: Any, draw: tuple[Any, Any],
) -> tuple[Any, Any, Any, Any]:
    rows, nodes = target.shape[:2]
    target, draft = (
        None if value is None else readable(arrays, value, "float32", name)
        for value, name in ((target, "target_probs"), (draft, "draft_probs")))
    ids = [
        None if value is None else contiguous_ids(arrays, value, name)
        for value, name in ((token_ids, "token_ids"), (first_child, "first_child"), (next_sibling, "next_sibling"))]
    seeds, steps = draw
    draws = (_abi.RequestDraw * max(rows, 1))()
    for row in range(rows):
        seed = seeds[row] if isinstance(seeds, list) else (seeds + row * _abi.ROW_SEED_STEP) & _MASK64
        draws[row] = _abi.RequestDraw(seed, steps[row] if isinstance(steps, list) else steps)
    call = Call(target, "target_probs")
    output, path = (arrays.empty((rows, nodes), "int32", target) for _ in range(2))
    accepted, emitted = (arrays.empty((rows,), "int32", target) for _ in range(2))
    call.run(
        "fi_verify_drafts", call.tensor(target, "target_probs"), call.tensor(draft, "draft_probs"),
        call.tensor(ids[0], "token_ids"), call.tensor(ids[1], "first_child"), call.tensor(ids[2], "next_sibling"),
        ctypes.addressof(draws), rows, call.output(output, "output"), call.output(path, "output_nodes"),
        call.output(accepted, "accepted"), call.output(emitted, "emitted"), 0)
    return output, path, accepted, emitted


def contiguous_ids(arrays: Any, ids: Any, name: str = "token_ids") -> Any:
    """Ids as contiguous int32."""
    if arrays.view(ids, name).dtype != "int32":
        ids = arrays.cast(ids, "int32")
    return ids if is_contiguous(arrays.view(ids)) else arrays.cast(ids + 0, "int32")


__all__ = [
    "chain_speculative_sampling", "min_p_renorm_probs", "min_p_sampling_from_probs", "sampling_from_logits", "sampling_from_probs", "seed", "softmax",
    "top_k_mask_logits", "top_k_renorm_prob", "top_k_renorm_probs", "top_k_sampling_from_probs",
    "top_k_top_p_sampling_from_logits", "top_k_top_p_sampling_from_probs", "top_p_renorm_prob", "top_p_renorm_probs",
    "top_p_sampling_from_probs", "tree_speculative_sampling",
]
