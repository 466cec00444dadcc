/*
 * flashinfer_swift.h: attention, KV cache and sampling kernels for LLM inference, on NVIDIA GPUs and CPUs, for callers in C.
 *
 * Library: libflashinfer_swift.so. Depends on libc, libm, libstdc++ and libgcc_s only; CUDA is found at run time.
 *
 * Rules that hold for every function
 *   Status    Every function that can fail returns fi_status: FI_OK, or the kind of the error. fi_last_error_message() then says,
 *             for the calling thread, what was wrong: the argument, its value and what it must be. A call that fails because of
 *             its arguments has run and changed nothing.
 *   Tensors   `fi_tensor` is laid out as DLPack's DLTensor (versions 0.2 to 1.x); a `DLTensor *` can be passed as it is. Nothing
 *             is copied: data, shape and strides need to live as long as the call (on a GPU, data as long as the work). Strides
 *             are in elements; a NULL `strides` means row-major. Sizes are checked against each other; that the memory is as
 *             large as shape and strides say is the caller's word. "Last stride 1" below: elements of the innermost dimension
 *             lie next to each other. "Rows" are tensors of rank 1 to 3 [..., width] with last stride 1.
 *   Types     "Floating" below means float32, float16 or bfloat16. Index tensors are int32; an int64 tensor is an error that
 *             says so, never a misreading. "Cache types" are the floating ones, float8 e4m3fn, float8 e5m2, and int8.
 *   Devices   All tensors of a call lie on the call's device, but those marked "host or device": they are read on the host; where
 *             they are on the GPU the call copies them and WAITS for the stream, and it fails during a stream capture. Pinned and
 *             managed host memory counts as host memory.
 *   Streams   `stream` is the caller's CUstream / cudaStream_t as a pointer; NULL is the legacy default stream. Work is enqueued
 *             there and the call returns, unless noted. On the CPU `stream` is not looked at, and a call returns when its work
 *             is done. Before a stream is destroyed that was used here, call fi_device_forget_stream.
 *   Threads   Every function may be called from any thread at any time. Calls on one fi_attention take turns. Handles are
 *             destroyed once, when no other call uses them.
 *   Options   Structs of options begin with `struct_size`: set it to sizeof of the struct, and everything not wanted to 0 or NULL
 *             (= {0} in C, = {} in C++), which always means the default. A smaller size, of a caller built against an older
 *             header, means defaults for the rest; a size of 0, or above the library's, is FI_ABI_MISMATCH.
 *   LSE       Log-sum-exps are float32 and base 2 (log2 of the sum of 2^(score * log2 e)) unless asked for otherwise. A row that
 *             sees no key has output 0 and LSE -inf.
 *   Versions  Within a major version functions, fields at the ends of structs, and enumerators are added, never changed.
 */
#ifndef FLASHINFER_SWIFT_H
#define FLASHINFER_SWIFT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------------------------------------------------------- */

#define FI_VERSION_MAJOR 0
#define FI_VERSION_MINOR 1
#define FI_VERSION_PATCH 0
/* The version of this header as one number: major * 10000 + minor * 100 + patch. */
#define FI_VERSION (FI_VERSION_MAJOR * 10000 + FI_VERSION_MINOR * 100 + FI_VERSION_PATCH)

/* The version of the library, as FI_VERSION. A program works with a library whose major version is the header's and whose version
 * is not below the header's; while the major version is 0, the minor versions must be equal. */
uint32_t fi_version(void);

/* The version of the library as text, "0.1.0". Static memory. */
const char *fi_version_string(void);

/* ---- Errors -------------------------------------------------------------------------------------------------------------- */

typedef int32_t fi_status;

