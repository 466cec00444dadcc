// The product of a warp's query rows with a stage's keys, and what becomes of the scores before the softmax.
#pragma once
#include "portable/attention_rope.cuh"

/// Whether a warp keeps its queries in registers: where they are few, and used again for every stage.
constexpr bool keeps_queries = row_tiles * (padded_qk / 16) * 4 <= FI_QUERY_REGISTERS;

/// A warp's query fragments, in registers or still in shared memory.
struct Queries {
    uint32 kept[keeps_queries ? padded_qk / 16 : 1][row_tiles][4];
    /// This lane's row of the first tile.
    uint32 start;

    __device__ __forceinline__ Queries(uint32 base, int first_row) {
        const int lane = threadIdx.x % warp_size;
        start = base + QueryRows::offset(first_row + lane % 16, lane / 16);
    }
    /// Reads what is kept, once the queries have arrived.
    __device__ __forceinline__ void keep() {
        if constexpr (keeps_queries) {
#pragma unroll
            for (int step = 0; step < padded_qk / 16; ++step)
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) load_matrices(kept[step][m], QueryRows::advance(start, m * 16, 2 * step));
        }
    }
    __device__ __forceinline__ void load(uint32 (&a)[row_tiles][4], int step) const {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
            if constexpr (keeps_queries) {
#pragma unroll
                for (int i = 0; i < 4; ++i) a[m][i] = kept[keeps_queries ? step : 0][m][i];
            } else {
                load_matrices(a[m], QueryRows::advance(start, m * 16, 2 * step));
            }
        }
    }
};

/// c = a · b at first, c += a · b from then on.
FI_DEVICE void multiply(float (&c)[4], const uint32 (&a)[4], uint32 b0, uint32 b1, bool is_first) {
    if (is_first) mma_first<half_type>(c, a, b0, b1);
    else mma<half_type>(c, a, b0, b1);
}

/// s[m][n] = rows · keys, of the warp's part of the stage.
FI_DEVICE void multiply_keys(float (&s)[row_tiles][key_tiles][4], const Queries &queries, uint32 stage, int first_key) {
    const int lane = threadIdx.x % warp_size;
    // Turned keys have rows of their own; others lie as they were loaded.
    using Layout = Rows<padded_qk, has_narrow_keys ? 1 : 2>;
    const uint32 start = stage + (has_narrow_keys ? Layout::offset(first_key + lane, 0)
                                                  : Layout::offset(first_key + lane / 16 * 8 + lane % 8, lane / 8 % 2));
    // Fragments are loaded one group of keys ahead of the products that need them.
    constexpr int steps = padded_qk / 16, group = has_narrow_keys ? 4 : 2, groups = key_tiles / group;
    uint32 a[2][row_tiles][4], b[2][4];
    queries.load(a[0], 0);
    load_matrices(b[0], start);
#pragma unroll
    for (int step = 0; step < steps; ++step) {
#pragma unroll
        for (int g = 0; g < groups; ++g) {
            const int now = (step * groups + g) % 2, next_step = g + 1 < groups ? step : step + 1, next_group = g + 1 < groups ? g + 1 : 0;
            if (next_step < steps)
                load_matrices(b[1 - now], Layout::advance(start, next_group * group * 8, has_narrow_keys ? next_step : 2 * next_step));
            if (g == groups - 1 && step + 1 < steps) queries.load(a[(step + 1) % 2], step + 1);
            const auto &rows_a = a[step % 2];
            if constexpr (has_narrow_keys) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    uint32 even, odd;
                    widen<half_type, narrow>(b[now][i], even, odd);
#pragma unroll
                    for (int m = 0; m < row_tiles; ++m) multiply(s[m][4 * g + i], rows_a[m], even, odd, step == 0);
                }
            } else {
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    multiply(s[m][2 * g], rows_a[m], b[now][0], b[now][1], step == 0);
                    multiply(s[m][2 * g + 1], rows_a[m], b[now][2], b[now][3], step == 0);
                }
            }
        }
    }
}

constexpr float log2_e = 1.4426950408889634f;

/// What the softmax multiplies scores by, and what they are multiplied by before.
FI_DEVICE float2 score_scales(const fi_attention_params &p, const Item &item) {
    float scale = p.score_scale;
    if (p.key_scales != 0) scale *= pointer<const float>(p.key_scales)[item.head];
    if constexpr (logits != Logits::capped && logits != Logits::variant) scale *= log2_e;
    return make_float2(logits == Logits::plain ? scale : 1, scale);
}

