/// Polynomials and the score transforms: scale, soft cap, ALiBi and custom masks. float32.
/// Needs from the instruction-set file: vfma, and exponent helpers vfloor_part (x - floor(x)) and vscale (a * 2^floor(b)).

#define FI_FOLD_MAX(S, a, b) \
    vmax(__builtin_shufflevector(a, b, FI_MERGE##S), __builtin_shufflevector(a, b, FI_CROSS##S))

/// Lane i of the result is the largest lane of v[i]; v is overwritten.
FI_INLINE vf fold_max(vf v[FI_W]) {
    FI_UNROLL for (int i = 0; i < FI_W / 2; i++) v[i] = FI_FOLD_MAX(1, v[2 * i], v[2 * i + 1]);
    FI_UNROLL for (int i = 0; i < FI_W / 4; i++) v[i] = FI_FOLD_MAX(2, v[2 * i], v[2 * i + 1]);
#if FI_W >= 8
    FI_UNROLL for (int i = 0; i < FI_W / 8; i++) v[i] = FI_FOLD_MAX(4, v[2 * i], v[2 * i + 1]);
#endif
#if FI_W >= 16
    v[0] = FI_FOLD_MAX(8, v[0], v[1]);
#endif
    return v[0];
}

/// 2^x, relative error 2e-9 before rounding. p(0) = 1 exactly, so that a lone key has weight 1 and an exact LSE.
FI_INLINE vf exp2_fine(vf x) {
    const vf f = vfloor_part(x);
    vf p = splat(2.161291638e-04f);
    p = vfma(p, f, splat(1.246784607e-03f));
    p = vfma(p, f, splat(9.675451603e-03f));
    p = vfma(p, f, splat(5.548528060e-02f));
    p = vfma(p, f, splat(2.402293056e-01f));
    p = vfma(p, f, splat(6.931470444e-01f));
    return vscale(vfma(p, f, splat(1)), x);
}

/// 2^x, relative error 3e-6: 600 times finer than the bfloat16 weights that it feeds.
FI_INLINE vf exp2_coarse(vf x) {
    const vf f = vfloor_part(x);
    vf p = splat(1.342668553e-02f);
    p = vfma(p, f, splat(5.224247220e-02f));
    p = vfma(p, f, splat(2.412802057e-01f));
    p = vfma(p, f, splat(6.930448448e-01f));
    return vscale(vfma(p, f, splat(1)), x);
}

/// tanh by way of e^(2x) - 1 without cancellation: relative error about 2e-7 everywhere.
FI_INLINE vf vtanh(vf x) {
    vf y = x * (2 * FI_LOG2E);
    y = choose(y > 40, splat(40), y);
    y = choose(y < -40, splat(-40), y);
    // y = n + f with f in [-0.5, 0.5]
    const vf f = vfloor_part(y + 0.5f) - 0.5f, n = y - f, one = splat(1);
    vf q = splat(1.540351281e-04f);
    q = vfma(q, f, splat(1.339073553e-03f));
    q = vfma(q, f, splat(9.618237494e-03f));
    q = vfma(q, f, splat(5.550357434e-02f));
    q = vfma(q, f, splat(2.402264979e-01f));
    q = vfma(q, f, splat(6.931471879e-01f));
    const vf power = vscale(one, n + 0.25f), e = vfma(power, q * f, power - one);
    return e / (e + 2);
}

/// FI_W mask elements from `start` as lanes of all ones (visible) or zero.
FI_INLINE vi mask_lanes(const uint8_t *mask, int64_t start, bool packed) {
    if (!packed) {
        vb b;
        __builtin_memcpy(&b, mask + start, sizeof b);
        return (vi)(__builtin_convertvector(b, vu) != 0);
    }
    const uint8_t *p = mask + start / 8;
    const int bit = (int)(start % 8), bytes = (bit + FI_W + 7) / 8;  // reads no byte without a bit of these lanes
    uint32_t bits = 0;
    for (int i = 0; i < bytes; i++) bits |= (uint32_t)p[i] << (8 * i);
    return (((vi){0} + (int32_t)(bits >> bit)) & ((vi){0} + 1) << (vi){FI_LANES}) != 0;
}

static void hide_masked(float *s, int columns, const uint8_t *mask, int64_t start, bool packed) {
    int c = 0;
    for (; c + FI_W <= columns; c += FI_W)
        storeu(s + c, choose(mask_lanes(mask, start + c, packed), loadu(s + c), splat(-FI_INFINITY)));
    for (; c < columns; c++) {
        const int64_t i = start + c;
        const bool visible = packed ? mask[i / 8] >> (i % 8) & 1 : mask[i] != 0;
        if (!visible) s[c] = -FI_INFINITY;
    }
}

static void transform(const fi_attn_transform *t) {
    const vf lanes = __builtin_convertvector((vi){FI_LANES}, vf);
    const float inner = t->cap > 0 ? t->scale / t->cap : t->scale * FI_LOG2E, outer = t->cap * FI_LOG2E;
    for (int r = 0; r < t->rows; r++) {
        float *s = t->scores + r * t->stride;
        const float slope = t->slopes ? t->slopes[r] * FI_LOG2E : 0;
        const int distance = t->slopes ? t->distance[r] : 0;
        for (int c = 0; c < t->columns; c += FI_W) {
            vf x = loadu(s + c) * inner;
            if (t->cap > 0) x = vtanh(x) * outer;
            if (t->slopes) x = vfma(lanes + (float)(distance + c), splat(slope), x);
            storeu(s + c, x);
        }
        if (t->mask) hide_masked(s, t->columns, t->mask, t->mask_start[r], t->mask_is_packed);
    }
}
