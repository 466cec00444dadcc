/* Pages by their scores: bounds of their keys, scores by these, and selection. Include flashinfer_swift.h, which says what holds for every
 * function. Nothing here waits or reads host arrays: all of it may be captured. */
#ifndef FLASHINFER_SWIFT_PAGES_H
#define FLASHINFER_SWIFT_PAGES_H

#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Pages by their scores ----------------------------------------------------------------------------------------------- */

/* The bounds of pages' keys after an append: of each page that new keys have come to, the least and the greatest of each element over
 * all keys that its sequence has in it (Quest, arXiv 2406.10774). Computed anew, so right for pages that are not full yet and for those
 * that were written before. NaN is passed over.
 *   k_cache       [pages, page_size, heads, dim] (FI_NHD; FI_HND: heads first), a cache type, last stride 1
 *   bounds        [pages, 2, heads, dim], last stride 1: least and greatest, as stored; k_cache's type or float32, and for types of 8 bits
 *                 float16 or bfloat16 also
 *   block_tables  int32 [requests, max_blocks], last stride 1
 *   seq_lens      int32 [requests]: keys of each request, those appended included
 *   append_lens   int32 [requests]: how many of the last are new; seq_lens itself for whole sequences
 *   max_append    no request has more new keys
 * On the CPU entries out of range are errors; on a GPU they are passed over. */
fi_status fi_update_page_bounds(
    fi_device *device, void *stream, const fi_tensor *k_cache, int32_t kv_layout, const fi_tensor *bounds,
    const fi_tensor *block_tables, const fi_tensor *seq_lens, const fi_tensor *append_lens, int64_t max_append);

/* What becomes of the bounds of several query heads and rows. */
enum {
    FI_REDUCE_MAX = 0, /* the greatest */
    FI_REDUCE_SUM = 1
};

/* Scores of each request's pages: the most that q . k can be for keys within the page's bounds, sum over d of
 * max(q[d] * least[d], q[d] * greatest[d]), reduced over query heads and rows. sm_scale and scales of quantised keys are left out.
 *   q             [requests * n, num_qo_heads, dim], floating, last stride 1: n rows of each request. On a GPU float16 or bfloat16,
 *                 as bounds are
 *   bounds        of fi_update_page_bounds
 *   block_tables  int32 [requests, max_blocks], last stride 1
 *   page_counts   int32 [requests]: pages of each request
 *   scores        float32 [requests, num_kv_heads, max_blocks], each kv head's; or [requests, max_blocks], of all heads. Last stride 1.
 *                 Entries past page_counts are not written */
fi_status fi_score_pages(
    fi_device *device, void *stream, const fi_tensor *q, const fi_tensor *bounds, const fi_tensor *block_tables,
    const fi_tensor *page_counts, int32_t reduction, const fi_tensor *scores);

/* Which of equal scores are chosen. */
enum {
    FI_TIES_LOWEST = 0, /* those of the lowest places */
    FI_TIES_HIGHEST = 1
};

/* The pages of the k greatest scores of each row, in the order of their places: pages[r, i] = table[requests[r], place i], or
 * place i + offsets[r]; -1 past the row's length. A NaN comes before all numbers.
 *   scores   [rows, width], floating, last stride 1; or [requests, heads, width], of each kv head of a request, with lengths, requests
 *            and offsets of the requests
 *   lengths  int32 [rows]: how many of a row's scores there are
 *   table    int32 [requests, width or more], last stride 1; or NULL with
 *   offsets  int32 [rows]
 *   requests int32 [rows]: the table's row of each row; NULL: row r has row r. Only with a table
 *   recent   the last places that are chosen whatever their scores: 1 for attention, whose last page may not be full
 *   pages    int32 [rows, k], or [requests, heads, k] as scores are, last stride 1
 * On the CPU lengths and requests out of range are errors; on a GPU they count as the nearest, or give pages of -1. */
fi_status fi_select_pages(
    fi_device *device, void *stream, const fi_tensor *scores, const fi_tensor *lengths, const fi_tensor *table,
    const fi_tensor *offsets, const fi_tensor *requests, int32_t recent, int32_t ties, const fi_tensor *pages);

/* The same, and
 *   positions  int32, as pages: the chosen places themselves, which are page_positions of a run; -1 where there is none; or NULL */
fi_status fi_select_pages_with_positions(
    fi_device *device, void *stream, const fi_tensor *scores, const fi_tensor *lengths, const fi_tensor *table,
    const fi_tensor *offsets, const fi_tensor *requests, int32_t recent, int32_t ties, const fi_tensor *pages,
    const fi_tensor *positions);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_PAGES_H */
