/// Decode and short appends, float32: keys and values are read in place, once for up to four rows together.

// Sums of a block of scores, rows by tokens, stay in registers until they are folded, FI_W at a time: as many as hide a multiply-add's latency. Two rows
// at a time are faster than four from 16-bit keys and int8, whose conversion is an instruction; keys that take long to convert, or to come, are read once
// for four. Four lanes take more sums to hide the latency, and have the registers.
#define FI_STREAM_TOKENS (FI_W >= 8 ? FI_W : 8)
#define FI_STREAM_MOST_ROWS 4
#define FI_STREAM_MOST_SUMS (FI_W >= 8 ? FI_W : 16)

FI_INLINE int stream_rows(fi_attn_type type) {
    const bool is_costly = type == FI_ATTN_F32 || type == FI_ATTN_E4M3 || type == FI_ATTN_E5M2;
    return FI_W < 8 || (FI_W >= 16 && is_costly) ? FI_STREAM_MOST_ROWS : 2;
}

/// Tokens of a block of so many rows.
FI_INLINE int stream_tokens(int rows) { return rows == 1 ? FI_STREAM_TOKENS : FI_W >= 8 ? FI_W / rows : 4; }

FI_INLINE int smaller(int a, int b) { return a < b ? a : b; }

/// Writes the folded sums of a block: only tokens that there are; rows are whole blocks.
FI_INLINE void store_scores(float *s, int64_t stride, vf sums, int row, int token, int all_tokens, const int rows, const int tokens) {
    float out[FI_W];
    storeu(out, sums);
    s += row * stride + token;
    if (token + tokens <= all_tokens) {
        FI_UNROLL for (int r = 0; r < rows; r++) __builtin_memcpy(s + r * stride, out + r * tokens, (unsigned)tokens * 4);
    } else {
        for (int r = 0; r < rows; r++)
            for (int t = 0; token + t < all_tokens; t++) s[r * stride + t] = out[r * tokens + t];
    }
}

