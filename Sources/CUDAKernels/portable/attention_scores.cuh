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
    /// What products are multiplied by: see `multiplies_in_float16`.
    float factors[row_tiles][2];

    __device__ __forceinline__ Queries(uint32 base, int first_row) {
        const int lane = threadIdx.x % warp_size;
        start = base + QueryRows::offset(first_row + lane % 16, lane / 16);
    }
    /// Reads what is kept, once the queries have arrived.
    __device__ __forceinline__ void keep(int first_row) {
        if constexpr (multiplies_in_float16) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) factors[m][h] = row_factors()[first_row + m * 16 + h * 8 + threadIdx.x % warp_size / 4];
        }
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
    if (is_first) mma_first<product_type>(c, a, b0, b1);
    else mma<product_type>(c, a, b0, b1);
}

/// s[m][n] = rows · keys, of the warp's part of the stage.
FI_DEVICE void multiply_keys(float (&s)[row_tiles][key_tiles][4], const fi_attention_params &p, const Queries &queries, uint32 stage,
                             int first_key) {
    const int lane = threadIdx.x % warp_size;
    // Turned keys have rows of their own; others lie as they were loaded.
    using Layout = Rows<padded_qk, has_narrow_keys ? 1 : 2>;
    const uint32 start = stage + (has_narrow_keys ? Layout::offset(first_key + lane, 0)
                                                  : Layout::offset(first_key + lane / 16 * 8 + lane % 8, lane / 8 % 2));
    // The rest of latent keys comes first, so that its products can be scaled before the others are added.
    constexpr int rest_steps = is_latent ? FI_LATENT / 16 : 0;
    const auto place = [](int step) { return !is_latent ? step : step < rest_steps ? dim_vo / 16 + step : step - rest_steps; };
    // Fragments are loaded one group of keys ahead of the products that need them.
    constexpr int steps = padded_qk / 16, group = has_narrow_keys ? 4 : 2, groups = key_tiles / group;
    uint32 a[2][row_tiles][4], b[2][4];
    queries.load(a[0], place(0));
    load_matrices(b[0], is_latent ? Layout::advance(start, 0, has_narrow_keys ? place(0) : 2 * place(0)) : start);
#pragma unroll
    for (int step = 0; step < steps; ++step) {
        if (is_latent && step == rest_steps && p.rope_scale != 1) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int n = 0; n < key_tiles; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) s[m][n][i] *= p.rope_scale;
        }
#pragma unroll
        for (int g = 0; g < groups; ++g) {
            const int now = (step * groups + g) % 2, next_step = g + 1 < groups ? step : step + 1, next_group = g + 1 < groups ? g + 1 : 0;
            if (next_step < steps)
                load_matrices(b[1 - now], Layout::advance(start, next_group * group * 8, has_narrow_keys ? place(next_step) : 2 * place(next_step)));
            if (g == groups - 1 && step + 1 < steps) queries.load(a[(step + 1) % 2], place(step + 1));
            const auto &rows_a = a[step % 2];
            if constexpr (has_narrow_keys) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    uint32 first, second;
                    if constexpr (multiplies_in_float16) widen_neighbours<narrow>(b[now][i], first, second);
                    else widen<half_type, narrow>(b[now][i], first, second);
#pragma unroll
                    for (int m = 0; m < row_tiles; ++m) multiply(s[m][4 * g + i], rows_a[m], first, second, step == 0);
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
    if constexpr (multiplies_in_float16) {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int n = 0; n < key_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[m][n][i] *= queries.factors[m][i / 2];
    }
}

#include "portable/attention_variant.cuh"

/// Whether the softmax takes a variant's own logits.
constexpr bool has_natural_logits = logits == Logits::variant && normalises;

/// What the softmax multiplies scores by, and what they are multiplied by before.
FI_DEVICE float2 score_scales(const fi_attention_params &p, const Item &item) {
    float scale = p.score_scale;
    if (p.key_scales != 0) scale *= pointer<const float>(p.key_scales)[item.head];
    if constexpr (logits != Logits::capped && logits != Logits::variant) scale *= log2_e;
    // A variant's logits are natural ones: the softmax's product with them is there anyway.
    return make_float2(logits == Logits::plain ? scale : has_natural_logits ? log2_e : 1, scale);
}

