#include "fi_ops_common.h"

const fi_ops_kernels *fi_ops_table(fi_isa isa) {
    switch (isa) {
#if defined(__x86_64__)
    case FI_ISA_AVX512_BF16:
    case FI_ISA_AVX512: return fi_ops_avx512();
    case FI_ISA_AVX2: return fi_ops_avx2();
#elif defined(__aarch64__)
    case FI_ISA_NEON: return fi_ops_neon();
#endif
    default: return fi_ops_scalar();
    }
}

size_t fi_sample_scratch_size(int64_t width) {
    const size_t rows = 4 * (size_t)fi_sample_row_capacity(width) * sizeof(float);
    return rows + (size_t)fi_sample_blocks(width, 1024) * sizeof(double)
        + ((size_t)fi_sample_blocks(width, 128) + FI_SAMPLE_SLACK) * sizeof(float);
}

void fi_rope_table(float *out, const int32_t *positions, int64_t tokens, const double *frequencies, int64_t pairs) {
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < pairs; i++) {
            const double angle = (double)positions[t] * frequencies[i];
            out[t * 2 * pairs + i] = (float)cos(angle);
            out[t * 2 * pairs + pairs + i] = (float)sin(angle);
        }
    }
}

void fi_ops_pack_bits(uint8_t *out, const uint8_t *flags, int64_t count, bool highest_first, int64_t first, int64_t last) {
    for (int64_t byte = first; byte < last; byte++) {
        const uint8_t *eight = flags + 8 * byte;
        unsigned bits = 0;
        if (8 * byte + 8 <= count) {
            for (int i = 0; i < 8; i++) bits |= (unsigned)(eight[i] != 0) << i;
        } else {
            for (int i = 0; 8 * byte + i < count; i++) bits |= (unsigned)(eight[i] != 0) << i;
        }
        if (highest_first) {
            bits = (bits & 0xf0u) >> 4 | (bits & 0x0fu) << 4;
            bits = (bits & 0xccu) >> 2 | (bits & 0x33u) << 2;
            bits = (bits & 0xaau) >> 1 | (bits & 0x55u) << 1;
        }
        out[byte] = (uint8_t)bits;
    }
}
