/* Attention: plan and run, and merges of states. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_ATTENTION_H
#define FLASHINFER_SWIFT_ATTENTION_H

#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Attention ----------------------------------------------------------------------------------------------------------- */

/* Which keys a query sees, before the window. */
enum {
    FI_MASK_NONE = 0,
    FI_MASK_CAUSAL = 1,       /* key j <= i + kv_len - q_len: queries are aligned to the end of the keys */
    FI_MASK_CUSTOM = 2,       /* one byte (uint8 or bool) an element, nonzero = seen; replaces causal, window still holds */
    FI_MASK_CUSTOM_PACKED = 3 /* eight elements a byte, lowest bit first, each request padded to a whole byte */
};

/* How positions enter the scores. */
enum {
    FI_POSITION_NONE = 0,
    FI_POSITION_ROPE = 1, /* queries and (pre-RoPE) keys turn as they are loaded; query i has position kv_len - q_len + i */
    FI_POSITION_ALIBI = 2 /* adds slope[head] * (j - i), i the query's row in its request */
};

/* How the keys of a request may be split among processors. */
enum {
    FI_SPLIT_BALANCED = 0, /* where it balances best */
    FI_SPLIT_FIXED = 1,    /* every split_size keys: a request's result is the same, bit for bit, next to any neighbours */
    FI_SPLIT_NONE = 2      /* not at all: batch-invariant too */
};

/* What a planned batch of attention computes. */
typedef struct fi_attention_options {
    uint64_t struct_size;
    int32_t num_qo_heads;      /* a multiple of num_kv_heads; query head h uses kv head h * num_kv_heads / num_qo_heads */
    int32_t num_kv_heads;
    int32_t head_dim_qk;
    int32_t head_dim_vo;       /* 0: head_dim_qk */
    fi_data_type q_dtype;          /* floating, or float8 e4m3 */
    fi_data_type kv_dtype;         /* a cache type; all 0: q_dtype */
    fi_data_type o_dtype;          /* floating; all 0: q_dtype, or bfloat16 where that is float8 */
    int32_t kv_layout;         /* FI_NHD or FI_HND */
    int32_t mask_mode;         /* FI_MASK_... */
    int32_t window;            /* keys that a query sees to its left and its own; 0: no window. FlashInfer's window_left + 1 */
    float logits_soft_cap;     /* scores become cap * tanh(score / cap); 0: no cap. Not with ALiBi */
    float sm_scale;            /* multiplies q . k; 0: 1 / sqrt(head_dim_qk) */
    int32_t position_encoding; /* FI_POSITION_... */
    int32_t has_sinks;         /* 1: run gives a sink logit for each query head */
    const fi_rope_options *rope; /* for FI_POSITION_ROPE; NULL: defaults. Copied */
    int32_t split_mode;        /* FI_SPLIT_... */
    int32_t split_size;        /* FI_SPLIT_FIXED: keys, a multiple of the kernels' granularity (128 always is); 0: 2048 */
    /* Bounds on the batches to come, so that planning again never allocates and a captured graph stays valid. All 0: no bounds,
     * the workspace grows as needed. Else max_requests, max_queries and max_pages are needed. */
    int64_t max_requests;
    int64_t max_queries;         /* query rows of a batch, all requests together */
    int64_t max_request_queries; /* query rows of one request; 1 for decode, 0: max_queries */
    int64_t max_keys;            /* keys of one request; needed with FI_SPLIT_FIXED only */
    int64_t max_pages;           /* page ids of a batch's table, all requests together; requests for ragged batches */
    /* An attention variant in the JSON form that the Swift package documents (AttentionVariant.json), NUL-terminated; NULL: none. It
     * says all but rope: mask_mode, window, logits_soft_cap, sm_scale and has_sinks are then 0, and position_encoding is not
     * FI_POSITION_ALIBI. Copied. */
    const char *variant;
    int64_t max_levels;          /* levels of a cascade, whose requests max_requests and max_pages count together; 0: 1 */
    /* Multi-head latent attention (DeepSeek) with absorbed projections: elements at the end of a key that are no part of its value,
     * which is the key's first head_dim_vo. Then num_kv_heads is 1, head_dim_qk is head_dim_vo + latent_rope_dim, sm_scale is given,
     * and plans and runs are fi_mla_plan and fi_mla_run. 0: keys and values of their own. */
    int32_t latent_rope_dim;
    int32_t reserved; /* 0 */
} fi_attention_options;