/// What a head's queries are multiplied by, where scores are not only scaled by the softmax.
FI_DEVICE float query_factor(const fi_attention_params &p, const Item &item, int row, int query) {
    return logits == Logits::plain || p.query_scales == 0 ? 1 : pointer<const float>(p.query_scales)[item.query_head(p, row, query)];
}

/// The first and the last key, or column, that query `query` of a request may see.
FI_DEVICE int first_visible(const fi_attention_params &p, const Item &item, int query) {
    const int64 first = static_cast<int64>(item.position(p, query)) - p.window_left;
    return p.window_left >= 0 && first > 0 ? static_cast<int>(first) : -0x7fffffff - 1;
}
FI_DEVICE int last_visible(const fi_attention_params &p, const Item &item, int query) {
    return p.is_causal ? item.position(p, query) : 0x7fffffff;
}

/// Whether a variant has a condition of its own that keys are to be asked for. Columns of a matrix are asked for one by one.
constexpr bool has_condition = hides_keys && !has_columns;

/// The keys that all of a warp's rows see: stages within need no mask. Of a variant's condition, as far as its analysis found them:
/// what else is known of a stage is asked for where it is not within, so that others take two comparisons of registers.
struct CommonlyVisible {
    int first, last;

    __device__ __forceinline__ CommonlyVisible() {}
    __device__ __forceinline__ CommonlyVisible(const fi_attention_params &p, const Item &item, int warp_row)
        : first(first_visible(p, item, item.query(p, min(warp_row + warp_rows, item.row_count) - 1))),
          last(last_visible(p, item, item.query(p, min(warp_row, item.row_count - 1)))) {
        // Columns are asked for stage by stage.
        if constexpr (!has_columns) first = max(first, item.key), last = min(last, item.key_end() - 1);
        if constexpr (has_condition) first = max(first, item.full), last = min(last, item.full + item.full_count - 1);
    }
    /// Whether some row of the warp does not see some key of its part of a stage; for all lanes.
    __device__ __forceinline__ bool hides(const Item &item, const KeyFinder &finder, int first_key) const {
        if constexpr (!has_columns) return first_key < first || first_key + warp_keys - 1 > last;
        bool sees = true;
#pragma unroll 1
        for (int key = first_key + threadIdx.x % warp_size; key < first_key + warp_keys; key += warp_size) {
            if (key < item.key || key >= item.key_end()) {
                sees = false;
            } else {
                const int column = finder.column(key);
                sees &= column >= first && column <= last;
            }
        }
        return !__all_sync(0xffffffff, sees);
    }
};

/// A row of the run's own mask, of a warp's part of a stage: the four lanes that share the row have 32 keys each, as bits.
struct RowMask {
    uint32 bits = 0;

    __device__ __forceinline__ RowMask() {}
    __device__ __forceinline__ RowMask(const fi_attention_params &p, const Item &item, int query, int first_key) {
        if constexpr (custom_mask == Mask::none) return;
        static_assert(custom_mask == Mask::none || warp_keys <= 128, "a lane has 32 keys");
        const uint8 *mask = pointer<const uint8>(p.mask) + pointer<const int64>(p.mask_indptr)[item.request];
        const int64 first = static_cast<int64>(query) * item.key_total + first_key + 32 * (threadIdx.x % 4);
        const int64 count = static_cast<int64>(item.query_count) * item.key_total;
        if constexpr (custom_mask == Mask::bytes) {
            const int there = static_cast<int>(min(count - first, 32ll));
            mask += first;
#pragma unroll
            for (int i = 0; i < 32; ++i)
                if (i < there) bits |= static_cast<uint32>(mask[i] != 0) << i;
        } else {
            // Where 32 bits start within a byte they are in five.
            uint64 word = 0;
#pragma unroll
            for (int i = 0; i < 5; ++i) word |= static_cast<uint64>(mask[min(first / 8 + i, (count - 1) / 8)]) << 8 * i;
            bits = static_cast<uint32>(word >> (first & 7));
        }
    }
    /// Whether key i of this thread's in key tile n is shown, if it is there; for all lanes of the warp.
    __device__ __forceinline__ bool shows(int n, int i, bool is_there) const {
        if constexpr (custom_mask == Mask::none) return is_there;
        const uint32 those = __shfl_sync(0xffffffff, bits, n / 4, 4);
        return is_there & (those >> (n % 4 * 8 + threadIdx.x % 4 * 2 + i) & 1) != 0;
    }
    /// This thread's keys of the row, two of each eight, as `shown_bits` has them; for all lanes of the warp.
    __device__ __forceinline__ uint32 own_bits() const {
        uint32 own = 0;
#pragma unroll
        for (int n = 0; n < key_tiles; n += 4) {
            // Of each byte the two bits of this lane of four, side by side.
            uint32 those = __shfl_sync(0xffffffff, bits, n / 4, 4) >> threadIdx.x % 4 * 2 & 0x03030303;
            those = (those | those >> 6) & 0x000f000f;
            own |= ((those | those >> 12) & 0xff) << 2 * n;
        }
        return own;
    }
};

