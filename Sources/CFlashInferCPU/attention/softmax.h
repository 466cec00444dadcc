/// One step of the online softmax. FI_NAME, FI_EXP2 (the accuracy) and FI_STORE_WEIGHT (the element) come from outside.

/// Hides the columns of an edge vector that lie outside [first, last).
FI_INLINE void FI_NAME(hide)(float *s, int c, int first, int last) {
    const vi column = (vi){FI_LANES} + c;
    const vf hidden = splat(-FI_INFINITY), x = loadu(s + c);
    storeu(s + c, choose((column >= first) & (column < last), x, hidden));
}

/// Up to FI_W rows: their maxima and sums are folded together, one lane a row, so that the cost of a reduction and of
/// the state's update is shared. The weights of row r go to w + r * weight_stride.
FI_INLINE void FI_NAME(softmax_rows)(const fi_attn_softmax *t, int row, int rows) {
    const int padded = (t->columns + 15) & ~15;
    const vf scale = splat(t->scale);
    vf part[FI_W];
    int from[FI_W], to[FI_W];
    for (int r = 0; r < FI_W; r++) part[r] = splat(-FI_INFINITY), from[r] = to[r] = 0;
    for (int r = 0; r < rows; r++) {
        float *s = t->scores + (row + r) * t->stride;
        const int first = t->ranges.first ? t->ranges.first[row + r] : 0;
        const int last = t->ranges.first ? t->ranges.last[row + r] : t->columns;
        if (first >= last) continue;
        const int c0 = first / FI_W * FI_W, c1 = (last + FI_W - 1) / FI_W * FI_W;
        if (first != c0) FI_NAME(hide)(s, c0, first, last);
        if (last != c1) FI_NAME(hide)(s, c1 - FI_W, first, last);
        vf a = part[r], b = a;
        int c = c0;
        for (; c + 2 * FI_W <= c1; c += 2 * FI_W) {
            a = vmax(loadu(s + c) * scale, a);
            b = vmax(loadu(s + c + FI_W) * scale, b);
        }
        if (c < c1) a = vmax(loadu(s + c) * scale, a);
        part[r] = vmax(a, b), from[r] = c0, to[r] = c1;
    }

    float top[FI_W], shrink[FI_W], sum[FI_W];
    for (int r = 0; r < FI_W; r++) top[r] = -FI_INFINITY, sum[r] = 0;
    for (int r = 0; r < rows; r++) top[r] = t->row_max[row + r], sum[r] = t->row_sum[row + r];
    const vf old = loadu(top), high = vmax(fold_max(part), old);
    // A row that has seen nothing keeps -inf; its shift must not be inf - inf.
    const vi blind = high == -FI_INFINITY;
    storeu(top, choose(blind, (vf){0}, high));
    // 1 where the maximum stays, so its rows need no rescaling; 0 where it was -inf.
    storeu(shrink, FI_EXP2(choose(old == high, (vf){0}, old - high)));
    const vf total = loadu(sum) * loadu(shrink);
    float kept[FI_W];
    storeu(kept, high);
    for (int r = 0; r < rows; r++) {
        t->row_max[row + r] = kept[r];
        if (shrink[r] == 1 || sum[r] == 0) continue;
        const vf f = splat(shrink[r]);
        float *o = t->output + (row + r) * t->output_stride;
        for (int c = 0; c < t->width; c += FI_W) storeu(o + c, loadu(o + c) * f);
    }

    for (int r = 0; r < FI_W; r++) part[r] = (vf){0};
    for (int r = 0; r < rows; r++) {
        const float *s = t->scores + (row + r) * t->stride;
        uint8_t *w = (uint8_t *)t->weights + (row + r) * t->weight_stride * FI_ELEMENT;
        const vf shift = splat(-top[r]);
        const int c1 = to[r];
        vf a = {0}, b = {0};
        int c = 0;
        for (; c < from[r]; c += FI_W) FI_STORE_WEIGHT(w + (int64_t)c * FI_ELEMENT, (vf){0});
        for (; c + 2 * FI_W <= c1; c += 2 * FI_W) {
            const vf x = FI_EXP2(vfma(loadu(s + c), scale, shift)), y = FI_EXP2(vfma(loadu(s + c + FI_W), scale, shift));
            a += x, b += y;
            FI_STORE_WEIGHT(w + (int64_t)c * FI_ELEMENT, x);
            FI_STORE_WEIGHT(w + (int64_t)(c + FI_W) * FI_ELEMENT, y);
        }
        if (c < c1) {
            const vf x = FI_EXP2(vfma(loadu(s + c), scale, shift));
            a += x;
            FI_STORE_WEIGHT(w + (int64_t)c * FI_ELEMENT, x);
            c += FI_W;
        }
        for (; c < padded; c += FI_W) FI_STORE_WEIGHT(w + (int64_t)c * FI_ELEMENT, (vf){0});
        part[r] = a + b;
    }
    storeu(sum, total + fold_sums(part));
    for (int r = 0; r < rows; r++) t->row_sum[row + r] = sum[r];
}

static void FI_NAME(softmax)(const fi_attn_softmax *t) {
    int r = 0;
    for (; r + FI_W <= t->rows; r += FI_W) FI_NAME(softmax_rows)(t, r, FI_W);
    if (r < t->rows) FI_NAME(softmax_rows)(t, r, t->rows - r);
}

/// Scores that are weights already, as elements; 0 outside the ranges.
static void FI_NAME(weigh)(const fi_attn_softmax *t) {
    const int padded = (t->columns + 15) & ~15;
    for (int r = 0; r < t->rows; r++) {
        const float *s = t->scores + r * t->stride;
        uint8_t *w = (uint8_t *)t->weights + r * t->weight_stride * FI_ELEMENT;
        const int first = t->ranges.first ? t->ranges.first[r] : 0, last = t->ranges.first ? t->ranges.last[r] : t->columns;
        for (int c = 0; c < padded; c += FI_W) {
            const vi column = (vi){FI_LANES} + c;
            FI_STORE_WEIGHT(w + (int64_t)c * FI_ELEMENT, choose((column >= first) & (column < last), loadu(s + c), (vf){0}));
        }
    }
}
