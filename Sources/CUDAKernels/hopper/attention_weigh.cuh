// From scores to weights on Hopper: a softmax that looks for the maximum of a row once.
//
// A row's weights are relative to a reference, which the first stage sets to its maximum. Later stages compute weights first and look at
// their sum, which is needed anyway: where it is large, the reference rises and what was computed is scaled down. So no stage but the
// first waits for a maximum before its exponentials. Where a weight may have left float32's range, the scores are computed again.
//
// The references of a state are multiplied by the scale already.
#pragma once
#include "hopper/wgmma.cuh"
#include "portable/attention_softmax.cuh"

/// A thread's weights of a row and stage add up to this at most: well inside the range of 16 bits.
constexpr float largest_sum = 256;
/// Sums from here on may be of weights that had no float32.
constexpr float unsafe_sum = 0x1p100f;

/// Whether a sum of the warp is not below `limit`; one that is no number is not.
FI_DEVICE bool any_reaches(const float (&sums)[2], float limit) {
    return __any_sync(0xffffffff, !(sums[0] < limit && sums[1] < limit));
}

/// Whether all rows of the warp have seen a key.
FI_DEVICE bool is_settled(const State &state) {
    return !__any_sync(0xffffffff, state.maximum[0][0] == negative_infinity() || state.maximum[0][1] == negative_infinity());
}

/// Scores become what weights are two to the power of.
FI_DEVICE void relate(const State &state, float (&s)[key_tiles][4], float scale) {
    const float offset[2] = {-reference(state.maximum[0][0], 1), -reference(state.maximum[0][1], 1)};
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = fmaf(s[n][i], scale, offset[i / 2]);
}

/// The weights of keys 8 first ..< 8 end of a stage, added to `sums`.
template <int first, int end> FI_DEVICE void exponentiate(float (&s)[key_tiles][4], float (&sums)[2]) {
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

FI_DEVICE void pack_all(uint32 (&weights)[keys / 16][4], const float (&s)[key_tiles][4]) {
#pragma unroll
    for (int step = 0; step < keys / 16; ++step) pack_weights(weights[step], s, step);
}

FI_DEVICE void multiply_output(State &state, const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < value_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) state.output[0][n][i] *= factor[i / 2];
}

/// References rise to the greatest score so far, and the sums follow; `factor` is what the output is to be multiplied by.
FI_DEVICE void raise_to_maximum(State &state, const float (&s)[key_tiles][4], float scale, float (&factor)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][2 * h], odd = s[0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[n][2 * h]), odd = fmaxf(odd, s[n][2 * h + 1]);
        const float top = quad_max(fmaxf(even, odd));
        const float next = fmaxf(top == negative_infinity() ? top : top * scale, state.maximum[0][h]);
        factor[h] = exp2_approximate(state.maximum[0][h] - reference(next, 1));
        state.maximum[0][h] = next;
        state.sum[0][h] *= factor[h];
    }
}

/// References rise where a row's weights are large, and weights, sums and output follow. False, and nothing changed, where weights
/// may have left float32's range.
FI_DEVICE bool raise_to_sums(State &state, float (&s)[key_tiles][4], uint32 (&weights)[keys / 16][4], float (&sums)[2]) {
    const float top[2] = {quad_sum(sums[0]), quad_sum(sums[1])};
    if (any_reaches(top, unsafe_sum)) return false;
    float factor[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float next = state.maximum[0][h] + (top[h] > largest_sum ? floorf(log2_approximate(top[h])) : 0);
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

/// A warp's scores once more, by the products of one warp: rarely needed, and without the other warps of its group.
FI_DEVICE void compute_scores_again(float (&s)[key_tiles][4], const uint32 (&queries)[held_steps][4], uint32 stage) {
    // Else the compiler computes these addresses for every stage, in registers that all others need.
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    const uint32 row = stage + (lane / 16 * 8 + lane % 8) * 128;
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll
    for (int step = 0; step < held_steps; ++step) {
        uint32 b[4];
#pragma unroll
        for (int pair = 0; pair < key_tiles / 2; ++pair) {
            load_matrices(b, row + (step / 4 * keys + pair * 16) * 128 + ((step % 4 * 2 + lane / 8 % 2 ^ lane % 8) << 4));
            mma<half_type>(s[2 * pair], queries[step], b[0], b[1]);
            mma<half_type>(s[2 * pair + 1], queries[step], b[2], b[3]);
        }
    }
}
