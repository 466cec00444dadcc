/// Decode and short appends over 8-bit keys and values, in the bfloat16 format. Needs stream.h and rows_bf16.h.

/// As prefetcher, for bytes: they are used up so fast that its steps from head to head cost as much as the arithmetic.
typedef struct {
    const fi_attn_stream *stream;
    const char *at;
    int lines;        // left of the current run of contiguous memory
    int token, head;  // where the run after it starts
} run_prefetcher;

/// The next run: heads and tokens that follow one another in memory join, so that this is done once a page or so.
static void run_aim(run_prefetcher *p) {
    const fi_attn_stream *s = p->stream;
    p->lines = 0;
    if (p->token >= s->next_count) return;
    p->at = (const char *)s->next_base + s->next_offsets[p->token] + p->head * s->next_head_stride;
    if (s->next_head_stride == s->next_bytes) {
        const int64_t token_bytes = (int64_t)s->heads * s->next_bytes;
        int first = p->token++;
        while (p->token < s->next_count && s->next_offsets[p->token] == s->next_offsets[p->token - 1] + token_bytes)
            p->token++;
        p->lines = (int)((token_bytes * (p->token - first) + 63) / 64);
    } else {
        if (++p->head == s->heads) p->head = 0, p->token++;
        p->lines = (s->next_bytes + 63) / 64;
    }
}

/// Lines one by one, across the ends of runs.
static __attribute__((noinline)) void run_across(run_prefetcher *p, int lines) {
    for (int i = 0; i < lines; i++) {
        if (p->lines == 0) run_aim(p);
        if (p->lines == 0) return;
        __builtin_prefetch(p->at, 0, 3);
        p->at += 64, p->lines--;
    }
}

FI_INLINE run_prefetcher run_start(const fi_attn_stream *s) {
    run_prefetcher p = {s, 0, 0, 0, 0};
    run_aim(&p);
    return p;
}

/// Where the next `lines` lines are, for the caller to fetch a few at a time: a call in an inner loop would cost it its
/// registers. At the end of a run they are fetched at once, and `idle`, memory in use anyway, is the answer.
FI_INLINE const char *run_take(run_prefetcher *p, int lines, const void *idle) {
    if (__builtin_expect(p->lines < lines, 0)) {
        run_across(p, lines);
        return idle;
    }
    const char *at = p->at;
    p->at += (int64_t)lines * 64, p->lines -= lines;
    return at;
}

FI_INLINE const char *run_next(const char *at, const int lines) {
    FI_UNROLL for (int i = 0; i < lines; i++) __builtin_prefetch(at + i * 64, 0, 3);
    return at + lines * 64;
}

/// One step of 64 byte dims, widened in registers. `second`: whether there are more than 32.
FI_INLINE void dot_bytes(vf *acc, const uint8_t *const *key, const uint16_t *const *query, int c, __mmask64 inside,
                         bool second, const byte_table *table, fi_attn_type type, const int rows, const int tokens) {
    FI_UNROLL for (int t = 0; t < tokens; t++) {
        __m512i x, y;
        widen_bytes(_mm512_maskz_loadu_epi8(inside, key[t] + c), table, type, &x, &y);
        FI_UNROLL for (int r = 0; r < rows; r++)
            acc[r * tokens + t] = (vf)_mm512_dpbf16_ps((__m512)acc[r * tokens + t], (__m512bh)x,
                                                       (__m512bh)_mm512_loadu_si512(query[r] + c));
        if (!second) continue;
        FI_UNROLL for (int r = 0; r < rows; r++)
            acc[r * tokens + t] = (vf)_mm512_dpbf16_ps((__m512)acc[r * tokens + t], (__m512bh)y,
                                                       (__m512bh)_mm512_loadu_si512(query[r] + c + 32));
    }
}

/// As stream_block, of 16 sums, for the keys at `key[t] + at`. `fixed`: the width and the queries' stride if known, else 0. Unrolled whole and with one
/// pointer for all queries, little is left beside the arithmetic.
FI_INLINE vf stream_block_bytes(const uint16_t *q, int64_t q_stride, int row, int all_rows, const uint8_t *const *keys,
                                int64_t at, int head, int width, run_prefetcher *ahead, const byte_table *table,
                                fi_attn_type type, const int rows, const int tokens, const int fixed) {
    vf acc[16];
    const uint8_t *key[16];
    const uint16_t *query[16];
    const int64_t step = fixed ? fixed : q_stride;
    FI_UNROLL for (int i = 0; i < 16; i++) acc[i] = (vf){0};
    FI_UNROLL for (int t = 0; t < tokens; t++) key[t] = keys[t] + at;
    FI_UNROLL for (int r = 0; r < rows; r++)
        query[r] = q + (head * all_rows + row + r) * step;
    const char *next = (const char *)key[0];
    if (ahead) next = run_take(ahead, tokens * ((fixed ? fixed : width) / 64), next);
    if (fixed) {
        FI_UNROLL for (int c = 0; c < fixed; c += 64) {
            next = run_next(next, tokens);
            dot_bytes(acc, key, query, c, ~0ull, true, table, type, rows, tokens);
        }
    } else {
        int c = 0;
        for (; c + 64 <= width; c += 64) {
            next = run_next(next, tokens);
            dot_bytes(acc, key, query, c, ~0ull, true, table, type, rows, tokens);
        }
        if (c < width)
            dot_bytes(acc, key, query, c, bytes_left(width - c), c + 32 < width, table, type, rows, tokens);
    }
    return fold_sums(acc);
}