enum {
    FI_OK = 0,
    /* A tensor or scalar is wrong: type, shape, strides, device, or value. NULL where something is needed. */
    FI_INVALID_ARGUMENT = 1,
    /* A value of one request of a batch is wrong. */
    FI_INVALID_REQUEST = 2,
    /* An index pointer array decreases. */
    FI_INDPTR_NOT_MONOTONE = 3,
    /* A page id is outside the cache. */
    FI_PAGE_OUT_OF_RANGE = 4,
    /* A last-page length is outside 1 ... page size. */
    FI_LAST_PAGE_LENGTH_OUT_OF_RANGE = 5,
    /* Query heads are not a positive multiple of key/value heads. */
    FI_HEADS_NOT_DIVISIBLE = 6,
    /* Two lengths that must agree do not. */
    FI_LENGTH_MISMATCH = 7,
    /* A size does not fit in 64 bits, or in the 32 of a kernel's index. */
    FI_OVERFLOW = 8,
    /* The device has no kernel for a valid combination; the message names the nearest it has. */
    FI_UNSUPPORTED = 9,
    /* Run with something else than was planned, or not planned at all. */
    FI_PLAN_MISMATCH = 10,
    /* A plan exceeds the capacity it was bounded to. */
    FI_CAPACITY_EXCEEDED = 11,
    /* No memory. */
    FI_OUT_OF_MEMORY = 12,
    /* The driver or the operating system failed, or there is none. */
    FI_DEVICE_FAILURE = 13,
    /* A struct's struct_size is 0 or larger than this library knows. */
    FI_ABI_MISMATCH = 14
};

/* What was wrong in this thread's last call that failed; "" before the first. Valid until the next call of this thread that
 * fails. Calls that succeed do not change it. UTF-8. */
const char *fi_last_error_message(void);

/* The name of a status, "FI_INVALID_ARGUMENT"; "unknown" for others. Static memory. */
const char *fi_status_name(fi_status status);

/* ---- Tensors ------------------------------------------------------------------------------------------------------------- */

/* DLPack's DLDeviceType. Others are refused. */
enum {
    FI_CPU = 1,
    FI_CUDA = 2,
    FI_CUDA_HOST = 3,    /* pinned host memory: counts as FI_CPU */
    FI_CUDA_MANAGED = 13 /* counts as the device of the call */
};

/* DLPack's DLDevice. */
typedef struct fi_dl_device {
    int32_t device_type; /* FI_CPU, ... */
    int32_t device_id;   /* the GPU's ordinal */
} fi_dl_device;

/* DLPack's DLDataTypeCode. */
enum {
    FI_INT = 0,
    FI_UINT = 1,
    FI_FLOAT = 2,
    FI_BFLOAT = 4,
    FI_BOOL = 6,
    FI_FLOAT8_E4M3FN = 10,
    FI_FLOAT8_E5M2 = 12
};

/* DLPack's DLDataType: float32 is {FI_FLOAT, 32, 1}, bfloat16 {FI_BFLOAT, 16, 1}, e4m3 {FI_FLOAT8_E4M3FN, 8, 1}. Lanes are 1. */
typedef struct fi_data_type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} fi_data_type;

/* DLPack's DLTensor, field by field. At most five dimensions; no negative strides. Never changed through a const pointer's shape
 * or strides; outputs are written through `data`. */
typedef struct fi_tensor {
    void *data;
    fi_dl_device device;
    int32_t ndim;
    fi_data_type dtype;
    int64_t *shape;
    int64_t *strides; /* NULL: row-major */
    uint64_t byte_offset;
} fi_tensor;

/* The order of tokens and heads in keys and values. */
enum {
    FI_NHD = 0, /* pages [pages, page_size, heads, dim], ragged [tokens, heads, dim] */
    FI_HND = 1  /* pages [pages, heads, page_size, dim], ragged [heads, tokens, dim] */
};

/* ---- Devices ------------------------------------------------------------------------------------------------------------- */

/* The CPU with its threads, or one GPU with its loaded kernels. */
typedef struct fi_device fi_device;

typedef struct fi_device_options {
    uint64_t struct_size;
    int32_t device_type; /* FI_CPU (also 0) or FI_CUDA */
    int32_t device_id;   /* the GPU's ordinal */
    int32_t threads;     /* CPU: threads, the caller included; 0 for all processors this process may use */
    int32_t reserved;    /* 0 */
} fi_device_options;

/* What fi_device_get_info tells. */
typedef struct fi_device_info {
    uint64_t struct_size;
    int32_t device_type;
    int32_t device_id;
    int32_t processors;    /* threads, or streaming multiprocessors */
    int32_t reserved;
    uint64_t memory_bytes; /* in all; 0 where unknown */
} fi_device_info;

/* GPUs (FI_CUDA) that this process sees, 0 where there is no driver; 1 for FI_CPU. Fails for other types. */
fi_status fi_device_count(int32_t device_type, int32_t *count);

/* Makes a device. `options` NULL is the CPU with all processors. A GPU shares the primary context with everybody else in the
 * process (a framework, another device). Several devices of one GPU may exist, but kernels are loaded once a device: keep one.
 * Fails where there is no such GPU, its driver is too old (CUDA 12.0), its compute capability is below 8.0, or no kernels can be
 * had (no bundle and no NVRTC). */
