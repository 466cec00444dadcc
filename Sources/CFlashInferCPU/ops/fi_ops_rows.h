/// Row kernels: RMSNorm, gated activations, add, convert, embedding, scatter, rotary embedding. Follows fi_ops_dtype.h.

// MARK: RMSNorm

/// One row. x + residual is formed twice, so that no scratch is needed and the norm sees the unrounded sum.
FI_INLINE void rms_norm_row(
    const fi_rms_norm_args *a, const void *x, void *residual, void *out, float *row, fi_dtype tx, fi_dtype tr, fi_dtype tw,
    fi_dtype to
) {
    const int64_t width = a->width;
    // Sums in double: a float32 sum of a wide row loses digits that the output still shows. Two hide the latency.
    vsum even = v_sum_zero(), odd = v_sum_zero();
    int64_t start = 0;
    for (; start + 2 * FI_W <= width; start += 2 * FI_W) {
        vf v = v_load(x, start, tx, FI_W), w = v_load(x, start + FI_W, tx, FI_W);
        if (residual) {
            v += v_load(residual, start, tr, FI_W);
            w += v_load(residual, start + FI_W, tr, FI_W);
        }
        even = v_sum_add(even, v * v);
        odd = v_sum_add(odd, w * w);
    }
    FI_FOR_VECTORS(width - start, {
        vf v = v_load(x, start + i, tx, n);
        if (residual) v += v_load(residual, start + i, tr, n);
        even = v_sum_add(even, v * v);
    });
    const double sum = v_sum_total(even) + v_sum_total(odd);
    const vf scale = v_set((float)(1.0 / sqrt(sum / (double)width + (double)a->epsilon)));
    const vf offset = v_set(a->weight_offset);
    float factor = a->quantize.factor;
    if (row) {
        vi greatest = v_seti(0);
        FI_FOR_VECTORS(width, {
            vf v = v_load(x, i, tx, n);
            if (residual) v += v_load(residual, i, tr, n);
            greatest = v_magnitude_max(greatest, v * scale * (v_load(a->weight, i, tw, n) + offset));
        });
        *row = row_scale(greatest, to);
        factor = 1.0f / *row;
    }
    FI_FOR_VECTORS(width, {
        vf v = v_load(x, i, tx, n);
        if (residual) {
            v += v_load(residual, i, tr, n);
            v_store(residual, i, tr, n, v);
        }
        const vf y = v * scale * (v_load(a->weight, i, tw, n) + offset);
        v_store(out, i, to, n, dtype_size(to) == 1 ? y * v_set(factor) : y);
    });
}

static void rms_norm(const fi_rms_norm_args *a, int64_t first, int64_t last) {
    const fi_dtype tx = a->x.dtype, tr = a->residual.dtype, tw = a->weight_dtype, to = a->out.dtype;
    const bool same = tx == tw && (!a->residual.data || tx == tr);
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, a->inner, r);
        void *out = row_at(&a->out, a->inner, r);
        void *residual = a->residual.data ? row_at(&a->residual, a->inner, r) : NULL;
        if (dtype_size(to) == 1) {
            float *row = a->quantize.row_scales ? a->quantize.row_scales + r : NULL;
            FI_SPECIALISE(
                same, tx, rms_norm_row(a, x, residual, out, row, T, T, T, to),
                rms_norm_row(a, x, residual, out, row, tx, tr, tw, to));
        } else {
            FI_SPECIALISE(
                same && tx == to, tx, rms_norm_row(a, x, residual, out, NULL, T, T, T, T),
                rms_norm_row(a, x, residual, out, NULL, tx, tr, tw, to));
        }
    }
}

// MARK: gated activations

FI_INLINE vf v_activate(vf x, fi_activation f) {
    return f == FI_SILU ? v_silu(x) : f == FI_GELU_TANH ? v_gelu_tanh(x) : v_gelu_erf(x);
}

FI_INLINE void gated_row(
    const void *gate, const void *up, void *out, int64_t width, fi_activation f, fi_dtype tg, fi_dtype tu, fi_dtype to
) {
    FI_FOR_VECTORS(width, {
        const vf g = v_load(gate, i, tg, n);
        const vf u = v_load(up, i, tu, n);
        v_store(out, i, to, n, v_activate(g, f) * u);
    });
}

/// The same into 8 bits. A scale of the row's own takes the activations twice: there is no memory to keep them in.
FI_INLINE void gated_row_quantized(
    const void *gate, const void *up, void *out, int64_t width, float factor, float *row, fi_activation f, fi_dtype tg,
    fi_dtype tu, fi_dtype to
) {
    if (row) {
        vi greatest = v_seti(0);
        FI_FOR_VECTORS(width, {
            const vf y = v_activate(v_load(gate, i, tg, n), f) * v_load(up, i, tu, n);
            greatest = v_magnitude_max(greatest, y);
        });
        *row = row_scale(greatest, to);
        factor = 1.0f / *row;
    }
    FI_FOR_VECTORS(width, {
        const vf y = v_activate(v_load(gate, i, tg, n), f) * v_load(up, i, tu, n);
        v_store(out, i, to, n, y * v_set(factor));
    });
}

/// Rows of one activation, a constant.
FI_INLINE void gated_rows(const fi_gated_args *a, int64_t first, int64_t last, fi_activation f) {
    const fi_dtype tg = a->gate.dtype, tu = a->up.dtype, to = a->out.dtype;
    const int64_t width = a->width;
    for (int64_t r = first; r < last; r++) {
        const void *g = row_at(&a->gate, a->inner, r), *u = row_at(&a->up, a->inner, r);
        void *o = row_at(&a->out, a->inner, r);
        if (dtype_size(to) == 1) {
            float *row = a->quantize.row_scales ? a->quantize.row_scales + r : NULL;
            FI_SPECIALISE(
                tg == tu, tg, gated_row_quantized(g, u, o, width, a->quantize.factor, row, f, T, T, to),
                gated_row_quantized(g, u, o, width, a->quantize.factor, row, f, tg, tu, to));
        } else {
            FI_SPECIALISE(
                tg == tu && tu == to, tg, gated_row(g, u, o, width, f, T, T, T),
                gated_row(g, u, o, width, f, tg, tu, to));
        }
    }
}

