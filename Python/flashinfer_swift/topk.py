"""The greatest entries of rows."""

from __future__ import annotations

import enum
from typing import Any

from . import _compile, composed
from ._arrays import TorchLibrary, library_of
from ._call import Call
from .errors import InvalidArgumentError, unsupported
from .sampling import readable


class TopKTieBreak(enum.IntEnum):
    """Which of equal entries are taken first."""

    NONE = 0
    SMALL = 1
    LARGE = 2


def top_k(
    input: Any, k: int, sorted: bool = False, deterministic: bool = False, tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
) -> tuple[Any, Any]:
    """The ``k`` greatest entries of each row ``[rows, width]`` and their places (int64).

    :param sorted: the greatest first; else in the order of places.
    :param deterministic: accepted; results are always deterministic.
    :param tie_break: of equal entries the lowest places (SMALL, and NONE), or the highest (LARGE).
    """
    arrays = library_of(input, "input")
    if input.ndim != 2:
        raise InvalidArgumentError(f"input is of shape {tuple(input.shape)}, but must be [rows, width]")
    if _compile.is_compiling():
        return composed.top_k(input, k, sorted, int(tie_break))
    rows, width = input.shape
    if not 1 <= k <= width:
        raise InvalidArgumentError(f"k is {k}, but must be in 1 ... {width}")
    is_turned = tie_break == TopKTieBreak.LARGE
    # The highest of equal places are the lowest of the row turned round.
    source = _turned(arrays, input) if is_turned else readable(arrays, input)
    call = Call(source, "input")
    values, places = call.empty((rows, k)), call.empty((rows, k), "int32")
    call.run(
        "fi_top_k", call.tensor(source, "input"), int(bool(sorted)), call.output(values, "values"), call.output(places, "places"))
    places = arrays.cast(places, "int64")
    return values, width - 1 - places if is_turned else places


def _turned(arrays: Any, rows: Any) -> Any:
    return rows.flip(-1) if isinstance(arrays, TorchLibrary) else arrays.module.ascontiguousarray(rows[:, ::-1])


topk = top_k


def can_implement_filtered_topk() -> bool:
    """Whether the peer's filtered kernel could run: never here."""
    return False


def top_k_page_table_transform(*args: Any, **kwargs: Any) -> Any:
    raise unsupported("top_k_page_table_transform", "there is no kernel for it", "top_k, and indexing the page table")


def top_k_ragged_transform(*args: Any, **kwargs: Any) -> Any:
    raise unsupported("top_k_ragged_transform", "there is no kernel for it", "top_k, and adding the offsets")


__all__ = ["TopKTieBreak", "can_implement_filtered_topk", "top_k", "top_k_page_table_transform", "top_k_ragged_transform", "topk"]
