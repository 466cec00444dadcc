/// Private: the vector vocabulary of tile.h in AVX-512, all but the dot product.
#pragma once

#define FI_LANES 16
typedef __m512i vi, va;
typedef __m512 vf;

#define va_zero() _mm512_setzero_si512()
#define va_total(acc) (acc)
#define vi_load(p) _mm512_loadu_si512(p)
#define vi_set1(v) _mm512_set1_epi32(v)
#define vi_and(a, b) _mm512_and_si512(a, b)
#define vi_sub(a, b) _mm512_sub_epi32(a, b)
#define vi_sll32(a, n) _mm512_slli_epi32(a, n)
#define vi_sll16(a, n) _mm512_slli_epi16(a, n)
#define vi_srl16(a, n) _mm512_srli_epi16(a, n)
#define vi_sra16(a, n) _mm512_srai_epi16(a, n)
#define vf_zero() _mm512_setzero_ps()
#define vf_load(p) _mm512_loadu_ps(p)
#define vf_store(p, a) _mm512_storeu_ps(p, a)
#define vf_set1(v) _mm512_set1_ps(v)
#define vf_mul(a, b) _mm512_mul_ps(a, b)
#define vf_add(a, b) _mm512_add_ps(a, b)
#define vf_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vf_from_i(a) _mm512_cvtepi32_ps(a)
#define vf_load_half(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define vf_load_bf16(p) \
    _mm512_castsi512_ps( \
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