/// As store_scores; blocks of four rows leave from the register, where a detour through memory would hold up the loads behind it.
FI_INLINE void store_whole_scores(float *s, int64_t stride, vf sums, int row, int token, int all_tokens, const int rows,
                                  const int tokens) {
    if (rows != 4 || token + tokens > all_tokens) {
        store_scores(s, stride, sums, row, token, all_tokens, rows, tokens);
        return;
    }
    float *at = s + row * stride + token;
    _mm_storeu_ps(at, _mm512_castps512_ps128((__m512)sums));
    _mm_storeu_ps(at + stride, _mm512_extractf32x4_ps((__m512)sums, 1));
    _mm_storeu_ps(at + 2 * stride, _mm512_extractf32x4_ps((__m512)sums, 2));
    _mm_storeu_ps(at + 3 * stride, _mm512_extractf32x4_ps((__m512)sums, 3));
}

/// Four rows at a time, as long as there are, since bytes take longer to widen than to multiply. `most`: as many as a head has, or 4: one and two rows
/// have loops without the others' blocks, which hold 10 % of them up.
FI_INLINE void stream_scores_bytes_as(float *s, int64_t stride, const uint16_t *q, int64_t q_stride, int rows,
                                      const fi_attn_stream *k, int width, fi_attn_type type, const int most, const int fixed) {
    run_prefetcher ahead = run_start(k);
    const byte_table table = byte_table_of(type);
#define FI_BYTE_BLOCKS(ROWS)                                                                                                \
    for (int u = 0; u < 16 && t + u < k->count; u += 16 / (ROWS))                                                           \
        store_whole_scores(s + (int64_t)h * rows * stride, stride,                                                          \
                           stream_block_bytes(q, q_stride, r, rows, key + u, h * k->head_stride, h, width, r == 0 ? &ahead : 0, \
                                              &table, type, ROWS, 16 / (ROWS), fixed),                                      \
                           r, t + u, k->count, ROWS, 16 / (ROWS))
    for (int t = 0; t < k->count; t += 16) {
        const uint8_t *key[16];
        FI_UNROLL for (int i = 0; i < 16; i++) key[i] = token_at(k, 0, smaller(t + i, k->count - 1));
        for (int h = 0; h < k->heads; h++) {
            int r = 0;
            if (most > 2)
                for (; r + 4 <= rows; r += 4) FI_BYTE_BLOCKS(4);
            if (most == 2 || (most > 2 && r + 2 <= rows)) {
                FI_BYTE_BLOCKS(2);
                r += 2;
            }
            if (most == 1 || (most > 2 && r < rows)) FI_BYTE_BLOCKS(1);
        }
    }
#undef FI_BYTE_BLOCKS
}

#define FI_FOR_BYTE_TYPES(TYPE, STATEMENT) \
    switch (TYPE) {                        \
        FI_CASE(FI_ATTN_E4M3, STATEMENT)   \
        FI_CASE(FI_ATTN_E5M2, STATEMENT)   \
        FI_CASE(FI_ATTN_INT8, STATEMENT)   \
    default: break;                        \
    }
#define FI_BYTE_SCORES(MOST, FIXED) \
    FI_FOR_BYTE_TYPES(k->type, stream_scores_bytes_as(s, stride, q, q_stride, rows, k, width, type, MOST, FIXED))
#define FI_BYTE_WIDTHS(MOST)                   \
    switch (q_stride == width ? width : 0) {   \
    case 64: FI_BYTE_SCORES(MOST, 64) break;   \
    case 128: FI_BYTE_SCORES(MOST, 128) break; \
    default: FI_BYTE_SCORES(MOST, 0) break;    \
    }

static void stream_scores_bytes(float *s, int64_t stride, const uint16_t *q, int64_t q_stride, int rows,
                                const fi_attn_stream *k, int width) {
    if (rows == 1) {
        FI_BYTE_WIDTHS(1)
    } else if (rows == 2) {
        FI_BYTE_WIDTHS(2)
    } else {
        FI_BYTE_WIDTHS(4)
    }
}
#undef FI_BYTE_WIDTHS
#undef FI_BYTE_SCORES

