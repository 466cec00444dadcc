// Number formats of the hardware that the host has not: bfloat16, float8, and roundings.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulator {

using half = _Float16;

inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

struct bfloat16 {
    uint16_t bits;
    operator float() const { return from_bits((uint32_t)bits << 16); }
};

inline bfloat16 to_bfloat16(float value) {
    uint32_t bits = to_bits(value);
    if (value != value) return {0x7fff};
    bits += 0x7fff + (bits >> 16 & 1);
    return {(uint16_t)(bits >> 16)};
}

/// To float8 with `exponent` bits, nearest even, kept within the finite numbers; NaN stays NaN.
inline uint8_t to_float8(float value, int exponent_bits) {
    const int mantissa = 7 - exponent_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const uint8_t sign = (uint8_t)(to_bits(value) >> 31 << 7);
    if (value != value) return 0x7f;
    const float largest = exponent_bits == 4 ? 448.0f : 57344.0f;
    float magnitude = fabsf(value);
    if (magnitude >= largest) return sign | (exponent_bits == 4 ? 0x7e : 0x7b);
    int exponent;
    frexpf(magnitude, &exponent);
    // The spacing of numbers here; subnormal ones share that of the least exponent.
    int scale = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    const float steps = nearbyintf(ldexpf(magnitude, mantissa - scale));
    magnitude = ldexpf(steps, scale - mantissa);
    if (magnitude == 0) return sign;
    if (magnitude > largest) magnitude = largest;
    frexpf(magnitude, &exponent);
    const int biased = exponent - 1 + bias;
    if (biased < 1) return sign | (uint8_t)lrintf(ldexpf(magnitude, bias - 1 + mantissa));
    const float fraction = ldexpf(magnitude, 1 - exponent) - 1;
    return sign | (uint8_t)(biased << mantissa) | (uint8_t)lrintf(ldexpf(fraction, mantissa));
}

inline float from_float8(uint8_t bits, int exponent_bits) {
    const int mantissa = 7 - exponent_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int biased = bits >> mantissa & ((1 << exponent_bits) - 1);
    const int fraction = bits & ((1 << mantissa) - 1);
    float value;
    if (exponent_bits == 4 ? (bits & 0x7f) == 0x7f : biased == 31 && fraction) {
        return from_bits(0x7fc00000);
    } else if (exponent_bits == 5 && biased == 31) {
        value = INFINITY;
    } else if (biased == 0) {
        value = ldexpf((float)fraction, 1 - bias - mantissa);
    } else {
        value = ldexpf((float)(fraction + (1 << mantissa)), biased - bias - mantissa);
    }
    return bits >> 7 ? -value : value;
}

}  // namespace emulator
