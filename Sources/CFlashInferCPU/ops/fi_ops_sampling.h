/// Sampling one token from a row of logits or probabilities without sorting it. Follows fi_ops_softmax.h.
///
/// A token's weight is w = exp((logit - max) / temperature), so that the greatest weight is 1, or its probability times the
/// power of two that makes the greatest 1/2 or more, which changes no digit. Which tokens are kept is a threshold on logits (top-k) and on weights (top-p, min-p):
///   top-k   the k greatest by (logit descending, index ascending);
///   top-p   tokens whose strictly greater weights sum to less than top_p times the whole: what top-k left, or the
///           entire row in the joint form;
///   min-p   w >= min_p.
/// Thresholds are found by halving the interval of possible values and dropping the values on the decided side, at most
/// 64 rounds whatever the row holds. The draw walks the kept tokens in index order up to uniform * (their sum).

/// The scratch of one thread. Each array has FI_SAMPLE_SLACK spare entries, since compaction stores whole vectors.
typedef struct sample_scratch {
    float *logits;      // [width] the row as float32, where it is not already
    float *values;      // [width] kept logits, then their weights
    int32_t *places;    // [width] the kept tokens' indices, ascending
    float *work;        // [width] consumed by the threshold searches
    float *groups;      // [width / FI_SAMPLE_GROUP] greatest logit of each group
    double *sums;       // [width / FI_SAMPLE_BLOCK] partial sums of the draw
} sample_scratch;

FI_INLINE sample_scratch sample_scratch_at(void *memory, int64_t width) {
    const int64_t row = fi_sample_row_capacity(width);
    sample_scratch s;
    s.logits = (float *)memory;
    s.values = s.logits + row;
    s.places = (int32_t *)(s.values + row);
    s.work = (float *)(s.places + row);
    s.sums = (double *)(s.work + row);
    s.groups = (float *)(s.sums + fi_sample_blocks(width, FI_SAMPLE_BLOCK));
    return s;
}

/// float32 bits as integers of the same order (no NaN).
FI_INLINE int32_t order_key(float x) {
    int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}
