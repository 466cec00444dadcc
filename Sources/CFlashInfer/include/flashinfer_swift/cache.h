/* The KV cache: appends, slots, copies of pages. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_CACHE_H
#define FLASHINFER_SWIFT_CACHE_H

#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- KV cache ------------------------------------------------------------------------------------------------------------ */

/* An append of new keys and values to a paged cache. Where the tokens go is said in exactly one of four ways. */
typedef struct fi_append_args {
    uint64_t struct_size;
    const fi_tensor *k;       /* [tokens, heads, head_dim_qk], floating, last stride 1 */
    const fi_tensor *v;       /* [tokens, heads, head_dim_vo], floating */
    const fi_tensor *k_cache; /* paged by the layout, a cache type; numbers are stored as nearest to value / scale, saturating */
    const fi_tensor *v_cache;  /* latent attention: k [tokens, ckv_dim], v [tokens, kpe_dim], caches [pages, page_size, ..._dim] */
    const fi_tensor *kv_cache; /* or, with k_cache and v_cache NULL, combined [pages, 2, ...] */
    int32_t kv_layout;
    int32_t reserved;
    float k_scale;            /* 0: 1 */
    float v_scale;            /* 0: 1 */
    const fi_tensor *k_scales; /* [heads], float32, besides k_scale; or NULL */
    const fi_tensor *v_scales;
    /* The page table (first two ways): int32, host or device; lengths count the appended tokens. */
    const fi_tensor *kv_indptr;     /* [requests + 1] */
    const fi_tensor *kv_indices;
    const fi_tensor *last_page_len; /* [requests] */
    /* 1. Token i is key positions[i] of request batch_indices[i] (-1: not stored): int32 [tokens], host or device. */
    const fi_tensor *batch_indices;
    const fi_tensor *positions;
    /* 2. Tokens append_indptr[r] ... append_indptr[r + 1] are the last keys of request r: int32 [requests + 1], host or device. */
    const fi_tensor *append_indptr;
    /* 3. page * page_size + row, negative: not stored: int32 or int64 [tokens], host or device. */
    const fi_tensor *slot_mapping;
    /* 4. int32 [2, tokens], contiguous, on the device: page (-1: not stored), then row. Read when the append runs, so a captured
     *    graph appends wherever it says at each replay. On a GPU tokens outside the cache are not stored, and two tokens must not
     *    share a slot. */
    const fi_tensor *slot_table;
} fi_append_args;

/* Appends. Ways 1 to 3 with tensors of a GPU wait for the stream; way 4 never waits. */
fi_status fi_append_paged_kv(fi_device *device, void *stream, const fi_append_args *args);

/* Rotary position embedding and an append in one pass: fi_rope of q and of the appended k, then fi_append_paged_kv, with float32
 * between them, so that every number is rounded once, to the type that it is stored in. append->k and append->v are not changed.
 *   q          [tokens, num_qo_heads, head_dim], floating, last stride 1; append->k and append->v have its type
 *   q_out      q's shape, a cache type; NULL or q itself: in place. float8 and int8 saturate
 *   q_scale    a number of a float8 or int8 q_out stands for number * q_scale; 0: 1, which it is for other types
 *   positions  [tokens] int32, contiguous, 0 or more: what q and k turn by. append->positions say where way 1 stores, no more
 *   append     as for fi_append_paged_kv. A ragged cache [rows, heads, head_dim] is one of pages of 1: [rows, 1, heads, head_dim]
 *   rope       NULL: defaults; the first use with a head dimension as for fi_rope
 * A token that is not stored turns its q. Waits as fi_append_paged_kv does. Only q and q_out may be the same memory. */
fi_status fi_rope_append(
    fi_device *device, void *stream, const fi_tensor *q, const fi_tensor *q_out, float q_scale,
    const fi_tensor *positions, const fi_append_args *append, const fi_rope_options *rope);

/* The request and position of each appended token: token i of request r has position seq_lens[r] - appended + i.
 *   append_indptr [requests + 1], seq_lens [requests] (after the append): int32, host or device
 *   batch_indices, positions [count], int32, contiguous, written on host or device; entries past the appended get -1 and 0 */
fi_status fi_batch_indices_positions(
    fi_device *device, void *stream, const fi_tensor *append_indptr, const fi_tensor *seq_lens,
    const fi_tensor *batch_indices, const fi_tensor *positions);

/* Keys of each request: (pages - 1) * page_size + last_page_len, 0 without pages. kv_indptr [requests + 1], last_page_len
 * [requests] int32, host or device; seq_lens [requests] int32 is written, on host or device. */
fi_status fi_seq_lens(
    fi_device *device, void *stream, const fi_tensor *kv_indptr, const fi_tensor *last_page_len, int64_t page_size,
    const fi_tensor *seq_lens);

/* Makes slot_table (way 4) from a page table and each token's request and position: int32, host or device; slot_table int32
 * [2, tokens], on host or device. */
fi_status fi_slot_table(
    fi_device *device, void *stream, const fi_tensor *kv_indptr, const fi_tensor *kv_indices,
    const fi_tensor *last_page_len, int64_t page_size, const fi_tensor *batch_indices, const fi_tensor *positions,
    const fi_tensor *slot_table);

/* Copies whole pages, keys and values, all as if at once. Caches as in fi_append_args (k_cache and v_cache, or kv_cache);
 * sources and destinations int32 [copies], host or device; each destination at most once. */
fi_status fi_copy_pages(
    fi_device *device, void *stream, const fi_tensor *k_cache, const fi_tensor *v_cache, const fi_tensor *kv_cache,
    int32_t kv_layout, const fi_tensor *sources, const fi_tensor *destinations);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_CACHE_H */
