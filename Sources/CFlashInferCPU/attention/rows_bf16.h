/// Gather and pack in the bfloat16 format. Needs bytes_bf16.h and elements.h.

FI_INLINE __mmask32 words_left(int count) { return count >= 32 ? 0xFFFFFFFFu : count <= 0 ? 0 : (1u << count) - 1; }
FI_INLINE __mmask64 bytes_left(int count) { return count >= 64 ? ~0ull : count <= 0 ? 0 : (1ull << count) - 1; }

FI_INLINE void gather_bytes(uint16_t *dst, int64_t stride, const fi_attn_rows *rows, int width, fi_attn_type type) {
    const byte_table table = byte_table_of(type);
    for (int i = 0; i < rows->count; i++) {
        const uint8_t *src = row_at(rows, i);
        uint16_t *out = dst + i * stride;
        for (int c = 0; c < width; c += 64) {
            __m512i a, b;
            const __m512i x = width - c >= 64 ? _mm512_loadu_si512(src + c)
                                              : _mm512_maskz_loadu_epi8(bytes_left(width - c), src + c);
            widen_bytes(x, &table, type, &a, &b);
            _mm512_storeu_si512(out + c, a);
            if (c + 32 < stride) _mm512_storeu_si512(out + c + 32, b);
        }
    }
}

FI_INLINE void gather_wide(uint16_t *dst, int64_t stride, const fi_attn_rows *rows, int width, fi_attn_type type) {
    for (int i = 0; i < rows->count; i++) {
        const uint8_t *src = row_at(rows, i);
        uint16_t *out = dst + i * stride;
        int c = 0;
        for (; c < width; c += 16)
            _mm256_storeu_si256((__m256i *)(out + c),
                                (__m256i)_mm512_cvtneps_pbh((__m512)load_row(src, c, width, type)));
        for (; c < stride; c++) out[c] = 0;
    }
}

/// Plain copies keep NaN payloads and subnormals.
FI_INLINE void gather_same(uint16_t *dst, int64_t stride, const fi_attn_rows *rows, int width) {
    for (int i = 0; i < rows->count; i++)
        for (int c = 0; c < stride; c += 32)
            _mm512_storeu_si512(dst + i * stride + c,
                                _mm512_maskz_loadu_epi16(words_left(width - c), row_at(rows, i) + c * 2));
}

static void gather_bf16(void *dst, int64_t stride, fi_attn_rows rows, int32_t width) {
    switch (rows.type) {
    case FI_ATTN_F32: gather_wide(dst, stride, &rows, width, FI_ATTN_F32); break;
    case FI_ATTN_F16: gather_wide(dst, stride, &rows, width, FI_ATTN_F16); break;
    case FI_ATTN_BF16: gather_same(dst, stride, &rows, width); break;
    case FI_ATTN_E4M3: gather_bytes(dst, stride, &rows, width, FI_ATTN_E4M3); break;
    case FI_ATTN_E5M2: gather_bytes(dst, stride, &rows, width, FI_ATTN_E5M2); break;
    case FI_ATTN_INT8: gather_bytes(dst, stride, &rows, width, FI_ATTN_INT8); break;
    }
}

/// [panel of 16 keys][dim pair][key][2]
FI_INLINE void pack_key_rows(float *panels, const fi_attn_rows *keys, int width) {
    const int pairs = width / 2;
    for (int k0 = 0; k0 < keys->count; k0 += 16) {
        float *panel = panels + (int64_t)k0 * pairs;
        const uint8_t *row[16];
        __mmask32 present[16];
        for (int i = 0; i < 16; i++) {
            const bool valid = k0 + i < keys->count;
            row[i] = row_at(keys, valid ? k0 + i : k0);
            present[i] = valid ? 0xFFFFFFFFu : 0;
        }
        for (int c = 0; c < width; c += 32) {
            const __mmask32 inside = words_left(width - c);
            vf r[16];
            FI_UNROLL for (int i = 0; i < 16; i++) r[i] = (vf)_mm512_maskz_loadu_epi16(inside & present[i], row[i] + c * 2);
            transpose(r);
            const int count = pairs - c / 2;
            FI_UNROLL for (int i = 0; i < 16; i++) if (i < count) storeu(panel + (int64_t)(c / 2 + i) * 16, r[i]);
        }
    }
}