/// Tokens past the end repeat the last one, so the shape of a block is a constant and its sums stay in registers. `lines` are prefetched for each 64 bytes
/// of a key.
FI_INLINE void stream_block(float *s, int64_t stride, const float *q, int64_t q_stride, int row, int all_rows, const fi_attn_stream *k, int head,
                            int token, int width, prefetcher *ahead, int lines, fi_attn_type type, const int rows, const int tokens) {
    vf acc[FI_STREAM_MOST_SUMS];
    const uint8_t *key[FI_STREAM_TOKENS];
    const float *query[FI_STREAM_MOST_ROWS];
    const int sums = rows * tokens;
    FI_UNROLL for (int i = 0; i < sums; i++) acc[i] = (vf){0};
    FI_UNROLL for (int t = 0; t < tokens; t++) key[t] = token_at(k, head, smaller(token + t, k->count - 1));
    FI_UNROLL for (int r = 0; r < rows; r++) query[r] = q + (head * all_rows + row + r) * q_stride;
    int c = 0;
    for (; c + FI_W <= width; c += FI_W) {
        if (c * element_size(type) % 64 == 0) prefetch_lines(ahead, lines);
        vf x[FI_STREAM_TOKENS];
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
    // A vector of sums is of whole rows of the block, or of a part of one.
    const int most = smaller(tokens, FI_W);
    FI_UNROLL for (int i = 0; i < sums; i += FI_W)
        store_scores(s, stride, fold_sums(acc + i), row + i / tokens, token + i % tokens, k->count, FI_W / most, most);
}

/// Of the lines that a block's tokens ask for, the share of rows r ..< r + rows of all: prefetches are spread over what is computed with the keys at hand,
/// as bursts of them, with pauses between, cost a fifth of the rate at which keys come.
FI_INLINE int share_of_lines(int tokens, int r, int rows, int all_rows) { return tokens * (r + rows) / all_rows - tokens * r / all_rows; }

FI_INLINE void stream_scores_as(float *s, int64_t stride, const float *q, int64_t q_stride, int rows, const fi_attn_stream *k, int width,
                                fi_attn_type type) {
    prefetcher ahead = prefetch_start(k);
#define FI_STREAM_SCORES(ROWS, BEGIN, END)                                                                            \
    for (int u = t; u < t + step && u < k->count; u += stream_tokens(ROWS))                                           \
        for (int r = BEGIN; r + (ROWS) <= END; r += ROWS)                                                             \
            stream_block(s + (int64_t)h * rows * stride, stride, q, q_stride, r, rows, k, h, u, width, &ahead,        \
                         share_of_lines(stream_tokens(ROWS), r, ROWS, rows), type, ROWS, stream_tokens(ROWS))
    const int block = stream_rows(type), blocks = rows / block * block, pairs = blocks + (rows - blocks) / 2 * 2;
    // Few tokens with all their heads, as they lie in memory; as many as a single row's block has where there is one.
    const int step = blocks == rows ? stream_tokens(block) : FI_STREAM_TOKENS;
    for (int t = 0; t < k->count; t += step)
        for (int h = 0; h < k->heads; h++) {
            // All rows of a block's tokens one after another: those of twice as many may be too many for the cache's ways.
            FI_STREAM_SCORES(block, 0, blocks);
            if (block > 2) FI_STREAM_SCORES(2, blocks, pairs);
            FI_STREAM_SCORES(1, pairs, rows);
        }
#undef FI_STREAM_SCORES
}

static void stream_scores_f32(float *s, int64_t stride, const void *q, int64_t q_stride, int32_t rows,
                              const fi_attn_stream *keys, int32_t width) {
    FI_FOR_ALL_TYPES(keys->type, stream_scores_as(s, stride, q, q_stride, rows, keys, width, type))
}

/// Keeps a broadcast in a register. AVX-512's multiply-adds can broadcast a number in memory, but then each of them is a load: beside float32 values, which
/// are loads and nothing else, that took a tenth longer, and beside others up to a tenth less.
#if FI_W == 16
#define FI_IN_REGISTER(x) __asm__("" : "+v"(x))
#else
#define FI_IN_REGISTER(x) ((void)(x))
#endif

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
        if (ahead) prefetch_lines(ahead, (panels * FI_W * element_size(type) + 63) / 64);
        vf x[4];
        if (whole) {
            FI_UNROLL for (int n = 0; n < panels; n++) x[n] = load_as(row + (dim + n * FI_W) * element_size(type), type);
        } else {
            FI_UNROLL for (int n = 0; n < panels; n++) x[n] = load_row(row, dim + n * FI_W, width, type);
        }
        FI_UNROLL for (int r = 0; r < rows; r++) {
            vf w = splat(p[r * p_stride + t]);
            if (type == FI_ATTN_F32) FI_IN_REGISTER(w);
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
                   r == 0 ? &ahead : 0, type, ROWS, PANELS)
#define FI_STREAM_ALL(ROWS)                                                                                           \
    {                                                                                                                 \
        const int64_t row = (int64_t)h * rows + r;                                                                    \
        int d = 0;                                                                                                    \
        for (; d + 4 * FI_W <= width; d += 4 * FI_W) FI_STREAM_PANELS(ROWS, 4);                                       \
        for (; d < width; d += FI_W) FI_STREAM_PANELS(ROWS, 1);                                                       \
    }
    prefetcher ahead = prefetch_start(v);
    for (int h = 0; h < v->heads; h++) {
        int r = 0;
        for (; r + FI_STREAM_ROWS <= rows; r += FI_STREAM_ROWS) FI_STREAM_ALL(FI_STREAM_ROWS)
        // What is left is read once, too, as with groups of three.
        if (FI_STREAM_ROWS > 3 && r + 3 == rows) FI_STREAM_ALL(3)
        else if (FI_STREAM_ROWS > 2 && r + 2 == rows) FI_STREAM_ALL(2)
        else if (r < rows) FI_STREAM_ALL(1)
    }
#undef FI_STREAM_PANELS
#undef FI_STREAM_ALL
}

static void stream_values_f32(float *o, int64_t stride, const void *p, int64_t p_stride, int32_t rows,
                              const fi_attn_stream *values, int32_t width) {
    FI_FOR_ALL_TYPES(values->type, stream_values_as(o, stride, p, p_stride, rows, values, width, type))
}
