/// Decode and short appends, float32: keys and values are read in place, once for up to four rows together.

// A block of scores is FI_STREAM_BLOCK rows by FI_W / FI_STREAM_BLOCK tokens: FI_W sums in registers.
#define FI_STREAM_BLOCK (FI_W >= 16 ? 4 : FI_W >= 8 ? 2 : 1)

FI_INLINE int smaller(int a, int b) { return a < b ? a : b; }

/// Scatters the folded sums of a block; only valid rows and tokens.
FI_INLINE void store_scores(float *s, int64_t stride, vf sums, int row, int all_rows, int token, int all_tokens,
                            const int rows, const int tokens) {
    float out[FI_W];
    storeu(out, sums);
    if (token + tokens <= all_tokens && row + rows <= all_rows) {
        FI_UNROLL for (int r = 0; r < rows; r++)
            __builtin_memcpy(s + (row + r) * stride + token, out + r * tokens, (unsigned)tokens * 4);
        return;
    }
    for (int r = 0; r < rows && row + r < all_rows; r++)
        for (int t = 0; t < tokens && token + t < all_tokens; t++) s[(row + r) * stride + token + t] = out[r * tokens + t];
}

/// Rows and tokens past the end repeat the last one, so the shape of a block is a constant and its sums stay in registers.
FI_INLINE vf stream_block(const float *q, int64_t q_stride, int row, int all_rows, const fi_attn_stream *k, int head,
                          int token, int width, fi_attn_type type, const int rows, const int tokens) {
    vf acc[FI_W];
    const uint8_t *key[FI_W];
    const float *query[FI_W];
    FI_UNROLL for (int i = 0; i < FI_W; i++) acc[i] = (vf){0};
    FI_UNROLL for (int t = 0; t < tokens; t++) key[t] = token_at(k, head, smaller(token + t, k->count - 1));
    FI_UNROLL for (int r = 0; r < rows; r++) query[r] = q + (head * all_rows + smaller(row + r, all_rows - 1)) * q_stride;
    int c = 0;
    for (; c + FI_W <= width; c += FI_W) {
        vf x[FI_W];
        FI_UNROLL for (int t = 0; t < tokens; t++) x[t] = load_as(key[t] + c * element_size(type), type);
        FI_UNROLL for (int r = 0; r < rows; r++) {
            const vf y = loadu(query[r] + c);
            FI_UNROLL for (int t = 0; t < tokens; t++) acc[r * tokens + t] = vfma(x[t], y, acc[r * tokens + t]);
        }
    }
    if (c < width) {
        FI_UNROLL for (int t = 0; t < tokens; t++) {
            const vf x = load_row(key[t], c, width, type);
            FI_UNROLL for (int r = 0; r < rows; r++)
                acc[r * tokens + t] = vfma(x, loadu(query[r] + c), acc[r * tokens + t]);
        }
    }
    return fold_sums(acc);
}

FI_INLINE void stream_scores_as(float *s, int64_t stride, const float *q, int64_t q_stride, int rows,
                                const fi_attn_stream *k, int width, fi_attn_type type, const int block) {
    prefetcher ahead = {k, 0, 0};
    const int tokens = FI_W / block;
    for (int t = 0; t < k->count; t += tokens)
        for (int h = 0; h < k->heads; h++) {
            for (int i = 0; i < tokens; i++) prefetch_slice(&ahead);
            for (int r = 0; r < rows; r += block)
                store_scores(s + (int64_t)h * rows * stride, stride,
                             stream_block(q, q_stride, r, rows, k, h, t, width, type, block, tokens), r, rows, t,
                             k->count, block, tokens);
        }
}

static void stream_scores_f32(float *s, int64_t stride, const void *q, int64_t q_stride, int32_t rows,
                              const fi_attn_stream *keys, int32_t width) {
    if (rows == 1) {
        FI_FOR_ALL_TYPES(keys->type, stream_scores_as(s, stride, q, q_stride, rows, keys, width, type, 1))
    } else {
        FI_FOR_ALL_TYPES(keys->type, stream_scores_as(s, stride, q, q_stride, rows, keys, width, type, FI_STREAM_BLOCK))
    }
}

/// Rows x panels of FI_W dims of the output in registers over all tokens of the block.
FI_INLINE void stream_outputs(float *o, int64_t stride, const float *p, int64_t p_stride, const fi_attn_stream *v,
                              int head, int dim, int width, prefetcher *ahead, fi_attn_type type, const int rows,
                              const int panels) {
    vf acc[4][4];
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < panels; n++) acc[r][n] = loadu(o + r * stride + dim + n * FI_W);
    const bool whole = dim + panels * FI_W <= width;
    for (int t = 0; t < v->count; t++) {
        const uint8_t *row = token_at(v, head, t);
        if (ahead) prefetch_slice(ahead);
        vf x[4];
        if (whole) {
            FI_UNROLL for (int n = 0; n < panels; n++) x[n] = load_as(row + (dim + n * FI_W) * element_size(type), type);
        } else {
            FI_UNROLL for (int n = 0; n < panels; n++) x[n] = load_row(row, dim + n * FI_W, width, type);
        }
        FI_UNROLL for (int r = 0; r < rows; r++) {
            const vf w = splat(p[r * p_stride + t]);
            FI_UNROLL for (int n = 0; n < panels; n++) acc[r][n] = vfma(x[n], w, acc[r][n]);
        }
    }
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < panels; n++) storeu(o + r * stride + dim + n * FI_W, acc[r][n]);
}

FI_INLINE void stream_values_as(float *o, int64_t stride, const float *p, int64_t p_stride, int rows,
                                const fi_attn_stream *v, int width, fi_attn_type type) {
#define FI_STREAM_PANELS(ROWS, PANELS)                                                                                \
    stream_outputs(o + row * stride, stride, p + row * p_stride, p_stride, v, h, d, width,                            \
                   r == 0 && d == 0 ? &ahead : 0, type, ROWS, PANELS)
#define FI_STREAM_ALL(ROWS)                                                                                           \
    {                                                                                                                 \
        const int64_t row = (int64_t)h * rows + r;                                                                    \
        int d = 0;                                                                                                    \
        for (; d + 4 * FI_W <= width; d += 4 * FI_W) FI_STREAM_PANELS(ROWS, 4);                                       \
        for (; d < width; d += FI_W) FI_STREAM_PANELS(ROWS, 1);                                                       \
    }
    prefetcher ahead = {v, 0, 0};
    for (int h = 0; h < v->heads; h++) {
        int r = 0;
        for (; r + FI_STREAM_ROWS <= rows; r += FI_STREAM_ROWS) FI_STREAM_ALL(FI_STREAM_ROWS)
        for (; r < rows; r++) FI_STREAM_ALL(1)
    }
#undef FI_STREAM_PANELS
#undef FI_STREAM_ALL
}

static void stream_values_f32(float *o, int64_t stride, const void *p, int64_t p_stride, int32_t rows,
                              const fi_attn_stream *values, int32_t width) {
    FI_FOR_ALL_TYPES(values->type, stream_values_as(o, stride, p, p_stride, rows, values, width, type))
}