/// Words of a and b taken in turn: dims 0..<16 as pairs (a, b), then dims 16..<32.
FI_INLINE void pair_rows(__m512i a, __m512i b, __m512i *first, __m512i *second) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    *first = _mm512_permutex2var_epi16(a, low, b);
    *second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(low, _mm512_set1_epi16(16)), b);
}

/// [panel of 16 dims][key pair][dim][2]
FI_INLINE void pack_value_rows(float *out, int pairs, int from, const fi_attn_rows *values, int width) {
    for (int k = 0; k < ((values->count + 15) & ~15); k += 2) {
        const int j = from / 2 + k / 2;
        const uint8_t *a = row_at(values, k < values->count ? k : 0);
        const uint8_t *b = row_at(values, k + 1 < values->count ? k + 1 : 0);
        const __mmask32 has_a = k < values->count ? 0xFFFFFFFFu : 0, has_b = k + 1 < values->count ? 0xFFFFFFFFu : 0;
        for (int c = 0; c < width; c += 32) {
            const __mmask32 inside = words_left(width - c);
            __m512i x, y;
            pair_rows(_mm512_maskz_loadu_epi16(inside & has_a, a + c * 2),
                      _mm512_maskz_loadu_epi16(inside & has_b, b + c * 2), &x, &y);
            float *panel = out + ((int64_t)(c / 16) * pairs + j) * 16;
            _mm512_storeu_si512(panel, x);
            if (c + 16 < width) _mm512_storeu_si512(panel + (int64_t)pairs * 16, y);
        }
    }
}

/// Rows of bytes pass through a small buffer of bfloat16, sixteen at a time. 512 dims are the most that fit.
#define FI_MAX_WIDTH 512

static void pack_keys_bf16(void *panels, fi_attn_rows keys, int32_t width) {
    if (keys.type == FI_ATTN_BF16) {
        pack_key_rows(panels, &keys, width);
        return;
    }
    uint16_t buffer[16 * FI_MAX_WIDTH];
    int64_t offsets[16];
    const int stride = (width + 31) & ~31;
    for (int i = 0; i < 16; i++) offsets[i] = (int64_t)i * stride * 2;
    for (int k = 0; k < keys.count; k += 16) {
        const int n = keys.count - k < 16 ? keys.count - k : 16;
        gather_bf16(buffer, stride, (fi_attn_rows){keys.base, keys.offsets + k, n, keys.type}, width);
        const fi_attn_rows rows = {buffer, offsets, n, FI_ATTN_BF16};
        pack_key_rows((float *)panels + (int64_t)k * (width / 2), &rows, width);
    }
}

static void pack_values_bf16(void *panels, fi_attn_rows values, int32_t width) {
    const int pairs = ((values.count + 15) & ~15) / 2;
    if (values.type == FI_ATTN_BF16) {
        pack_value_rows(panels, pairs, 0, &values, width);
        return;
    }
    uint16_t buffer[16 * FI_MAX_WIDTH];
    int64_t offsets[16];
    const int stride = (width + 31) & ~31;
    for (int i = 0; i < 16; i++) offsets[i] = (int64_t)i * stride * 2;
    for (int k = 0; k < values.count; k += 16) {
        const int n = values.count - k < 16 ? values.count - k : 16;
        gather_bf16(buffer, stride, (fi_attn_rows){values.base, values.offsets + k, n, values.type}, width);
        const fi_attn_rows rows = {buffer, offsets, n, FI_ATTN_BF16};
        pack_value_rows(panels, pairs, k, &rows, width);
    }
}