FI_INLINE float order_value(int32_t key) {
    const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

/// A value strictly between lo and hi, or lo when there is none. Arithmetic means suit logits, means of bit patterns
/// bound the number of rounds; the rounds alternate.
FI_INLINE float between(float lo, float hi, int round) {
    const int32_t a = order_key(lo), b = order_key(hi);
    if ((round & 1) == 0) {
        const float mean = lo * 0.5f + hi * 0.5f;
        if (order_key(mean) > a && order_key(mean) < b) return mean;
    }
    return order_value((int32_t)(((int64_t)a + (int64_t)b) >> 1));
}

/// Drops the values on one side of the pivot, in place: keeps x <= pivot, or x > pivot.
FI_INLINE int64_t keep_side(float *x, int64_t count, float pivot, bool upper) {
    int64_t kept = 0;
    FI_FOR_VECTORS(count, {
        const vf v = v_load_or(x, i, FI_DTYPE_F32, n, upper ? -__builtin_inff() : __builtin_inff());
        const vi m = upper ? v > v_set(pivot) : v <= v_set(pivot);
        kept += v_compress(x + kept, v, m);
    });
    return kept;
}

/// The k-th greatest of x[0 ..< count], 1 <= k <= count, all finite; x is consumed. `above` gets how many are greater.
static float kth_greatest(float *x, int64_t count, int64_t k, int64_t *above) {
    vf low = v_set(__builtin_inff()), high = v_set(-__builtin_inff());
    FI_FOR_VECTORS(count, {
        const vf v = v_load_or(x, i, FI_DTYPE_F32, n, x[0]);
        low = v_min(v, low);
        high = v_max(v, high);
    });
    float hi = v_reduce_max(high) + 0.0f;                        // #{x > hi} = 0 < k
    float lo = order_value(order_key(v_reduce_min(low)) - 1);    // #{x > lo} = count >= k
    int64_t greater = 0;                                         // values dropped above the interval
    for (int round = 0; order_key(hi) - (int64_t)order_key(lo) > 1; round++) {
        const float pivot = between(lo, hi, round);
        vi matches = v_seti(0);
        FI_FOR_VECTORS(count, {
            const vf v = v_load_or(x, i, FI_DTYPE_F32, n, -__builtin_inff());
            matches += v > v_set(pivot) ? v_seti(1) : v_seti(0);
        });
        int64_t over = 0;
        int32_t lanes[FI_W];
        __builtin_memcpy(lanes, &matches, sizeof lanes);
        for (int i = 0; i < FI_W; i++) over += lanes[i];
        if (greater + over < k) {
            hi = pivot;
            greater += over;
            if (over > 0) count = keep_side(x, count, pivot, false);
        } else {
            lo = pivot;
            if (over < count) count = keep_side(x, count, pivot, true);
        }
    }
    *above = greater;
    return hi;
}

/// The least weight t for which the weights strictly greater than t sum to less than `mass`; x (in 0 ... 1, the
/// greatest 1) is consumed. Entries below the caller's interest may be missing from x.
static float mass_threshold(float *x, int64_t count, double mass) {
    float hi = 1.0f, lo = -0x1p-149f;  // the order's neighbour of -0, below every weight
    double greater = 0;
    for (int round = 1; order_key(hi) - (int64_t)order_key(lo) > 1 && count > 0; round++) {
        const float pivot = between(lo, hi, round);
        vsum partial = v_sum_zero();
        FI_FOR_VECTORS(count, {
            const vf v = v_load(x, i, FI_DTYPE_F32, n);
            partial = v_sum_add(partial, v > v_set(pivot) ? v : v_set(0.0f));
        });
        const double over = v_sum_total(partial);
        if (greater + over < mass) {
            hi = pivot;
            greater += over;
            if (over > 0) count = keep_side(x, count, pivot, false);
        } else {
            lo = pivot;
            count = keep_side(x, count, pivot, true);
        }
    }
    return hi;
}

/// The entries of x that are >= threshold, with their indices, in index order.
FI_INLINE int64_t gather_from(const float *x, int64_t width, float threshold, float *values, int32_t *places) {
    int64_t count = 0;
    vi place = v_iota();
    FI_FOR_VECTORS(width, {
        const vf v = v_load_or(x, i, FI_DTYPE_F32, n, -__builtin_inff());
        const vi m = v >= v_set(threshold);
        if (v_any(m)) {
            v_compress_int(places + count, place, m);
            count += v_compress(values + count, v, m);
        }
        place += v_seti(FI_W);
    });
    return count;
}

/// Greatest entry, NaN test, and (groups not null) the greatest of every group; the row as float32 in `copy` if not null.
FI_INLINE row_scan sample_scan_of(const void *x, int64_t width, fi_dtype t, float *copy, float *groups) {
    row_scan scan = {-__builtin_inff(), false};
    vi nan = v_seti(0);
    for (int64_t group = 0; group < width; group += FI_SAMPLE_GROUP) {
        const int64_t size = width - group < FI_SAMPLE_GROUP ? width - group : FI_SAMPLE_GROUP;
        vf greatest = v_set(-__builtin_inff());
        FI_FOR_VECTORS(size, {
            const vf v = v_load_or(x, group + i, t, n, -__builtin_inff());
            nan |= v != v;
            greatest = v_max(v, greatest);
            if (copy) v_store(copy, group + i, FI_DTYPE_F32, n, v);
        });
        const float m = v_reduce_max(greatest);
        if (m > scan.max) scan.max = m;
        if (groups) groups[group / FI_SAMPLE_GROUP] = m;
    }
    scan.has_nan = v_any(nan) != 0;
    return scan;
}

static row_scan sample_scan(const void *x, int64_t width, fi_dtype t, float *copy, float *groups) {
    FI_SPECIALISE(
        true, t, return sample_scan_of(x, width, T, copy, groups), return sample_scan_of(x, width, t, copy, groups));
}

/// Keeps, in place, the values above kth and the first `ties` of those equal to it; returns how many.
static int64_t keep_greatest(float *values, int32_t *places, int64_t count, float kth, int64_t ties) {
    int64_t kept = 0;
    FI_FOR_VECTORS(count, {
        const vf v = v_load_or(values, i, FI_DTYPE_F32, n, -__builtin_inff());
        const vi place = v_load_int(places + i);  // into the spare entries at the end
        const vi tied = v == v_set(kth);
        vi m = v > v_set(kth);
        if (v_any(tied)) {
            int32_t lanes[FI_W];
            __builtin_memcpy(lanes, &tied, sizeof lanes);
            for (int lane = 0; lane < FI_W; lane++) {
                if (lanes[lane] != 0 && --ties < 0) lanes[lane] = 0;
            }
            m |= v_load_int(lanes);
        }
        v_compress_int(places + kept, place, m);
        kept += v_compress(values + kept, v, m);
    });
    return kept;
}

/// Leaves exactly the k greatest finite entries (ties: lowest index) in values and places; returns how many (<= k).
static int64_t keep_top_k(const float *x, int64_t width, int64_t k, sample_scratch *s) {
    // The k-th greatest group maximum is a lower bound of the k-th greatest entry: k entries reach it.
    const int64_t groups = (width + FI_SAMPLE_GROUP - 1) / FI_SAMPLE_GROUP;
    float threshold = -__FLT_MAX__;  // keeps -inf out
    if (k <= groups) {
        int64_t finite = 0, above;
        for (int64_t g = 0; g < groups; g++) {
            s->work[finite] = s->groups[g];
            finite += s->groups[g] >= -__FLT_MAX__;
        }
        if (finite >= k) threshold = kth_greatest(s->work, finite, k, &above);
    }
    const int64_t count = gather_from(x, width, threshold, s->values, s->places);
    if (count <= k) return count;
    __builtin_memcpy(s->work, s->values, (size_t)count * sizeof(float));
    int64_t above;
    const float kth = kth_greatest(s->work, count, k, &above);
    return keep_greatest(s->values, s->places, count, kth, k - above);
}

/// w = exp((x - max) * scale); returns the sum.
static double weigh_logits(const float *x, float *w, int64_t count, float max, float scale) {
    vsum sum = v_sum_zero();
    FI_FOR_VECTORS(count, {
        const vf v = v_load_or(x, i, FI_DTYPE_F32, n, -__builtin_inff());
        const vf e = v_exp((v - v_set(max)) * v_set(scale));
        v_store(w, i, FI_DTYPE_F32, n, e);
        sum = v_sum_add(sum, e);
    });
    return v_sum_total(sum);
}

/// Weights of logits that nothing or top-p filters: powers of 2, as the GPU has them, which sums a row before it knows the greatest. x
/// weighs 2^(y - exponent), y being x * log2(e) / temperature; one over the temperature is `scale`. `total` gets their sum; `w` may be null.
/// False where the row's numbers are too great for that.
static bool weigh_by_powers(const float *x, float *w, int64_t count, float max, float scale, double *total) {
    const double factor = (double)scale * 0x1.71547652b82fep0;
    const float high = (float)factor, low = (float)(factor - (double)high);
    if (!(scale >= 0x1p-64f && scale <= 0x1p64f && __builtin_fabsf(max * high) < 0x1p20f)) return false;
    const float exponent = __builtin_rintf(max * high) + 1.0f;
    vsum sum = v_sum_zero();
    const vf magic = v_set(0x1.8p23f - exponent), least = v_set((exponent - 100.0f) / high);
    FI_FOR_VECTORS(count, {
        const vf v = v_load_or(x, i, FI_DTYPE_F32, n, -__builtin_inff());
        const vf bounded = v_max(v, least);
        const vf shifted = v_fma(bounded, v_set(high), magic);
        const vf integer = shifted - magic;
        const vf f = v_fma(bounded, v_set(low), v_fma(bounded, v_set(high), -integer));
        vf p = v_fma(v_set(0x1.5c08e4p-10f), f, v_set(0x1.3d0c54p-7f));
        p = v_fma(p, f, v_set(0x1.c6b6e4p-5f));
        p = v_fma(p, f, v_set(0x1.ebf918p-3f));
        p = v_fma(p, f, v_set(0x1.62e428p-1f));
        p = v_fma(p, f, v_set(1.0f));
        // Times a power of 2 by the exponent's bits; what weighs 2^-100 weighs nothing.
        const vf e = p * v_float(v_unsigned((v_ibits(shifted) - v_seti(0x4b400000) + v_seti(127)) << 23));
        const vf weight = v > least ? e : v_set(0.0f);
        if (w) v_store(w, i, FI_DTYPE_F32, n, weight);
        sum = v_sum_add(sum, weight);
    });
    *total = v_sum_total(sum);
    return true;
}

/// How a row's values become weights.
typedef struct weighing {
    float max, scale;
    bool are_probabilities;
} weighing;

/// The power of two that makes `max` a number from 1/2 to 1.
FI_INLINE float probability_scale(float max) {
    int32_t bits;
    __builtin_memcpy(&bits, &max, sizeof bits);
    const int32_t exponent = bits >> 23;
    // The last two are subnormal: 2^-127 and 2^-128.
    const int32_t scale = exponent < 253 ? (253 - exponent) << 23 : exponent == 253 ? 0x00400000 : 0x00200000;
    float result;
    __builtin_memcpy(&result, &scale, sizeof result);
    return result;
}

FI_INLINE weighing weighing_of(const fi_sample_row *p, row_scan scan, bool are_probabilities) {
    // Bounded, so that 0 * scale is 0 for any temperature.
    const float scale = p->temperature > 1e-30f ? 1.0f / p->temperature : 1e30f;
    const weighing result = {scan.max, are_probabilities ? probability_scale(scan.max) : scale, are_probabilities};
    return result;
}

/// The weights of x, at w where that is not null; returns their sum.
static double weigh(const float *x, float *w, int64_t count, weighing form) {
    if (!form.are_probabilities) {
        if (w == NULL) return exp_sum(x, count, form.max, form.scale, FI_DTYPE_F32);
        return weigh_logits(x, w, count, form.max, form.scale);
    }
    vsum sum = v_sum_zero();
    FI_FOR_VECTORS(count, {
        const vf v = v_load(x, i, FI_DTYPE_F32, n) * v_set(form.scale);
        if (w) v_store(w, i, FI_DTYPE_F32, n, v);
        sum = v_sum_add(sum, v);
    });
    return v_sum_total(sum);
}

static bool has_negative(const float *x, int64_t width) {
    vi found = v_seti(0);
    FI_FOR_VECTORS(width, { found |= v_load(x, i, FI_DTYPE_F32, n) < v_set(0.0f); });
    return v_any(found) != 0;
}

FI_INLINE fi_row_status distribution_status(const float *x, int64_t width, row_scan scan, bool are_probabilities) {
    if (!are_probabilities || scan.has_nan) return scan_status(scan);
    if (has_negative(x, width)) return FI_ROW_NEGATIVE;
    if (scan.max == 0) return FI_ROW_EMPTY;
    return scan_status(scan);
}

/// What a row's filters keep: the weights w[0 ..< count] that are >= threshold, of the tokens `places`, or of all where that is null.
typedef struct kept_row {
    const float *w;
    const int32_t *places;
    int64_t count;
    float threshold;
} kept_row;

/// The mass of top-p's share; more than none, so that a share of 0 has the greatest weight.
static double nucleus_mass(double total, const fi_sample_row *p) {
    const double mass = total * (double)p->top_p;
    return mass > 0 ? mass : 0x1p-1022;
}

/// Applies the filters to the row x, whose group maxima are in the scratch where top-k is on.
static kept_row keep_row(
    const float *x, int64_t width, const fi_sample_row *p, weighing form, bool joint, sample_scratch *s
) {
    const bool by_k = p->top_k > 0 && p->top_k < width;
    const bool by_p = p->top_p < 1;
    float greatest = form.are_probabilities ? form.max * form.scale : 1.0f;
    kept_row kept = {s->values, NULL, width, p->min_p * greatest};
    if (by_k) {
        kept.count = keep_top_k(x, width, p->top_k, s);
        kept.places = s->places;
        double whole, total;
        // Of all of the row, which the GPU sums as it looks for the greatest.
        if (joint && by_p && !form.are_probabilities && weigh_by_powers(x, NULL, width, form.max, form.scale, &whole)) {
            weigh_by_powers(&form.max, &greatest, 1, form.max, form.scale, &total);
            kept.threshold = p->min_p * greatest;
            weigh_by_powers(s->values, s->values, kept.count, form.max, form.scale, &total);
            total = whole;
        } else {
            total = weigh(s->values, s->values, kept.count, form);
            if (joint && by_p) total = weigh(x, NULL, width, form);
        }
        if (by_p) {
            __builtin_memcpy(s->work, s->values, (size_t)kept.count * sizeof(float));
            const float nucleus = mass_threshold(s->work, kept.count, nucleus_mass(total, p));
            if (nucleus > kept.threshold) kept.threshold = nucleus;
        }
        return kept;
    }
    double total;
    if (!form.are_probabilities && (by_p || p->min_p == 0)
        && weigh_by_powers(x, s->values, width, form.max, form.scale, &total)) {
        if (!by_p) return kept;
        double weight;
        weigh_by_powers(&form.max, &greatest, 1, form.max, form.scale, &weight);
        kept.threshold = p->min_p * greatest;
    } else {
        total = weigh(x, s->values, width, form);
    }
    if (by_p) {
        // A token of the nucleus has at least (1 - top_p) * total at or below it, so it weighs at least that / width.
        const float floor = (float)(0.999 * (1.0 - (double)p->top_p) * total / (double)width);
        int64_t count = 0;
        FI_FOR_VECTORS(width, {
            const vf v = v_load_or(s->values, i, FI_DTYPE_F32, n, -1.0f);
            const vi m = v >= v_set(floor);
            if (v_any(m)) count += v_compress(s->work + count, v, m);
        });
        const float nucleus = mass_threshold(s->work, count, nucleus_mass(total, p));
        if (nucleus > kept.threshold) kept.threshold = nucleus;
    }
    return kept;
}

/// The sums of what is kept, block by block, and in all.
static double sum_kept(const kept_row *kept, double *sums) {
    double total = 0;
    for (int64_t block = 0; block < kept->count; block += FI_SAMPLE_BLOCK) {
        const int64_t size = kept->count - block < FI_SAMPLE_BLOCK ? kept->count - block : FI_SAMPLE_BLOCK;
        vsum sum = v_sum_zero();
        FI_FOR_VECTORS(size, {
            const vf v = v_load(kept->w, block + i, FI_DTYPE_F32, n);
            sum = v_sum_add(sum, v >= v_set(kept->threshold) ? v : v_set(0.0f));
        });
        sums[block / FI_SAMPLE_BLOCK] = v_sum_total(sum);
        total += sums[block / FI_SAMPLE_BLOCK];
    }
    return total;
}

/// The first token whose running sum reaches uniform times the total.
static int32_t draw(const kept_row *kept, double uniform, double total, const double *sums) {
    const double target = uniform * total;
    double before = 0;
    int64_t last = 0;
    for (int64_t block = 0; block < kept->count; block += FI_SAMPLE_BLOCK) {
        const double sum = sums[block / FI_SAMPLE_BLOCK];
        if (sum > 0 && before + sum >= target) {
            const int64_t end = kept->count - block < FI_SAMPLE_BLOCK ? kept->count : block + FI_SAMPLE_BLOCK;
            double running = before;
            for (int64_t i = block; i < end; i++) {
                if (!(kept->w[i] >= kept->threshold) || kept->w[i] == 0) continue;
                running += kept->w[i];
                last = i;
                if (running >= target) break;
            }
            break;  // on a rounding shortfall, the block's last kept token
        }
        before += sum;
    }
    return kept->places ? kept->places[last] : (int32_t)last;
}

/// The row that a thread's scratch holds, ready to be drawn from: where many tokens are drawn from one distribution, its rows are at one
/// address.
typedef struct ready_row {
    const void *row;
    const fi_sample_row *filters;
    kept_row kept;
    double total;
} ready_row;

FI_INLINE bool is_ready(const ready_row *ready, const void *row, const fi_sample_row *p) {
    const fi_sample_row *q = ready->filters;
    return row == ready->row && p->temperature == q->temperature && p->top_k == q->top_k && p->top_p == q->top_p
        && p->min_p == q->min_p;
}

static int32_t sample_one(const fi_sample_args *a, int64_t r, ready_row *ready) {
    const fi_sample_row *p = &a->rows[r];
    const void *row = row_at(&a->x, 1, r);
    const int64_t width = a->width;
    sample_scratch s = sample_scratch_at(a->scratch, width);
    if (!is_ready(ready, row, p)) {
        ready->row = NULL;
        if (p->temperature == 0 && !a->are_probabilities) {
            return (int32_t)argmax_row(row, width, a->x.dtype, &a->status[r]);
        }
        const bool by_k = p->top_k > 0 && p->top_k < width;
        const bool in_place = a->x.dtype == FI_DTYPE_F32;
        const row_scan scan =
            sample_scan(row, width, a->x.dtype, in_place ? NULL : s.logits, by_k ? s.groups : NULL);
        const float *x = in_place ? (const float *)row : s.logits;
        fi_row_status status = distribution_status(x, width, scan, a->are_probabilities);
        if (p->temperature == 0 && (status == FI_ROW_OK || status == FI_ROW_INFINITE)) {
            return (int32_t)argmax_row(row, width, a->x.dtype, &a->status[r]);
        }
        a->status[r] = (uint8_t)status;
        if (status != FI_ROW_OK) return -1;
        ready->kept = keep_row(x, width, p, weighing_of(p, scan, a->are_probabilities), a->joint, &s);
        ready->total = sum_kept(&ready->kept, s.sums);
        ready->row = row;
        ready->filters = p;
    }
    a->status[r] = FI_ROW_OK;
    return draw(&ready->kept, p->uniform, ready->total, s.sums);
}

static void sample(const fi_sample_args *a, int64_t first, int64_t last) {
    ready_row ready = {.row = NULL, .filters = a->rows};
    for (int64_t r = first; r < last; r++) a->out[r] = sample_one(a, r, &ready);
}