/// Whether what a row sees of a stage becomes bits of a word: two of each eight keys are a thread's. Seven bits at a time become
/// predicates, so that many keys take less time and text than a comparison each.
constexpr bool masks_by_bits = !has_columns && key_tiles > 4 && key_tiles <= 16;
/// The same of keys whose columns are looked up, where nothing but what is seen depends on them.
constexpr bool masks_columns_by_bits = has_columns && !has_variant && logits != Logits::alibi && key_tiles <= 16;

/// A thread's keys from `first` to `last` of a stage as bits: bit 2n + i for key 8n + 2 quad + i.
FI_DEVICE uint32 shown_bits(int first, int last, int quad) {
    return low_bits(own_keys(min(last, warp_keys - 1) + 1, quad)) & ~low_bits(own_keys(min(first, warp_keys), quad));
}

/// What a thread's rows see of a stage of keys whose columns are looked up, as `shown_bits` has it. A loop, with a few reads under way: written
/// out for each score, and again for each row, it was half of what such a kernel takes to compile.
struct ShownColumns {
    uint32 bits[row_tiles][2];

    __device__ __forceinline__ ShownColumns(const fi_attention_params &p, const Item &item, const KeyFinder &finder, int warp_row, int first_key) {
        const int quad = threadIdx.x % 4, lane_row = threadIdx.x % warp_size / 4;
        int first[row_tiles][2], last[row_tiles][2];
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int query = item.query(p, min(warp_row + m * 16 + h * 8 + lane_row, item.row_count - 1));
                first[m][h] = first_visible(p, item, query), last[m][h] = last_visible(p, item, query);
                bits[m][h] = 0;
            }
        // Whether eight keys from a multiple of eight on are in one block: then one look-up is enough for them.
        const bool has_whole_eights = p.block_size % 8 == 0 && first_key % 8 == 0;
#pragma unroll 4
        for (int own = 0; own < 2 * key_tiles; ++own) {
            const int eight = first_key + own / 2 * 8, key = eight + 2 * quad + own % 2;
            if (static_cast<uint32>(key - item.key) >= static_cast<uint32>(item.key_count)) continue;
            const int position = has_whole_eights && eight >= item.key ? finder.column(eight) + (key - eight) : finder.column(key);
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    bits[m][h] |= static_cast<uint32>(position >= first[m][h] && position <= last[m][h]) << own;
        }
    }
};

/// What the run's own mask shows of a thread's rows, likewise. Row after row to the last place, and all others a place up: the text of one is long.
struct ShownByMask {
    uint32 bits[row_tiles][2];

    __device__ __forceinline__ ShownByMask(const fi_attention_params &p, const Item &item, int warp_row, int first_key) {
        const int lane_row = threadIdx.x % warp_size / 4;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) bits[m][0] = 0, bits[m][1] = 0;
#pragma unroll 1
        for (int row = warp_row + lane_row; row < warp_row + warp_rows; row += 8) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) {
                bits[m][0] = bits[m][1];
                if (m + 1 < row_tiles) bits[m][1] = bits[m + 1][0];
            }
            bits[row_tiles - 1][1] = RowMask(p, item, item.query(p, min(row, item.row_count - 1)), first_key).own_bits();
        }
    }
};

