/// Normalisation of rows: by the root of the mean square, and layer norm. Follows fi_ops_dtype.h.

/// Where the scales go that are computed, one of `size` elements each, `stride` apart: none where `next` is null.
typedef struct norm_scales {
    float *next;
    int64_t size, stride;
} norm_scales;

/// An output whose scale is given, or that has none.
FI_INLINE norm_scales no_scales(int64_t width) { return (norm_scales){NULL, width, 0}; }

FI_INLINE norm_scales norm_scales_of(const fi_quantize *q, int64_t row, int64_t width) {
    if (!q->row_scales) return no_scales(width);
    if (q->group > 0) return (norm_scales){group_scales(q, row), q->group, q->scale_group};
    return (norm_scales){q->row_scales + row, width, 0};
}

/// The scale of the next `size` elements, the greatest of which has this magnitude: sets it, and gives the factor that it stands for.
FI_INLINE float next_factor(norm_scales *own, vi greatest, fi_dtype to) {
    *own->next = row_scale(greatest, to);
    const float factor = 1.0f / *own->next;
    own->next += own->stride;
    return factor;
}

/// What is normalised: elements from `i` on, of which the row has `n`, plus the residual's where there is one.
FI_INLINE vf load_sum(const void *x, const void *residual, int64_t i, fi_dtype tx, fi_dtype tr, int n) {
    vf v = v_load(x, i, tx, n);
    if (residual) v += v_load(residual, i, tr, n);
    return v;
}

/// The same, with the sum stored as the new residual.
FI_INLINE vf load_and_keep_sum(const void *x, void *residual, int64_t i, fi_dtype tx, fi_dtype tr, int n) {
    const vf v = load_sum(x, residual, i, tx, tr, n);
    if (residual) v_store(residual, i, tr, n, v);
    return v;
}

// MARK: RMSNorm

/// One row. x + residual is formed twice, so that no scratch is needed and the norm sees the unrounded sum.
FI_INLINE void rms_norm_row(
    const fi_rms_norm_args *a, const void *x, void *residual, void *out, norm_scales own, fi_dtype tx, fi_dtype tr,
    fi_dtype tw, fi_dtype to
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
        const vf v = load_sum(x, residual, start + i, tx, tr, n);
        even = v_sum_add(even, v * v);
    });
    const double sum = v_sum_total(even) + v_sum_total(odd);
    const vf scale = v_set((float)(1.0 / sqrt(sum / (double)width + (double)a->epsilon)));
    const vf offset = v_set(a->weight_offset);
    float factor = a->quantize.factor;
    int64_t first = 0;
    do {
        if (own.next) {
            vi greatest = v_seti(0);
            FI_FOR_VECTORS(own.size, {
                const vf v = load_sum(x, residual, first + i, tx, tr, n);
                greatest = v_magnitude_max(greatest, v * scale * (v_load(a->weight, first + i, tw, n) + offset));
            });
            factor = next_factor(&own, greatest, to);
        }
        FI_FOR_VECTORS(own.size, {
            const vf v = load_and_keep_sum(x, residual, first + i, tx, tr, n);
            const vf y = v * scale * (v_load(a->weight, first + i, tw, n) + offset);
            v_store(out, first + i, to, n, dtype_size(to) == 1 ? y * v_set(factor) : y);
        });
        first += own.size;
    } while (first < width);
}

static void rms_norm(const fi_rms_norm_args *a, int64_t first, int64_t last) {
    const fi_dtype tx = a->x.dtype, tr = a->residual.dtype, tw = a->weight_dtype, to = a->out.dtype;
    const bool same = tx == tw && (!a->residual.data || tx == tr);
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, a->inner, r);
        void *out = row_at(&a->out, a->inner, r);
        void *residual = a->residual.data ? row_at(&a->residual, a->inner, r) : NULL;
        if (dtype_size(to) == 1) {
            const norm_scales own = norm_scales_of(&a->quantize, r, a->width);
            FI_SPECIALISE(
                same, tx, rms_norm_row(a, x, residual, out, own, T, T, T, to),
                rms_norm_row(a, x, residual, out, own, tx, tr, tw, to));
        } else {
            FI_SPECIALISE(
                same && tx == to, tx, rms_norm_row(a, x, residual, out, no_scales(a->width), T, T, T, T),
                rms_norm_row(a, x, residual, out, no_scales(a->width), tx, tr, tw, to));
        }
    }
}

// MARK: layer norm

/// One row, read three times: for the mean, for the squared distances from it, and for the output.
FI_INLINE void layer_norm_row(
    const fi_layer_norm_args *args, const void *x, void *residual, void *out, norm_scales own, fi_dtype tx, fi_dtype tr,
    fi_dtype tw, fi_dtype to
) {
    const fi_rms_norm_args *a = &args->norm;
    const int64_t width = a->width;
    vsum sum = v_sum_zero();
    FI_FOR_VECTORS(width, {
        sum = v_sum_add(sum, load_sum(x, residual, i, tx, tr, n));
    });
    const float mean = (float)(v_sum_total(sum) / (double)width);
    const vf centre = v_set(mean);
    vsum squares = v_sum_zero();
    FI_FOR_VECTORS(width, {
        // Lanes past the row are as far from the mean as nothing.
        vf v = v_load_or(x, i, tx, n, mean);
        if (residual) v += v_load(residual, i, tr, n);
        v -= centre;
        squares = v_sum_add(squares, v * v);
    });
    const vf scale = v_set((float)(1.0 / sqrt(v_sum_total(squares) / (double)width + (double)a->epsilon)));
    float factor = a->quantize.factor;
    int64_t first = 0;
    do {
        if (own.next) {
            vi greatest = v_seti(0);
            FI_FOR_VECTORS(own.size, {
                vf v = v_load_or(x, first + i, tx, n, mean);
                if (residual) v += v_load(residual, first + i, tr, n);
                const vf y = v_fma(
                    (v - centre) * scale, v_load(a->weight, first + i, tw, n), v_load(args->bias, first + i, tw, n));
                greatest = v_magnitude_max(greatest, y);
            });
            factor = next_factor(&own, greatest, to);
        }
        FI_FOR_VECTORS(own.size, {
            const vf v = load_and_keep_sum(x, residual, first + i, tx, tr, n);
            const vf y = v_fma(
                (v - centre) * scale, v_load(a->weight, first + i, tw, n), v_load(args->bias, first + i, tw, n));
            v_store(out, first + i, to, n, dtype_size(to) == 1 ? y * v_set(factor) : y);
        });
        first += own.size;
    } while (first < width);
}

static void layer_norm(const fi_layer_norm_args *args, int64_t first, int64_t last) {
    const fi_rms_norm_args *a = &args->norm;
    const fi_dtype tx = a->x.dtype, tr = a->residual.dtype, tw = a->weight_dtype, to = a->out.dtype;
    const bool same = tx == to && (!a->residual.data || tx == tr);
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, a->inner, r);
        void *out = row_at(&a->out, a->inner, r);
        void *residual = a->residual.data ? row_at(&a->residual, a->inner, r) : NULL;
        const norm_scales own =
            dtype_size(to) == 1 ? norm_scales_of(&a->quantize, r, a->width) : no_scales(a->width);
        // Weights are float32 as often as not: their type is not a constant.
        FI_SPECIALISE(
            same, tx, layer_norm_row(args, x, residual, out, no_scales(a->width), T, T, tw, T),
            layer_norm_row(args, x, residual, out, own, tx, tr, tw, to));
    }
}
