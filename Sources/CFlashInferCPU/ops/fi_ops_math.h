/// exp and the activations on vectors. Follows fi_ops_vec.h.
/// The polynomials were fitted for this file: relative error 3.1e-9 (exp, degree 6 on |r| <= ln2 / 2) and 4.4e-8
/// (erfcx(z) / t with t = 1 / (1 + z / 2), degree 8 on 0 <= z <= 11), both below half a unit in float32's last place.

/// e^x: within 2 units in the last place; 0 below the normal range's logarithm, inf above the finite range's; exp(0) = 1.
FI_INLINE vf v_exp(vf x) {
    const vf magic = v_set(0x1.8p23f);
    const vf bounded = v_min(v_max(x, v_set(-104.0f)), v_set(90.0f));
    const vf shifted = v_fma(bounded, v_set(0x1.715476p0f), magic);
    const vf n = shifted - magic;
    // ln2 in two parts, the first with trailing zeros so that n times it is exact.
    vf r = v_fma(n, v_set(-0x1.62e4p-1f), bounded);
    r = v_fma(n, v_set(-0x1.7f7d1cp-20f), r);
    vf p = v_fma(v_set(1.381459837e-03f), r, v_set(8.368716898e-03f));
    p = v_fma(p, r, v_set(4.166838805e-02f));
    p = v_fma(p, r, v_set(1.666652063e-01f));
    p = v_fma(p, r, v_set(4.999999345e-01f));
    p = v_fma(p * r, r, r) + v_set(1.0f);
    const vi exponent = v_ibits(shifted) - v_ibits(magic);
    const vi half = exponent >> 1;  // 2^n in two factors, since n reaches 129
    const vf first = v_float(v_unsigned((half + 127) << 23));
    const vf second = v_float(v_unsigned((exponent - half + 127) << 23));
    vf y = p * first * second;
    y = x < v_set(-87.33654f) ? v_set(0.0f) : y;
    y = x > v_set(88.72283f) ? v_set(__builtin_inff()) : y;
    return x == x ? y : x;
}

/// x * sigmoid(x).
FI_INLINE vf v_silu(vf x) { return x / (v_set(1.0f) + v_exp(-x)); }

/// The tanh form of GELU: 0.5 x (1 + tanh(u)) = x * sigmoid(2u), which keeps its relative accuracy for negative x.
FI_INLINE vf v_gelu_tanh(vf x) {
    const vf cubic = v_fma(x * x, v_set(0.044715f), v_set(1.0f)) * x;
    return x / (v_set(1.0f) + v_exp(cubic * v_set(-1.5957691216057308f)));
}

/// The erf form of GELU: x * erfc(-x / sqrt 2) / 2, by erfc(z) = exp(-z^2) erfcx(z) for z >= 0.
/// z^2 is split into a rounded square and its error, or the exponential would lose digits in the tail.
FI_INLINE vf v_gelu_erf(vf x) {
    const vf z = v_min(v_abs(x) * v_set(0.70710678118654752f), v_set(11.0f));
    const vf t = v_set(1.0f) / v_fma(z, v_set(0.5f), v_set(1.0f));
    vf p = v_fma(v_set(-5.927729844e-02f), t, v_set(2.855924732e-01f));
    p = v_fma(p, t, v_set(-4.893088318e-01f));
    p = v_fma(p, t, v_set(2.804820608e-01f));
    p = v_fma(p, t, v_set(-2.829053893e-02f));
    p = v_fma(p, t, v_set(2.033916846e-01f));
    p = v_fma(p, t, v_set(2.429255914e-01f));
    p = v_fma(p, t, v_set(2.823997919e-01f));
    p = v_fma(p, t, v_set(2.820850234e-01f));
    const vf square = z * z;
#if FI_HAS_FMA
    const vf low = v_fma(z, z, -square);
#else
    // Dekker's split: the halves' products are exact.
    const vf head = v_float(v_bits(z) & (vu)0xfffff000u), tail = z - head;
    const vf low = ((head * head - square) + 2.0f * head * tail) + tail * tail;
#endif
    const vf gauss = v_exp(-square);
    const vf erfc = (gauss - gauss * low) * (t * p);
    const vf half = v_set(0.5f) * erfc;
    const vf y = x * (x < v_set(0.0f) ? half : v_set(1.0f) - half);
    return x == x ? y : x;
}
