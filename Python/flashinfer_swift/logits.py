"""(Not the peer's.) Logits before they are sampled, and log-probabilities: penalties, biases, masks."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Sequence

from . import _abi
from ._arrays import library_of
from ._call import Call, host_floats
from ._planned import integer
from .errors import InvalidArgumentError
from .sampling import contiguous_ids, readable


def _check_rows(logits: Any, name: str = "logits") -> tuple[int, int]:
    library_of(logits, name)
    if logits.ndim != 2:
        raise InvalidArgumentError(f"{name} is of shape {tuple(logits.shape)}, but must be [rows, vocabulary]")
    return tuple(logits.shape)  # type: ignore[return-value]


def adjust_logits(
    logits: Any, repetition_penalty: Any = 1.0, presence_penalty: Any = 0.0, frequency_penalty: Any = 0.0,
    prompt_tokens: Sequence[Any] | None = None, output_tokens: Sequence[Any] | None = None,
    logit_bias: Sequence[Any] | None = None, mask: Any = None,
) -> None:
    """Biases, penalties and a grammar's mask on rows of logits, in place, in one kernel and in this order::

        logit += bias                                                      for a token with a bias
        logit = logit / repetition if logit > 0 else logit * repetition    for a token of the prompt or the output
        logit -= frequency * (times in the output) + presence              for a token of the output
        logit = -inf                                                       for a token that the mask forbids

    :param logits: ``[rows, vocabulary]``, float32, float16 or bfloat16, stride 1 within a row; written.
    :param repetition_penalty, presence_penalty, frequency_penalty: a number, or one for each row.
    :param prompt_tokens, output_tokens: for each row its tokens, in any order, or None: sequences or arrays, read on the host.
    :param logit_bias: for each row None or a mapping from tokens to numbers.
    :param mask: int32 ``[rows, ceil(vocabulary / 32)]`` where ``logits`` is: bit ``i % 32`` of word ``i // 32`` is 1 where token
        ``i`` is allowed, as XGrammar has it.

    Tokens outside of the vocabulary are passed over.
    """
    rows, _ = _check_rows(logits)
    call = Call(logits, "logits")
    changes = (_abi.LogitChanges * max(rows, 1))()
    history: list[int] = []
    biases: dict[str, list[Any]] = {"tokens": [], "values": []}
    for name, given in (("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens), ("logit_bias", logit_bias)):
        if given is not None and len(given) != rows:
            raise InvalidArgumentError(f"{name} has {len(given)} rows, but logits has {rows}")
    columns = [
        _column(call, value, rows, name)
        for value, name in (
            (repetition_penalty, "repetition_penalty"), (presence_penalty, "presence_penalty"),
            (frequency_penalty, "frequency_penalty"))]
    for row in range(rows):
        change = changes[row]
        change.repetition, change.presence, change.frequency = (column[row] for column in columns)
        change.prompt_begin, change.prompt_end = _append(history, prompt_tokens, row)
        change.output_begin, change.output_end = _append(history, output_tokens, row)
        own = (logit_bias[row] if logit_bias is not None else None) or {}
        change.bias_begin = len(biases["tokens"])
        biases["tokens"] += own.keys()
        biases["values"] += own.values()
        change.bias_end = len(biases["tokens"])

    def on_device(values: list[Any], dtype: str, name: str) -> int:
        if not values:
            return 0
        data = struct.pack(f"{len(values)}{'f' if dtype == 'float32' else 'i'}", *values)
        return call.tensor(call.arrays.from_host(data, dtype, (len(values),), logits), name)

    call.run(
        "fi_adjust_logits", call.output(logits, "logits"), ctypes.addressof(changes), rows,
        on_device(history, "int32", "history"), on_device(biases["tokens"], "int32", "logit_bias"),
        on_device(biases["values"], "float32", "logit_bias"), call.tensor(mask, "mask"))


def _column(call: Call, value: Any, rows: int, name: str) -> list[float]:
    if isinstance(value, (int, float)):
        return [float(value)] * rows
    values = [float(number) for number in (value if isinstance(value, (list, tuple)) else call.arrays.to_list(value))]
    if len(values) != rows:
        raise InvalidArgumentError(f"{name} has {len(values)} numbers, but logits has {rows} rows")
    return values


def _append(history: list[int], tokens: Sequence[Any] | None, row: int) -> tuple[int, int]:
    """Where the row's tokens are among all that were appended."""
    begin = len(history)
    own = None if tokens is None else tokens[row]
    if own is not None:
        history += [int(token) for token in (own.tolist() if hasattr(own, "tolist") else own)]
    return begin, len(history)


def log_probs(logits: Any, token_ids: Any, temperature: Any = None) -> Any:
    """``log(softmax(logits / temperature))`` of one token for each row, float32 ``[rows]``: NaN for a row without a distribution.

    :param logits: ``[rows, vocabulary]``, float32, float16 or bfloat16.
    :param token_ids: int32 or int64 ``[rows]``.
    :param temperature: a number, or float32 ``[rows]`` (read on the host), above 0.
    """
    rows, _ = _check_rows(logits)
    arrays = library_of(logits, "logits")
    logits = readable(arrays, logits, name="logits")
    call = Call(logits, "logits")
    ids = contiguous_ids(arrays, token_ids)
    out = call.empty((rows,), "float32")
    temperatures: Any = None
    if isinstance(temperature, (int, float)):
        temperatures = host_floats([float(temperature)])
    elif temperature is not None:
        temperatures = temperature if call.read(temperature, "temperature").dtype == "float32" else arrays.cast(temperature, "float32")
    call.run(
        "fi_log_probability", call.tensor(logits, "logits"), call.tensor(ids, "token_ids"),
        call.tensor(temperatures, "temperature"), call.output(out, "out"), 0)
    return out


def top_log_probs(logits: Any, k: int, temperature: float = 1.0) -> tuple[Any, Any]:
    """The ``k`` likeliest tokens of each row, the likeliest first (of equal ones the lowest ids).

    :param logits: ``[rows, vocabulary]``, float32, float16 or bfloat16.
    :param temperature: above 0.
    :returns: ``log(softmax(logits / temperature))`` of them, float32 ``[rows, k]``, and their ids, int32 ``[rows, k]``: NaN and -1
        for a row without a distribution.
    """
    rows, vocabulary = _check_rows(logits)
    k = integer(k, "k")
    if not 1 <= k <= vocabulary:
        raise InvalidArgumentError(f"k is {k}, but must be in 1 ... {vocabulary}")
    logits = readable(library_of(logits, "logits"), logits, name="logits")
    call = Call(logits, "logits")
    values, tokens = call.empty((rows, k), "float32"), call.empty((rows, k), "int32")
    call.run(
        "fi_top_log_probabilities", call.tensor(logits, "logits"), float(temperature), call.output(values, "values"),
        call.output(tokens, "tokens"), 0)
    return values, tokens


__all__ = ["adjust_logits", "log_probs", "top_log_probs"]