/* A batch of attention: planned once a step, run once a layer. Owns a workspace on its device. */
typedef struct fi_attention fi_attention;

/* Makes an attention with these options; no plan yet. Keeps no pointer of `options`. The device must outlive it. */
fi_status fi_attention_create(fi_device *device, const fi_attention_options *options, fi_attention **attention);

/* Frees it; NULL is nothing. Its memory is freed in order on the stream it was last planned on: work on other streams that uses
 * it, captured graphs included, must have ended. */
void fi_attention_destroy(fi_attention *attention);

/* Gives other options; the plan is dropped, the workspace kept. Plan again before the next run. */
fi_status fi_attention_configure(fi_attention *attention, const fi_attention_options *options);

/* Plans over a paged cache. All index tensors int32, contiguous, host or device; NULL only where said. Keeps no pointer.
 *   qo_indptr      [requests + 1], running sum of query rows; NULL: one query row a request (decode)
 *   kv_indptr      [requests + 1], where each request's page ids start in kv_indices
 *   kv_indices     [kv_indptr[requests] or more], page ids
 *   last_page_len  [requests], keys in the last page, 1 ... page_size (0 allowed without pages)
 *   page_size      keys per page, 1 or more
 *   page_count     pages of the cache, each id below it; 0: not known yet, run checks against the largest id
 * The plan is put on the device in order on `stream`; run it there, or on a stream that waits for it. A graph captured from runs
 * of this attention uses the new plan from its next replay, where options and capacity are those of the capture. */
fi_status fi_attention_plan_paged(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_indptr,
    const fi_tensor *kv_indices, const fi_tensor *last_page_len, int64_t page_size, int64_t page_count);

/* The same from a dense table: block_tables [requests, max_blocks] (any row stride), seq_lens [requests] keys, both int32, host or
 * device. Entries past a request's length are not looked at. */
fi_status fi_attention_plan_block_tables(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *block_tables,
    const fi_tensor *seq_lens, int64_t page_size, int64_t page_count);

/* Plans over pages that are chosen on the device (fi_select_pages), k of each request at most, its last page among them; run with
 * page_indices. Masks none and causal, soft caps and sinks: positions of chosen pages are not known; see the next for others.
 *   kv_len  [requests], int32, host or device: keys of each whole sequence. A request of n pages is planned with min(n, k) of them */
fi_status fi_attention_plan_selected_pages(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_len, int64_t k,
    int64_t page_size, int64_t page_count);

/* What selected pages are planned with. */
typedef struct fi_selected_pages_options {
    uint64_t struct_size;
    int32_t has_positions; /* 1: runs give page_positions; keys then stand at place * page_size + row, and queries at the end of kv_len, for
                            * windows, ALiBi, RoPE in attention, and a variant. Not with custom masks */
    int32_t per_head;      /* 1: each kv head has a table: page_indices, and page_positions, are [requests, num_kv_heads, k] */
} fi_selected_pages_options;

/* The same with options; NULL: none. */
fi_status fi_attention_plan_selected_pages_with_options(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_len, int64_t k,
    int64_t page_size, int64_t page_count, const fi_selected_pages_options *options);

/* Plans over ragged keys and values, request after request: both [requests + 1], int32, host or device. */
fi_status fi_attention_plan_ragged(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_indptr);

/* Plans one request: qo_len query rows over kv_len keys that lie in one tensor. */
fi_status fi_attention_plan_single(fi_attention *attention, void *stream, int64_t qo_len, int64_t kv_len);

/* Plans a block-sparse (BSR) attention matrix of `rows` queries and `columns` keys (a multiple of column_block) in blocks of
 * row_block x column_block: indptr [ceil(rows / row_block) + 1], indices the block columns. Each block row is a request with the
 * keys of its blocks; masks (causal, window) see a key's column in the whole matrix. Keys and values are then given to run as
 * [columns, heads, dim] or [columns / column_block, column_block, heads, dim] (FI_NHD; FI_HND accordingly). A custom mask has,
 * block row after block row, [rows of the block row, keys of its blocks] elements. */
fi_status fi_attention_plan_block_sparse(
    fi_attention *attention, void *stream, int64_t rows, int64_t columns, int64_t row_block, int64_t column_block,
    const fi_tensor *indptr, const fi_tensor *indices);

