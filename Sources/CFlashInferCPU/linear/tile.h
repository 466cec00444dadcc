/// Private: the product kernels of one instruction set, over a small vector vocabulary that the including file defines:
///
///   FI_LANES            float32 lanes of a vector          FI_TILE_ROWS       most rows of x in a register tile
///   vi, vf              integer and float vectors          FI_TABLE           name of the resulting table
///   vi_load, vi_set1 (int32), vi_and, vi_sub, vi_sll32
///   vi_sll16, vi_srl16, vi_sra16 (shifts of int16 lanes by a constant)
///   va                  sums of int16 products, exact in int32, in whatever order suits the instructions
///   va_zero; va_dot (acc, a, b): adds a[2i] b[2i] + a[2i + 1] b[2i + 1] to lane i; va_total (acc): the lanes
///   vf_zero, vf_load, vf_store, vf_set1, vf_mul, vf_add, vf_fma (a, b, c: a b + c), vf_from_i
///   vf_load_half, vf_load_bf16: FI_LANES 16-bit floats to float32
///
/// A tile is up to FI_TILE_ROWS rows of x by two vectors of outputs. Weights are unpacked in registers as they stream
/// by, once for all rows of the tile. Whatever the tile's height, a row sees the same operations in the same order.
#pragma once

#include "panel.h"

#define FI_INLINE static inline __attribute__((always_inline))
#define FI_UNROLL _Pragma("clang loop unroll(full)")
#define FI_VECTOR_BYTES (4 * FI_LANES)

/// One tile's view: `w` at the tile's first lane of block 0 is found from panel and lane.
typedef struct fi_tile {
    const uint8_t *panel;
    const int16_t *q;
    const fi_activation_block *blocks;
    const float *x;
    int64_t columns, x_stride;
    int lane;  // first of the 2 * FI_LANES panel rows
    // Weights to ask memory for while this tile computes: lines from `ahead` to `ahead_end`, some per block.
    const uint8_t *ahead, *ahead_end;
    int64_t ahead_lines;
} fi_tile;

FI_INLINE const uint8_t *prefetch(const uint8_t *ahead, const fi_tile *t) {
    for (int64_t i = 0; i < t->ahead_lines && ahead < t->ahead_end; i++, ahead += 64) __builtin_prefetch(ahead, 0, 3);
    return ahead;
}

FI_INLINE vi pair_of(const int16_t *q) {
    int32_t pair;
    __builtin_memcpy(&pair, q, 4);
    return vi_set1(pair);
}

FI_INLINE vf scale_vector(const uint8_t *set, int lane, bool single) {
    return single ? vf_load((const float *)(set + 4 * lane)) : vf_load_half(set + 2 * lane);
}

/// Word vector `x` of a u4 group, step j: the int16 pairs of columns 2j and 2j + 1. `mask` is 0x000f in each int16.
#define FI_NIBBLE_PAIR(x, j, mask) \
    ((j) == 0 ? vi_and(x, mask) \
     : (j) == 1 ? vi_and(vi_srl16(x, 4), mask) \
     : (j) == 2 ? vi_and(vi_srl16(x, 8), mask) : vi_srl16(x, 12))

FI_INLINE void quantized_tile(const fi_panel_layout layout, const int R, const fi_tile *t, vf (*acc)[2]) {
    const int64_t stride = fi_block_stride(layout), count = t->columns / 32;
    const vi mask = vi_set1(0x000f000f);
    const uint8_t *w = t->panel;
    const int16_t *q = t->q;
    const fi_activation_block *block = t->blocks;
    const uint8_t *ahead = t->ahead;
    FI_UNROLL for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = vf_zero();
    for (int64_t b = 0; b < count; b++, w += stride, q += 32, block++) {
        const uint8_t *data = w + fi_data_offset(layout) + 4 * t->lane;
        ahead = prefetch(ahead, t);
        FI_UNROLL for (int half = 0; half < (layout.halves ? 2 : 1); half++) {
            va sum[FI_TILE_ROWS][2];
            FI_UNROLL for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = va_zero();
            const int groups = (layout.nibbles ? 4 : 8) / (layout.halves ? 2 : 1);
            FI_UNROLL for (int g = half * groups; g < (half + 1) * groups; g++) {
                const vi x0 = vi_load(data + g * 128), x1 = vi_load(data + g * 128 + FI_VECTOR_BYTES);
                FI_UNROLL for (int j = 0; j < (layout.nibbles ? 4 : 2); j++) {
                    vi w0, w1;
                    if (layout.nibbles) {
                        w0 = FI_NIBBLE_PAIR(x0, j, mask);
                        w1 = FI_NIBBLE_PAIR(x1, j, mask);
                    } else {
                        w0 = vi_sra16(j ? x0 : vi_sll16(x0, 8), 8);
                        w1 = vi_sra16(j ? x1 : vi_sll16(x1, 8), 8);
                    }
                    const int column = layout.nibbles ? 8 * g + 2 * j : 4 * g + 2 * j;
                    FI_UNROLL for (int r = 0; r < R; r++) {
                        const vi a = pair_of(q + r * t->columns + column);
                        sum[r][0] = va_dot(sum[r][0], w0, a);
                        sum[r][1] = va_dot(sum[r][1], w1, a);
                    }
                }
            }
            const uint8_t *set = w + half * fi_scale_set_bytes(layout);
            const vf d0 = scale_vector(set, t->lane, layout.single);
            const vf d1 = scale_vector(set, t->lane + FI_LANES, layout.single);
            FI_UNROLL for (int r = 0; r < R; r++) {
                const fi_activation_block *a = block + r * count;
                vi total0 = va_total(sum[r][0]), total1 = va_total(sum[r][1]);
                if (layout.zero_shift) {
                    const vi zero = vi_sll32(vi_set1(a->sum), layout.zero_shift);
                    total0 = vi_sub(total0, zero);
                    total1 = vi_sub(total1, zero);
                }
                const vf scale = vf_set1(a->scale);
                acc[r][0] = vf_fma(vf_from_i(total0), vf_mul(d0, scale), acc[r][0]);
                acc[r][1] = vf_fma(vf_from_i(total1), vf_mul(d1, scale), acc[r][1]);
            }
        }
        if (layout.minimum) {
            const uint8_t *set = w + fi_min_offset(layout);
            const vf m0 = scale_vector(set, t->lane, layout.single);
            const vf m1 = scale_vector(set, t->lane + FI_LANES, layout.single);
            FI_UNROLL for (int r = 0; r < R; r++) {
                const vf scaled = vf_set1((block + r * count)->scaled_sum);
                acc[r][0] = vf_fma(m0, scaled, acc[r][0]);
                acc[r][1] = vf_fma(m1, scaled, acc[r][1]);
            }
        }
    }
}

