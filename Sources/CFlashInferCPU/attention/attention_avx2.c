/// AVX2 + FMA + F16C: eight lanes, sixteen registers (a 6x2 block leaves four).
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define FI_W 8
#define FI_ROWS 6
#define FI_PANELS 2
#define FI_STREAM_ROWS 2
#include "lanes.h"

FI_INLINE vf vfma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }
FI_INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
FI_INLINE vf load_f16(const uint8_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
FI_INLINE void store_f16(uint8_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
FI_INLINE vf vclamp(vf x) { return (vf)_mm256_max_ps(_mm256_set1_ps(-127), (__m256)x); }  // NaN stays NaN
FI_INLINE vf vfloor_part(vf x) {
    x = vclamp(x);
    return x - (vf)_mm256_floor_ps((__m256)x);
}
FI_INLINE vf vscale(vf a, vf b) {
    const vi n = (vi)_mm256_cvtps_epi32(_mm256_floor_ps((__m256)vclamp(b)));
    return a * (vf)((n + 127) << 23);
}

#include "format_f32.h"

const fi_attention_kernels fi_attention_avx2 = FI_TABLE(FI_ISA_AVX2, 0);
#pragma clang attribute pop
#endif
