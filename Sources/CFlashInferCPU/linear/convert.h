/// Private: the conversion loops in branch-free plain C, which the compiler vectorises for the including file's
/// instruction set. Integer steps and exact float steps only, so all instruction sets give the same bits.
#pragma once

#include "../include/fi_convert.h"
#include "blocks.h"

/// Rounds the magnitude bits `a` of a finite float32 to a float of `M` mantissa bits and exponent bias `B`; what
/// overflows gives some pattern above the largest number's.
static inline __attribute__((always_inline)) uint32_t narrow(uint32_t a, const int M, const int B) {
    // Half a unit less one, plus the last kept bit, carries exactly where rounding to even goes up.
    const uint32_t rounded = a + ((1u << (22 - M)) - 1) + ((a >> (23 - M)) & 1);
    const uint32_t normal = (rounded >> (23 - M)) - ((uint32_t)(127 - B) << M);
    // Below the least normal number the unit is fixed: a sum with a number of that unit rounds there by itself.
    const uint32_t magic = (uint32_t)(127 + 23 + 1 - B - M) << 23;
    const uint32_t subnormal = fi_float_to_bits(fi_bits_to_float(a) + fi_bits_to_float(magic)) - magic;
    return a < ((uint32_t)(128 - B) << 23) ? subnormal : normal;
}

static inline __attribute__((always_inline)) uint16_t half_of(float x) {
    const uint32_t bits = fi_float_to_bits(x), a = bits & 0x7fffffff;
    uint32_t pattern = narrow(a, 10, 15);
    pattern = pattern > 0x7c00 ? 0x7c00 : pattern;
    pattern = a > 0x7f800000 ? (0x7e00 | ((a >> 13) & 0x3ff)) : pattern;
    return (uint16_t)(pattern | ((bits >> 16) & 0x8000));
}

static inline __attribute__((always_inline)) uint8_t float8_of(float x, uint32_t past, const int M, const int B,
                                                               const uint32_t largest) {
    const uint32_t bits = fi_float_to_bits(x), a = bits & 0x7fffffff;
    uint32_t pattern = narrow(a, M, B);
    pattern = pattern > largest ? past : pattern;
    pattern = a > 0x7f800000 ? 0x7f : pattern;
    return (uint8_t)(pattern | ((bits >> 24) & 0x80));
}

static void f16_from_f32(const float *restrict x, int64_t n, uint16_t *restrict out) {
    int64_t i = 0;
#ifdef FI_F16C
    for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), 0));
    }
#endif
    for (; i < n; i++) out[i] = half_of(x[i]);
}

static void f32_from_f16(const uint16_t *restrict x, int64_t n, float *restrict out) {
    int64_t i = 0;
#ifdef FI_F16C
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    }
#endif
    for (; i < n; i++) out[i] = fi_half_to_float(x[i]);
}

static void bf16_from_f32(const float *restrict x, int64_t n, uint16_t *restrict out) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = fi_float_to_bits(x[i]);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
    }
}

static void f32_from_bf16(const uint16_t *restrict x, int64_t n, float *restrict out) {
    for (int64_t i = 0; i < n; i++) out[i] = fi_bf16_to_float(x[i]);
}

static void e4m3_from_f32(const float *restrict x, int64_t n, bool saturate, uint8_t *restrict out) {
    const uint32_t past = saturate ? 0x7e : 0x7f;
    for (int64_t i = 0; i < n; i++) out[i] = float8_of(x[i], past, 3, 7, 0x7e);
}

static void f32_from_e4m3(const uint8_t *restrict x, int64_t n, float *restrict out) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t magnitude = x[i] & 0x7f;
        const uint32_t value = fi_float_to_bits(fi_bits_to_float(magnitude << 20) * 0x1p120f);
        out[i] = fi_bits_to_float((magnitude == 0x7f ? 0x7fc00000 : value) | ((uint32_t)(x[i] & 0x80) << 24));
    }
}

static void e5m2_from_f32(const float *restrict x, int64_t n, bool saturate, uint8_t *restrict out) {
    const uint32_t past = saturate ? 0x7b : 0x7c;
    for (int64_t i = 0; i < n; i++) out[i] = float8_of(x[i], past, 2, 15, 0x7b);
}

static void f32_from_e5m2(const uint8_t *restrict x, int64_t n, float *restrict out) {
    // An e5m2 number is the upper byte of a float16.
    for (int64_t i = 0; i < n; i++) out[i] = fi_half_to_float((uint16_t)(x[i] << 8));
}

static void i8_from_f32(const float *restrict x, int64_t n, float multiplier, int8_t *restrict out) {
    for (int64_t i = 0; i < n; i++) {
        float value = x[i] * multiplier;
        value = value == value ? value : 0;
        value = value < 127 ? value : 127;
        value = value > -128 ? value : -128;
        out[i] = (int8_t)((int32_t)fi_float_to_bits(value + 0x1.8p23f) - 0x4b400000);
    }
}

static void f32_from_i8(const int8_t *restrict x, int64_t n, float scale, float *restrict out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)x[i] * scale;
}

#define FI_CONVERT_KERNELS \
    {f16_from_f32, f32_from_f16, bf16_from_f32, f32_from_bf16, e4m3_from_f32, \
     f32_from_e4m3, e5m2_from_f32, f32_from_e5m2, i8_from_f32, f32_from_i8}