/* A level of a cascade: groups of neighbouring query rows with pages that all of their rows see. As of fi_attention_plan_paged. */
typedef struct fi_cascade_level {
    const fi_tensor *qo_indptr;
    const fi_tensor *kv_indptr;
    const fi_tensor *kv_indices;
    const fi_tensor *last_page_len;
} fi_cascade_level;

/* Plans several levels of requests over the same query rows and the same paged cache: shared prefixes, whose keys are read once for all
 * rows of a group, and merged with what follows them in the same launches. The last level's requests are the sequences' ends: the mask
 * is theirs. The keys of all other levels are seen by all rows of the group, so they must come before the first query of each. Masks
 * none and causal, soft caps and sinks only: positions have no meaning across levels.
 *   levels       [level_count], the most shared first, each over the same number of rows in all. Copied
 *   page_size, page_count   as of fi_attention_plan_paged */
fi_status fi_attention_plan_cascade(
    fi_attention *attention, void *stream, const fi_cascade_level *levels, uint64_t level_count, int64_t page_size,
    int64_t page_count);

/* fi_attention_plan_paged, with shared prefixes found in the page table: where neighbouring requests begin with the same pages and the
 * device's costs say that it pays, these are read once, in at most max_levels levels (0: 4); else the batch is planned as it is. With
 * bounds (max_requests ...) the options' max_levels holds. */
fi_status fi_attention_plan_shared_prefixes(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_indptr,
    const fi_tensor *kv_indices, const fi_tensor *last_page_len, int64_t page_size, int64_t page_count,
    int64_t max_levels);

/* A tensor that a variant reads, by the name of its parameter. */
typedef struct fi_parameter {
    const char *name;
    const fi_tensor *tensor;
} fi_parameter;

/* The tensors of one run. */
typedef struct fi_attention_run_args {
    uint64_t struct_size;
    const fi_tensor *q;        /* [queries, num_qo_heads, head_dim_qk], q_dtype, last stride 1 */
    /* Keys and values by the layout; any strides but last stride 1; kv_dtype. Paged: rank 4. Ragged, single: rank 3. */
    const fi_tensor *k;
    const fi_tensor *v;
    /* Or, with k and v NULL, a combined paged cache [pages, 2, page_size, heads, dim] (FI_HND: heads before page_size). */
    const fi_tensor *kv;
    const fi_tensor *out;      /* [queries, num_qo_heads, head_dim_vo], o_dtype, last stride 1 */
    const fi_tensor *lse;      /* [queries, num_qo_heads], float32; NULL: not wanted */
    const fi_tensor *mask;     /* custom masks: uint8 (FI_MASK_CUSTOM: or bool) vector, contiguous, request after request */
    const fi_tensor *alibi_slopes; /* [num_qo_heads], float32; NULL: ALiBi's own */
    const fi_tensor *sinks;    /* [num_qo_heads], float32, natural logits; exactly where has_sinks */
    const fi_tensor *k_scales; /* [num_kv_heads], float32: multiplies the keys of each head, besides k_scale; or NULL */
    const fi_tensor *v_scales; /* [num_kv_heads], float32; or NULL */
    float q_scale;             /* multiplies all queries; 0: 1 */
    float k_scale;             /* multiplies all keys; 0: 1 */
    float v_scale;             /* multiplies all values; 0: 1 */
    float o_scale;             /* multiplies the output; 0: 1 */
    float sm_scale;            /* instead of the options' for this run; 0: the options' */
    int32_t lse_natural;       /* 1: LSE in natural logarithm (one small launch more) */
    const fi_parameter *parameters; /* [parameter_count], all that the variant declares; NULL: none */
    uint64_t parameter_count;
    const fi_tensor *q_scales; /* [num_qo_heads], float32: multiplies the queries of each head, besides q_scale; or NULL */
    /* int32, contiguous, on the device: page ids in place of those that were planned, as many or more; NULL: those planned. Read when
     * this runs, and each time that a graph of it is replayed. [requests, k] of fi_select_pages after fi_attention_plan_selected_pages.
     * Without page_positions not with windows, ALiBi, RoPE in attention, or a variant; of block-sparse matrices only masks are refused. On
     * a GPU ids are not checked. */
    const fi_tensor *page_indices;
    /* As page_indices: the place of each page in its sequence, ascending to the sequence's last; exactly where planned with has_positions.
     * On a GPU not checked. */
    const fi_tensor *page_positions;
} fi_attention_run_args;

