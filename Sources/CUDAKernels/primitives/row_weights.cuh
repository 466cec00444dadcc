// What entries of a row weigh, and what masses weights are.
//
// An entry's weight is exp((logit - max) / temperature), so that the greatest is 1, a power of 2 of a logit for an exponent (exp.cuh), or
// a probability times a power of two that makes the greatest 1/2 or more. Masses, which are sums of weights, are integers: any order of
// adding them gives the same sum, so neither threads nor blocks keep to one.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh. FI_POWERS: logits may weigh powers of 2. FI_LISTS: a block alone has memory for lists of
// what top-p may keep.
#pragma once

#include "primitives/row_part.cuh"

#ifndef FI_POWERS
#define FI_POWERS 0
#endif
#ifndef FI_LISTS
#define FI_LISTS 0
#endif

#if FI_POWERS
/// What a logit weighs, by either way: for what is done of few entries, as two ways of it are long.
static __device__ __noinline__ float fi_any_weight(float x, float maximum, float scale, fi_powers powers, bool is_powers) {
    return is_powers ? powers.of(x) : fi_exp((x - maximum) * scale);
}
#endif

/// A row: the block's part of it, and what is known of all of it. All threads have the same.
struct fi_row {
    fi_row_part part;
    unsigned int width;
    float maximum, scale;
    /// A weight of 1 is the mass 2^(23 + low_bits).
    int low_bits;
    /// What is sent to `fi_select_few` is from this key on; of what is not held, in the first pass.
    unsigned int bound;
    /// Top-k keeps the keys above `kth`, and those equal to it up to place `last`.
    unsigned int kth, last;
    /// Whether what is held are weights.
    bool is_weighed;
    /// Whether weights are powers of 2, and for what exponent.
    bool is_powers;
    int exponent;
    fi_powers powers;
#if FI_LISTS
    /// The entries from here on are listed, of which this thread has `listed`; +inf where they are not. Logits that are drawn from are listed
    /// as weights for `listed_exponent`.
    float listed_from;
    unsigned int listed;
    int listed_exponent;
#endif

    __device__ __forceinline__ float weight(float x) const {
        return FI_POWERS && is_powers ? powers.of(x) : listed_weight(x);
    }
    /// The same, as a call where there are two ways.
    __device__ __forceinline__ float few_weight(float x) const {
#if FI_POWERS
        return fi_any_weight(x, maximum, scale, powers, is_powers);
#else
        return listed_weight(x);
#endif
    }
    /// The same of rows that are not summed by powers of 2.
    __device__ __forceinline__ float listed_weight(float x) const {
        return FI_FORM == 0 ? fi_exp((x - maximum) * scale) : x * scale;
    }
    /// What the greatest entry weighs.
    __device__ __forceinline__ float greatest() const { return FI_FORM == 1 || (FI_POWERS && is_powers) ? few_weight(maximum) : 1.0f; }
    /// The same for sums: what weighs nothing may weigh 2^-126, which has no mass.
    __device__ __forceinline__ float summed_weight(float x) const {
        return FI_POWERS && is_powers ? powers.of(x) : listed_sum(x);
    }
    __device__ __forceinline__ float listed_sum(float x) const {
        return FI_FORM == 0 ? fi_exp_bounded((x - maximum) * scale) : x * scale;
    }
    __device__ __forceinline__ bool keeps(float x, unsigned int place) const {
        const unsigned int key = fi_order_key(x);
        return key > kth || (key == kth && place <= last);
    }
    __device__ __forceinline__ double weight_of_mass(unsigned long long mass) const {
        return (double)mass * __longlong_as_double((long long)(1023 - 23 - low_bits) << 52);
    }
    /// Of (steps of) 2^-23.
    __device__ __forceinline__ float low_unit() const { return __int_as_float((127 + 23 + low_bits) << 23); }
};

/// Sums of round(weight * 2^(23 + low_bits)) for weights of at most 1: in two steps of float32, whose integers lie in the last bits
/// of a float of a known exponent. The two words are sums of their own, of fewer than 256 entries until `flush`.
struct fi_masses {
    unsigned int high = 0, low = 0;
    unsigned long long total = 0;