/// Scales, caps and biases where the variant does more than scale, and hides what rows do not see.
FI_DEVICE void finish_fused_scores(float (&s)[row_tiles][key_tiles][4], const fi_attention_params &p, const Item &item,
                                   const KeyFinder &finder, const CommonlyVisible &common, int warp_row, int first_key, float common_scale) {
    const int quad = threadIdx.x % 4, lane_row = threadIdx.x % warp_size / 4;
    const bool needs_mask = custom_mask != Mask::none || common.hides(item, finder, first_key);
    if (logits == Logits::plain && !needs_mask) return;
    // Whether eight keys from a multiple of eight on are in one block: then one look-up is enough for them.
    const bool has_whole_eights = has_columns && p.block_size % 8 == 0 && first_key % 8 == 0;
    uint32 shown[row_tiles][2];
    if constexpr (masks_columns_by_bits) {
        if (needs_mask) {
            const ShownColumns columns(p, item, finder, warp_row, first_key);
            for (int m = 0; m < row_tiles; ++m) shown[m][0] = columns.bits[m][0], shown[m][1] = columns.bits[m][1];
        }
    }
    constexpr bool is_mask_of_bits = custom_mask != Mask::none && masks_by_bits;
    if constexpr (is_mask_of_bits) {
        const ShownByMask own(p, item, warp_row, first_key);
        for (int m = 0; m < row_tiles; ++m) shown[m][0] = own.bits[m][0], shown[m][1] = own.bits[m][1];
    }
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = min(warp_row + m * 16 + h * 8 + lane_row, item.row_count - 1);
            const int query = item.query(p, row);
            float slope = 0;
            if constexpr (logits == Logits::alibi)
                slope = pointer<const float>(p.alibi_slopes)[item.query_head(p, row, query)] * log2_e;
            const float scale = common_scale * query_factor(p, item, row, query);
            int first = first_visible(p, item, query), last = last_visible(p, item, query);
            if constexpr (!has_columns) {
                first = max(first, item.key);
                last = min(last, item.key_end() - 1);
                // A row that sees nothing sees one key that there is not.
                if (last < first) first = last = 0x7fffffff;
            }
            const uint32 span = last - first;
            RowMask mask;
            if constexpr (!is_mask_of_bits) mask = RowMask(p, item, query, first_key);
            const uint32 range = masks_by_bits ? shown_bits(first - first_key, last - first_key, quad) & (is_mask_of_bits ? shown[m][h] : 0xffffffff)
                                 : masks_columns_by_bits ? shown[m][h]
                                                         : 0;
            // The column of the first of a key tile's keys, where one look-up is enough; and that of a key.
            const auto column_of_tile = [&](int n) {
                const int key = first_key + n * 8;
                return has_whole_eights && key >= item.key && key < item.key_end() ? finder.column(key) : 0;
            };
            const auto is_there = [&](int key) { return static_cast<uint32>(key - item.key) < static_cast<uint32>(item.key_count); };
            const auto position_of = [&](int eight, int n, int i) {
                const int key = first_key + n * 8 + 2 * quad + i;
                if constexpr (!has_columns || masks_columns_by_bits) return key;
                return has_whole_eights ? eight + 2 * quad + i : is_there(key) ? finder.column(key) : 0;
            };
            if constexpr (logits != Logits::plain) {
#pragma unroll
                for (int n = 0; n < key_tiles; ++n) {
                    const int eight = has_columns && logits == Logits::alibi ? column_of_tile(n) : 0;
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        float &score = s[m][n][2 * h + i];
                        if constexpr (logits == Logits::scaled) score *= scale;
                        if constexpr (logits == Logits::capped) score = p.cap * log2_e * tanh_by_exp(score * scale * p.inverse_cap);
                        if constexpr (logits == Logits::alibi) score = score * scale + slope * static_cast<float>(position_of(eight, n, i) - query);
                    }
                }
                if (!needs_mask) continue;
            }
