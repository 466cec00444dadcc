/// Private: quantisation of a row of activations, in plain C that the compiler vectorises for the including file's
/// instruction set; every operation rounds alike everywhere, so the result is the same on all of them.
#pragma once

#include "panel.h"

/// Largest magnitude of a quantised activation.
#define FI_ACTIVATION_MAX 32767.0f
/// The least scale: below it, 1 / scale could overflow; a block that small is all but zero.
#define FI_ACTIVATION_MIN_SCALE 0x1p-126f

static void quantize(const float *x, int64_t columns, int16_t *q, fi_activation_block *blocks) {
    for (int64_t b = 0; b < columns / 32; b++, x += 32, q += 32) {
        // Magnitudes compare as integers, in which every NaN is above infinity and infinity above every number.
        uint32_t largest = 0;
        for (int k = 0; k < 32; k++) {
            const uint32_t magnitude = fi_float_to_bits(x[k]) & 0x7fffffff;
            largest = magnitude > largest ? magnitude : largest;
        }
        if (largest >= 0x7f800000) {
            for (int k = 0; k < 32; k++) q[k] = 0;
            const float nan = fi_bits_to_float(0x7fc00000);
            blocks[b] = (fi_activation_block){.scale = nan, .scaled_sum = nan};
            continue;
        }
        float scale = fi_bits_to_float(largest) / FI_ACTIVATION_MAX;
        scale = scale > FI_ACTIVATION_MIN_SCALE ? scale : FI_ACTIVATION_MIN_SCALE;
        const float inverse = 1.0f / scale;
        int32_t sum = 0;
        for (int k = 0; k < 32; k++) {
            // Adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits.
            const float shifted = x[k] * inverse + 0x1.8p23f;
            const int32_t value = (int32_t)fi_float_to_bits(shifted) - 0x4b400000;
            q[k] = (int16_t)value;
            sum += value;
        }
        blocks[b] = (fi_activation_block){.scale = scale, .scaled_sum = scale * (float)sum, .sum = sum};
    }
}