static void gated(const fi_gated_args *a, int64_t first, int64_t last) {
    switch (a->activation) {
    case FI_SILU: gated_rows(a, first, last, FI_SILU); break;
    case FI_GELU_TANH: gated_rows(a, first, last, FI_GELU_TANH); break;
    case FI_GELU_ERF: gated_rows(a, first, last, FI_GELU_ERF); break;
    }
}

// MARK: add, convert, embedding, scatter

FI_INLINE void add_row(
    const void *x, const void *y, void *out, int64_t width, float alpha, float beta, fi_dtype tx, fi_dtype ty, fi_dtype to
) {
    FI_FOR_VECTORS(width, {
        vf v = v_load(x, i, tx, n) * v_set(alpha);
        if (y) v = v_fma(v_load(y, i, ty, n), v_set(beta), v);
        v_store(out, i, to, n, v);
    });
}

static void add(const fi_add_args *a, int64_t first, int64_t last) {
    const fi_dtype tx = a->a.dtype, ty = a->b.dtype, to = a->out.dtype;
    const bool same = tx == to && (!a->b.data || tx == ty);
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->a, a->inner, r);
        const void *y = a->b.data ? row_at(&a->b, a->inner, r) : NULL;
        void *out = row_at(&a->out, a->inner, r);
        FI_SPECIALISE(
            same, tx, add_row(x, y, out, a->width, a->alpha, a->beta, T, T, T),
            add_row(x, y, out, a->width, a->alpha, a->beta, tx, ty, to));
    }
}

/// The one conversion loop: out = cast(x * scale). A copy of bytes where nothing changes.
FI_INLINE void convert_row(const void *x, void *out, int64_t width, float scale, fi_dtype tx, fi_dtype to) {
    if (tx == to && scale == 1.0f) {
        if (x != out) __builtin_memmove(out, x, (size_t)(width * dtype_size(tx)));
        return;
    }
    if (scale == 1.0f) {
        FI_FOR_VECTORS(width, v_store(out, i, to, n, v_load(x, i, tx, n)););
    } else {
        FI_FOR_VECTORS(width, v_store(out, i, to, n, v_load(x, i, tx, n) * v_set(scale)););
    }
}

/// The same, with the usual pairs as constants. Not inlined: it is the body of three kernels.
static __attribute__((noinline)) void convert_any(
    const void *x, void *out, int64_t width, float scale, fi_dtype tx, fi_dtype to
) {
    if (tx == FI_DTYPE_F32) {
        switch (to) {
        case FI_DTYPE_F32: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_F32); return;
        case FI_DTYPE_F16: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_F16); return;
        case FI_DTYPE_BF16: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_BF16); return;
        case FI_DTYPE_E4M3: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_E4M3); return;
        case FI_DTYPE_E5M2: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_E5M2); return;
        case FI_DTYPE_I8: convert_row(x, out, width, scale, FI_DTYPE_F32, FI_DTYPE_I8); return;
        }
    }
    if (tx == FI_DTYPE_BF16 && to == FI_DTYPE_F32) {
        convert_row(x, out, width, scale, FI_DTYPE_BF16, FI_DTYPE_F32);
    } else if (tx == FI_DTYPE_F16 && to == FI_DTYPE_F32) {
        convert_row(x, out, width, scale, FI_DTYPE_F16, FI_DTYPE_F32);
    } else {
        convert_row(x, out, width, scale, tx, to);
    }
}

static void convert(const fi_convert_args *a, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
        convert_any(
            row_at(&a->x, a->inner, r), row_at(&a->out, a->inner, r), a->width, a->scale, a->x.dtype, a->out.dtype);
    }
}

static void embedding(const fi_embedding_args *a, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
        const char *x = (const char *)a->table + a->ids[r] * a->table_stride * dtype_size(a->table_dtype);
        convert_any(x, row_at(&a->out, 1, r), a->width, a->scale, a->table_dtype, a->out.dtype);
    }
}

static void scatter(const fi_scatter_args *a, int64_t first, int64_t last) {
    const int64_t size = dtype_size(a->destination_dtype);
    for (int64_t t = first; t < last; t++) {
        const int64_t slot = a->slots[t];
        if (slot < 0) continue;
        for (int64_t h = 0; h < a->heads; h++) {
            const float scale = a->scale ? a->scale[h * a->scale_stride] : 1.0f;
            char *out = (char *)a->destination + (slot + h * a->head_stride) * size;
            convert_any(
                row_at(&a->x, a->heads, t * a->heads + h), out, a->width, scale, a->x.dtype, a->destination_dtype);
        }
    }
}

// MARK: rotary embedding

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

static void rope(const fi_rope_args *a, int64_t first, int64_t last) {
    const int64_t size = dtype_size(a->x.dtype), out_size = dtype_size(a->out.dtype);
    for (int64_t t = first; t < last; t++) {
        const int64_t place = a->slots ? a->slots[t] : t * a->out.outer_stride;
        if (a->slots && place < 0) continue;
        rope_token(
            a, a->cos_sin + t * a->rotary_dim, (const char *)a->x.data + t * a->x.outer_stride * size,
            a->x.inner_stride * size, (char *)a->out.data + place * out_size, a->out.inner_stride * out_size);
    }
}
