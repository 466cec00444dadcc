/// 8-bit elements to bfloat16, exactly: the magnitude indexes two 128-byte tables (VPERMI2B), the sign is added after.
/// Needs immintrin.h.

// The bfloat16 bits of m * 2^(bias - 127) for 0 <= m < 128.
#define FI_LOG2(m) ((m) >= 64 ? 6 : (m) >= 32 ? 5 : (m) >= 16 ? 4 : (m) >= 8 ? 3 : (m) >= 4 ? 2 : (m) >= 2 ? 1 : 0)
#define FI_WHOLE(m, bias) ((m) == 0 ? 0 : ((FI_LOG2(m) + (bias)) << 7) | (((m) << (7 - FI_LOG2(m))) & 0x7F))

#define FI_E4M3(b) \
    ((b) == 0x7F ? 0x7FC0 : (b) >= 8 ? ((((b) >> 3) + 120) << 7) | (((b) & 7) << 4) : FI_WHOLE(b, 118))
#define FI_E5M2(b) \
    ((b) >= 0x7C ? 0x7F80 | (((b) & 3) << 5) : (b) >= 4 ? ((((b) >> 2) + 112) << 7) | (((b) & 3) << 5) : FI_WHOLE(b, 111))
// Entry 0 is 128, for -128, whose magnitude is 0 in seven bits; 0 itself is masked.
#define FI_INT8(b) ((b) == 0 ? 0x4300 : FI_WHOLE(b, 127))

#define FI_4(F, SHIFT, b) (F(b) >> SHIFT) & 0xFF, (F(b + 1) >> SHIFT) & 0xFF, (F(b + 2) >> SHIFT) & 0xFF, (F(b + 3) >> SHIFT) & 0xFF
#define FI_16(F, S, b) FI_4(F, S, b), FI_4(F, S, b + 4), FI_4(F, S, b + 8), FI_4(F, S, b + 12)
#define FI_64(F, S, b) FI_16(F, S, b), FI_16(F, S, b + 16), FI_16(F, S, b + 32), FI_16(F, S, b + 48)
#define FI_BYTE_TABLE(F) {{FI_64(F, 0, 0), FI_64(F, 0, 64)}, {FI_64(F, 8, 0), FI_64(F, 8, 64)}}

/// [low byte, high byte][magnitude]
static const uint8_t byte_tables[3][2][128] = {FI_BYTE_TABLE(FI_E4M3), FI_BYTE_TABLE(FI_E5M2), FI_BYTE_TABLE(FI_INT8)};

typedef struct {
    __m512i low0, low1, high0, high1;
} byte_table;

FI_INLINE byte_table byte_table_of(fi_attn_type type) {
    const uint8_t(*t)[128] = byte_tables[type - FI_ATTN_E4M3];
    return (byte_table){_mm512_loadu_si512(t[0]), _mm512_loadu_si512(t[0] + 64), _mm512_loadu_si512(t[1]),
                        _mm512_loadu_si512(t[1] + 64)};
}

/// The low and high bytes of the bfloat16 of 64 bytes.
FI_INLINE void split_bytes(__m512i x, const byte_table *t, fi_attn_type type, __m512i *low, __m512i *high) {
    const __m512i index = type == FI_ATTN_INT8 ? _mm512_abs_epi8(x) : x;
    *low = _mm512_permutex2var_epi8(t->low0, index, t->low1);
    *high = type == FI_ATTN_INT8
        ? _mm512_maskz_permutex2var_epi8(_mm512_test_epi8_mask(x, x), t->high0, index, t->high1)
        : _mm512_permutex2var_epi8(t->high0, index, t->high1);
    *high = _mm512_ternarylogic_epi64(*high, x, _mm512_set1_epi8((char)0x80), 0xF8);  // high | (x & 0x80)
}

/// Sixty-four bytes to two vectors of 32 bfloat16 in order.
FI_INLINE void widen_bytes(__m512i x, const byte_table *t, fi_attn_type type, __m512i *first, __m512i *second) {
    // Interleaving low and high bytes works inside 128-bit lanes: bring the quarters to where that gives the order.
    x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), x);
    __m512i low, high;
    split_bytes(x, t, type, &low, &high);
    *first = _mm512_unpacklo_epi8(low, high);
    *second = _mm512_unpackhi_epi8(low, high);
}
