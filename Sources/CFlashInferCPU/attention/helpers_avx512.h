/// The helpers of AVX-512 F, BW, DQ and VL. Needs immintrin.h and lanes.h with FI_W == 16.

FI_INLINE vf vfma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }
FI_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
FI_INLINE vf load_f16(const uint8_t *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
FI_INLINE void store_f16(uint8_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/// x - floor(x), 0 for -inf.
FI_INLINE vf vfloor_part(vf x) { return (vf)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
/// a * 2^floor(b), 0 for b == -inf.
FI_INLINE vf vscale(vf a, vf b) { return (vf)_mm512_scalef_ps((__m512)a, (__m512)b); }
