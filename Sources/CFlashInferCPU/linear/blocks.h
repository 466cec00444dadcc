/// Private: the ggml block layouts, decoded into one common form, and float16 / bfloat16 to float32.
#pragma once

#include "../include/fi_linear.h"

// Every table must round alike, with and without fused multiply-add in its instruction set: fma is always spelled out.
#pragma STDC FP_CONTRACT OFF

/// 32 consecutive weights of a row: w[k] = scale[k / 16] * q[k] + min, each factor exact in float32.
typedef struct fi_block32 {
    int8_t q[32];
    float scale[2];
    float min;
} fi_block32;

static inline uint16_t fi_load_u16(const void *p) {
    uint16_t v;
    __builtin_memcpy(&v, p, 2);
    return v;
}

static inline uint32_t fi_load_u32(const void *p) {
    uint32_t v;
    __builtin_memcpy(&v, p, 4);
    return v;
}

static inline float fi_bits_to_float(uint32_t bits) {
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}

static inline uint32_t fi_float_to_bits(float f) {
    uint32_t bits;
    __builtin_memcpy(&bits, &f, 4);
    return bits;
}

/// float16 to float32, branch-free: the exponent is rebiased by an exact product, which normalises subnormals too.
static inline float fi_half_to_float(uint16_t h) {
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    const float scaled = fi_bits_to_float(magnitude) * 0x1p112f;
    const uint32_t special = ((h & 0x7c00) == 0x7c00) ? (0x7f800000u | magnitude) : fi_float_to_bits(scaled);
    // As the hardware does, a signalling NaN comes out quiet.
    const uint32_t quiet = ((h & 0x7fff) > 0x7c00) ? 0x00400000u : 0;
    return fi_bits_to_float(special | quiet | ((uint32_t)(h & 0x8000) << 16));
}

static inline float fi_bf16_to_float(uint16_t h) { return fi_bits_to_float((uint32_t)h << 16); }

/// Weights [32 * block, 32 * block + 32) of a quantised row.
void fi_decode_block32(fi_weight_format format, const uint8_t *row, int64_t block, fi_block32 *out);
