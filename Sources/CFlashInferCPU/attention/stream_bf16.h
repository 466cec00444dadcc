/// Decode and short appends in the bfloat16 format. Needs stream.h and rows_bf16.h.

/// As stream_block. 8-bit keys are widened in registers, 64 dims a step.
FI_INLINE vf stream_block_bf16(const uint16_t *q, int64_t q_stride, int row, int all_rows, const fi_attn_stream *k,
                               int head, int token, int width, const byte_table *table, fi_attn_type type,
                               const int rows, const int tokens) {
    vf acc[16];
    const uint8_t *key[16];
    const uint16_t *query[16];
    FI_UNROLL for (int i = 0; i < 16; i++) acc[i] = (vf){0};
    FI_UNROLL for (int t = 0; t < tokens; t++) key[t] = token_at(k, head, smaller(token + t, k->count - 1));
    FI_UNROLL for (int r = 0; r < rows; r++) query[r] = q + (head * all_rows + smaller(row + r, all_rows - 1)) * q_stride;
#define FI_DOT(R, T, X, C) \
    acc[(R) * tokens + (T)] = (vf)_mm512_dpbf16_ps((__m512)acc[(R) * tokens + (T)], (__m512bh)(X), \
                                                   (__m512bh)_mm512_loadu_si512(query[R] + (C)))
    if (type == FI_ATTN_BF16) {
        int c = 0;
        for (; c + 32 <= width; c += 32) {
            __m512i x[16];
            FI_UNROLL for (int t = 0; t < tokens; t++) x[t] = _mm512_loadu_si512(key[t] + c * 2);
            FI_UNROLL for (int r = 0; r < rows; r++)
                FI_UNROLL for (int t = 0; t < tokens; t++) FI_DOT(r, t, x[t], c);
        }
        if (c < width) {
            FI_UNROLL for (int t = 0; t < tokens; t++) {
                const __m512i x = _mm512_maskz_loadu_epi16(words_left(width - c), key[t] + c * 2);
                FI_UNROLL for (int r = 0; r < rows; r++) FI_DOT(r, t, x, c);
            }
        }
    } else {
        int c = 0;
        for (; c + 64 <= width; c += 64) {
            FI_UNROLL for (int t = 0; t < tokens; t++) {
                __m512i x, y;
                widen_bytes(_mm512_loadu_si512(key[t] + c), table, type, &x, &y);
                FI_UNROLL for (int r = 0; r < rows; r++) FI_DOT(r, t, x, c);
                FI_UNROLL for (int r = 0; r < rows; r++) FI_DOT(r, t, y, c + 32);
            }
        }
        if (c < width) {
            const bool second = c + 32 < width;
            FI_UNROLL for (int t = 0; t < tokens; t++) {
                __m512i x, y;
                widen_bytes(_mm512_maskz_loadu_epi8(bytes_left(width - c), key[t] + c), table, type, &x, &y);
                FI_UNROLL for (int r = 0; r < rows; r++) FI_DOT(r, t, x, c);
                if (second) { FI_UNROLL for (int r = 0; r < rows; r++) FI_DOT(r, t, y, c + 32); }
            }
        }
    }
#undef FI_DOT
    return fold_sums(acc);
}

FI_INLINE void stream_scores_16(float *s, int64_t stride, const uint16_t *q, int64_t q_stride, int rows,
                                const fi_attn_stream *k, int width, fi_attn_type type, const int block) {
    prefetcher ahead = {k, 0, 0};
    byte_table table = {};
    if (type != FI_ATTN_BF16) table = byte_table_of(type);
    const int tokens = 16 / block;
    for (int t = 0; t < k->count; t += tokens)
        for (int h = 0; h < k->heads; h++) {
            for (int i = 0; i < tokens; i++) prefetch_slice(&ahead);
            for (int r = 0; r < rows; r += block)
                store_scores(s + (int64_t)h * rows * stride, stride,
                             stream_block_bf16(q, q_stride, r, rows, k, h, t, width, &table, type, block, tokens), r,
                             rows, t, k->count, block, tokens);
        }
}

#define FI_FOR_NARROW_TYPES(TYPE, STATEMENT) \
    switch (TYPE) {                          \
        FI_CASE(FI_ATTN_BF16, STATEMENT)     \
        FI_CASE(FI_ATTN_E4M3, STATEMENT)     \
        FI_CASE(FI_ATTN_E5M2, STATEMENT)     \
        FI_CASE(FI_ATTN_INT8, STATEMENT)     \
    default: break;                          \
    }

static void stream_scores_bf16(float *s, int64_t stride, const void *q, int64_t q_stride, int32_t rows,
                               const fi_attn_stream *keys, int32_t width) {
    if (rows == 1) {
        FI_FOR_NARROW_TYPES(keys->type, stream_scores_16(s, stride, q, q_stride, rows, keys, width, type, 1))
    } else {
        FI_FOR_NARROW_TYPES(keys->type, stream_scores_16(s, stride, q, q_stride, rows, keys, width, type, 4))
    }
}

