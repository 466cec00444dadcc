/// Kernels that reduce a row of logits: softmax, argmax, log-probabilities. Follows fi_ops_math.h.

/// The greatest entry of a row and whether it holds a NaN.
typedef struct row_scan {
    float max;
    bool has_nan;
} row_scan;

FI_INLINE row_scan scan_row_of(const void *x, int64_t width, fi_dtype t) {
    const float lowest = -__builtin_inff();
    vf m0 = v_set(lowest), m1 = v_set(lowest), m2 = v_set(lowest), m3 = v_set(lowest);
    vi nan = v_seti(0);
    int64_t start = 0;
    for (; start + 4 * FI_W <= width; start += 4 * FI_W) {
        const vf a = v_load(x, start, t, FI_W), b = v_load(x, start + FI_W, t, FI_W);
        const vf c = v_load(x, start + 2 * FI_W, t, FI_W), d = v_load(x, start + 3 * FI_W, t, FI_W);
        m0 = v_max(a, m0);
        m1 = v_max(b, m1);
        m2 = v_max(c, m2);
        m3 = v_max(d, m3);
        nan |= (a != a) | (b != b) | (c != c) | (d != d);
    }
    FI_FOR_VECTORS(width - start, {
        const vf v = v_load_or(x, start + i, t, n, lowest);
        m0 = v_max(v, m0);
        nan |= v != v;
    });
    const row_scan result = {v_reduce_max(v_max(v_max(m0, m1), v_max(m2, m3))), v_any(nan) != 0};
    return result;
}

static row_scan scan_row(const void *x, int64_t width, fi_dtype t) {
    FI_SPECIALISE(true, t, return scan_row_of(x, width, T), return scan_row_of(x, width, t));
}

FI_INLINE fi_row_status scan_status(row_scan scan) {
    if (scan.has_nan) return FI_ROW_NAN;
    if (scan.max == -__builtin_inff()) return FI_ROW_EMPTY;
    return scan.max == __builtin_inff() ? FI_ROW_INFINITE : FI_ROW_OK;
}

/// sum of exp((x - max) * scale).
FI_INLINE double exp_sum_of(const void *x, int64_t width, float max, float scale, fi_dtype t) {
    vsum sum = v_sum_zero();
    FI_FOR_VECTORS(width, {
        const vf v = v_load_or(x, i, t, n, -__builtin_inff());
        sum = v_sum_add(sum, v_exp((v - v_set(max)) * v_set(scale)));
    });
    return v_sum_total(sum);
}

static double exp_sum(const void *x, int64_t width, float max, float scale, fi_dtype t) {
    FI_SPECIALISE(
        true, t, return exp_sum_of(x, width, max, scale, T), return exp_sum_of(x, width, max, scale, t));
}

FI_INLINE void softmax_write(
    const void *x, void *out, int64_t width, float max, float scale, float factor, fi_dtype t, fi_dtype to
) {
    FI_FOR_VECTORS(width, {
        const vf v = v_load(x, i, t, n);
        v_store(out, i, to, n, v_exp((v - v_set(max)) * v_set(scale)) * v_set(factor));
    });
}

/// Three passes over the row, the exponentials being cheaper to repeat than to keep in a narrow dtype.
static void softmax(const fi_softmax_args *a, int64_t first, int64_t last) {
    const fi_dtype t = a->x.dtype, to = a->out.dtype;
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, a->inner, r);
        void *out = row_at(&a->out, a->inner, r);
        const row_scan scan = scan_row(x, a->width, t);
        const fi_row_status status = scan_status(scan);
        a->status[r] = (uint8_t)status;
        if (status != FI_ROW_OK) {
            __builtin_memset(out, 0, (size_t)(a->width * dtype_size(to)));
            continue;
        }
        const float scale = a->scale ? a->scale[r] : 1.0f;
        const float factor = (float)(1.0 / exp_sum(x, a->width, scan.max, scale, t));
        FI_SPECIALISE(
            t == to, t, softmax_write(x, out, a->width, scan.max, scale, factor, T, T),
            softmax_write(x, out, a->width, scan.max, scale, factor, t, to));
    }
}

static void logprob(const fi_logprob_args *a, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, a->inner, r);
        const row_scan scan = scan_row(x, a->width, a->x.dtype);
        const fi_row_status status = scan_status(scan);
        a->status[r] = (uint8_t)status;
        a->out[r] = __builtin_nanf("");
        if (status != FI_ROW_OK) continue;
        const float scale = a->scale ? a->scale[r] : 1.0f;
        const double sum = exp_sum(x, a->width, scan.max, scale, a->x.dtype);
        const double logit = fi_ops_element(x, a->ids[r], a->x.dtype);
        a->out[r] = (float)((logit - (double)scan.max) * (double)scale - log(sum));
    }
}

/// Blocks of this many elements: the greatest block is found by comparisons alone and searched for the place.
#define FI_ARGMAX_BLOCK 1024

FI_INLINE int64_t argmax_of(const void *x, int64_t width, fi_dtype t, row_scan *scan) {
    const float lowest = -__builtin_inff();
    float best = lowest;
    int64_t best_block = 0;
    bool has_nan = false;
    for (int64_t block = 0; block < width; block += FI_ARGMAX_BLOCK) {
        const int64_t size = width - block < FI_ARGMAX_BLOCK ? width - block : FI_ARGMAX_BLOCK;
        const row_scan part = scan_row_of((const char *)x + block * dtype_size(t), size, t);
        has_nan |= part.has_nan;
        if (part.max > best) {
            best = part.max;
            best_block = block;
        }
    }
    scan->max = best;
    scan->has_nan = has_nan;
    for (int64_t i = best_block; i < width; i++) {
        if (fi_ops_element(x, i, t) == best) return i;
    }
    return -1;
}

/// The place of the greatest entry, or -1 with the reason in `status`.
static int64_t argmax_row(const void *x, int64_t width, fi_dtype t, uint8_t *status) {
    row_scan scan;
    int64_t place;
    switch (t) {
    case FI_DTYPE_F32: place = argmax_of(x, width, FI_DTYPE_F32, &scan); break;
    case FI_DTYPE_F16: place = argmax_of(x, width, FI_DTYPE_F16, &scan); break;
    default: place = argmax_of(x, width, FI_DTYPE_BF16, &scan); break;
    }
    const fi_row_status found = scan.has_nan ? FI_ROW_NAN : scan.max == -__builtin_inff() ? FI_ROW_EMPTY : FI_ROW_OK;
    *status = (uint8_t)found;
    return found == FI_ROW_OK ? place : -1;
}

static void argmax(const fi_argmax_args *a, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r++) {
        a->out[r] = (int32_t)argmax_row(row_at(&a->x, a->inner, r), a->width, a->x.dtype, &a->status[r]);
    }
}