FI_INLINE vf weight_vector(const fi_weight_format format, const uint8_t *column, int lane) {
    return format == FI_WEIGHT_F32 ? vf_load((const float *)(column + 4 * lane))
         : format == FI_WEIGHT_F16 ? vf_load_half(column + 2 * lane) : vf_load_bf16(column + 2 * lane);
}

/// Float weights: 32 columns are summed from zero, then added to the row's total, so that the rounding error grows with
/// K / 32 + 32 rather than with K, and independent chains overlap at M = 1.
FI_INLINE void float_tile(const fi_weight_format format, const int R, const fi_tile *t, vf (*acc)[2]) {
    const int64_t size = FI_PANEL_ROWS * (format == FI_WEIGHT_F32 ? 4 : 2);
    const uint8_t *w = t->panel, *ahead = t->ahead;
    FI_UNROLL for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = vf_zero();
    for (int64_t begin = 0; begin < t->columns; begin += 32) {
        const int64_t end = begin + 32 < t->columns ? begin + 32 : t->columns;
        vf sum[FI_TILE_ROWS][2];
        ahead = prefetch(ahead, t);
        FI_UNROLL for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = vf_zero();
        for (int64_t k = begin; k < end; k++, w += size) {
            const vf w0 = weight_vector(format, w, t->lane), w1 = weight_vector(format, w, t->lane + FI_LANES);
            FI_UNROLL for (int r = 0; r < R; r++) {
                const vf a = vf_set1(t->x[r * t->x_stride + k]);
                sum[r][0] = vf_fma(w0, a, sum[r][0]);
                sum[r][1] = vf_fma(w1, a, sum[r][1]);
            }
        }
        FI_UNROLL for (int r = 0; r < R; r++) {
            acc[r][0] = vf_add(acc[r][0], sum[r][0]);
            acc[r][1] = vf_add(acc[r][1], sum[r][1]);
        }
    }
}

/// Adds bias and the old y, and stores the 2 * FI_LANES outputs of a row, of which `valid` exist.
FI_INLINE void store_row(const fi_linear_call *c, int64_t row, int64_t output, const vf *acc) {
    const int64_t valid = c->rows - output;
    float *y = c->y + row * c->y_stride + output;
    if (valid >= 2 * FI_LANES) {
        FI_UNROLL for (int v = 0; v < 2; v++) {
            vf value = acc[v];
            if (c->bias) value = vf_add(value, vf_load(c->bias + output + v * FI_LANES));
            if (c->accumulate) value = vf_add(vf_load(y + v * FI_LANES), value);
            vf_store(y + v * FI_LANES, value);
        }
        return;
    }
    float lanes[2 * FI_LANES];
    vf_store(lanes, acc[0]);
    vf_store(lanes + FI_LANES, acc[1]);
    for (int64_t i = 0; i < valid; i++) {
        float value = lanes[i];
        if (c->bias) value += c->bias[output + i];
        y[i] = c->accumulate ? y[i] + value : value;
    }
}

typedef void (*fi_tile_kernel)(const fi_linear_call *c, const fi_tile *t, int64_t row, int64_t output);

#define FI_DEFINE_TILE(name, format, R) \
    static void tile_##name##_##R(const fi_linear_call *c, const fi_tile *t, int64_t row, int64_t output) { \
        vf acc[FI_TILE_ROWS][2]; \
        if (format < FI_WEIGHT_Q4_0) { \
            float_tile(format, R, t, acc); \
        } else { \
            quantized_tile(fi_layout_of(format), R, t, acc); \
        } \
        FI_UNROLL for (int r = 0; r < R; r++) store_row(c, row + r, output, acc[r]); \
    }

