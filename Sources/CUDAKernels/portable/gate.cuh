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

static __device__ __forceinline__ float activate(float x) {
    if constexpr (FI_ACTIVATION == 0) {
        return quotient(x, 1.0f + expf(-x));
    } else if constexpr (FI_ACTIVATION == 1) {
        return 0.5f * x * erfcf(-0.70710678118654752f * x);
    } else {
        // 0.5 x (1 + tanh(u)) = x * sigmoid(2u), which keeps its relative accuracy for negative x.
        const float cubic = __fmaf_rn(x * x, 0.044715f, 1.0f) * x;
        return quotient(x, 1.0f + expf(cubic * -1.5957691216057308f));
    }
}

/// Whether there is another half.
#define FI_HAS_UP (FI_ACTIVATION != 3)
