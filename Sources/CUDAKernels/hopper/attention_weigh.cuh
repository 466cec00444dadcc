// From scores to weights on Hopper: a softmax that looks for the maximum of a row once.
//
// A row's weights are relative to a reference, which the first stage sets to its maximum. Later stages compute weights first and look at
// their sum, which is needed anyway: where it is large, the reference rises and what was computed is scaled down. So no stage but the
// first waits for a maximum before its exponentials. Where a weight may have left float32's range, the scores are computed again.
//
// The references of a state are multiplied by the scale already.
#pragma once
#include "portable/attention_softmax.cuh"

#ifdef FI_HOPPER_FLOAT8
/// A thread's weights of a row and stage add up to this at most: none is then above e4m3's greatest number.
constexpr float largest_sum = 448;
/// A row's greatest weight is 2^lift when its reference is set by a maximum, and a thread's sum 2^lift to 2^(lift + 1) when it is
/// set by sums: weights then keep their three bits of mantissa down to some 2^-12 of the greatest.
constexpr int lift = 7;
#else
/// A thread's weights of a row and stage add up to this at most: well inside the range of float16. That of bfloat16 is float32's, so its
/// references do not rise until weights come near the end of it.
constexpr float largest_sum = half_type == Half::float16 ? 256 : 0x1p60f;
/// A row's greatest weight is 2^lift when its reference is set by a maximum.
constexpr int lift = 0;
#endif
/// Keys of a product with the values.
#ifdef FI_HOPPER_FLOAT8
constexpr int product_keys = 32;
#else
constexpr int product_keys = 16;
#endif
using Weights = uint32[keys / product_keys][4];
/// What a thread's rows are multiplied by.
using Pair = float[2];

/// Sums from here on may be of weights that had no float32, or outputs may have none.
constexpr float unsafe_sum = largest_sum > 0x1p50f ? largest_sum : 0x1p100f;

/// Whether a sum of the warp is not below `limit`; one that is no number is not.
FI_DEVICE bool any_reaches(const Pair &sums, float limit) {
    return __any_sync(0xffffffff, !(sums[0] < limit && sums[1] < limit));
}

/// Whether all rows of the warp have seen a key.
FI_DEVICE bool is_settled(const State &state) {
    return !__any_sync(0xffffffff, state.maximum[0][0] == negative_infinity() || state.maximum[0][1] == negative_infinity());
}

/// Scores become what weights are two to the power of.
FI_DEVICE void relate(const State &state, float (&s)[key_tiles][4], const Pair &scale) {
    const float offset[2] = {-reference(state.maximum[0][0], 1), -reference(state.maximum[0][1], 1)};
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = fmaf(s[n][i], scale[i / 2], offset[i / 2]);
}

/// The weights of keys 8 first ..< 8 end of a stage, added to `sums`.
template <int first, int end> FI_DEVICE void exponentiate(float (&s)[key_tiles][4], Pair &sums) {
    float odd[2] = {0, 0};
#pragma unroll
    for (int n = first; n < end; ++n)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            sums[h] += s[n][2 * h] = exp2_approximate(s[n][2 * h]);
            odd[h] += s[n][2 * h + 1] = exp2_approximate(s[n][2 * h + 1]);
        }
    sums[0] += odd[0], sums[1] += odd[1];
}

#ifdef FI_HOPPER_FLOAT8
/// Four floats as e4m3, the first in the lowest byte.
FI_DEVICE uint32 pack_e4m3(float a, float b, float c, float d) {
    uint32 r;
    asm("{\n.reg .b16 low, high;\n"
        "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
        "mov.b32 %0, {low, high};\n}\n"
        : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
    return r;
}

/// Weights as left operands of 32 keys each, the keys in the order in which a lane has them: see `Transposer`.
FI_DEVICE void pack_all(Weights &weights, const float (&s)[key_tiles][4]) {
#pragma unroll
    for (int step = 0; step < keys / 32; ++step)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&x)[4] = s[4 * step + i / 2 * 2], (&y)[4] = s[4 * step + i / 2 * 2 + 1];
            const int h = i % 2;
            weights[step][i] = pack_e4m3(x[2 * h], x[2 * h + 1], y[2 * h], y[2 * h + 1]);
        }
}
#else
FI_DEVICE void pack_all(Weights &weights, const float (&s)[key_tiles][4]) {
#pragma unroll
    for (int step = 0; step < keys / 16; ++step) pack_weights(weights[step], s, step);
}
#endif

FI_DEVICE void multiply_output(State &state, const Pair &factor) {
#pragma unroll
    for (int n = 0; n < value_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) state.output[0][n][i] *= factor[i / 2];
}

/// References rise to the greatest score so far, and the sums follow; `factor` is what the output is to be multiplied by.
FI_DEVICE void raise_to_maximum(State &state, const float (&s)[key_tiles][4], const Pair &scale, Pair &factor) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][2 * h], odd = s[0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[n][2 * h]), odd = fmaxf(odd, s[n][2 * h + 1]);
        const float top = quad_max(fmaxf(even, odd));
        const float next = fmaxf(top == negative_infinity() ? top : top * scale[h] - lift, state.maximum[0][h]);
        factor[h] = exp2_approximate(state.maximum[0][h] - reference(next, 1));
        state.maximum[0][h] = next;
        state.sum[0][h] *= factor[h];
    }
}

/// References rise where a row's weights are large, and weights, sums and output follow. False, and nothing changed, where weights
/// may have left float32's range.
FI_DEVICE bool raise_to_sums(State &state, float (&s)[key_tiles][4], Weights &weights, Pair &sums) {
    if constexpr (largest_sum == unsafe_sum) return false;
    const Pair top = {quad_max(sums[0]), quad_max(sums[1])};
    if (any_reaches(top, unsafe_sum)) return false;
    Pair factor;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float next = state.maximum[0][h] + (top[h] > largest_sum ? floorf(log2_approximate(top[h])) - lift : 0);
        factor[h] = exp2_approximate(state.maximum[0][h] - next);
        state.maximum[0][h] = next;
        state.sum[0][h] *= factor[h];
        sums[h] *= factor[h];
    }
    multiply_output(state, factor);
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] *= factor[i / 2];
    pack_all(weights, s);
    return true;
}