#if FI_TILE_ROWS == 6
#define FI_DEFINE_TILES(name, format) \
    FI_DEFINE_TILE(name, format, 1) FI_DEFINE_TILE(name, format, 2) FI_DEFINE_TILE(name, format, 3) \
    FI_DEFINE_TILE(name, format, 4) FI_DEFINE_TILE(name, format, 5) FI_DEFINE_TILE(name, format, 6)
#define FI_TILES(name) {tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4, tile_##name##_5, \
                        tile_##name##_6}
#elif FI_TILE_ROWS == 4
#define FI_DEFINE_TILES(name, format) \
    FI_DEFINE_TILE(name, format, 1) FI_DEFINE_TILE(name, format, 2) FI_DEFINE_TILE(name, format, 3) \
    FI_DEFINE_TILE(name, format, 4)
#define FI_TILES(name) {tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4}
#endif

FI_DEFINE_TILES(f32, FI_WEIGHT_F32)
FI_DEFINE_TILES(f16, FI_WEIGHT_F16)
FI_DEFINE_TILES(bf16, FI_WEIGHT_BF16)
FI_DEFINE_TILES(q4_0, FI_WEIGHT_Q4_0)
FI_DEFINE_TILES(q4_1, FI_WEIGHT_Q4_1)
FI_DEFINE_TILES(q5_1, FI_WEIGHT_Q5_1)
FI_DEFINE_TILES(q8_0, FI_WEIGHT_Q8_0)
FI_DEFINE_TILES(q4_k, FI_WEIGHT_Q4_K)
FI_DEFINE_TILES(q5_k, FI_WEIGHT_Q5_K)
FI_DEFINE_TILES(q6_k, FI_WEIGHT_Q6_K)

/// q5_0 packs to the layout of q8_0.
static const fi_tile_kernel tiles[FI_WEIGHT_FORMAT_COUNT][FI_TILE_ROWS] = {
    FI_TILES(f32),  FI_TILES(f16),  FI_TILES(bf16), FI_TILES(q4_0), FI_TILES(q4_1), FI_TILES(q8_0),
    FI_TILES(q5_1), FI_TILES(q8_0), FI_TILES(q4_k), FI_TILES(q5_k), FI_TILES(q6_k),
};

/// How far ahead of the weights in use memory is asked for: enough lines in flight to cover DRAM's latency.
/// Measured on Zen 5 (M = 1, q4_1): 2048 gives 77 %, 4096 92 %, 8192 98 % of the plain read bandwidth.
#define FI_PREFETCH_DISTANCE 8192

static void product(const fi_linear_call *c, int64_t panel_begin, int64_t panel_end, int64_t row_begin,
                    int64_t row_end) {
    const int64_t panel_bytes = fi_linear_panel_bytes(c->format, c->columns);
    const int64_t tile_count = (row_end - row_begin + FI_TILE_ROWS - 1) / FI_TILE_ROWS;
    if (tile_count <= 0) return;
    // Rows are dealt evenly, so that no tile is left with one row where two halves would do.
    const int64_t base = (row_end - row_begin) / tile_count, extra = (row_end - row_begin) % tile_count;
    const uint8_t *end = (const uint8_t *)c->packed + panel_end * panel_bytes;
    // A panel is read from memory by its first tile and from cache by the others. Each tile asks for its share of what
    // lies one distance ahead: of the stream itself if it is the only one, else of the next panel.
    const int64_t passes = tile_count * (FI_PANEL_ROWS / (2 * FI_LANES));
    const int64_t distance = passes == 1 ? FI_PREFETCH_DISTANCE : panel_bytes;
    const int64_t blocks = (c->columns + 31) / 32, share = (panel_bytes / passes + 127) / 64 * 64;
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t *start = (const uint8_t *)c->packed + panel * panel_bytes;
        const uint8_t *ahead = start + distance, *limit = ahead + panel_bytes < end ? ahead + panel_bytes : end;
        for (int lane = 0; lane < FI_PANEL_ROWS; lane += 2 * FI_LANES) {
            const int64_t output = panel * FI_PANEL_ROWS + lane;
            if (output >= c->rows) break;
            int64_t row = row_begin;
            for (int64_t i = 0; i < tile_count; i++) {
                const int64_t height = base + (i < extra);
                const fi_tile t = {
                    .panel = start,
                    .q = c->q ? c->q + row * c->columns : 0,
                    .blocks = c->blocks ? c->blocks + row * (c->columns / 32) : 0,
                    .x = c->x + row * c->x_stride,
                    .columns = c->columns,
                    .x_stride = c->x_stride,
                    .lane = lane,
                    .ahead = ahead,
                    .ahead_end = ahead + share < limit ? ahead + share : limit,
                    .ahead_lines = (share / 64 + blocks - 1) / blocks,
                };
                tiles[c->format][height - 1](c, &t, row, output);
                row += height;
                ahead = ahead + share < limit ? ahead + share : limit;
            }
        }
    }
}
