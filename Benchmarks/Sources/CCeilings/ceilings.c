#include "ceilings.h"

#include <stdbool.h>
#include <string.h>

// Sixteen independent chains cover a latency of four at two a cycle, and then some.
#define CHAINS 16

#if defined(__x86_64__)
#include <immintrin.h>

static bool has_avx512(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"); }
static bool has_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

__attribute__((target("avx512f"))) static float fma_avx512(int64_t iterations) {
    __m512 sums[CHAINS];
    for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_set1_ps((float)i);
    const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
    for (int64_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_fmadd_ps(sums[i], a, b);
    }
    for (int i = 1; i < CHAINS; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return _mm512_reduce_add_ps(sums[0]);
}

__attribute__((target("avx2,fma"))) static float fma_avx2(int64_t iterations) {
    __m256 sums[12];
    for (int i = 0; i < 12; i++) sums[i] = _mm256_set1_ps((float)i);
    const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
    for (int64_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < 12; i++) sums[i] = _mm256_fmadd_ps(sums[i], a, b);
    }
    float out[8], sum = 0;
    for (int i = 1; i < 12; i++) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    _mm256_storeu_ps(out, sums[0]);
    for (int i = 0; i < 8; i++) sum += out[i];
    return sum;
}

__attribute__((target("avx512f,avx512bf16"))) static float dot_avx512(int64_t iterations) {
    __m512 sums[CHAINS];
    for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_set1_ps((float)i);
    const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3a00);
    for (int64_t n = 0; n < iterations; n++) {
#pragma clang loop unroll(full)
        for (int i = 0; i < CHAINS; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
    }
    for (int i = 1; i < CHAINS; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return _mm512_reduce_add_ps(sums[0]);
}

__attribute__((target("avx512f"))) static uint64_t read_avx512(const void *bytes, int64_t count) {
    __m512i sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm512_setzero_si512();
    const __m512i *p = bytes;
    for (int64_t n = 0; n < count / 512; n++, p += 8) {
#pragma clang loop unroll(full)
        for (int i = 0; i < 8; i++) sums[i] = _mm512_add_epi64(sums[i], _mm512_loadu_si512(p + i));
    }
    for (int i = 1; i < 8; i++) sums[0] = _mm512_add_epi64(sums[0], sums[i]);
    return (uint64_t)_mm512_reduce_add_epi64(sums[0]);
}
#else
static bool has_avx512(void) { return false; }
static bool has_bf16(void) { return false; }
static bool has_avx2(void) { return false; }
static float fma_avx512(int64_t iterations) { return 0; }
static float fma_avx2(int64_t iterations) { return 0; }
static float dot_avx512(int64_t iterations) { return 0; }
static uint64_t read_avx512(const void *bytes, int64_t count) { return 0; }
#endif

typedef float lanes __attribute__((vector_size(16)));

static float fma_portable(int64_t iterations) {
    lanes sums[CHAINS];
    memset(sums, 0, sizeof sums);
    for (int64_t n = 0; n < iterations; n++)
        for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * 0.999f + 1e-3f;
    float sum = 0;
    for (int i = 0; i < CHAINS; i++)
        for (int k = 0; k < 4; k++) sum += sums[i][k];
    return sum;
}

double ceiling_fma32_operations(int64_t iterations) {
    const double lanes = has_avx512() ? 16 * CHAINS : has_avx2() ? 8 * 12 : 4 * CHAINS;
    return 2 * lanes * (double)iterations;
}

float ceiling_fma32(int64_t iterations) {
    return has_avx512() ? fma_avx512(iterations) : has_avx2() ? fma_avx2(iterations) : fma_portable(iterations);
}

double ceiling_bf16_dot_operations(int64_t iterations) {
    return has_bf16() ? 4.0 * 16 * CHAINS * (double)iterations : 0;
}

float ceiling_bf16_dot(int64_t iterations) { return has_bf16() ? dot_avx512(iterations) : 0; }

uint64_t ceiling_read(const void *bytes, int64_t count) {
    if (has_avx512()) return read_avx512(bytes, count);
    const uint64_t *words = bytes;
    uint64_t sums[8] = {0};
    for (int64_t n = 0; n < count / 64; n++)
        for (int i = 0; i < 8; i++) sums[i] += words[8 * n + i];
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++) sum += sums[i];
    return sum;
}
