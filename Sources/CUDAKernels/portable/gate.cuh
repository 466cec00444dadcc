// The functions of a gate.
//
// FI_OUTPUT: the storage type of what is computed. FI_ACTIVATION: 0 SiLU, 1 GELU by the error function, 2 GELU's tanh form, 3 none, with
// nothing else to multiply by: what is left is conversion to bytes.
#pragma once

#include "primitives/element.cuh"

/// x / y for y >= 1: two units in float32's last place off where 16 bits do not show it. Else the nearest number, but for one in millions, by
/// one correction. Where y is immense, or infinite, the quotient is as good as 0 and is not corrected. Bytes are those of the float32
/// output, converted.
static __device__ __forceinline__ float quotient(float x, float y) {
    if constexpr (fi_size(FI_OUTPUT) == 2) return __fdividef(x, y);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
    const float near = __fmul_rn(x, inverse);
    return y < 0x1p100f ? __fmaf_rn(__fmaf_rn(-near, y, x), inverse, near) : near;
}

/// x erfc(-x / sqrt 2) / 2 for outputs of 16 bits: with z = |x| / sqrt 2 and t = 1 / (1 + z / 2), erfc(z) / 2 is exp(-z²) t times a polynomial of t that
/// was fitted for this file. Relative error 3e-6 for |x| < 6 and 8e-6 at the end of bfloat16's range, where half a unit is 2.4e-4 of float16. A third of
/// the instructions of `erfcf`, which took longer than memory does.
static __device__ __forceinline__ float gelu(float x) {
    float t, gauss;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(__fmaf_rn(fabsf(x), 0.35355339f, 1.0f)));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(gauss) : "f"(x * x * -0.72134752f));
    float p = __fmaf_rn(0.043239452f, t, -0.17534854f);
    p = __fmaf_rn(p, t, 0.19041352f);
    p = __fmaf_rn(p, t, 0.021891147f);
    p = __fmaf_rn(p, t, 0.13965973f);
    p = __fmaf_rn(p, t, 0.13899249f);
    p = __fmaf_rn(p, t, 0.14115135f);
    // The part of x that is left where x < 0, and that is lost where x > 0.
    const float tail = gauss * t * p;
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static __device__ __forceinline__ float activate(float x) {
    if constexpr (FI_ACTIVATION == 0) {
        return quotient(x, 1.0f + expf(-x));
    } else if constexpr (FI_ACTIVATION == 1) {
        if constexpr (fi_size(FI_OUTPUT) == 2) return gelu(x);
        return 0.5f * x * erfcf(-0.70710678118654752f * x);
    } else {
        // 0.5 x (1 + tanh(u)) = x * sigmoid(2u), which keeps its relative accuracy for negative x.
        const float cubic = __fmaf_rn(x * x, 0.044715f, 1.0f) * x;
        return quotient(x, 1.0f + expf(cubic * -1.5957691216057308f));
    }
}

/// Whether there is another half.
#define FI_HAS_UP (FI_ACTIVATION != 3)
