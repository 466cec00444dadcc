/// The small operations of a decoder on rows: normalisation, rotary embedding, gated activations, softmax, gathers,
/// dtype conversion, cache scatter and sampling. One table of functions per instruction set.
///
/// Every function works on a half-open range of rows (or tokens), so that a caller can split a tensor over threads;
/// a row's result never depends on the range it was computed in. Accumulation is float32 or wider. Strides are in
/// elements and the last dimension is contiguous. No function allocates, keeps state or checks extents: callers do.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fi_cpu.h"

/// How an element is stored.
typedef enum fi_dtype {
    FI_DTYPE_F32 = 0,
    FI_DTYPE_F16 = 1,   ///< IEEE binary16
    FI_DTYPE_BF16 = 2,  ///< the upper half of binary32
    FI_DTYPE_E4M3 = 3,  ///< OCP FP8 e4m3 ("fn": no infinity, one NaN pattern per sign)
    FI_DTYPE_E5M2 = 4,  ///< OCP FP8 e5m2 (IEEE-like, with infinity)
    FI_DTYPE_I8 = 5,    ///< two's complement; conversions saturate
} fi_dtype;

/// A family of rows: row r starts at element (r / inner) * outer_stride + (r % inner) * inner_stride, where `inner` is
/// shared by all the tensors of one call (1 for a plain matrix, the number of heads for [tokens, heads, dim]).
typedef struct fi_rows {
    void *data;            ///< may be null where the argument says so
    int64_t outer_stride;  ///< elements
    int64_t inner_stride;  ///< elements; unread when inner = 1
    fi_dtype dtype;        ///< F32, F16 or BF16 unless the argument says otherwise
} fi_rows;

/// How an output of 8 bits is scaled before it is rounded; other outputs are not.
typedef struct fi_quantize {
    float factor;       ///< multiplies, where row_scales is null: one over the scale
    float *row_scales;  ///< written: max(greatest magnitude, 1e-10) / the dtype's largest; NaN where there is one
    int64_t group;      ///< 0: [rows]; else elements of a row that share a scale: [rows, width / group]
    int64_t scale_row, scale_group;  ///< elements from row to row, and from group to group
} fi_quantize;

/// out = s * rsqrt(mean(s^2) + epsilon) * (weight_offset + weight), with s = x + residual; residual becomes s.
typedef struct fi_rms_norm_args {
    fi_rows x;            ///< [rows, width]
    fi_rows residual;     ///< [rows, width], read and written; null data: no residual
    fi_rows out;          ///< [rows, width]; may be x; E4M3, E5M2 or I8 where it is quantised
    const void *weight;   ///< [width]
    fi_dtype weight_dtype;
    int64_t inner, width;
    float epsilon;
    float weight_offset;  ///< 0, or 1 for the Gemma form
    fi_quantize quantize;
} fi_rms_norm_args;

/// out = (s - mean(s)) * rsqrt(variance(s) + epsilon) * weight + bias, with s = x + residual; residual becomes s.
typedef struct fi_layer_norm_args {
    fi_rms_norm_args norm;  ///< all but weight_offset, which is not read
    const void *bias;       ///< [width], of weight_dtype
} fi_layer_norm_args;

/// Root-mean-square normalisation of each head before it turns.
typedef struct fi_head_norm {
    const void *weight;  ///< [head_dim]; null: no normalisation
    fi_dtype weight_dtype;
    float epsilon;
    float weight_offset;
} fi_head_norm;

/// The most elements of a head that is normalised.
#define FI_HEAD_NORM_LARGEST 1024

/// Rotary embedding of `heads` rows per token by a table of cosines and sines.
typedef struct fi_rope_args {
    fi_rows x;                ///< [tokens, heads, head_dim]: outer = token, inner = head
    fi_rows out;              ///< the same shape, any dtype; may be x
    const int64_t *slots;     ///< [tokens]: where head 0 of the token goes in out, in elements, negative: nowhere; null: by rows
    const float *scale;       ///< [heads]: multiplies before an element is rounded; null: 1
    const float *cos_sin;     ///< rows of rotary_dim/2 cosines, then rotary_dim/2 sines: one a token, or as `rows` says
    const int32_t *rows;      ///< [tokens]: which row of cos_sin is the token's; null: its own
    int64_t row_stride;       ///< elements from row to row
    int64_t heads, head_dim;
    int64_t rotary_dim;       ///< even, <= head_dim; elements from rotary_dim on are copied
    bool interleaved;         ///< pairs (2i, 2i+1); otherwise (i, i + rotary_dim/2)
    fi_head_norm norm;        ///< head_dim is then at most FI_HEAD_NORM_LARGEST
} fi_rope_args;

typedef enum fi_activation { FI_SILU = 0, FI_GELU_ERF = 1, FI_GELU_TANH = 2 } fi_activation;

/// out = activation(gate) * up.
typedef struct fi_gated_args {
    fi_rows gate, up, out;  ///< [rows, width]; out may be gate or up; E4M3, E5M2 or I8 where it is quantised
    int64_t inner, width;
    fi_activation activation;
    fi_quantize quantize;
} fi_gated_args;

