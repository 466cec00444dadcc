/// Rotary embedding of heads. Follows fi_ops_rows.h.

/// Pairs (i, i + half): two contiguous halves.
FI_INLINE void rope_row_split(
    const void *x, void *out, const float *table, int64_t half, float factor, fi_dtype tx, fi_dtype to
) {
    FI_FOR_VECTORS(half, {
        const vf c = v_load(table, i, FI_DTYPE_F32, n), s = v_load(table, half + i, FI_DTYPE_F32, n);
        const vf lo = v_load(x, i, tx, n), hi = v_load(x, half + i, tx, n);
        const vf low = lo * c - hi * s, high = hi * c + lo * s;
        v_store(out, i, to, n, low * v_set(factor));
        v_store(out, half + i, to, n, high * v_set(factor));
    });
}

/// Pairs (2i, 2i + 1). The duplicated table of a token is made once and used by all its heads:
/// c = (c0, c0, c1, c1, ...), s = (-s0, s0, -s1, s1, ...), so that out = x * c + swap(x) * s.
FI_INLINE void rope_row_interleaved(
    const void *x, void *out, const float *c, const float *s, int64_t width, float factor, fi_dtype tx, fi_dtype to
) {
#if FI_W == 1
    for (int64_t i = 0; i < width; i += 2) {
        const float a = v_load(x, i, tx, 1), b = v_load(x, i + 1, tx, 1);
        const float first = a * c[i] + b * s[i], second = b * c[i + 1] + a * s[i + 1];
        v_store(out, i, to, 1, first * factor);
        v_store(out, i + 1, to, 1, second * factor);
    }
#else
    FI_FOR_VECTORS(width, {
        const vf v = v_load(x, i, tx, n);
#if FI_W == 4
        const vf swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2);
#elif FI_W == 8
        const vf swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
        const vf swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#endif
        const vf turned = v * v_load(c, i, FI_DTYPE_F32, n) + swapped * v_load(s, i, FI_DTYPE_F32, n);
        v_store(out, i, to, n, turned * v_set(factor));
    });
#endif
}

/// How many elements of a duplicated table fit on the stack; wider rotations go in slices of this.
#define FI_ROPE_SLICE 512

/// A token's heads: `x_head` and `out_head` bytes from one to the next.
static void rope_token(
    const fi_rope_args *a, const float *table, const char *x, int64_t x_head, char *out, int64_t out_head
) {
    const fi_dtype tx = a->x.dtype, to = a->out.dtype;
    const int64_t size = dtype_size(tx), out_size = dtype_size(to), half = a->rotary_dim / 2;
    if (!a->interleaved) {
        for (int64_t h = 0; h < a->heads; h++) {
            const float factor = a->scale ? a->scale[h] : 1.0f;
            FI_WITH_TYPES(tx, to, rope_row_split(x + h * x_head, out + h * out_head, table, half, factor, X, Y));
        }
    }
    for (int64_t slice = 0; a->interleaved && slice < a->rotary_dim; slice += FI_ROPE_SLICE) {
        float c[FI_ROPE_SLICE], s[FI_ROPE_SLICE];
        const int64_t width = a->rotary_dim - slice < FI_ROPE_SLICE ? a->rotary_dim - slice : FI_ROPE_SLICE;
        for (int64_t i = 0; i < width; i += 2) {
            const int64_t pair = (slice + i) / 2;
            c[i] = c[i + 1] = table[pair];
            s[i + 1] = table[half + pair];
            s[i] = -s[i + 1];
        }
        for (int64_t h = 0; h < a->heads; h++) {
            const float factor = a->scale ? a->scale[h] : 1.0f;
            const void *from = x + h * x_head + slice * size;
            void *into = out + h * out_head + slice * out_size;
            FI_WITH_TYPES(tx, to, rope_row_interleaved(from, into, c, s, width, factor, X, Y));
        }
    }
    const int64_t rest = a->head_dim - a->rotary_dim;
    for (int64_t h = 0; rest > 0 && h < a->heads; h++) {
        const char *from = x + h * x_head + a->rotary_dim * size;
        char *into = out + h * out_head + a->rotary_dim * out_size;
        if (from != into) convert_any(from, into, rest, a->scale ? a->scale[h] : 1.0f, tx, to);
    }
}

/// A token's heads, each normalised in float32 before it turns.
static void rope_token_normalised(
    const fi_rope_args *a, const float *table, const char *x, int64_t x_head, char *out, int64_t out_head
) {
    float head[FI_HEAD_NORM_LARGEST];
    const fi_rms_norm_args norm = {
        .weight = a->norm.weight, .width = a->head_dim, .epsilon = a->norm.epsilon, .weight_offset = a->norm.weight_offset};
    fi_rope_args one = *a;
    one.x.dtype = FI_DTYPE_F32;
    one.heads = 1;
    for (int64_t h = 0; h < a->heads; h++) {
        rms_norm_row(
            &norm, x + h * x_head, NULL, head, no_scales(norm.width), a->x.dtype, FI_DTYPE_F32, a->norm.weight_dtype,
            FI_DTYPE_F32);
        one.scale = a->scale ? a->scale + h : NULL;
        rope_token(&one, table, (const char *)head, 0, out + h * out_head, 0);
    }
}

static void rope(const fi_rope_args *a, int64_t first, int64_t last) {
    const int64_t size = dtype_size(a->x.dtype), out_size = dtype_size(a->out.dtype);
    for (int64_t t = first; t < last; t++) {
        const int64_t place = a->slots ? a->slots[t] : t * a->out.outer_stride;
        if (a->slots && place < 0) continue;
        const float *table = a->cos_sin + (a->rows ? a->rows[t] : t) * a->row_stride;
        const char *x = (const char *)a->x.data + t * a->x.outer_stride * size;
        char *out = (char *)a->out.data + place * out_size;
        if (a->norm.weight) {
            rope_token_normalised(a, table, x, a->x.inner_stride * size, out, a->out.inner_stride * out_size);
        } else {
            rope_token(a, table, x, a->x.inner_stride * size, out, a->out.inner_stride * out_size);
        }
    }
}
