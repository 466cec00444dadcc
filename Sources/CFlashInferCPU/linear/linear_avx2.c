/// Products on AVX2 + FMA + F16C: pairs of int16 products, then an add; tiles of four rows: the float totals of
/// a block spill, once in 64 products, which costs less than the loads that a lower tile repeats.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../include/fi_linear.h"

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define FI_TILE_ROWS 4
#define FI_LANES 8
typedef __m256i vi, va;
typedef __m256 vf;

#define va_zero() _mm256_setzero_si256()
#define vi_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define vi_set1(v) _mm256_set1_epi32(v)
#define vi_and(a, b) _mm256_and_si256(a, b)
#define vi_sub(a, b) _mm256_sub_epi32(a, b)
#define vi_sll32(a, n) _mm256_slli_epi32(a, n)
#define vi_sll16(a, n) _mm256_slli_epi16(a, n)
#define vi_srl16(a, n) _mm256_srli_epi16(a, n)
#define vi_sra16(a, n) _mm256_srai_epi16(a, n)
#define va_dot(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#define va_total(acc) (acc)
#define vf_zero() _mm256_setzero_ps()
#define vf_load(p) _mm256_loadu_ps(p)
#define vf_store(p, a) _mm256_storeu_ps(p, a)
#define vf_set1(v) _mm256_set1_ps(v)
#define vf_mul(a, b) _mm256_mul_ps(a, b)
#define vf_add(a, b) _mm256_add_ps(a, b)
#define vf_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vf_from_i(a) _mm256_cvtepi32_ps(a)
#define vf_load_half(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define vf_load_bf16(p) \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))), 16))

#include "quantize.h"
#include "tile.h"

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_avx2(void) { return &kernels; }

#pragma clang attribute pop
#endif
