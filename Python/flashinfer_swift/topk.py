"""The greatest entries of rows."""

from __future__ import annotations

import enum
from typing import Any

from . import composed
from .errors import unsupported


class TopKTieBreak(enum.IntEnum):
    """Which of equal entries are taken first."""

    NONE = 0
    SMALL = 1
    LARGE = 2


def top_k(
    input: Any, k: int, sorted: bool = False, deterministic: bool = False, tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
) -> tuple[Any, Any]:
    """The ``k`` greatest entries of each row and their places (int64). Composed of array operations.

    :param tie_break: of equal entries the lowest places (SMALL), the highest (LARGE), or any (NONE).
    """
    if deterministic and tie_break == TopKTieBreak.NONE:
        tie_break = TopKTieBreak.SMALL
    return composed.top_k(input, k, sorted, int(tie_break))


topk = top_k


def can_implement_filtered_topk() -> bool:
    """Whether the peer's filtered kernel could run: never here."""
    return False


def top_k_page_table_transform(*args: Any, **kwargs: Any) -> Any:
    raise unsupported("top_k_page_table_transform", "there is no kernel for it", "top_k, and indexing the page table")


def top_k_ragged_transform(*args: Any, **kwargs: Any) -> Any:
    raise unsupported("top_k_ragged_transform", "there is no kernel for it", "top_k, and adding the offsets")


__all__ = ["TopKTieBreak", "can_implement_filtered_topk", "top_k", "top_k_page_table_transform", "top_k_ragged_transform", "topk"]
