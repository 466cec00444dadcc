// Angles of positions, and turns of pairs by them: what rotary embedding is, alone and with an append.
//
// An angle is a 64-bit fraction of a turn, in which position times frequency is exact: whole turns fall off at the top, so it
// holds at any position.
//
// FI_TABLED: whether cosines and sines are looked up instead.
#pragma once

#include "fi_rope_params.h"
#include "primitives/divide.cuh"

/// The cosine and the sine of a fraction of a turn times a position.
static __device__ __forceinline__ float2 cosine_sine_of(unsigned long long fraction, int position) {
    const unsigned long long turn = fraction * (unsigned long long)(long long)position;
    // The nearest multiple of a quarter turn goes in the quadrant; what is left, at most an eighth either way, keeps all the
    // bits of its float.
    const unsigned int quadrant = ((unsigned int)(turn >> 32) + (1u << 29)) >> 30;
    const long long rest = (long long)(turn - ((unsigned long long)quadrant << 62));
    // In half turns, 2^64 is 2: at most a quarter. The polynomials have the least greatest error there (1e-10 and, as a part of the
    // result, 3e-9), so that what is left of it is rounding; a function for all angles would reduce this one once more.
    const float x = (float)rest * 0x1p-63f, square = __fmul_rn(x, x);
    float c = __fmaf_rn(square, 0.2314295470714569f, -1.3350584506988525f);
    c = __fmaf_rn(square, c, 4.0587077140808105f);
    c = __fmaf_rn(square, c, -4.934802055358887f);
    c = __fmaf_rn(square, c, 1.0f);
    float s = __fmaf_rn(square, -0.5890786647796631f, 2.549767255783081f);
    s = __fmaf_rn(square, s, -5.167707920074463f);
    s = __fmaf_rn(x, 3.1415927410125732f, __fmul_rn(__fmul_rn(x, square), s));
    // A quarter turn is (c, s) to (-s, c); two of them change both signs.
    const unsigned int sign_x = (quadrant + 1) << 30 & 0x80000000u, sign_y = quadrant << 30 & 0x80000000u;
    return make_float2(
        __uint_as_float(__float_as_uint(quadrant & 1 ? s : c) ^ sign_x),
        __uint_as_float(__float_as_uint(quadrant & 1 ? c : s) ^ sign_y));
}

/// Where a block keeps a pair's cosine and sine: 16 bytes of each thread of a head side by side, so that neighbours read from
/// different banks.
template <int V>
static __device__ __forceinline__ unsigned int place_in_table(unsigned int half, unsigned int pair) {
    constexpr unsigned int together = V < 2 ? 1 : 2;
    const unsigned int lane = pair / V, own = pair % V;
    return (own / together * (half / V) + lane) * together + own % together;
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

/// The cosines and sines of a position, by all threads of a block; V: pairs of a thread's vector.
template <int V>
static __device__ __forceinline__ void fill_table(
    const fi_rope_angles &angles, unsigned int half, int position, unsigned long long fraction, float2 *table
) {
#pragma unroll 1
    for (unsigned int i = threadIdx.x; i < half; i += FI_THREADS) {
        if constexpr (FI_TABLED) {
            table[place_in_table<V>(half, i)] = cosine_sine(angles, half, i, position);
        } else {
            table[place_in_table<V>(half, i)] = cosine_sine_of(fraction, position);
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

/// Turns the pairs of two vectors by cosines and sines in registers.
template <int V>
static __device__ __forceinline__ void turn(
    bool interleaved, const float (&cosines)[V], const float (&sines)[V], float (&a)[V], float (&b)[V]
) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float2 by = make_float2(cosines[i], sines[i]);
        if (interleaved && V > 1) {
            float &u = 2 * i < V ? a[2 * i % V] : b[2 * i % V];
            float &v = 2 * i < V ? a[(2 * i + 1) % V] : b[(2 * i + 1) % V];
            rotate(by, u, v);
        } else {
            rotate(by, a[i], b[i]);
        }
    }
}

/// Turns the pairs of two vectors: of the first and of the second elements, or two neighbouring ones of whole pairs.
template <int V, bool tabled>
static __device__ __forceinline__ void turn(
    const fi_rope_angles &angles, bool interleaved, unsigned int half, unsigned int pair, int position, const float2 *table,
    float (&a)[V], float (&b)[V]
) {
    // Two pairs a load of shared memory.
    constexpr int together = V < 2 ? 1 : 2;
    const auto pairs = [&](int i, float2 (&by)[together]) {
        if constexpr (tabled && V > 1) {
            const float4 two = ((const float4 *)table)[pair / V + i / 2 * (half / V)];
            by[0] = make_float2(two.x, two.y);
            by[together - 1] = make_float2(two.z, two.w);
        } else {
            for (int j = 0; j < together; j++) by[j] = tabled ? table[pair + i + j] : cosine_sine(angles, half, pair + i + j, position);
        }
    };
    if (interleaved && V > 1) {
#pragma unroll
        for (int i = 0; i < V; i += together) {
            float2 by[together];
            pairs(i, by);
#pragma unroll
            for (int j = i; j < i + together; j++) {
                float &u = 2 * j < V ? a[2 * j % V] : b[2 * j % V];
                float &v = 2 * j < V ? a[(2 * j + 1) % V] : b[(2 * j + 1) % V];
                rotate(by[j - i], u, v);
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i += together) {
            float2 by[together];
            pairs(i, by);
#pragma unroll
            for (int j = i; j < i + together; j++) rotate(by[j - i], a[j], b[j]);
        }
    }
}
