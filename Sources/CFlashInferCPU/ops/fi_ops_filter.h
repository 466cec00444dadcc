/// What top-k, top-p and min-p keep of rows. Follows fi_ops_sampling.h.

FI_INLINE void store_row(void *out, const float *x, int64_t width, fi_dtype t) {
    FI_FOR_VECTORS(width, { v_store(out, i, t, n, v_load(x, i, FI_DTYPE_F32, n)); });
}

static void filter_one(const fi_filter_args *a, int64_t r) {
    const fi_sample_row *p = &a->rows[a->has_one_row ? 0 : r];
    const void *row = row_at(&a->x, 1, r);
    void *out = row_at(&a->out, 1, r);
    const int64_t width = a->width;
    const fi_dtype t = a->x.dtype;
    sample_scratch s = sample_scratch_at(a->scratch, width);
    // A copy, as the output may be the input.
    const row_scan scan = sample_scan(row, width, t, s.logits, s.groups);
    const fi_row_status status = distribution_status(s.logits, width, scan, a->are_probabilities);
    a->status[r] = (uint8_t)status;
    if (status != FI_ROW_OK) {
        if (a->are_probabilities) {
            __builtin_memset(out, 0, (size_t)(width * dtype_size(t)));
        } else if (out != row) {
            __builtin_memcpy(out, row, (size_t)(width * dtype_size(t)));
        }
        return;
    }
    const kept_row kept = keep_row(s.logits, width, p, weighing_of(p, scan, a->are_probabilities), a->joint, &s);
    float *result = s.work;  // the searches are done with it
    const float other = a->are_probabilities ? 0.0f : -__builtin_inff();
    float factor = 1;
    if (a->are_probabilities) {
        vsum sum = v_sum_zero();
        FI_FOR_VECTORS(kept.count, {
            const vf w = v_load(kept.w, i, FI_DTYPE_F32, n);
            sum = v_sum_add(sum, w >= v_set(kept.threshold) ? w : v_set(0.0f));
        });
        factor = (float)(1.0 / v_sum_total(sum));
    }
    if (kept.places) {
        FI_FOR_VECTORS(width, { v_store(result, i, FI_DTYPE_F32, n, v_set(other)); });
        for (int64_t i = 0; i < kept.count; i++) {
            if (!(kept.w[i] >= kept.threshold)) continue;
            const int32_t place = kept.places[i];
            result[place] = a->are_probabilities ? kept.w[i] * factor : s.logits[place];
        }
    } else {
        FI_FOR_VECTORS(width, {
            const vf w = v_load(kept.w, i, FI_DTYPE_F32, n);
            const vf own = a->are_probabilities ? w * v_set(factor) : v_load(s.logits, i, FI_DTYPE_F32, n);
            v_store(result, i, FI_DTYPE_F32, n, w >= v_set(kept.threshold) ? own : v_set(other));
        });
    }
    store_row(out, result, width, t);
}

static void filter(const fi_filter_args *a, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) filter_one(a, r);
}