/// Sixty-four dims of two rows of bytes as four vectors of 16 pairs.
FI_INLINE void pair_bytes(__m512i a, __m512i b, const byte_table *t, fi_attn_type type, __m512i out[4]) {
    // Two levels of interleaving work inside 128-bit lanes: transpose the 4x4 dwords first to come out in order.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low_a, high_a, low_b, high_b;
    split_bytes(_mm512_permutexvar_epi32(order, a), t, type, &low_a, &high_a);
    split_bytes(_mm512_permutexvar_epi32(order, b), t, type, &low_b, &high_b);
    const __m512i a0 = _mm512_unpacklo_epi8(low_a, high_a), a1 = _mm512_unpackhi_epi8(low_a, high_a);
    const __m512i b0 = _mm512_unpacklo_epi8(low_b, high_b), b1 = _mm512_unpackhi_epi8(low_b, high_b);
    out[0] = _mm512_unpacklo_epi16(a0, b0);
    out[1] = _mm512_unpackhi_epi16(a0, b0);
    out[2] = _mm512_unpacklo_epi16(a1, b1);
    out[3] = _mm512_unpackhi_epi16(a1, b1);
}

/// Rows x 64 dims of the output in registers over all tokens of the block, two tokens a step.
FI_INLINE void stream_outputs_bf16(float *o, int64_t stride, const uint16_t *p, int64_t p_stride,
                                   const fi_attn_stream *v, int head, int dim, int width, prefetcher *ahead,
                                   const byte_table *table, fi_attn_type type, const int rows, const bool whole) {
    vf acc[4][4];
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < 4; n++)
            acc[r][n] = whole || dim + n * 16 < width ? loadu(o + r * stride + dim + n * 16) : (vf){0};
    const int left = width - dim;
    for (int t = 0; t < v->count; t += 2) {
        const bool paired = t + 1 < v->count;
        const uint8_t *a = token_at(v, head, t), *b = token_at(v, head, paired ? t + 1 : t);
        if (ahead) prefetch_slice(ahead), prefetch_slice(ahead);
        __m512i x[4];
        if (type == FI_ATTN_BF16) {
            FI_UNROLL for (int g = 0; g < 2; g++) {
                const uint8_t *at = a + (dim + 32 * g) * 2, *bt = b + (dim + 32 * g) * 2;
                const __mmask32 inside = words_left(left - 32 * g);
                __m512i first = whole ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16(inside, at);
                __m512i second = whole ? _mm512_loadu_si512(bt) : _mm512_maskz_loadu_epi16(inside, bt);
                if (!paired) second = _mm512_setzero_si512();  // a NaN here would survive its zero weight
                pair_rows(first, second, &x[2 * g], &x[2 * g + 1]);
            }
        } else {
            const __mmask64 inside = bytes_left(left);
            __m512i first = whole ? _mm512_loadu_si512(a + dim) : _mm512_maskz_loadu_epi8(inside, a + dim);
            __m512i second = whole ? _mm512_loadu_si512(b + dim) : _mm512_maskz_loadu_epi8(inside, b + dim);
            if (!paired) second = _mm512_setzero_si512();
            pair_bytes(first, second, table, type, x);
        }
        FI_UNROLL for (int r = 0; r < rows; r++) {
            float w;
            __builtin_memcpy(&w, p + r * p_stride + t, 4);
            const __m512bh weight = (__m512bh)splat(w);
            FI_UNROLL for (int n = 0; n < 4; n++)
                acc[r][n] = (vf)_mm512_dpbf16_ps((__m512)acc[r][n], weight, (__m512bh)x[n]);
        }
    }
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < 4; n++)
            if (whole || dim + n * 16 < width) storeu(o + r * stride + dim + n * 16, acc[r][n]);
}

FI_INLINE void stream_values_16(float *o, int64_t stride, const uint16_t *p, int64_t p_stride, int rows,
                                const fi_attn_stream *v, int width, fi_attn_type type) {
#define FI_STREAM_DIMS(ROWS, WHOLE)                                                        \
    stream_outputs_bf16(o + row * stride, stride, p + row * p_stride, p_stride, v, h, d, width, \
                        r == 0 && d == 0 ? &ahead : 0, &table, type, ROWS, WHOLE)
#define FI_STREAM_ALL(ROWS)                                                                \
    {                                                                                      \
        const int64_t row = (int64_t)h * rows + r;                                         \
        int d = 0;                                                                         \
        for (; d + 64 <= width; d += 64) FI_STREAM_DIMS(ROWS, true);                       \
        if (d < width) FI_STREAM_DIMS(ROWS, false);                                        \
    }
    prefetcher ahead = {v, 0, 0};
    byte_table table = {};
    if (type != FI_ATTN_BF16) table = byte_table_of(type);
    for (int h = 0; h < v->heads; h++) {
        int r = 0;
        for (; r + 4 <= rows; r += 4) FI_STREAM_ALL(4)
        for (; r + 2 <= rows; r += 2) FI_STREAM_ALL(2)
        for (; r < rows; r++) FI_STREAM_ALL(1)
    }
#undef FI_STREAM_DIMS
#undef FI_STREAM_ALL
}

static void stream_values_bf16(float *o, int64_t stride, const void *p, int64_t p_stride, int32_t rows,
                               const fi_attn_stream *values, int32_t width) {
    FI_FOR_NARROW_TYPES(values->type, stream_values_16(o, stride, p, p_stride, rows, values, width, type))
}
