// The exponential of the row operations: the same operations in the same order as the CPU's, so that weights, and with them
// the tokens drawn, agree with the CPU's bit for bit.
#pragma once

/// Of x below this, e^x is below the normal range.
#define FI_EXP_LEAST -87.33654f

/// e^x as `fi_exp`, but no less than some 2^-126: for sums to which less adds nothing.
static __device__ __forceinline__ float fi_exp_bounded(float x) {
    const float magic = 0x1.8p23f;
    const float bounded = fmaxf(x, FI_EXP_LEAST);
    const float shifted = __fmaf_rn(bounded, 0x1.715476p0f, magic);
    const float n = __fsub_rn(shifted, magic);
    // ln2 in two parts, the first with trailing zeros so that n times it is exact.
    float r = __fmaf_rn(n, -0x1.62e4p-1f, bounded);
    r = __fmaf_rn(n, -0x1.7f7d1cp-20f, r);
    float p = __fmaf_rn(1.381459837e-03f, r, 8.368716898e-03f);
    p = __fmaf_rn(p, r, 4.166838805e-02f);
    p = __fmaf_rn(p, r, 1.666652063e-01f);
    p = __fmaf_rn(p, r, 4.999999345e-01f);
    p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0f);
    // Times 2^n, by the exponent's bits: n is in the low bits of `shifted`, and the result is normal where it counts.
    return __int_as_float(__float_as_int(p) + (__float_as_int(shifted) << 23));
}

/// e^x for x of at most 20, say: within 2 units in the last place; 0 below the normal range's logarithm; exp(0) = 1. 0 for NaN.
static __device__ __forceinline__ float fi_exp(float x) { return x >= FI_EXP_LEAST ? fi_exp_bounded(x) : 0.0f; }
