// The parameters of the kernels that bound and score pages.
#ifndef FLASHINFER_PAGE_PARAMS_H
#define FLASHINFER_PAGE_PARAMS_H

/// The least and the greatest keys of the pages that new keys have come to.
typedef struct {
    /// Element d of head h at row t of page p lies at p * key_page + t * key_token + h * key_head + d.
    unsigned long long keys;
    long long key_page, key_token, key_head;
    /// Side 0 is the least, 1 the greatest; strides in elements.
    unsigned long long bounds;
    long long bound_page, bound_side, bound_head;
    /// [requests, width], int32: pages.
    unsigned long long table;
    long long table_stride;
    /// [requests], int32: keys of each request, and how many of the last are new.
    unsigned long long lengths, appended;
    unsigned int width, page_size, page_count, maximum_appended;
    /// Pages of a request that there are blocks for, and blocks of threads that a page takes.
    unsigned int places, page_blocks;
    unsigned int heads, head_dim;
    int vectorised;
} fi_page_bounds_params;

/// Scores of pages by those bounds.
typedef struct {
    /// [requests * rows, heads * group, head_dim]; strides in elements.
    unsigned long long queries;
    long long query_token, query_head;
    /// As above.
    unsigned long long bounds;
    long long bound_page, bound_side, bound_head;
    /// [requests, width], int32: pages.
    unsigned long long table;
    long long table_stride;
    /// [requests], int32: pages of each request.
    unsigned long long lengths;
    /// [requests, heads, width], float32; of all heads together where `is_per_head` is 0. Strides in elements.
    unsigned long long scores;
    long long score_request, score_head;
    unsigned int width, page_count, heads, rows, group;
    /// Tiles of pages, one for each block at a time: of all requests, and of one; and warps of a block that share the heads: a power of two.
    unsigned int tiles, request_tiles, head_warps;
    int is_per_head, is_sum;
} fi_score_pages_params;

#endif
