// Angles of positions, and turns of pairs by them: what rotary embedding is, alone and with an append.
//
// An angle is a 64-bit fraction of a turn, in which position times frequency is exact: whole turns fall off at the top, so it
// holds at any position.
//
// FI_TABLED: whether cosines and sines are looked up instead.
#pragma once

#include "fi_rope_params.h"

/// The cosine and the sine of a fraction of a turn times a position.
static __device__ __forceinline__ float2 cosine_sine_of(unsigned long long fraction, int position) {
    const unsigned long long turn = fraction * (unsigned long long)(long long)position;
    // The nearest multiple of a quarter turn goes in the quadrant; what is left, at most an eighth either way, keeps all the
    // bits of its float. sincospif takes half turns: 2^64 is 2.
    const unsigned int quadrant = (unsigned int)((turn + (1ull << 61)) >> 62);
    const long long rest = (long long)(turn - ((unsigned long long)quadrant << 62));
    float s, c;
    sincospif((float)rest * 0x1p-63f, &s, &c);
    const float x = quadrant & 1 ? -s : c;
    const float y = quadrant & 1 ? c : s;
    return quadrant & 2 ? make_float2(-x, -y) : make_float2(x, y);
}

/// The cosine and the sine of pair `pair` of `half` at a position.
static __device__ __forceinline__ float2 cosine_sine(const fi_rope_angles &angles, unsigned int half, unsigned int pair, int position) {
    if constexpr (FI_TABLED) {
        // Positions in device memory are nobody's to check but ours.
        if ((unsigned int)position >= angles.table_rows) return make_float2(__int_as_float(0x7fffffff), __int_as_float(0x7fffffff));
        const float *row = (const float *)angles.table + position * angles.table_stride;
        return make_float2(row[pair], row[half + pair]);
    }
    return cosine_sine_of(((const unsigned long long *)angles.turns)[pair], position);
}
/// The fraction of the first pair that a thread fills in. No kernel writes these: they are read before the wait for those ahead.
static __device__ __forceinline__ unsigned long long first_fraction(const fi_rope_angles &angles, unsigned int half) {
    if (FI_TABLED || threadIdx.x >= half) return 0;
    return ((const unsigned long long *)angles.turns)[threadIdx.x];
}

/// The cosines and sines of a position, by all threads of a block.
static __device__ __forceinline__ void fill_table(
    const fi_rope_angles &angles, unsigned int half, int position, unsigned long long fraction, float2 *table
) {
#pragma unroll 1
    for (unsigned int i = threadIdx.x; i < half; i += FI_THREADS) {
        if constexpr (FI_TABLED) {
            table[i] = cosine_sine(angles, half, i, position);
        } else {
            table[i] = cosine_sine_of(fraction, position);
            if (i + FI_THREADS < half) fraction = ((const unsigned long long *)angles.turns)[i + FI_THREADS];
        }
    }
}

/// Where a vector of pairs lies in its head: its first elements, and its second ones (or the neighbours of the first).
template <int V>
static __device__ __forceinline__ void pair_places(
    bool interleaved, unsigned int half, unsigned int pair, long long &first, long long &second
) {
    first = interleaved ? 2 * (long long)pair : pair;
    second = interleaved ? first + V : (long long)pair + half;
}

/// Turns one pair, in instructions that no compiler chooses: kernels that turn give the same bits.
static __device__ __forceinline__ void rotate(float2 by, float &u, float &v) {
    const float turned = __fmaf_rn(u, by.x, -__fmul_rn(v, by.y));
    v = __fmaf_rn(v, by.x, __fmul_rn(u, by.y));
    u = turned;
}

/// Turns the pairs of two vectors: of the first and of the second elements, or two neighbouring ones of whole pairs.
template <int V, bool tabled>
static __device__ __forceinline__ void turn(
    const fi_rope_angles &angles, bool interleaved, unsigned int half, unsigned int pair, int position, const float2 *table,
    float (&a)[V], float (&b)[V]
) {
    if (interleaved && V > 1) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float2 by = tabled ? table[pair + i] : cosine_sine(angles, half, pair + i, position);
            float &u = 2 * i < V ? a[2 * i % V] : b[2 * i % V];
            float &v = 2 * i < V ? a[(2 * i + 1) % V] : b[(2 * i + 1) % V];
            rotate(by, u, v);
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float2 by = tabled ? table[pair + i] : cosine_sine(angles, half, pair + i, position);
            rotate(by, a[i], b[i]);
        }
    }
}
