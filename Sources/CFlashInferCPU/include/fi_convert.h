/// Conversions between float32 and the narrow types of weights, activations and caches, over contiguous arrays.
///
/// To narrow: round to nearest, ties to even, subnormals included. NaN stays NaN (float16 and bfloat16 keep the upper
/// payload bits, made quiet; float8 gives sign | 0x7f). What rounds past the largest number becomes an infinity, or NaN
/// in e4m3 ("fn": no infinities); with `saturate` it becomes the largest number, infinities too.
/// To float32: exact. Results are the same bits on every instruction set. n may be 0; no alignment is needed beyond the
/// element's; input and output must not overlap.
#pragma once

#include "fi_cpu.h"

typedef struct fi_convert_kernels {
    void (*f16_from_f32)(const float *x, int64_t n, uint16_t *out);
    void (*f32_from_f16)(const uint16_t *x, int64_t n, float *out);
    void (*bf16_from_f32)(const float *x, int64_t n, uint16_t *out);
    void (*f32_from_bf16)(const uint16_t *x, int64_t n, float *out);
    void (*e4m3_from_f32)(const float *x, int64_t n, bool saturate, uint8_t *out);
    void (*f32_from_e4m3)(const uint8_t *x, int64_t n, float *out);
    void (*e5m2_from_f32)(const float *x, int64_t n, bool saturate, uint8_t *out);
    void (*f32_from_e5m2)(const uint8_t *x, int64_t n, float *out);
    /// out = clamp(round(x · multiplier), -128, 127); NaN gives 0.
    void (*i8_from_f32)(const float *x, int64_t n, float multiplier, int8_t *out);
    /// out = x · scale.
    void (*f32_from_i8)(const int8_t *x, int64_t n, float scale, float *out);
} fi_convert_kernels;

/// The conversions of `isa`, or NULL where this build has none for it.
const fi_convert_kernels *fi_convert_table(fi_isa isa);