#pragma unroll
            for (int n = 0; n < key_tiles; ++n) {
                const int eight = has_columns && !masks_columns_by_bits ? column_of_tile(n) : 0;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float &score = s[m][n][2 * h + i];
                    const int key = first_key + n * 8 + 2 * quad + i, position = position_of(eight, n, i);
                    const bool is_visible = has_columns && !masks_columns_by_bits ? is_there(key) && position >= first && position <= last
                                                       : masks_by_bits || masks_columns_by_bits ? (range >> (2 * n + i) & 1) != 0
                                                       // One comparison for both ends.
                                                       : static_cast<uint32>(key - first) <= span;
                    // A choice: a store under a condition is a branch for each score, which the compiler takes long to make choices of.
                    score = (is_mask_of_bits ? is_visible : mask.shows(n, i, is_visible)) ? score : negative_infinity();
                }
            }
        }
}

#ifdef FI_VARIANT

/// What is known of a thread's row of scores.
struct ScoreRow {
    int query, first, last;
    float slope = 0, factor;
    VariantRow at;

    __device__ __forceinline__ ScoreRow(const fi_attention_params &p, const Item &item, int row)
        : query(item.query(p, row)), first(first_visible(p, item, query)), last(last_visible(p, item, query)),
          factor(query_factor(p, item, row, query)), at(p, item, query, item.query_head(p, row, query)) {
        if constexpr (logits == Logits::alibi)
            slope = pointer<const float>(p.alibi_slopes)[item.query_head(p, row, query)] * log2_e;
        if constexpr (!has_columns) {
            first = max(first, item.key);
            last = min(last, item.key_end() - 1);
            if (last < first) first = last = 0x7fffffff;
        }
    }
};

/// Key tiles whose reads are under way at a time: fewer beside queries in registers.
constexpr int tiles_read_at_once = holds_queries ? 2 : 4;

/// A score as the variant has it, before anything is hidden.
FI_DEVICE void change_score(float &score, const fi_attention_params &p, const ScoreRow &row, float common_scale, int key, int position) {
    const float scale = common_scale * row.factor;
    if constexpr (logits == Logits::scaled) score *= scale;
    if constexpr (logits == Logits::capped) score = p.cap * log2_e * tanh_by_exp(score * scale * p.inverse_cap);
    if constexpr (logits == Logits::alibi) score = score * scale + row.slope * static_cast<float>(position - row.query);
    if constexpr (logits == Logits::variant) {
        score = variant_logit(p, row.at, score * scale, key, position);
        if constexpr (!normalises) score = variant_weight(p, row.at, score, key, position);
    }
}

/// The score of a key that a row does not see.
FI_DEVICE float hidden_score() { return normalises ? negative_infinity() : 0; }

/// What a thread's two rows see of a stage by the variant's condition and the run's mask, as bits: bit 2n + i for key i of this thread's in
/// key tile n. Conditions that are ranges of keys are words of bits at once; for others a loop, where a comparison and a choice for each score would be most of what a kernel takes to compile; registers for
/// scores need places that are known, those of bits do not.
FI_DEVICE uint2 bits_by_rule(const fi_attention_params &p, const Item &item, const ScoreRow &above, const ScoreRow &below, int first_key, int quad) {
    if constexpr (hides_by_words && custom_mask == Mask::none)
        return make_uint2(variant_bits(p, above.at, first_key, quad), variant_bits(p, below.at, first_key, quad));
    const RowMask mask_above(p, item, above.query, first_key), mask_below(p, item, below.query, first_key);
    uint2 bits = make_uint2(0, 0);
#pragma unroll tiles_read_at_once
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int key = first_key + n * 8 + 2 * quad + i;
            bits.x |= static_cast<uint32>(mask_above.shows(n, i, true) & variant_shows(p, above.at, key, key)) << (2 * n + i);
            bits.y |= static_cast<uint32>(mask_below.shows(n, i, true) & variant_shows(p, below.at, key, key)) << (2 * n + i);
        }
    return bits;
}

