// The running softmax of a warp's rows (Milakov and Gimelshein, arXiv 1805.02867) and the product with the values.
#pragma once
#include "portable/attention_scores.cuh"

/// The state of a warp's rows: output not yet divided by the sum, the maximum it is relative to, this thread's share of the sum.
struct State {
    float output[row_tiles][value_tiles][4];
    float maximum[row_tiles][2], sum[row_tiles][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
            for (int n = 0; n < value_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) output[m][n][i] = 0;
#pragma unroll
            for (int h = 0; h < 2; ++h) maximum[m][h] = negative_infinity(), sum[m][h] = 0;
        }
    }
};

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

/// A maximum as what is subtracted from scaled scores: rows that have seen nothing subtract nothing.
FI_DEVICE float reference(float maximum, float scale) { return maximum == negative_infinity() ? 0 : maximum * scale; }

/// Turns scores into weights 2^(score · scale - reference), packed as operands of the product with the values.
///
/// The reference follows the maximum only when that has risen by more than 8 (in powers of two): weights then stay below 256,
/// well inside the 16-bit range, and most stages need not touch the output (FlashAttention-4's lazy rescaling).
FI_DEVICE void softmax(State &state, float (&s)[row_tiles][key_tiles][4], float scale) {
    constexpr float tolerated = 8;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
        float maximum[2];
        bool rises = false;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            maximum[h] = s[m][0][2 * h];
#pragma unroll
            for (int n = 0; n < key_tiles; ++n) maximum[h] = fmaxf(maximum[h], fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
            maximum[h] = quad_max(maximum[h]);
            rises |= (maximum[h] - state.maximum[m][h]) * scale > tolerated;
        }
        if (__any_sync(0xffffffff, rises)) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float next = fmaxf(maximum[h], state.maximum[m][h]);
                const float factor = exp2_approximate(state.maximum[m][h] * scale - reference(next, scale));
                state.maximum[m][h] = next;
                state.sum[m][h] *= factor;
#pragma unroll
                for (int n = 0; n < value_tiles; ++n) state.output[m][n][2 * h] *= factor, state.output[m][n][2 * h + 1] *= factor;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float base = reference(state.maximum[m][h], scale);
            float sum = 0;
#pragma unroll
            for (int n = 0; n < key_tiles; ++n)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; ++i) {
                    s[m][n][i] = exp2_approximate(fmaf(s[m][n][i], scale, -base));
                    sum += s[m][n][i];
                }
            state.sum[m][h] += sum;
        }
    }
}

/// The weights of 16 keys as a left operand.
FI_DEVICE void pack_weights(uint32 (&a)[4], const float (&s)[key_tiles][4], int step) {
    a[0] = pack<half_type>(s[2 * step][0], s[2 * step][1]);
    a[1] = pack<half_type>(s[2 * step][2], s[2 * step][3]);
    a[2] = pack<half_type>(s[2 * step + 1][0], s[2 * step + 1][1]);
    a[3] = pack<half_type>(s[2 * step + 1][2], s[2 * step + 1][3]);
}

/// output += weights · values, of the warp's part of the stage.
FI_DEVICE void multiply_values(State &state, const float (&s)[row_tiles][key_tiles][4], uint32 stage, int first_key) {
    const int lane = threadIdx.x % warp_size;
    const uint32 start = stage + (is_narrow ? ValueRows::offset(first_key + lane, 0) : ValueRows::offset(first_key + lane % 16, lane / 16));
    if constexpr (is_narrow) {
#pragma unroll
        for (int step = 0; step < key_tiles / 2; step += 2) {
            uint32 a[2][row_tiles][4];
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) pack_weights(a[0][m], s[m], step), pack_weights(a[1][m], s[m], step + 1);
#pragma unroll
            for (int n = 0; n < value_tiles; n += 2) {
                // A transposed load moves pairs of bytes: a thread gets elements 2c and 2c + 1 of two keys, so the product of the
                // even bytes is elements 0, 2, … of the 16, and that of the odd ones 1, 3, …
                uint32 b[4];
                load_matrices_transposed(b, ValueRows::advance(start, step * 16, n / 2));
                uint32 even[4], odd[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) widen<half_type, narrow>(b[i], even[i], odd[i]);
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    mma<half_type>(state.output[m][n], a[0][m], even[0], even[1]);
                    mma<half_type>(state.output[m][n + 1], a[0][m], odd[0], odd[1]);
                    mma<half_type>(state.output[m][n], a[1][m], even[2], even[3]);
                    mma<half_type>(state.output[m][n + 1], a[1][m], odd[2], odd[3]);
                }
            }
        }
    } else {
#pragma unroll
        for (int step = 0; step < key_tiles / 2; ++step) {
            uint32 a[row_tiles][4];
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) pack_weights(a[m], s[m], step);
#pragma unroll
            for (int n = 0; n < value_tiles; n += 2) {
                uint32 b[4];
                load_matrices_transposed(b, ValueRows::advance(start, step * 16, n));
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    mma<half_type>(state.output[m][n], a[m], b[0], b[1]);
                    mma<half_type>(state.output[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
}
