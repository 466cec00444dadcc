/// Attention micro-kernels: the tiles of a flash-style online softmax.
///
/// A caller (the Swift driver) walks the keys of one request in tiles, resolves where each key lies through the block
/// table, and calls these in order: `pack_keys`, `scores`, `transform` (optional), `softmax`, `pack_values`, `values`.
/// Short queries (decode) use `stream_scores` and `stream_values` instead, which read the cache's rows in place.
/// Scores never exceed a tile, sums are float32, nothing is allocated and there is no state.
#pragma once

#include "fi_cpu.h"
#include "fi_expression.h"
#include <stdint.h>

/// How an element is stored. The 8-bit floats are OCP E4M3 (no infinity) and E5M2.
typedef enum fi_attn_type {
    FI_ATTN_F32 = 0,
    FI_ATTN_F16 = 1,
    FI_ATTN_BF16 = 2,
    FI_ATTN_E4M3 = 3,
    FI_ATTN_E5M2 = 4,
    FI_ATTN_INT8 = 5,
} fi_attn_type;

/// Rows somewhere in memory: row `i` starts `offsets[i]` bytes after `base` and holds contiguous elements of `type`.
typedef struct fi_attn_rows {
    const void *base;
    const int64_t *offsets;  ///< [count], bytes
    int32_t count;
    fi_attn_type type;
} fi_attn_rows;

/// One block of tokens of the cache with all their heads, read in place: head `h` of token `t` starts
/// `offsets[t] + h * head_stride` bytes after `base` and holds contiguous elements of `type`.
///
/// While a block is used, the block wanted next is prefetched a slice at a time in memory order. One thread reaches the
/// memory's bandwidth only this way: a demand stream jumping between tokens stalls, and bursts overrun the miss buffers.
typedef struct fi_attn_stream {
    const void *base;
    const int64_t *offsets;       ///< [count], bytes
    int64_t head_stride;          ///< bytes
    int32_t count, heads;
    fi_attn_type type;
    int32_t next_count;           ///< tokens to prefetch; 0: none
    const void *next_base;
    const int64_t *next_offsets;  ///< [next_count], bytes
    int64_t next_head_stride;     ///< bytes
    int32_t next_bytes;           ///< bytes of one head of one token
} fi_attn_stream;

/// Which columns of a tile each row sees: [first[r], last[r]), within [0, columns). NULL pointers mean every column.
/// An empty range is first == last.
typedef struct fi_attn_ranges {
    const int32_t *first;
    const int32_t *last;
} fi_attn_ranges;

/// Changes a tile of raw dot products into base-2 logits:
/// s <- log2(e) * (cap * tanh(scale * s / cap) + slope[r] * (distance[r] + column)), and -inf where a mask bit is 0.
typedef struct fi_attn_transform {
    float *scores;             ///< [rows][stride]
    int64_t stride;
    int32_t rows, columns;
    float scale;
    float cap;                 ///< 0: no cap, s <- log2(e) * scale * s
    const float *slopes;       ///< [rows] or NULL
    const int32_t *distance;   ///< [rows]: position of column 0 minus the row's own index; read only with slopes
    const uint8_t *mask;       ///< NULL: no mask
    const int64_t *mask_start; ///< [rows]: the element of `mask` that belongs to column 0
    bool mask_is_packed;       ///< true: one bit an element, least significant first; false: one byte, 0 = hidden
} fi_attn_transform;

/// One step of the online softmax over a tile.
typedef struct fi_attn_softmax {
    float *scores;        ///< [rows][stride]; overwritten at the edges of the ranges
    int64_t stride;
    void *weights;        ///< [rows][weight_stride] of the format's element; may be `scores` for float32
    int64_t weight_stride;
    int32_t rows, columns;
    fi_attn_ranges ranges;
    float scale;          ///< multiplies a score into a base-2 logit (1 after `transform`)
    float *row_max;       ///< [rows], base-2, -inf at the start
    float *row_sum;       ///< [rows], 0 at the start
    float *output;        ///< [rows][output_stride], rescaled when a row's maximum grows
    int64_t output_stride;
    int32_t width;        ///< columns of `output`
} fi_attn_softmax;

