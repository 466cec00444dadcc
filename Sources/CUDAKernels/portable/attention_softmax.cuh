// The running softmax of a warp's rows (Milakov and Gimelshein, arXiv 1805.02867) and the product with the values.
#pragma once
#include "portable/attention_scores.cuh"

/// The state of a warp's rows: output not yet divided by the sum, the maximum it is relative to, this thread's share of the sum.
struct State {
    float output[row_tiles][value_tiles][4];
    float maximum[row_tiles][2], sum[row_tiles][2];
    /// Whether weights are computed without a look at the maximum; of the whole warp.
    bool by_sums;

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
            for (int n = 0; n < value_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) output[m][n][i] = 0;
#pragma unroll
            for (int h = 0; h < 2; ++h) maximum[m][h] = normalises ? negative_infinity() : 0, sum[m][h] = 0;
        }
        by_sums = false;
    }
    /// Whether some weight of this thread's rows may have left the range in which they are exact.
    __device__ __forceinline__ bool is_unsafe() const {
        bool is_safe = true;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) is_safe &= sum[m][h] < 0x1p60f;
        return !is_safe;
    }
    /// Whether all of this thread's rows have seen a key.
    __device__ __forceinline__ bool has_seen() const {
        bool all = true;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) all &= maximum[m][h] != negative_infinity();
        return all;
    }
};

/// Whether the rows of an item look for a maximum until all have seen a key, and then no more. Later weights may be of any size, as
/// bfloat16 has the range of float32; only where a sum says at the item's end that they were of 2^60 and more, 40 powers of e above the
/// first stage's, is the item computed again with a maximum for each stage (H200, D 128, 4,096 keys: 373 to 401 TFLOP/s). Stages of 96 keys
/// have no registers for it, and those of 8 bits none to spare.
constexpr bool weighs_by_sums = FI_QUEUE && half_type == Half::bfloat16 && normalises && !has_variant && !is_narrow && key_tiles <= 8;

FI_DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

FI_DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

FI_DEVICE float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

FI_DEVICE float log2_approximate(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// A maximum as what is subtracted from scaled scores: rows that have seen nothing subtract nothing.
FI_DEVICE float reference(float maximum, float scale) { return maximum == negative_infinity() ? 0 : maximum * scale; }

/// What weights are relative to, scaled, of each row of this thread.
struct References { float of[row_tiles][2]; };

/// How far, in powers of two, a maximum may rise before the references follow.
constexpr float tolerated_rise = 8;

/// Raises the rows' references to what they now see.
///
/// A reference follows the maximum only when that has risen by more than 8 (in powers of two): weights then stay below 256,
/// well inside the 16-bit range, and most stages need not touch the output (FlashAttention-4's lazy rescaling). Whether one has, each lane
/// says of its own scores; only where one has do the four lanes of a row agree on its maximum.
FI_DEVICE void raise_references(State &state, const float (&s)[row_tiles][key_tiles][4], float scale, bool has_lower) {
    float maximum[row_tiles][2];
    bool rises = false;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (h == 1 && !has_lower) break;
            float even = s[m][0][2 * h], odd = s[m][0][2 * h + 1];
#pragma unroll
            for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[m][n][2 * h]), odd = fmaxf(odd, s[m][n][2 * h + 1]);
            maximum[m][h] = fmaxf(even, odd);
            rises |= (maximum[m][h] - state.maximum[m][h]) * scale > tolerated_rise;
        }
    if (__any_sync(0xffffffff, rises)) {
        const auto multiply = [&](int m, int h, float factor) {
#pragma unroll
            for (int n = 0; n < value_tiles; ++n) state.output[m][n][2 * h] *= factor, state.output[m][n][2 * h + 1] *= factor;
        };
        float factors[row_tiles][2];
        bool has_seen = false;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                factors[m][h] = 1;
                if (h == 1 && !has_lower) break;
                has_seen |= state.maximum[m][h] != negative_infinity();
                const float next = fmaxf(quad_max(maximum[m][h]), state.maximum[m][h]);
                factors[m][h] = exp2_approximate(state.maximum[m][h] * scale - reference(next, scale));
                state.maximum[m][h] = next;
                state.sum[m][h] *= factors[m][h];
                if constexpr (FI_QUEUE) multiply(m, h, factors[m][h]);
            }
        // Outputs of rows that have seen nothing are zeros: the first stage of a list's item, which may be its only one, does without. Queued
        // items have many stages, and no registers for factors that wait.
        if (!FI_QUEUE && __any_sync(0xffffffff, has_seen)) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) multiply(m, h, factors[m][h]);
        }
    }
}

/// What the weights of a stage are relative to; `may_sum` says whether later stages may go by sums.
FI_DEVICE References references_of(State &state, const float (&s)[row_tiles][key_tiles][4], float scale, bool may_sum, bool has_lower) {
    if constexpr (!normalises) return {};
    if (!weighs_by_sums || !state.by_sums) {
        raise_references(state, s, scale, has_lower);
        if constexpr (weighs_by_sums) state.by_sums = may_sum && __all_sync(0xffffffff, state.has_seen());
    }
    References references;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) references.of[m][h] = -reference(state.maximum[m][h], scale);
    return references;
}