/// What became of one row.
typedef enum fi_row_status {
    FI_ROW_OK = 0,
    FI_ROW_NAN = 1,       ///< the row holds a NaN
    FI_ROW_EMPTY = 2,     ///< every entry is -inf, or of probabilities 0
    FI_ROW_INFINITE = 3,  ///< the row holds +inf, so its distribution is undefined
    FI_ROW_NEGATIVE = 4,  ///< the row of probabilities holds a negative number
} fi_row_status;

/// out = softmax(x * scale), a row of a bad status being all zeros.
typedef struct fi_softmax_args {
    fi_rows x, out;        ///< [rows, width]; out may be x
    const float *scale;    ///< [rows], > 0: one over the temperature; null: 1
    uint8_t *status;       ///< [rows] of fi_row_status
    int64_t inner, width;
} fi_softmax_args;

/// The place of a row's greatest entry, the lowest place on ties; -1 where the status is not OK. +inf is an entry.
typedef struct fi_argmax_args {
    fi_rows x;         ///< [rows, width]
    int32_t *out;      ///< [rows]
    uint8_t *status;   ///< [rows] of fi_row_status
    int64_t inner, width;
} fi_argmax_args;

/// out[r] = log(softmax(x * scale)[ids[r]]) (natural logarithm); NaN where the status is not OK.
typedef struct fi_logprob_args {
    fi_rows x;             ///< [rows, width]
    const int32_t *ids;    ///< [rows], each in 0 ..< width
    const float *scale;    ///< [rows]; null: 1
    float *out;            ///< [rows]
    uint8_t *status;       ///< [rows] of fi_row_status
    int64_t inner, width;
} fi_logprob_args;

/// out = alpha * a + beta * b.
typedef struct fi_add_args {
    fi_rows a, b, out;  ///< [rows, width]; b null: out = alpha * a; out may be a or b
    int64_t inner, width;
    float alpha, beta;
} fi_add_args;

/// out = cast(x * scale), for any pair of dtypes. NaN stays NaN (0 for int8); finite overflow saturates in fp8 and int8.
typedef struct fi_convert_args {
    fi_rows x, out;  ///< [rows, width], any dtype
    int64_t inner, width;
    float scale;
} fi_convert_args;

/// out = x in 8 bits.
typedef struct fi_quantize_args {
    fi_rows x;    ///< [rows, width]
    fi_rows out;  ///< [rows, width], E4M3, E5M2 or I8
    int64_t inner, width;
    fi_quantize quantize;
} fi_quantize_args;

/// out[r] = table[ids[r]] * scale.
typedef struct fi_embedding_args {
    const void *table;     ///< [vocabulary, width], any dtype
    int64_t table_stride;  ///< elements
    fi_dtype table_dtype;
    const int32_t *ids;    ///< [rows], each in range
    fi_rows out;           ///< [rows, width]
    int64_t width;
    float scale;
} fi_embedding_args;

/// Scatter of new keys or values into a cache: destination[slot[t] + h * head_stride + d] = cast(x[t, h, d] * scale[h]).
typedef struct fi_scatter_args {
    fi_rows x;                  ///< [tokens, heads, width]: outer = token, inner = head
    void *destination;          ///< any dtype
    fi_dtype destination_dtype;
    const int64_t *slots;       ///< [tokens]: element offset of head 0 of the token; negative: skipped
    int64_t head_stride;        ///< elements, in the destination
    const float *scale;         ///< one over the cache's scale; null: 1
    int64_t scale_stride;       ///< 0: one scale for all heads; 1: [heads]
    int64_t heads, width;
} fi_scatter_args;

/// How one row is sampled. The caller validates it.
typedef struct fi_sample_row {
    double uniform;     ///< in (0, 1]
    float temperature;  ///< 0: greedy
    float top_p;        ///< in (0, 1]; 1: off
    float min_p;        ///< in [0, 1]; 0: off
    int32_t top_k;      ///< >= 1; <= 0: off
} fi_sample_row;

/// Draws one token per row by temperature, top-k, top-p and min-p.
typedef struct fi_sample_args {
    fi_rows x;                   ///< [rows, width] logits, or F32 probabilities
    const fi_sample_row *rows;   ///< [rows]
    int32_t *out;                ///< [rows]; -1 where the status is not OK
    uint8_t *status;             ///< [rows] of fi_row_status
    int64_t width;               ///< < 2^31
    bool joint;                  ///< top-p on the whole distribution rather than on what top-k left
    bool are_probabilities;
    void *scratch;               ///< fi_sample_scratch_size(width) bytes, 64-byte aligned, one per thread
} fi_sample_args;

