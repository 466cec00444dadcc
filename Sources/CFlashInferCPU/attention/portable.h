/// Helpers written with vector extensions alone, for instruction sets without better ones. Needs lanes.h.

FI_INLINE vf vmax(vf a, vf b) { return choose(a > b, a, b); }

FI_INLINE vf vfloor(vf x) {
    const vf t = __builtin_convertvector(__builtin_convertvector(x, vi), vf);  // |x| < 2^31 where this is used
    return t - choose(t > x, splat(1), (vf){0});
}

FI_INLINE vf clamp_exponent(vf x) { return choose(x < -127, splat(-127), x); }

FI_INLINE vf vfloor_part(vf x) {
    x = clamp_exponent(x);
    return x - vfloor(x);
}

/// a * 2^floor(b) for a in [1, 2), b <= 127; 0 below 2^-126. -127 gives the exponent field 0.
FI_INLINE vf vscale(vf a, vf b) {
    const vi n = __builtin_convertvector(vfloor(clamp_exponent(b)), vi);
    return a * (vf)((n + 127) << 23);
}