/// The same with a variant's expressions: first what becomes of scores, then what is hidden. Both rows of a thread at once, as what is
/// read for a key is there for both. Some reads are under way at a time, not all of them, which would take all registers.
FI_DEVICE void finish_variant_scores(float (&s)[row_tiles][key_tiles][4], const fi_attention_params &p, const Item &item,
                                     const KeyFinder &finder, const CommonlyVisible &common, int warp_row, int first_key, float common_scale) {
    const int quad = threadIdx.x % 4, lane_row = threadIdx.x % warp_size / 4;
    const bool needs_mask = has_columns || custom_mask != Mask::none || first_key < common.first || first_key + warp_keys - 1 > common.last;
    if (logits == Logits::plain && !needs_mask) return;
    const auto row_of = [&](int m, int h) { return ScoreRow(p, item, min(warp_row + m * 16 + h * 8 + lane_row, item.row_count - 1)); };
    const auto key_of = [&](int n, int i) { return first_key + n * 8 + 2 * quad + i; };
    const auto position_of = [&](int key) {
        if constexpr (has_columns) return key >= item.key && key < item.key_end() ? finder.column(key) : 0;
        return key;
    };
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
        const ScoreRow above = row_of(m, 0), below = row_of(m, 1);
        if constexpr (logits != Logits::plain) {
#pragma unroll
            for (int n = 0; n < key_tiles; ++n) {
                if (reads_keys && n > 0 && n % tiles_read_at_once == 0) __syncwarp();
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int key = key_of(n, i), position = position_of(key);
                    change_score(s[m][n][i], p, above, common_scale, key, position);
                    change_score(s[m][n][2 + i], p, below, common_scale, key, position);
                }
            }
            if (!needs_mask) continue;
        }
        if constexpr (masks_by_bits) {
            uint32 bits[2] = {shown_bits(above.first - first_key, above.last - first_key, quad),
                              shown_bits(below.first - first_key, below.last - first_key, quad)};
            if (custom_mask != Mask::none
                || (has_condition && !item.is_full(first_key, warp_keys) && variant_may_hide(p, item, warp_row, first_key))) {
                const uint2 shown = bits_by_rule(p, item, above, below, first_key, quad);
                bits[0] &= shown.x, bits[1] &= shown.y;
            }
#pragma unroll
            for (int h = 0; h < 2; ++h)
#pragma unroll
                for (int n = 0; n < key_tiles; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i)
                        s[m][n][2 * h + i] = (bits[h] >> (2 * n + i) & 1) != 0 ? s[m][n][2 * h + i] : hidden_score();
            continue;
        }
        const RowMask mask_above(p, item, above.query, first_key), mask_below(p, item, below.query, first_key);
        const auto hide = [&](float &score, const ScoreRow &row, const RowMask &mask, int n, int i) {
            const int key = key_of(n, i), position = position_of(key);
            // One comparison for both ends.
            bool is_visible = static_cast<uint32>(position) - static_cast<uint32>(row.first) <= static_cast<uint32>(row.last - row.first);
            if constexpr (has_columns) is_visible = is_visible && key >= item.key && key < item.key_end();
            is_visible = mask.shows(n, i, is_visible) & variant_shows(p, row.at, key, position);
            score = is_visible ? score : hidden_score();
        };
#pragma unroll
        for (int n = 0; n < key_tiles; ++n) {
            if (reads_keys && n > 0 && n % tiles_read_at_once == 0) __syncwarp();
#pragma unroll
            for (int i = 0; i < 2; ++i) hide(s[m][n][i], above, mask_above, n, i), hide(s[m][n][2 + i], below, mask_below, n, i);
        }
    }
}

#endif

/// Makes the scores of a warp's part of a stage what the softmax takes.
FI_DEVICE void finish_scores(float (&s)[row_tiles][key_tiles][4], const fi_attention_params &p, const Item &item,
                             const KeyFinder &finder, const CommonlyVisible &common, int warp_row, int first_key, float scale) {
#ifdef FI_VARIANT
    finish_variant_scores(s, p, item, finder, common, warp_row, first_key, scale);
#else
    finish_fused_scores(s, p, item, finder, common, warp_row, first_key, scale);
#endif
}
