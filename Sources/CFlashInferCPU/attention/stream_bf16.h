/// Decode and short appends in the bfloat16 format. Needs stream_bytes_bf16.h, which has the 8-bit types.

/// As stream_block, of 16 sums.
FI_INLINE vf stream_block_bf16(const uint16_t *q, int64_t q_stride, int row, int all_rows, const fi_attn_stream *k,
                               int head, int token, int width, prefetcher *ahead, int lines,
                               const int rows, const int tokens) {
    vf acc[16];
    const uint8_t *key[16];
    const uint16_t *query[16];
    FI_UNROLL for (int i = 0; i < 16; i++) acc[i] = (vf){0};
    FI_UNROLL for (int t = 0; t < tokens; t++) key[t] = token_at(k, head, smaller(token + t, k->count - 1));
    FI_UNROLL for (int r = 0; r < rows; r++) query[r] = q + (head * all_rows + row + r) * q_stride;
#define FI_DOT(R, T, X, C) \
    acc[(R) * tokens + (T)] = (vf)_mm512_dpbf16_ps((__m512)acc[(R) * tokens + (T)], (__m512bh)(X), \
                                                   (__m512bh)_mm512_loadu_si512(query[R] + (C)))
    int c = 0;
    for (; c + 32 <= width; c += 32) {
        prefetch_lines(ahead, lines);
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
#undef FI_DOT
    return fold_sums(acc);
}

FI_INLINE void stream_scores_16(float *s, int64_t stride, const uint16_t *q, int64_t q_stride, int rows,
                                const fi_attn_stream *k, int width) {
    prefetcher ahead = prefetch_start(k);
#define FI_STREAM_SCORES(ROWS, BEGIN, END)                                                                       \
    for (int u = t; u < t + step && u < k->count; u += 16 / (ROWS))                                              \
        for (int r = BEGIN; r + (ROWS) <= END; r += ROWS)                                                        \
            store_scores(s + (int64_t)h * rows * stride, stride,                                                 \
                         stream_block_bf16(q, q_stride, r, rows, k, h, u, width, &ahead,                         \
                                           share_of_lines(16 / (ROWS), r, ROWS, rows), ROWS, 16 / (ROWS)),       \
                         r, u, k->count, ROWS, 16 / (ROWS))
    const int pairs = rows / 2 * 2, step = pairs == rows ? 8 : 16;
    for (int t = 0; t < k->count; t += step)
        for (int h = 0; h < k->heads; h++) {
            FI_STREAM_SCORES(2, 0, pairs);
            FI_STREAM_SCORES(1, pairs, rows);
        }
#undef FI_STREAM_SCORES
}

static void stream_scores_bf16(float *s, int64_t stride, const void *q, int64_t q_stride, int32_t rows,
                               const fi_attn_stream *keys, int32_t width) {
    if (keys->type == FI_ATTN_BF16) stream_scores_16(s, stride, q, q_stride, rows, keys, width);
    else stream_scores_bytes(s, stride, q, q_stride, rows, keys, width);
}

/// Rows x 64 dims of the output in registers over all tokens of the block, two tokens a step.
FI_INLINE void stream_outputs_bf16(float *o, int64_t stride, const uint16_t *p, int64_t p_stride,
                                   const fi_attn_stream *v, int head, int dim, int width, prefetcher *ahead,
                                   const int rows, const bool whole) {
    vf acc[4][4];
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < 4; n++)
            acc[r][n] = whole || dim + n * 16 < width ? loadu(o + r * stride + dim + n * 16) : (vf){0};
    const int left = width - dim;
    for (int t = 0; t < v->count; t += 2) {
        const bool paired = t + 1 < v->count;
        const uint8_t *a = token_at(v, head, t), *b = token_at(v, head, paired ? t + 1 : t);
        if (ahead) prefetch_lines(ahead, 4);
        __m512i x[4];
        FI_UNROLL for (int g = 0; g < 2; g++) {
            const uint8_t *at = a + (dim + 32 * g) * 2, *bt = b + (dim + 32 * g) * 2;
            const __mmask32 inside = words_left(left - 32 * g);
            __m512i first = whole ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi16(inside, at);
            __m512i second = whole ? _mm512_loadu_si512(bt) : _mm512_maskz_loadu_epi16(inside, bt);
            if (!paired) second = _mm512_setzero_si512();  // a NaN here would survive its zero weight
            pair_rows(first, second, &x[2 * g], &x[2 * g + 1]);
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
                                const fi_attn_stream *v, int width) {
#define FI_STREAM_DIMS(ROWS, WHOLE)                                                        \
    stream_outputs_bf16(o + row * stride, stride, p + row * p_stride, p_stride, v, h, d, width, \
                        r == 0 ? &ahead : 0, ROWS, WHOLE)
#define FI_STREAM_ALL(ROWS)                                                                \
    {                                                                                      \
        const int64_t row = (int64_t)h * rows + r;                                         \
        int d = 0;                                                                         \
        for (; d + 64 <= width; d += 64) FI_STREAM_DIMS(ROWS, true);                       \
        if (d < width) FI_STREAM_DIMS(ROWS, false);                                        \
    }
    prefetcher ahead = prefetch_start(v);
    for (int h = 0; h < v->heads; h++) {
        int r = 0;
        for (; r + 4 <= rows; r += 4) FI_STREAM_ALL(4)
        if (r + 3 == rows) FI_STREAM_ALL(3)
        else if (r + 2 == rows) FI_STREAM_ALL(2)
        else if (r < rows) FI_STREAM_ALL(1)
    }
#undef FI_STREAM_DIMS
#undef FI_STREAM_ALL
}

static void stream_values_bf16(float *o, int64_t stride, const void *p, int64_t p_stride, int32_t rows,
                               const fi_attn_stream *values, int32_t width) {
    if (values->type == FI_ATTN_BF16) stream_values_16(o, stride, p, p_stride, rows, values, width);
    else stream_values_bytes(o, stride, p, p_stride, rows, values, width);
}
