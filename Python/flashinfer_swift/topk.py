"""The greatest entries of rows."""

from __future__ import annotations

import enum
from typing import Any

from . import _compile, composed
from ._arrays import TorchLibrary, library_of
from ._call import Call
from ._planned import integer
from ._wrapper import refuse
from .errors import InvalidArgumentError
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
    k = integer(k, "k")
    if not 1 <= k <= width:
        raise InvalidArgumentError(f"k is {k}, but must be in 1 ... {width}")
    is_turned = tie_break == TopKTieBreak.LARGE
    # The highest of equal places are the lowest of the row turned round.
    source = _turned(arrays, input) if is_turned else readable(arrays, input, name="input")
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


def top_k_page_table_transform(
    input: Any, src_page_table: Any, lengths: Any, k: int, row_to_batch: Any = None, deterministic: bool = False,
    tie_break: int = TopKTieBreak.NONE, dsa_graph_safe: bool = False, *, recent: int = 0, row_starts: Any = None,
    page_table_row_starts: Any = None, page_size: int = 1, out_raw_indices: Any = None,
) -> Any:
    """The pages of the ``k`` greatest scores of each row, int32 ``[rows, k]``: ``src_page_table[row_to_batch[row], place]``.

    Pages come in the order of their places, -1 past ``lengths``. (The peer's order is not specified.)

    :param input: scores ``[rows, width]``, floating; of row ``r`` the first ``lengths[r]`` (int32 ``[rows]``). Or, not the peer's,
        ``[requests, heads, width]`` of each kv head: the result is ``[requests, heads, k]``, and ``lengths`` and ``row_to_batch`` are the
        requests'.
    :param src_page_table: int32 ``[batch, width]``.
    :param row_to_batch: int32 ``[rows]``; None where row ``r`` is request ``r``.
    :param deterministic: accepted; results are always deterministic.
    :param tie_break: of equal scores the lowest places (SMALL, and NONE), or the highest (LARGE).
    :param recent: the last places of each row that are chosen whatever their scores; 1 for attention over pages.
    :param out_raw_indices: int32 of the result's shape, written: the places themselves, -1 past ``lengths``.
    :param row_starts, page_table_row_starts, page_size: not supported: rows begin at their first score, and an entry of the table is a
        place.
    """
    refuse(
        "top_k_page_table_transform", row_starts=row_starts, page_table_row_starts=page_table_row_starts,
        page_size=None if page_size == 1 else page_size)
    return _select_pages(
        input, lengths, k, tie_break, recent, table=src_page_table, requests=row_to_batch, positions=out_raw_indices)


def top_k_ragged_transform(
    input: Any, offsets: Any, lengths: Any, k: int, deterministic: bool = False, tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False, *, recent: int = 0, row_starts: Any = None,
) -> Any:
    """The places of the ``k`` greatest scores of each row and its offset, int32 ``[rows, k]``, ascending; -1 past ``lengths``.

    ``row_starts`` is not supported: rows begin at their first score.
    """
    refuse("top_k_ragged_transform", row_starts=row_starts)
    return _select_pages(input, lengths, k, tie_break, recent, offsets=offsets)


def _select_pages(
    scores: Any, lengths: Any, k: int, tie_break: int, recent: int, table: Any = None, offsets: Any = None, requests: Any = None,
    positions: Any = None,
) -> Any:
    arrays = library_of(scores, "input")
    if scores.ndim not in (2, 3):
        raise InvalidArgumentError(
            f"input is of shape {tuple(scores.shape)}, but must be [rows, width], or [requests, heads, width]")
    k = integer(k, "k")
    if k < 1:
        raise InvalidArgumentError(f"k is {k}, but must be 1 or more")
    call = Call(scores, "input")
    pages = call.empty((*scores.shape[:-1], k), "int32")
    given = [(table, "src_page_table"), (offsets, "offsets"), (requests, "row_to_batch")]
    call.run(
        "fi_select_pages_with_positions", call.tensor(readable(arrays, scores, name="input"), "input"), call.tensor(lengths, "lengths"),
        *(call.tensor(tensor, name) for tensor, name in given), recent,
        int(tie_break == TopKTieBreak.LARGE), call.output(pages, "pages"),
        0 if positions is None else call.output(positions, "out_raw_indices"))
    return pages


__all__ = ["TopKTieBreak", "can_implement_filtered_topk", "top_k", "top_k_page_table_transform", "top_k_ragged_transform", "topk"]