/// Sixty-four dims of two rows of bytes as four vectors of 16 pairs.
FI_INLINE void pair_bytes(__m512i a, __m512i b, const byte_table *t, fi_attn_type type, __m512i out[4]) {
    // Two levels of interleaving work inside 128-bit lanes: transpose the 4x4 dwords first to come out in order. Bytes
    // are paired before they are widened, so that low and high bytes meet as pairs of words.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    a = _mm512_permutexvar_epi32(order, a), b = _mm512_permutexvar_epi32(order, b);
    __m512i low, high;
    split_bytes(_mm512_unpacklo_epi8(a, b), t, type, &low, &high);
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
    split_bytes(_mm512_unpackhi_epi8(a, b), t, type, &low, &high);
    out[2] = _mm512_unpacklo_epi8(low, high);
    out[3] = _mm512_unpackhi_epi8(low, high);
}

/// Rows x 64 dims of the output in registers over all tokens of the block, two tokens a step.
FI_INLINE void stream_outputs_bytes(float *o, int64_t stride, const uint16_t *p, int64_t p_stride,
                                    const fi_attn_stream *v, int head, int dim, int width, run_prefetcher *ahead,
                                    const byte_table *table, fi_attn_type type, const int rows, const bool whole) {
    vf acc[4][4];
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < 4; n++)
            acc[r][n] = whole || dim + n * 16 < width ? loadu(o + r * stride + dim + n * 16) : (vf){0};
    const __mmask64 inside = whole ? ~0ull : bytes_left(width - dim);
    const char *next = (const char *)token_at(v, head, 0);
    if (ahead) next = run_take(ahead, (v->count + 1) / 2 * 2, next);
    for (int t = 0; t < v->count; t += 2) {
        const bool paired = t + 1 < v->count;
        const uint8_t *a = token_at(v, head, t), *b = token_at(v, head, paired ? t + 1 : t);
        next = run_next(next, 2);
        const __m512i first = _mm512_maskz_loadu_epi8(inside, a + dim);
        __m512i second = _mm512_maskz_loadu_epi8(inside, b + dim);
        if (!paired) second = _mm512_setzero_si512();  // a NaN here would survive its zero weight
        __m512i x[4];
        pair_bytes(first, second, table, type, x);
        FI_UNROLL for (int r = 0; r < rows; r++) {
            int32_t w;
            __builtin_memcpy(&w, p + r * p_stride + t, 4);
            const __m512bh weight = (__m512bh)_mm512_set1_epi32(w);
            FI_UNROLL for (int n = 0; n < 4; n++)
                acc[r][n] = (vf)_mm512_dpbf16_ps((__m512)acc[r][n], weight, (__m512bh)x[n]);
        }
    }
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < 4; n++)
            if (whole || dim + n * 16 < width) storeu(o + r * stride + dim + n * 16, acc[r][n]);
}

FI_INLINE void stream_values_bytes_as(float *o, int64_t stride, const uint16_t *p, int64_t p_stride, int rows,
                                      const fi_attn_stream *v, int width, fi_attn_type type) {
#define FI_BYTE_DIMS(ROWS, WHOLE)                                                                \
    stream_outputs_bytes(o + row * stride, stride, p + row * p_stride, p_stride, v, h, d, width, \
                         r == 0 ? &ahead : 0, &table, type, ROWS, WHOLE)
#define FI_BYTE_ROWS(ROWS)                                          \
    {                                                               \
        const int64_t row = (int64_t)h * rows + r;                  \
        int d = 0;                                                  \
        for (; d + 64 <= width; d += 64) FI_BYTE_DIMS(ROWS, true);  \
        if (d < width) FI_BYTE_DIMS(ROWS, false);                   \
    }
    run_prefetcher ahead = run_start(v);
    const byte_table table = byte_table_of(type);
    for (int h = 0; h < v->heads; h++) {
        int r = 0;
        for (; r + 4 <= rows; r += 4) FI_BYTE_ROWS(4)
        if (r + 3 == rows) FI_BYTE_ROWS(3)
        else if (r + 2 == rows) FI_BYTE_ROWS(2)
        else if (r < rows) FI_BYTE_ROWS(1)
    }
#undef FI_BYTE_DIMS
#undef FI_BYTE_ROWS
}

static void stream_values_bytes(float *o, int64_t stride, const uint16_t *p, int64_t p_stride, int rows,
                                const fi_attn_stream *v, int width) {
    FI_FOR_BYTE_TYPES(v->type, stream_values_bytes_as(o, stride, p, p_stride, rows, v, width, type))
}