    static __device__ __forceinline__ void split(float weight, float low_unit, unsigned int &high, unsigned int &low) {
        const float steps = __fadd_rn(weight, 1.0f);
        const float rest = __fsub_rn(weight, __fsub_rn(steps, 1.0f));
        high = __float_as_uint(steps) - 0x3f800000u;
        low = __float_as_uint(__fmaf_rn(rest, low_unit, 0x1.8p23f)) - 0x4b400000u;
    }
    __device__ __forceinline__ void add(float weight, float low_unit) {
        unsigned int a, b;
        split(weight, low_unit, a, b);
        high += a;
        low += b;
    }
    __device__ __forceinline__ void add(float4 weights, float low_unit) {
        unsigned int a[4], b[4];
        split(weights.x, low_unit, a[0], b[0]);
        split(weights.y, low_unit, a[1], b[1]);
        split(weights.z, low_unit, a[2], b[2]);
        split(weights.w, low_unit, a[3], b[3]);
        high += a[0] + a[1] + a[2] + a[3];
        low += b[0] + b[1] + b[2] + b[3];
    }
    /// The same by conversions to 64 bits, a quarter of the instructions, at an eighth of the rate: for passes that have much else to do. Of
    /// weights above 1, anything. `unit` is 2^(23 + low_bits).
    __device__ __forceinline__ void convert(float4 weights, float unit) {
        total += (unsigned long long)__float2ll_rn(weights.x * unit) + (unsigned long long)__float2ll_rn(weights.y * unit)
            + ((unsigned long long)__float2ll_rn(weights.z * unit) + (unsigned long long)__float2ll_rn(weights.w * unit));
    }
    __device__ __forceinline__ void flush(int low_bits) {
        total += ((unsigned long long)high << low_bits) + (unsigned long long)(long long)(int)low;
        high = 0;
        low = 0;
    }
};

static __device__ __forceinline__ unsigned long long fi_mass(const fi_row &row, float weight) {
    unsigned int high, low;
    fi_masses::split(weight, row.low_unit(), high, low);
    return ((unsigned long long)high << row.low_bits) + (unsigned long long)(long long)(int)low;
}

/// Weights that are at least `threshold`, and 0 for others.
static __device__ __forceinline__ float4 fi_from(float4 weights, float threshold) {
    return make_float4(
        weights.x >= threshold ? weights.x : 0.0f, weights.y >= threshold ? weights.y : 0.0f,
        weights.z >= threshold ? weights.z : 0.0f, weights.w >= threshold ? weights.w : 0.0f);
}

#if !FI_HELD
/// The entries that top-k keeps, from place `place` on; others are neutral.
static __device__ __noinline__ float4 fi_keep_only(float4 x, unsigned int kth, unsigned int last, unsigned int place) {
    const auto keeps = [&](float entry, unsigned int i) {
        const unsigned int key = fi_order_key(entry);
        return key > kth || (key == kth && place + i <= last);
    };
    return make_float4(
        keeps(x.x, 0) ? x.x : fi_neutral(), keeps(x.y, 1) ? x.y : fi_neutral(), keeps(x.z, 2) ? x.z : fi_neutral(),
        keeps(x.w, 3) ? x.w : fi_neutral());
}

#if FI_POWERS
/// The weights of logits that do not weigh powers of 2.
static __device__ __noinline__ float4 fi_other_weights(float4 x, float maximum, float scale) {
    return make_float4(
        fi_exp_bounded((x.x - maximum) * scale), fi_exp_bounded((x.y - maximum) * scale), fi_exp_bounded((x.z - maximum) * scale),
        fi_exp_bounded((x.w - maximum) * scale));
}
#endif
#endif

/// The weights of the entries, 0 for those that top-k does not keep. Held logits are weights since `fi_sum_all` has written them, unless
/// `isRaw`.
template <bool isRaw = false>
struct fi_weight_groups {
    static constexpr bool reads_row = true, walks_at_once = true;
    const fi_row &row;
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
        return of(fi_raw_groups{row.part}(group), group);
    }
    __device__ __forceinline__ float4 of(float4 x, unsigned int group) const {
        if (FI_HELD && FI_FORM == 0 && !isRaw) return x;
#if !FI_HELD
        // What is rare is called, as passes are unrolled. The first sum of such logits is no pass of its own where they weigh powers of 2.
        if (row.kth > 0) x = fi_keep_only(x, row.kth, row.last, row.part.place(4 * group));
#if FI_POWERS
        if (!isRaw) return row.is_powers ? row.powers.of(x) : fi_other_weights(x, row.maximum, row.scale);
#endif
        // Powers of 2 where top-p is a share of what came before top-k.
        if (FI_POWERS && row.is_powers) return row.powers.of(x);
        if (isRaw) return make_float4(row.listed_sum(x.x), row.listed_sum(x.y), row.listed_sum(x.z), row.listed_sum(x.w));
#endif
        return make_float4(row.summed_weight(x.x), row.summed_weight(x.y), row.summed_weight(x.z), row.summed_weight(x.w));
    }
};

#if FI_POWERS
/// The weights of the entries of a row that may have been summed by powers of 2 and not have become weights.
struct fi_drawn_groups {
    static constexpr bool reads_row = true, walks_at_once = true;
    const fi_row &row;
    __device__ __forceinline__ float4 of(float4 x, unsigned int group) const { return fi_weight_groups<>{row}.of(x, group); }
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
        return FI_HELD && row.is_powers && !row.is_weighed ? row.powers.of(fi_raw_groups{row.part}(group)) : fi_weight_groups<>{row}(group);
    }
};
#else
typedef fi_weight_groups<> fi_drawn_groups;
#endif
