// Conversions of one or two numbers that need an instruction C++ has no word for.
//
// All of them round to nearest, ties to even, and keep NaN; compute capability 8.0 has every instruction used without a test.
#pragma once

static __device__ __forceinline__ float fi_float_from_f16(unsigned int half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((unsigned short)half));
    return x;
}

/// Two float16 numbers, `low` in the lower half.
static __device__ __forceinline__ unsigned int fi_f16x2(float low, float high) {
    unsigned int packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/// Two bfloat16 numbers, `low` in the lower half.
static __device__ __forceinline__ unsigned int fi_bf16x2(float low, float high) {
    unsigned int packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

#if __CUDA_ARCH__ >= 890
#define FI_HAS_FP8_CONVERSION 1
/// Two e4m3 numbers, `low` in the lower byte; past ±448 becomes ±448.
static __device__ __forceinline__ unsigned int fi_e4m3x2(float low, float high) {
    unsigned short packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}
/// Two e5m2 numbers, `low` in the lower byte; past ±57344 becomes ±57344.
static __device__ __forceinline__ unsigned int fi_e5m2x2(float low, float high) {
    unsigned short packed;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}
#endif
