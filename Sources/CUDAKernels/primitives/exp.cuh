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

/// Powers of 2 whose digits do not depend on what is the greatest: x weighs 2^(y - exponent), y being x * log2(e) / temperature. So a
/// row can be summed before its greatest entry is known, and sums of several exponents are joined by shifts.
struct fi_powers {
    /// log2(e) / temperature, in two parts.
    float high, low;
    /// 1.5 * 2^23 - exponent.
    float magic;
    /// What is below weighs as much as this: 2^-100.
    float least;

    /// `scale` is one over the temperature.
    __device__ __forceinline__ void set_scale(float scale) {
        const double factor = (double)scale * 0x1.71547652b82fep0;
        high = (float)factor;
        low = (float)(factor - (double)high);
    }
    __device__ __forceinline__ void set_exponent(float exponent) {
        magic = 0x1.8p23f - exponent;
        // Somewhere there, as what is near it has no mass.
        least = __fdividef(exponent - 100.0f, high);
    }
    /// For y of at most the exponent.
    __device__ __forceinline__ float of(float x) const {
        const float bounded = fmaxf(x, least);
        const float shifted = __fmaf_rn(bounded, high, magic);
        const float n = __fsub_rn(shifted, magic);
        const float f = __fmaf_rn(bounded, low, __fmaf_rn(bounded, high, -n));
        float p = __fmaf_rn(0x1.5c08e4p-10f, f, 0x1.3d0c54p-7f);
        p = __fmaf_rn(p, f, 0x1.c6b6e4p-5f);
        p = __fmaf_rn(p, f, 0x1.ebf918p-3f);
        p = __fmaf_rn(p, f, 0x1.62e428p-1f);
        p = __fmaf_rn(p, f, 1.0f);
        return __int_as_float(__float_as_int(p) + (__float_as_int(shifted) << 23));
    }
    __device__ __forceinline__ float4 of(float4 x) const { return make_float4(of(x.x), of(x.y), of(x.z), of(x.w)); }
};

/// The least exponent, and minus the greatest, of rows that are summed so.
#define FI_LEAST_EXPONENT -0x1p20f

/// The exponent where y is at most this: of weights of at most 2^-0.5, some 0.35 being the greatest.
static __device__ __forceinline__ float fi_exponent_of(float y) { return rintf(fminf(y, -FI_LEAST_EXPONENT)) + 1.0f; }
