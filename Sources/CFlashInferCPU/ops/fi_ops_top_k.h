/// The k greatest entries of rows, without sorting them. Follows fi_ops_sampling.h.
///
/// The k-th greatest maximum of groups of entries bounds the k-th greatest entry from below: what reaches it is gathered, and
/// selected from by integers that order entries by value and place.

/// Integers in the order of the values, zeros of both signs being equal and a NaN above all.
FI_INLINE vi v_rank(vf x) {
    const vi bits = v_ibits(x + v_set(0.0f));
    const vi key = bits ^ ((bits >> 31) & v_seti(0x7fffffff));
    return x == x ? key : v_seti(INT32_MAX);
}

/// The ranks of a row, and of each group the greatest.
FI_INLINE void rank_row_of(const void *x, int64_t width, fi_dtype t, int32_t *ranks, uint64_t *groups) {
    for (int64_t group = 0; group < width; group += FI_SAMPLE_GROUP) {
        const int64_t size = width - group < FI_SAMPLE_GROUP ? width - group : FI_SAMPLE_GROUP;
        vi greatest = v_seti(INT32_MIN);
        FI_FOR_VECTORS(size, {
            const vi rank = v_rank(v_load_or(x, group + i, t, n, -__builtin_inff()));
            if (n == FI_W) {
                v_store_int(ranks + group + i, rank);
            } else {
                int32_t lanes[FI_W];
                v_store_int(lanes, rank);
                __builtin_memcpy(ranks + group + i, lanes, (size_t)n * sizeof(int32_t));
            }
            greatest = rank > greatest ? rank : greatest;
        });
        // Different numbers, as the selection needs: the group's own in the lower half.
        const uint64_t key = (uint32_t)v_reduce_max_int(greatest) ^ 0x80000000u;
        groups[group / FI_SAMPLE_GROUP] = key << 32 | (uint64_t)(group / FI_SAMPLE_GROUP);
    }
}

static void rank_row(const void *x, int64_t width, fi_dtype t, int32_t *ranks, uint64_t *groups) {
    FI_SPECIALISE(true, t, rank_row_of(x, width, T, ranks, groups), rank_row_of(x, width, t, ranks, groups));
}

/// The k greatest entries as (rank, complement of the place), in the order of places.
static void select_top_k(const fi_top_k_args *a, int32_t *ranks, int32_t *places, uint64_t *entries, uint64_t *copy, uint64_t *groups) {
    const int64_t width = a->width, k = a->k;
    const int64_t group_count = (width + FI_SAMPLE_GROUP - 1) / FI_SAMPLE_GROUP;
    int32_t bound = INT32_MIN;
    if (k <= group_count) {
        fi_ops_keep_greatest(groups, group_count, k, groups + group_count);
        uint64_t least = groups[0];
        for (int64_t i = 1; i < k; i++) least = groups[i] < least ? groups[i] : least;
        bound = (int32_t)((uint32_t)(least >> 32) ^ 0x80000000u);
    }
    int64_t count = 0;
    vi place = v_iota();
    int64_t i = 0;
    for (; i + FI_W <= width; i += FI_W) {
        const vi m = v_load_int(ranks + i) >= v_seti(bound);
        if (v_any(m)) count += v_compress_int(places + count, place, m);
        place += v_seti(FI_W);
    }
    for (; i < width; i++) {
        if (ranks[i] >= bound) places[count++] = (int32_t)i;
    }
    for (int64_t at = 0; at < count; at++) {
        const uint32_t own = (uint32_t)places[at];
        entries[at] = (uint64_t)((uint32_t)ranks[own] ^ 0x80000000u) << 32 | (uint32_t)~own;
    }
    if (count > k) fi_ops_keep_greatest(entries, count, k, copy);
}

static void top_k(const fi_top_k_args *a, int64_t first, int64_t last) {
    const int64_t row_size = fi_sample_row_capacity(a->width);
    uint64_t *entries = (uint64_t *)a->scratch;
    uint64_t *copy = entries + row_size, *groups = copy + row_size;
    int32_t *ranks = (int32_t *)(groups + 2 * (fi_sample_blocks(a->width, FI_SAMPLE_GROUP) + FI_SAMPLE_SLACK));
    int32_t *places = ranks + row_size;
    const fi_dtype t = a->x.dtype;
    for (int64_t r = first; r < last; r++) {
        const void *x = row_at(&a->x, 1, r);
        void *values = row_at(&a->values, 1, r);
        int32_t *out = a->places + r * a->place_stride;
        row_scan scan = {0, false};
        double logarithm = 0;
        if (a->status) {
            scan = scan_row(x, a->width, t);
            const fi_row_status status = scan_status(scan);
            a->status[r] = (uint8_t)status;
            if (status != FI_ROW_OK) {
                for (int64_t i = 0; i < a->k; i++) {
                    ((float *)values)[i] = __builtin_nanf("");
                    out[i] = -1;
                }
                continue;
            }
            logarithm = log(exp_sum(x, a->width, scan.max, a->scale, t));
        }
        rank_row(x, a->width, t, ranks, groups);
        select_top_k(a, ranks, places, entries, copy, groups);
        if (a->sorted) fi_ops_sort_descending(entries, a->k, copy);
        for (int64_t i = 0; i < a->k; i++) {
            const int64_t place = (uint32_t)~(uint32_t)entries[i];
            out[i] = (int32_t)place;
            if (a->status) {
                const double value = fi_ops_element(x, place, t);
                ((float *)values)[i] = (float)((value - (double)scan.max) * (double)a->scale - logarithm);
            } else if (t == FI_DTYPE_F32) {
                ((float *)values)[i] = ((const float *)x)[place];
            } else {
                ((uint16_t *)values)[i] = ((const uint16_t *)x)[place];
            }
        }
    }
}
