/// Row kernels: gated activations, add, convert, quantise, embedding, scatter. Follows fi_ops_math.h.

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
        if (dtype_size(to) == 1 && a->quantize.group > 0) {
            // A group is a row of its own.
            const int64_t size = a->quantize.group;
            float *scale = group_scales(&a->quantize, r);
            for (int64_t i = 0; i < width; i += size, scale += a->quantize.scale_group) {
                const char *from = (const char *)g + i * dtype_size(tg), *by = (const char *)u + i * dtype_size(tu);
                char *into = (char *)o + i;
                FI_SPECIALISE(
                    tg == tu, tg, gated_row_quantized(from, by, into, size, 1.0f, scale, f, T, T, to),
                    gated_row_quantized(from, by, into, size, 1.0f, scale, f, tg, tu, to));
            }
        } else if (dtype_size(to) == 1) {
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

// MARK: add, convert, quantise, embedding, scatter

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

/// A row, or a group of one, into 8 bits; by a scale of its own where there is somewhere to put it.
FI_INLINE void quantize_row(
    const void *x, void *out, int64_t width, float factor, float *own, fi_dtype tx, fi_dtype to
) {
    if (own) {
        vi greatest = v_seti(0);
        FI_FOR_VECTORS(width, greatest = v_magnitude_max(greatest, v_load(x, i, tx, n)););
        *own = row_scale(greatest, to);
        factor = 1.0f / *own;
    }
    FI_FOR_VECTORS(width, v_store(out, i, to, n, v_load(x, i, tx, n) * v_set(factor)););
}

static void quantize(const fi_quantize_args *a, int64_t first, int64_t last) {
    const fi_dtype tx = a->x.dtype, to = a->out.dtype;
    const fi_quantize *q = &a->quantize;
    const int64_t size = q->group > 0 ? q->group : a->width;
    for (int64_t r = first; r < last; r++) {
        const char *x = row_at(&a->x, a->inner, r);
        char *out = row_at(&a->out, a->inner, r);
        float *own = !q->row_scales ? NULL : q->group > 0 ? group_scales(q, r) : q->row_scales + r;
        // A row of no elements has a scale all the same.
        for (int64_t i = 0; i < a->width || i == 0; i += size) {
            const char *from = x + i * dtype_size(tx);
            FI_SPECIALISE(
                true, tx, quantize_row(from, out + i, size, q->factor, own, T, to),
                quantize_row(from, out + i, size, q->factor, own, tx, to));
            if (own) own += q->scale_group;
            if (size == 0) break;
        }
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