fi_status fi_device_create(const fi_device_options *options, fi_device **device);

/* Frees a device; NULL is nothing. Every fi_attention of it must be destroyed before. Streams used must still exist or be
 * forgotten. Waits for the work enqueued. */
void fi_device_destroy(fi_device *device);

/* A name for people: "cpu (avx512-bf16, 4 threads)", "cuda:0 (NVIDIA H200)". Lives as long as the device. */
const char *fi_device_name(const fi_device *device);

/* Fills the first struct_size bytes of *info. */
fi_status fi_device_get_info(const fi_device *device, fi_device_info *info);

/* Waits for the work enqueued on a stream. Nothing to do on the CPU. */
fi_status fi_device_synchronize(fi_device *device, void *stream);

/* Drops what is kept for a stream (a few buffers), after waiting for its work. To be called before a stream is destroyed that was
 * used here; plans made on it stay usable on other streams. */
fi_status fi_device_forget_stream(fi_device *device, void *stream);

/* ---- RoPE parameters ----------------------------------------------------------------------------------------------------- */

/* How the frequencies are changed for contexts longer than those of training. */
enum {
    FI_ROPE_UNSCALED = 0,
    FI_ROPE_LINEAR = 1,  /* divided by `factor` (FlashInfer's rope_scale) */
    FI_ROPE_LLAMA3 = 2,  /* Llama 3.1's ramp by wavelength */
    FI_ROPE_PER_PAIR = 3 /* pair i divided by factors[i] */
};

/* Rotary position embedding: pair i of rotary_dim / 2 turns by position * theta^(-2i / rotary_dim), changed by `scaling`. */
typedef struct fi_rope_options {
    uint64_t struct_size;
    float theta;              /* 0: 10000 */
    int32_t rotary_dim;       /* leading elements of a head that turn, even; 0: all */
    int32_t interleave;       /* 0: pairs (i, i + rotary_dim / 2) (NeoX, Llama); 1: pairs (2i, 2i + 1) (GPT-J) */
    int32_t scaling;          /* FI_ROPE_... */
    float factor;             /* LINEAR, LLAMA3 (0: 8) */
    float low_freq_factor;    /* LLAMA3; 0: 1 */
    float high_freq_factor;   /* LLAMA3; 0: 4 */
    int32_t original_context; /* LLAMA3; 0: 8192 */
    const float *factors;     /* PER_PAIR: rotary_dim / 2 numbers of host memory, copied */
    uint64_t factor_count;    /* PER_PAIR: how many */
} fi_rope_options;

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
    fi_data_type q_dtype;          /* floating */
    fi_data_type kv_dtype;         /* a cache type; all 0: q_dtype */
    fi_data_type o_dtype;          /* floating; all 0: q_dtype */
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
} fi_attention_run_args;

/* Runs the plan on one layer's tensors. Allocates nothing; may be captured in a CUDA graph by the owner of `stream`, once the
 * kernels have been loaded by a run before (or they are loaded during the capture). Fails with FI_PLAN_MISMATCH where nothing is
 * planned. */
fi_status fi_attention_run(fi_attention *attention, void *stream, const fi_attention_run_args *args);