/* Runs the plan on one layer's tensors. Allocates nothing; may be captured in a CUDA graph by the owner of `stream`, once the
 * kernels have been loaded by a run before (or they are loaded during the capture). Fails with FI_PLAN_MISMATCH where nothing is
 * planned. */
fi_status fi_attention_run(fi_attention *attention, void *stream, const fi_attention_run_args *args);

/* Plans latent attention over a paged cache, as fi_attention_plan_paged but for
 *   kv_len  [requests], int32, host or device: keys of each request, of which its pages may hold more. */
fi_status fi_mla_plan(
    fi_attention *attention, void *stream, const fi_tensor *qo_indptr, const fi_tensor *kv_indptr,
    const fi_tensor *kv_indices, const fi_tensor *kv_len, int64_t page_size, int64_t page_count);

/* The tensors of one run of latent attention; last strides 1. */
typedef struct fi_mla_run_args {
    uint64_t struct_size;
    const fi_tensor *q_nope;   /* [queries, num_qo_heads, head_dim_vo], q_dtype */
    const fi_tensor *q_pe;     /* [queries, num_qo_heads, latent_rope_dim], q_dtype */
    const fi_tensor *ckv;      /* [pages, page_size, head_dim_vo], kv_dtype: keys and values */
    const fi_tensor *kpe;      /* [pages, page_size, latent_rope_dim], kv_dtype: the rest of the keys */
    const fi_tensor *out;      /* [queries, num_qo_heads, head_dim_vo], o_dtype */
    const fi_tensor *lse;      /* [queries, num_qo_heads], float32; NULL: not wanted */
    float ckv_scale;           /* multiplies ckv, above 0; 0: 1 */
    float kpe_scale;           /* multiplies kpe, above 0; 0: 1 */
    int32_t lse_natural;       /* 1: LSE in natural logarithm (one small launch more) */
    int32_t reserved;          /* 0 */
} fi_mla_run_args;

/* Runs a plan of fi_mla_plan on one layer's tensors; as fi_attention_run. */
fi_status fi_mla_run(fi_attention *attention, void *stream, const fi_mla_run_args *args);

/* What a plan came to. */
typedef struct fi_attention_plan_info {
    uint64_t struct_size;
    int64_t queries;         /* query rows */
    int64_t requests;
    int64_t work_items;
    int64_t merge_items;     /* tiles whose keys were split */
    int64_t workspace_bytes; /* of the workspace allocated */
    int64_t mask_bytes;      /* that a custom mask must have; 0 without one */
    int64_t levels;          /* of the requests; 1 where nothing is shared */
} fi_attention_plan_info;

/* Fills the first struct_size bytes of *info about the plan in force. */
fi_status fi_attention_get_plan_info(const fi_attention *attention, fi_attention_plan_info *info);

/* Merges two states of attention over disjoint keys: values [rows, heads, dim] floating of one type, LSEs [rows, heads] float32
 * base 2. out has the values' shape, floating; lse_out like lse_a, or NULL. out may be v_a or v_b, lse_out lse_a or lse_b. */
fi_status fi_merge_state(
    fi_device *device, void *stream, const fi_tensor *v_a, const fi_tensor *lse_a, const fi_tensor *v_b,
    const fi_tensor *lse_b, const fi_tensor *out, const fi_tensor *lse_out);

/* Merges (v_other, lse_other) into (v, lse). `mask` [rows], uint8 or bool, host or device: rows with 0 stay as they are; NULL: all
 * rows. */
fi_status fi_merge_state_in_place(
    fi_device *device, void *stream, const fi_tensor *v, const fi_tensor *lse, const fi_tensor *v_other,
    const fi_tensor *lse_other, const fi_tensor *mask);

/* Merges many: v [rows, states, heads, dim] floating, any strides but last stride 1; lse [rows, states, heads] float32;
 * out [rows, heads, dim] floating; lse_out [rows, heads] float32 or NULL. */
fi_status fi_merge_states(
    fi_device *device, void *stream, const fi_tensor *v, const fi_tensor *lse, const fi_tensor *out,
    const fi_tensor *lse_out);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_ATTENTION_H */