/// The kernels of one work format: float32, or bfloat16 pairs with float32 sums.
///
/// `q`, `p`, panels: elements of the format. Widths are multiples of 8. Strides count elements. `q` rows are zero-padded to a multiple of 32.
/// Buffers hold whole tiles: columns rounded up to 16 (zero weight there), dims rounded up to 16.
typedef struct fi_attn_format {
    fi_attn_type element;
    /// dst[i][0..<width] <- row i converted to the format, zero-padded to `stride`.
    void (*gather)(void *dst, int64_t stride, fi_attn_rows rows, int32_t width);
    /// Column panels of the keys; columns past `count` up to a multiple of 16 are zero. The float32 format takes every
    /// type, the bfloat16 format BF16 and the 8-bit types, which it holds exactly.
    void (*pack_keys)(void *panels, fi_attn_rows keys, int32_t width);
    /// Panels of 16 (or fewer) value dims over all keys of the tile, zero past `count` up to a multiple of 16.
    void (*pack_values)(void *panels, fi_attn_rows values, int32_t width);
    /// s = q . k for the panels that any row of a row block sees; other columns are left as they were.
    void (*scores)(float *s, int64_t stride, const void *q, int64_t q_stride, const void *panels, int32_t rows,
                   int32_t columns, int32_t width, fi_attn_ranges ranges);
    /// o += p . v over the columns that any row of a row block sees.
    void (*values)(float *o, int64_t stride, const void *p, int64_t p_stride, const void *panels, int32_t rows,
                   int32_t columns, int32_t width, fi_attn_ranges ranges);
    /// Masks by range, updates maximum and sum, writes weights (0 outside a range) and rescales the output.
    void (*softmax)(const fi_attn_softmax *step);
    /// For weights that are not the softmax's: writes the scores, which are weights already, as elements, 0 outside a range.
    /// Reads nothing of the step but scores, weights, their sizes and the ranges.
    void (*weigh)(const fi_attn_softmax *step);
    /// s[h * rows + r][t] = q[h * rows + r] . key(t, h), keys read in place. Same types as `pack_keys`.
    void (*stream_scores)(float *s, int64_t stride, const void *q, int64_t q_stride, int32_t rows,
                          const fi_attn_stream *keys, int32_t width);
    /// o[h * rows + r] += sum over t of p[h * rows + r][t] * value(t, h), values read in place.
    void (*stream_values)(float *o, int64_t stride, const void *p, int64_t p_stride, int32_t rows,
                          const fi_attn_stream *values, int32_t width);
} fi_attn_format;

/// Everything one instruction-set level offers.
typedef struct fi_attention_kernels {
    fi_isa isa;
    fi_attn_format f32;
    const fi_attn_format *bf16;  ///< NULL where the machine has no bfloat16 dot product
    void (*transform)(const fi_attn_transform *tile);
    /// Runs a program.
    void (*evaluate)(const fi_expr_program *program);
    /// Writes x[r][0..<width] * scale[r] as elements of `type` (F32, F16 or BF16, rounded to nearest even) at
    /// `base + offsets[r]`.
    void (*store)(void *base, const int64_t *offsets, fi_attn_type type, const float *x, int64_t stride,
                  const float *scale, int32_t rows, int32_t width);
    /// dst[0..<width] += weight * src[0..<width], float32: the merge of attention states.
    void (*accumulate)(float *dst, const float *src, float weight, int32_t width);
    /// Rotates rows in place. cosine, sine: [rows][rotary / 2]. Pairs are (2i, 2i+1) when interleaved, otherwise
    /// (i, i + rotary / 2).
    void (*rotate)(float *x, int64_t stride, const float *const *cosine, const float *const *sine, int32_t rows,
                   int32_t rotary, bool interleaved);
} fi_attention_kernels;

/// The kernels of `isa`, or NULL where this build has none. Does not ask the machine: see fi_isa_available.
const fi_attention_kernels *fi_attention_table(fi_isa isa);