/// out = x where top-k, top-p and min-p keep it; else -inf for logits, 0 for probabilities, the rest of which sum to 1.
typedef struct fi_filter_args {
    fi_rows x;                   ///< [rows, width] logits, or F32 probabilities
    fi_rows out;                 ///< [rows, width] of x's dtype; may be x
    const fi_sample_row *rows;   ///< [rows], or one for all; uniform unread
    bool has_one_row;            ///< one for all
    uint8_t *status;             ///< [rows] of fi_row_status
    int64_t width;               ///< < 2^31
    bool joint;
    bool are_probabilities;
    void *scratch;               ///< fi_sample_scratch_size(width) bytes, 64-byte aligned, one per thread
} fi_filter_args;

/// The k greatest entries of each row (value descending, place ascending, a NaN first), sorted so or in the order of places.
typedef struct fi_top_k_args {
    fi_rows x;         ///< [rows, width]
    fi_rows values;    ///< [rows, k] of x's dtype; F32 where they are logarithms
    int32_t *places;   ///< [rows, k]
    int64_t place_stride, width, k;
    bool sorted;
    float scale;       ///< > 0: values are log(softmax(x * scale)), NaN with places -1 where the status is not OK; 0: values are x
    uint8_t *status;   ///< [rows] of fi_row_status, written with logarithms; else null
    void *scratch;     ///< fi_top_k_scratch_size(width) bytes, 64-byte aligned, one per thread
} fi_top_k_args;

/// Which drafted tokens of each request stand, and one token drawn after them; see VerifyDraftsOperation.
typedef struct fi_verify_args {
    const float *target;             ///< [requests, nodes, width]
    int64_t target_request, target_node;  ///< strides in elements
    const float *draft;              ///< the same, one node fewer in a chain; null: none
    int64_t draft_request, draft_node;
    const int32_t *tokens;           ///< [requests, nodes]; of a chain [requests, nodes - 1], from node 1 on
    const int32_t *first_child, *next_sibling;  ///< [requests, nodes]; null: a chain
    const double *uniforms;          ///< [requests, nodes]: of the last draw, then of each node's test
    int32_t *output;                 ///< [requests, nodes]
    int32_t *output_nodes;           ///< [requests, nodes]; may be null
    int32_t *accepted;               ///< [requests]; may be null
    int32_t *emitted;                ///< [requests]
    uint8_t *status;                 ///< [requests] of fi_row_status
    int64_t nodes, width;            ///< nodes <= 256
    void *scratch;                   ///< fi_sample_scratch_size(width) bytes, 64-byte aligned, one per thread
} fi_verify_args;

/// One instruction set's kernels. Each runs rows (or tokens) first ..< last.
typedef struct fi_ops_kernels {
    fi_isa isa;
    void (*rms_norm)(const fi_rms_norm_args *args, int64_t first, int64_t last);
    void (*layer_norm)(const fi_layer_norm_args *args, int64_t first, int64_t last);
    void (*rope)(const fi_rope_args *args, int64_t first, int64_t last);
    void (*gated)(const fi_gated_args *args, int64_t first, int64_t last);
    void (*softmax)(const fi_softmax_args *args, int64_t first, int64_t last);
    void (*argmax)(const fi_argmax_args *args, int64_t first, int64_t last);
    void (*logprob)(const fi_logprob_args *args, int64_t first, int64_t last);
    void (*add)(const fi_add_args *args, int64_t first, int64_t last);
    void (*convert)(const fi_convert_args *args, int64_t first, int64_t last);
    void (*quantize)(const fi_quantize_args *args, int64_t first, int64_t last);
    void (*embedding)(const fi_embedding_args *args, int64_t first, int64_t last);
    void (*scatter)(const fi_scatter_args *args, int64_t first, int64_t last);
    void (*sample)(const fi_sample_args *args, int64_t first, int64_t last);
    void (*filter)(const fi_filter_args *args, int64_t first, int64_t last);
    void (*top_k)(const fi_top_k_args *args, int64_t first, int64_t last);
    void (*verify)(const fi_verify_args *args, int64_t first, int64_t last);
} fi_ops_kernels;

/// The kernels of `isa`, or of the nearest lower level that this build has. The caller checks fi_isa_available.
const fi_ops_kernels *fi_ops_table(fi_isa isa);

/// Bytes of scratch that sampling a row of `width` logits needs.
size_t fi_sample_scratch_size(int64_t width);
/// Bytes of scratch that the greatest entries of a row need.
size_t fi_top_k_scratch_size(int64_t width);

/// The table a rotary embedding needs: out[t, i] = cos(positions[t] * frequencies[i]) and, half a row on, the sine.
/// Angles, cosines and sines are computed in double and rounded once.
/// out is [tokens, 2 * pairs], frequencies [pairs], positions [tokens] with `position_stride` elements between.
void fi_rope_table(
    float *out, const int32_t *positions, int64_t tokens, const double *frequencies, int64_t pairs);

/// Bytes first ..< last of `count` flags (nonzero is 1) packed eight a byte, the first in the lowest bit or, `highest_first`, in the
/// highest. Bits past the last flag are 0.
void fi_ops_pack_bits(uint8_t *out, const uint8_t *flags, int64_t count, bool highest_first, int64_t first, int64_t last);
