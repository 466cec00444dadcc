"""Pages by the bounds of their keys (Quest, arXiv 2406.10774): what ``top_k_page_table_transform`` takes the scores of."""

from __future__ import annotations

from typing import Any

from ._arrays import library_of
from ._call import Call
from ._planned import layout_code
from .errors import InvalidArgumentError
from .sampling import readable

_REDUCTIONS = {"max": 0, "sum": 1}


def update_page_bounds(
    paged_k_cache: Any, page_bounds: Any, block_tables: Any, seq_lens: Any, append_lens: Any, max_append_len: int,
    kv_layout: str = "NHD",
) -> None:
    """Brings the bounds of the pages that new keys have come to up to date: of each element the least and the greatest over all keys that the
    sequence has in the page. Computed anew, so right for pages that are not full yet and for those that were written before.

    Call it after the append of the same keys; all tables and lengths are read on the device, so it may be captured.

    :param paged_k_cache: ``[pages, page_size, num_kv_heads, head_dim]`` (HND: heads first), any type of a cache.
    :param page_bounds: ``[pages, 2, num_kv_heads, head_dim]``, written: least, greatest, as stored. The cache's type or float32; for
        types of 8 bits float16 or bfloat16 also.
    :param block_tables: int32 ``[requests, max_pages]``.
    :param seq_lens: int32 ``[requests]``, keys of each request, the new ones included.
    :param append_lens: int32 ``[requests]``, how many of the last are new; ``seq_lens`` itself for whole sequences.
    :param max_append_len: no request has more new keys.
    """
    call = Call(paged_k_cache, "paged_k_cache")
    call.run(
        "fi_update_page_bounds", call.tensor(paged_k_cache, "paged_k_cache"), layout_code(kv_layout),
        call.output(page_bounds, "page_bounds"), call.tensor(block_tables, "block_tables"), call.tensor(seq_lens, "seq_lens"),
        call.tensor(append_lens, "append_lens"), max_append_len)


def score_pages(
    q: Any, page_bounds: Any, block_tables: Any, page_counts: Any, *, per_head: bool = False, reduction: str = "max",
    out: Any = None,
) -> Any:
    """Scores of each request's pages: the most that q · k can be for any key within the page's bounds, float32.

    :param q: ``[requests * n, num_qo_heads, head_dim]``: n rows of each request. On a GPU float16 or bfloat16, as the bounds are.
    :param page_bounds: of ``update_page_bounds``.
    :param block_tables: int32 ``[requests, max_pages]``.
    :param page_counts: int32 ``[requests]``: pages of each request, which are ``lengths`` of ``top_k_page_table_transform``.
    :param per_head: a score for each kv head, ``[requests, num_kv_heads, max_pages]``; else of all heads, ``[requests, max_pages]``.
    :param reduction: over rows and query heads: "max", or "sum".
    :param out: where scores are written; past ``page_counts`` they are not.
    """
    code = _REDUCTIONS.get(reduction)
    if code is None:
        raise InvalidArgumentError(f"reduction is {reduction!r}, but must be 'max' or 'sum'")
    call = Call(readable(library_of(q, "q"), q, name="q"), "q")
    if out is None:
        for name, array, rank in (("page_bounds", page_bounds, 4), ("block_tables", block_tables, 2)):
            shape = call.read(array, name).shape
            if len(shape) != rank:
                raise InvalidArgumentError(f"{name} is of shape {tuple(shape)}, but must have {rank} dimensions")
        requests, width = block_tables.shape
        heads = (page_bounds.shape[2],) if per_head else ()
        out = call.empty((requests, *heads, width), "float32")
    call.run(
        "fi_score_pages", call.tensor(call.like, "q"), call.tensor(page_bounds, "page_bounds"),
        call.tensor(block_tables, "block_tables"), call.tensor(page_counts, "page_counts"), code, call.output(out, "scores"))
    return out


__all__ = ["score_pages", "update_page_bounds"]