/// Keys that one product with the values takes: 32 where their elements are loaded for 32 keys at a time.
constexpr int unit_tiles = is_narrow ? 4 : 2, units = key_tiles / unit_tiles;

/// Weights of 8-bit values are rounded to float16, in which they are no more than 2^8 and the values exact, where that takes fewer
/// instructions than bfloat16: but e4m3 without an instruction of its own would need a factor.
constexpr bool weighs_in_float16 =
    is_narrow && half_type == Half::bfloat16 && !has_variant && (narrow != Narrow::e4m3 || widens_e4m3);
constexpr Half weight_type = weighs_in_float16 ? Half::float16 : half_type;

/// Whether a list's warp has one tile of rows, of which an item may have the upper half only: then the lower half's weights, a quarter of
/// what a stage takes, are left out.
constexpr bool may_halve_rows = !FI_QUEUE && warps_m == 1 && row_tiles == 1 && normalises;
FI_DEVICE bool has_lower_rows(const Item &item) { return !may_halve_rows || item.row_count > 8; }

/// Turns scores first ..< end of unit `unit`, `most` of them or fewer, into weights 2^(score · scale - reference).
///
/// The loop is over as many turns wherever it stands: one of `first ..< end`, whose bounds are numbers only when the loops about it are
/// written out, is written out long after them, and nearly doubles what the compiler's optimizer takes.
template <int most>
FI_DEVICE void weigh(State &state, float (&s)[row_tiles][key_tiles][4], const References &references, float scale, int unit, int first,
                     int end) {
    if constexpr (!normalises) return;
#pragma unroll
    for (int turn = 0; turn < most; ++turn) {
        const int e = first + turn, i = e % 4, n = unit * unit_tiles + e / 4 % unit_tiles, m = e / (4 * unit_tiles), h = i / 2;
        if (e >= end) continue;
        s[m][n][i] = exp2_approximate(fmaf(s[m][n][i], scale, references.of[m][h]));
        state.sum[m][h] += s[m][n][i];
    }
}

/// All scores of a thread's upper or lower row into weights.
FI_DEVICE void weigh_row(State &state, float (&s)[row_tiles][key_tiles][4], const References &references, float scale, int h) {
    if constexpr (!normalises) return;
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
            s[0][n][i] = exp2_approximate(fmaf(s[0][n][i], scale, references.of[0][h]));
            state.sum[0][h] += s[0][n][i];
        }
}

/// What a quantised cache's values are multiplied by.
FI_DEVICE float value_scale(const fi_attention_params &p, const Item &item) {
    return p.value_scales == 0 ? p.value_scale : p.value_scale * pointer<const float>(p.value_scales)[item.head];
}

/// Keys whose values a variant changes, from `first_key` of the request on.
struct ValueKeys {
    const fi_attention_params &p;
    const Item &item;
    const KeyFinder &finder;
    int first_key;

    __device__ __forceinline__ bool has(int key) const {
        return static_cast<uint32>(first_key + key - item.key) < static_cast<uint32>(item.key_count);
    }
    __device__ __forceinline__ int position(int key) const {
        if constexpr (has_columns) return has(key) ? finder.column(first_key + key) : 0;
        return first_key + key;
    }
};

/// The factors that a variant has for the values of `tiles` key tiles from `first` on. Eight rows of a warp need the same ones: of four key
/// tiles a lane computes one.
template <int tiles> struct ValueFactors {
    float own[(tiles + 3) / 4];

    __device__ __forceinline__ ValueFactors(const ValueKeys &those, int first) {
        if constexpr (value_hook == ValueHook::factor) {
#pragma unroll
            for (int n = 0; n < tiles; n += 4) {
                const int position = those.position((first + n) * 8 + threadIdx.x % warp_size);
                own[n / 4] = variant_value(those.p, VariantKey(those.p, those.item, position), 1, position);
            }
        }
    }
    /// Multiplies those key tiles' weights, whose sum has been taken.
    __device__ __forceinline__ void multiply(float (&s)[row_tiles][key_tiles][4], int first) const {
        if constexpr (value_hook == ValueHook::factor) {
#pragma unroll
            for (int n = 0; n < tiles; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float factor = __shfl_sync(0xffffffff, own[n / 4], n % 4 * 8 + threadIdx.x % 4 * 2 + i);
#pragma unroll
                    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                        for (int h = 0; h < 2; ++h) {
                            // What is hidden stays so, whatever its factor.
                            float &weight = s[m][first + n][2 * h + i];
                            if (weight != 0) weight *= factor;
                        }
                }
        }
    }
};

/// What a variant makes of values as products take them: of elements of two keys, the first from `key` on, low and high.
FI_DEVICE uint32 change_values(uint32 pair, const ValueKeys &those, int key, float scale) {
    if constexpr (value_hook == ValueHook::element) {
        float changed[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int position = those.position(key + i);
            const float value = unpack<half_type>(static_cast<uint16>(pair >> 16 * i)) * scale;
            changed[i] = variant_value(those.p, VariantKey(those.p, those.item, position), value, position);
            // Memory past the last key holds zeros, which must not become anything else.
            if (!those.has(key + i)) changed[i] = 0;
        }
        return pack<half_type>(changed[0], changed[1]);
    }
    return pair;
}

