"""(Not the peer's.) Sampling with parameters in the device's memory, so that a captured graph samples.

``parameters(...)`` makes them, ``update(...)`` writes new ones to the same memory between replays::

    p = packed_sampling.parameters(logits, temperature=0.8, top_k=50, seed=seeds, step=0)
    with torch.cuda.graph(graph):
        packed_sampling.sample(logits, p, out=tokens, status=status)
    packed_sampling.update(p, temperature=0.8, top_k=50, seed=seeds, step=step)
    graph.replay()

The functions neither copy nor wait, and check the parameters' shape only: a row of parameters that are out of range draws some token of
the row, or -1.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi
from ._arrays import library_of
from ._call import Call
from .errors import InvalidArgumentError

_MASK64 = (1 << 64) - 1
_ORDERS = {"top_k_first": _abi.TOP_K_FIRST, "joint": _abi.JOINT}
_FORMS = {"logits": _abi.LOGITS, "probs": _abi.PROBABILITIES}


def _bytes(
    rows: int, temperature: Any, top_k: Any, top_p: Any, min_p: Any, seed: Any, step: Any,
) -> bytes:
    def column(value: Any, name: str) -> list[Any]:
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, (int, float)):
            return [value] * rows
        values = list(value)
        if len(values) != rows:
            raise InvalidArgumentError(f"{name} has {len(values)} numbers, but there are {rows} rows")
        return values

    array = (_abi.SamplingParameters * max(rows, 1))()
    # One seed for all is spread over the rows as everywhere in `sampling`.
    seeds = [(seed + row * _abi.ROW_SEED_STEP) for row in range(rows)] if isinstance(seed, int) else column(seed, "seed")
    for row, (t, k, p, least, own_step) in enumerate(zip(
            column(temperature, "temperature"), column(top_k, "top_k"), column(top_p, "top_p"), column(min_p, "min_p"),
            column(step, "step"))):
        if not (t >= 0 and k >= 0 and 0 <= p <= 1 and 0 <= least <= 1):
            raise InvalidArgumentError(
                f"row {row} has temperature {t}, top_k {k}, top_p {p} and min_p {least}, but they must be at least 0, at least 0, "
                "in 0 ... 1 and in 0 ... 1")
        array[row] = _abi.SamplingParameters(
            t, min(int(k), 0x7FFFFFFF), p, least, int(seeds[row]) & _MASK64, int(own_step) & _MASK64)
    return bytes(array)[:rows * ctypes.sizeof(_abi.SamplingParameters)]


def parameters(
    like: Any, temperature: Any = 1.0, top_k: Any = 0, top_p: Any = 1.0, min_p: Any = 0.0, seed: Any = 0, step: Any = 0,
) -> Any:
    """Parameters of as many rows as ``like`` (logits or probabilities ``[rows, vocabulary]``) has, uint8 ``[rows, 32]`` where it is.

    :param temperature, top_k, top_p, min_p, seed, step: numbers, or sequences or arrays of one for each row, read on the host. 0, 0, 1
        and 0 are: the greatest logit, all, all, all. Row ``r`` of one seed for all has ``seed + r * 0x9E3779B97F4A7C15`` (mod 2^64).
        Probabilities have a temperature of 1, or 0.
    """
    rows = like.shape[0]
    return library_of(like, "like").from_host(
        _bytes(rows, temperature, top_k, top_p, min_p, seed, step), "uint8", (rows, ctypes.sizeof(_abi.SamplingParameters)), like)


def update(
    packed: Any, temperature: Any = 1.0, top_k: Any = 0, top_p: Any = 1.0, min_p: Any = 0.0, seed: Any = 0, step: Any = 0,
) -> None:
    """Writes other parameters to the memory of ``packed``; arguments as of ``parameters``."""
    packed[:] = parameters(packed, temperature, top_k, top_p, min_p, seed, step)


def sample(
    input: Any, packed: Any, form: str = "logits", filter_apply_order: str = "top_k_first", out: Any = None, status: Any = None,
) -> Any:
    """A token for each row, int32 ``[rows]``; -1 for a row without a distribution.

    :param input: ``[rows, vocabulary]``, stride 1 within a row: logits, float32, float16 or bfloat16, or probabilities, float32.
    :param packed: of ``parameters``.
    :param form: "logits" or "probs".
    :param filter_apply_order: "top_k_first" (top-p of what top-k left) or "joint" (of the whole).
    :param status: uint8 ``[rows]``, written: 0 where a token was drawn. A captured graph needs one.
    """
    call = Call(input, "input")
    if out is None:
        out = call.empty((input.shape[0],), "int32")
    call.run(
        "fi_sample_packed", call.tensor(input, "input"), _choice(form, _FORMS, "form"), call.tensor(packed, "packed"),
        _choice(filter_apply_order, _ORDERS, "filter_apply_order"), call.output(out, "out"),
        0 if status is None else call.output(status, "status"))
    return out


def filter(
    input: Any, packed: Any, form: str = "logits", filter_apply_order: str = "top_k_first", out: Any = None, status: Any = None,
) -> Any:
    """What the filters keep: other logits become -inf; other probabilities 0, and the rest sum to 1. Arguments as of ``sample``.

    :param out: the shape and type of ``input``; may be it.
    """
    call = Call(input, "input")
    if out is None:
        out = call.empty(tuple(input.shape))
    call.run(
        "fi_filter_packed", call.tensor(input, "input"), _choice(form, _FORMS, "form"), call.tensor(packed, "packed"),
        _choice(filter_apply_order, _ORDERS, "filter_apply_order"), call.output(out, "out"),
        0 if status is None else call.output(status, "status"))
    return out


def _choice(value: str, choices: dict[str, int], name: str) -> int:
    if value not in choices:
        raise InvalidArgumentError(f"{name} is {value!r}, but must be {' or '.join(map(repr, choices))}")
    return choices[value]


def draws(like: Any, seed: Any = 0, step: Any = 0) -> Any:
    """The random numbers of ``verify_drafts`` for each row of ``like``, uint8 ``[rows, 16]`` where it is; arguments as of
    ``parameters``."""
    rows = like.shape[0]
    whole = _bytes(rows, 1.0, 0, 1.0, 0.0, seed, step)
    size = ctypes.sizeof(_abi.SamplingParameters)
    offset = _abi.SamplingParameters.seed.offset
    data = b"".join(whole[row * size + offset:(row + 1) * size] for row in range(rows))
    return library_of(like, "like").from_host(data, "uint8", (rows, ctypes.sizeof(_abi.RequestDraw)), like)


def verify_drafts(
    target_probs: Any, token_ids: Any, packed_draws: Any, draft_probs: Any = None, first_child: Any = None,
    next_sibling: Any = None, out: tuple[Any, Any, Any, Any] | None = None, status: Any = None,
) -> tuple[Any, Any, Any, Any]:
    """``sampling.chain_speculative_sampling`` (without links) or ``tree_speculative_sampling`` with draws in the device's memory.

    :param target_probs, draft_probs: float32, stride 1 within a row; ``token_ids``, ``first_child``, ``next_sibling``: contiguous int32.
    :param packed_draws: of ``draws``.
    :param out: tokens ``[rows, nodes]``, nodes ``[rows, nodes]``, accepted ``[rows]``, emitted ``[rows]``, all int32; made where they
        are not given, and returned.
    """
    call = Call(target_probs, "target_probs")
    rows, nodes = target_probs.shape[:2]
    if out is None:
        out = tuple(call.empty(shape, "int32") for shape in ((rows, nodes), (rows, nodes), (rows,), (rows,)))  # type: ignore[assignment]
    call.run(
        "fi_verify_drafts_packed", call.tensor(target_probs, "target_probs"), call.tensor(draft_probs, "draft_probs"),
        call.tensor(token_ids, "token_ids"), call.tensor(first_child, "first_child"),
        call.tensor(next_sibling, "next_sibling"), call.tensor(packed_draws, "packed_draws"),
        *(call.output(array, name) for array, name in zip(out, ("tokens", "nodes", "accepted", "emitted"))),  # type: ignore[arg-type]
        0 if status is None else call.output(status, "status"))
    return out  # type: ignore[return-value]


__all__ = ["draws", "filter", "parameters", "sample", "update", "verify_drafts"]