/// What a head's queries are multiplied by, where scores are not only scaled by the softmax.
FI_DEVICE float query_factor(const fi_attention_params &p, const Item &item, int row, int query) {
    return logits == Logits::plain || p.query_scales == 0 ? 1 : pointer<const float>(p.query_scales)[item.query_head(p, row, query)];
}

/// tanh by exponentials: absolute error about 1e-7, where the approximate instruction's is 5e-4.
FI_DEVICE float tanh_by_exp(float x) { return 1 - __fdividef(2, exp2f(x * (2 * log2_e)) + 1); }

#include "portable/attention_variant.cuh"

/// The first and the last key, or column, that query `query` of a request may see.
FI_DEVICE int first_visible(const fi_attention_params &p, const Item &item, int query) {
    const int64 first = static_cast<int64>(item.position(p, query)) - p.window_left;
    return p.window_left >= 0 && first > 0 ? static_cast<int>(first) : -0x7fffffff - 1;
}
FI_DEVICE int last_visible(const fi_attention_params &p, const Item &item, int query) {
    return p.is_causal ? item.position(p, query) : 0x7fffffff;
}

/// The keys that all of a warp's rows see: stages within need no mask.
struct CommonlyVisible {
    int first, last;

    __device__ __forceinline__ CommonlyVisible() {}
    __device__ __forceinline__ CommonlyVisible(const fi_attention_params &p, const Item &item, int warp_row)
        : first(max(first_visible(p, item, item.query(p, min(warp_row + warp_rows, item.row_count) - 1)), item.key)),
          last(min(last_visible(p, item, item.query(p, min(warp_row, item.row_count - 1))), item.key_end() - 1)) {}
};

/// Scales, caps and biases where the variant does more than scale, and hides what rows do not see.
FI_DEVICE void finish_scores(float (&s)[row_tiles][key_tiles][4], const fi_attention_params &p, const Item &item,
                             const KeyFinder &finder, const CommonlyVisible &common, int warp_row, int first_key, float common_scale) {
    const int quad = threadIdx.x % 4, lane_row = threadIdx.x % warp_size / 4;
    const bool needs_mask = FI_COLUMNS || custom_mask != Mask::none || first_key < common.first
                            || first_key + warp_keys - 1 > common.last || variant_may_hide(p, item, warp_row, first_key);
    if (logits == Logits::plain && !needs_mask) return;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = min(warp_row + m * 16 + h * 8 + lane_row, item.row_count - 1);
            const int query = item.query(p, row);
            float slope = 0;
            if constexpr (logits == Logits::alibi)
                slope = pointer<const float>(p.alibi_slopes)[item.query_head(p, row, query)] * log2_e;
            const VariantSite at(p, item, query, item.query_head(p, row, query));
            const float scale = common_scale * query_factor(p, item, row, query);
            int first = first_visible(p, item, query), last = last_visible(p, item, query);
            if constexpr (!FI_COLUMNS) {
                first = max(first, item.key);
                last = min(last, item.key_end() - 1);
                // A row that sees nothing sees one key that there is not.
                if (last < first) first = last = 0x7fffffff;
            }
            const uint32 span = last - first;
#pragma unroll
            for (int n = 0; n < key_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &score = s[m][n][2 * h + i];
                    const int key = first_key + n * 8 + 2 * quad + i;
                    if constexpr (logits == Logits::scaled) score *= scale;
                    if constexpr (logits == Logits::capped) score = p.cap * log2_e * tanh_by_exp(score * scale * p.inverse_cap);
                    int position = key;
                    if constexpr (FI_COLUMNS) position = key < item.key_end() ? finder.column(key) : 0;
                    if constexpr (logits == Logits::alibi) score = score * scale + slope * static_cast<float>(position - query);
                    if constexpr (logits == Logits::variant) score = log2_e * variant_logit(p, at, score * scale, key, position);
                    if (!needs_mask) continue;
                    bool is_visible = FI_COLUMNS ? key < item.key_end() && position >= first && position <= last
                                                 // One comparison for both ends.
                                                 : static_cast<uint32>(key - first) <= span;
                    if constexpr (custom_mask != Mask::none) {
                        if (is_visible) {
                            const uint8 *mask = pointer<const uint8>(p.mask) + pointer<const int64>(p.mask_indptr)[item.request];
                            const int64 element = static_cast<int64>(query) * item.key_total + key;
                            is_visible = custom_mask == Mask::bytes ? mask[element] != 0 : (mask[element / 8] >> (element % 8) & 1) != 0;
                        }
                    }
                    if constexpr (logits == Logits::variant) is_visible = is_visible && variant_shows(p, at, key, position);
                    if (!is_visible) score = negative_infinity();
                }
        }
}