/* What a plan came to. */
typedef struct fi_attention_plan_info {
    uint64_t struct_size;
    int64_t queries;         /* query rows */
    int64_t requests;
    int64_t work_items;
    int64_t merge_items;     /* tiles whose keys were split */
    int64_t workspace_bytes; /* of the workspace allocated */
    int64_t mask_bytes;      /* that a custom mask must have; 0 without one */
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

/* ---- KV cache ------------------------------------------------------------------------------------------------------------ */

/* An append of new keys and values to a paged cache. Where the tokens go is said in exactly one of four ways. */
typedef struct fi_append_args {
    uint64_t struct_size;
    const fi_tensor *k;       /* [tokens, heads, head_dim_qk], floating, last stride 1 */
    const fi_tensor *v;       /* [tokens, heads, head_dim_vo], floating */
    const fi_tensor *k_cache; /* paged by the layout, a cache type; numbers are stored as nearest to value / scale, saturating */
    const fi_tensor *v_cache;
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

/* ---- Rows ---------------------------------------------------------------------------------------------------------------- */

/* out = in / sqrt(mean(in^2) + eps) * (weight_offset + weight); rows, floating; weight [width] contiguous, floating; out may be
 * in. weight_offset is 0, or 1 for Gemma. Accumulates in float32. */
fi_status fi_rmsnorm(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *weight, const fi_tensor *out, float eps,
    float weight_offset);

/* residual += in, then out = the norm of the (unrounded) sum; out may be in. All rows of one shape, floating. */
fi_status fi_fused_add_rmsnorm(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *residual, const fi_tensor *weight,
    const fi_tensor *out, float eps, float weight_offset);

/* How an output of 8 bits (float8 e4m3fn, float8 e5m2, int8) is scaled: a stored number stands for number * scale, and is what
 * value * (1 / scale) is nearest to, in float32, ties to even, saturating. NaN stays NaN, but is 0 in int8. One of three ways: */
typedef struct fi_quantize_options {
    uint64_t struct_size;
    /* 1. One scale, above 0; 0: 1. */
    float scale;
    int32_t reserved; /* 0 */
    /* 2. float32 [1] on the call's device, above 0: read when the operation runs, so nothing waits and a captured graph reads it at
     *    each replay. On a GPU its number is not checked. */
    const fi_tensor *scale_tensor;
    /* 3. float32 [rows], contiguous, on the call's device, written: each row's greatest magnitude, at least 1e-10, divided by the
     *    type's (448, 57344, 127). Of a row with a NaN the scale is NaN. */
    const fi_tensor *row_scales;
} fi_quantize_options;

/* fi_rmsnorm with an output of 8 bits, rounded once: out rows of in's shape, memory of their own. `quantize` NULL: scale 1. */
fi_status fi_rmsnorm_quantize(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *weight, const fi_tensor *out, float eps,
    float weight_offset, const fi_quantize_options *quantize);

/* fi_fused_add_rmsnorm with an output of 8 bits: residual += in, then out = the norm of the (unrounded) sum, quantised. */
fi_status fi_fused_add_rmsnorm_quantize(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *residual, const fi_tensor *weight,
    const fi_tensor *out, float eps, float weight_offset, const fi_quantize_options *quantize);

/* The function of a gate. */
enum {
    FI_ACTIVATION_SILU = 0,
    FI_ACTIVATION_GELU = 1,     /* exact, by erf */
    FI_ACTIVATION_GELU_TANH = 2 /* the tanh form */
};

/* out = activation(in[..., :width]) * in[..., width:]; in rows [..., 2 * width], out rows [..., width], floating. */
fi_status fi_act_and_mul(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *in, const fi_tensor *out);

/* out = activation(gate) * up, three rows of one shape; out may be either. */
fi_status fi_gated_activation(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *gate, const fi_tensor *up,
    const fi_tensor *out);

/* fi_act_and_mul and fi_gated_activation with an output of 8 bits: the float32 product is rounded once. out has memory of its own;
 * `quantize` NULL: scale 1. */
fi_status fi_act_and_mul_quantize(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *in, const fi_tensor *out,
    const fi_quantize_options *quantize);
fi_status fi_gated_activation_quantize(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *gate, const fi_tensor *up,
    const fi_tensor *out, const fi_quantize_options *quantize);

/* Rotary position embedding of q [tokens, heads, dim] and k [tokens, kv_heads, dim] (NULL: q only), floating, last stride 1;
 * positions [tokens] int32, contiguous, 0 or more. q_out and k_out NULL: in place. `options` NULL: defaults. The first use of
 * options with a head dimension copies a table to a GPU and so cannot be in a capture. */
fi_status fi_rope(
    fi_device *device, void *stream, const fi_tensor *q, const fi_tensor *k, const fi_tensor *positions,
    const fi_tensor *q_out, const fi_tensor *k_out, const fi_rope_options *options);

/* positions[indptr[b] + i] = offsets[b] + i: indptr [batch + 1], offsets [batch] int32, host or device; positions [indptr[batch]]
 * int32, written on host or device. */
fi_status fi_rope_positions(
    fi_device *device, void *stream, const fi_tensor *indptr, const fi_tensor *offsets, const fi_tensor *positions);

/* out = alpha * a + beta * b, floating rows of one shape; b NULL: out = alpha * a. out may be a or b. */
fi_status fi_add(
    fi_device *device, void *stream, const fi_tensor *a, const fi_tensor *b, const fi_tensor *out, float alpha,
    float beta);

/* out = round(in * scale), to nearest, ties to even: rows of any cache types, one shape. Quantises with scale = 1 / s, reads back
 * with s. float8 and int8 saturate; NaN becomes 0 in int8. scale 0 is zeros, not a default. */
fi_status fi_convert(fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *out, float scale);

/* out[i] = table[ids[i]] * scale: table [vocabulary, width] of a cache type, ids [tokens] int32, out [tokens, width] floating. An
 * id outside the table is an error on the CPU and a row of NaN on a GPU. */
fi_status fi_embedding(
    fi_device *device, void *stream, const fi_tensor *table, const fi_tensor *ids, const fi_tensor *out, float scale);

/* ---- Logits and sampling ------------------------------------------------------------------------------------------------- */

/* What became of a row, one byte each in `status` tensors: uint8 [rows], contiguous. Where a status tensor may be NULL, the
 * statuses are not kept. */
enum {
    FI_ROW_STATUS_OK = 0,
    FI_ROW_STATUS_NAN = 1,     /* the row holds a NaN */
    FI_ROW_STATUS_EMPTY = 2,   /* every entry is -inf */
    FI_ROW_STATUS_INFINITE = 3 /* the row holds +inf, so its distribution is undefined */
};

/* out = softmax(in / temperature), rows of one shape, floating; out may be in. temperatures: float32 [1] or [rows], host or
 * device, above 0; NULL: 1. A row without a distribution becomes zeros. status may be NULL. */
fi_status fi_softmax(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *temperatures, const fi_tensor *out,
    const fi_tensor *status);

/* The place of the greatest entry of each row (the lowest of equal ones): in rows floating, out int32 [rows]. A row with a NaN or
 * of -inf alone gives -1. status may be NULL. */
fi_status fi_argmax(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *out, const fi_tensor *status);

/* out[r] = ln softmax(in[r] / temperature)[ids[r]]: in rows floating, ids int32 [rows], out float32 [rows]; temperatures as for
 * fi_softmax; status may be NULL. */
fi_status fi_log_probability(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *ids, const fi_tensor *temperatures,
    const fi_tensor *out, const fi_tensor *status);

/* How a row is sampled. Not a struct of options: its size is fixed, so that arrays of it can be passed. */
typedef struct fi_sampling_parameters {
    float temperature; /* divides the logits; 0: the greatest logit */
    int32_t top_k;     /* tokens kept, of equal logits the lowest ids; 0: all */
    float top_p;       /* tokens kept whose strictly likelier ones have less than this mass; above 0, 1: all */
    float min_p;       /* least probability relative to the greatest; 0: all */
    uint64_t seed;     /* of the request */
    uint64_t step;     /* which draw of the request: another number for each token it samples */
} fi_sampling_parameters;

/* Of what top_p is a share. */
enum {
    FI_TOP_K_FIRST = 0, /* of what top-k left */
    FI_JOINT = 1        /* of the whole distribution */
};

/* One token for each row of logits [rows, vocabulary], floating, last stride 1; tokens int32 [rows]. A draw depends on the row's
 * logits, parameters, seed and step alone, not on its place or its neighbours.
 *   parameters       host memory, copied
 *   parameter_count  the number of rows, or 1 for all alike: then row r draws with seed + r * 0x9E3779B97F4A7C15 (mod 2^64)
 * A row with a NaN, of -inf alone, or (temperature above 0) with +inf gives -1. status may be NULL. Not in a capture. */
fi_status fi_sample(
    fi_device *device, void *stream, const fi_tensor *logits, const fi_sampling_parameters *parameters,
    int64_t parameter_count, int32_t filter_order, const fi_tensor *tokens, const fi_tensor *status);

/* ---- Bits ---------------------------------------------------------------------------------------------------------------- */

/* Packs x [elements] (bool or uint8, nonzero = 1; contiguous; HOST memory) into out uint8 [ceil(elements / 8)], host memory:
 * element n is bit n % 8 of byte n / 8, counted from the lowest (big_endian 0, what masks need) or the highest (1). */
fi_status fi_packbits(const fi_tensor *x, int32_t big_endian, const fi_tensor *out);

/* The same segment by segment, each padded to a byte: indptr int32 [segments + 1] in elements; out_indptr int32 [segments + 1] is
 * written, in bytes; out uint8 [out_indptr[segments] or more]. Host memory. NULL out: out_indptr only. */
fi_status fi_segment_packbits(
    const fi_tensor *x, const fi_tensor *indptr, int32_t big_endian, const fi_tensor *out, const fi_tensor *out_indptr);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_H */