/// The weights of 16 keys as a left operand.
template <Half type = half_type> FI_DEVICE void pack_weights(uint32 (&a)[4], const float (&s)[key_tiles][4], int step) {
    a[0] = pack<type>(s[2 * step][0], s[2 * step][1]);
    a[1] = pack<type>(s[2 * step][2], s[2 * step][3]);
    a[2] = pack<type>(s[2 * step + 1][0], s[2 * step + 1][1]);
    a[3] = pack<type>(s[2 * step + 1][2], s[2 * step + 1][3]);
}

/// output += weights · values, of the warp's part of the stage. The weights of one unit of keys are computed between the products
/// of the one before, so that exponentials and tensor cores work at the same time.
FI_DEVICE void multiply_values(State &state, float (&s)[row_tiles][key_tiles][4], float scale, uint32 stage, int first_key,
                               const ValueKeys &those, bool may_sum) {
    const int lane = threadIdx.x % warp_size;
    // A slice of latent values starts at a multiple of the swizzle.
    const uint32 start = stage + (is_narrow ? ValueRows::offset(first_key + lane, 0) : ValueRows::offset(first_key + lane % 16, lane / 16))
                         + (is_latent ? blockIdx.y * slice_vo * element_bytes : 0);
    static_assert(!is_latent || slice_vo * element_bytes % 128 == 0 || slice_vo == dim_vo || !ValueRows::is_swizzled, "slices are whole swizzles");
    constexpr int weights = row_tiles * unit_tiles * 4, pairs = value_tiles / 2;
    const bool has_lower = has_lower_rows(those.item);
    const References references = references_of(state, s, scale, may_sum, has_lower);
    if constexpr (may_halve_rows) {
        // Scores of rows that are not there stay what they are: finite or not, no other row sees them.
        weigh_row(state, s, references, scale, 0);
        if (has_lower) weigh_row(state, s, references, scale, 1);
    } else {
        weigh<weights>(state, s, references, scale, 0, 0, weights);
    }
    const float element_scale = value_hook == ValueHook::element ? value_scale(those.p, those.item) : 1;
    // Fragments are loaded one pair of tiles ahead of the products that need them.
    uint32 b[2][4];
    load_matrices_transposed(b[0], start);
#pragma unroll
    for (int unit = 0; unit < units; ++unit) {
        uint32 a[unit_tiles / 2][row_tiles][4];
        ValueFactors<unit_tiles>(those, unit * unit_tiles).multiply(s, unit * unit_tiles);
        // The first of a thread's keys in each key tile of the unit.
        const int own_key = unit * unit_tiles * 8 + lane % 4 * 2;
#pragma unroll
        for (int step = 0; step < unit_tiles / 2; ++step)
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) pack_weights<weight_type>(a[step][m], s[m], unit * (unit_tiles / 2) + step);
#pragma unroll
        for (int pair = 0; pair < pairs; ++pair) {
            const int now = (unit * pairs + pair) % 2, next_unit = pair + 1 < pairs ? unit : unit + 1, next_pair = pair + 1 < pairs ? pair + 1 : 0;
            if (next_unit < units)
                load_matrices_transposed(b[1 - now], ValueRows::advance(start, next_unit * unit_tiles * 8, is_narrow ? next_pair : 2 * next_pair));
            if constexpr (is_narrow) {
                // A transposed load moves pairs of bytes: a thread gets elements 2c and 2c + 1 of two keys, so the product of the
                // even bytes is elements 0, 2, … of the 16, and that of the odd ones 1, 3, …
                uint32 even[4], odd[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if constexpr (weighs_in_float16) widen_to_float16<narrow>(b[now][i], even[i], odd[i]);
                    else widen<half_type, narrow>(b[now][i], even[i], odd[i]);
                    even[i] = change_values(even[i], those, own_key + 8 * i, element_scale);
                    odd[i] = change_values(odd[i], those, own_key + 8 * i, element_scale);
                }
#pragma unroll
                for (int step = 0; step < 2; ++step)
#pragma unroll
                    for (int m = 0; m < row_tiles; ++m) {
                        mma<weight_type>(state.output[m][2 * pair], a[step][m], even[2 * step], even[2 * step + 1]);
                        mma<weight_type>(state.output[m][2 * pair + 1], a[step][m], odd[2 * step], odd[2 * step + 1]);
                    }
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) b[now][i] = change_values(b[now][i], those, own_key + i % 2 * 8, element_scale);
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    mma<half_type>(state.output[m][2 * pair], a[0][m], b[now][0], b[now][1]);
                    mma<half_type>(state.output[m][2 * pair + 1], a[0][m], b[now][2], b[now][3]);
                }
            }
            if (!may_halve_rows && unit + 1 < units)
                weigh<ceil_div(weights, pairs)>(state, s, references, scale, unit + 1, weights * pair / pairs, weights * (pair + 1) / pairs);
        }
    }
}
