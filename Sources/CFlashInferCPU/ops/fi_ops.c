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
    return rows + (size_t)fi_sample_blocks(width, FI_SAMPLE_BLOCK) * sizeof(double)
        + ((size_t)fi_sample_blocks(width, FI_SAMPLE_GROUP) + FI_SAMPLE_SLACK) * sizeof(float);
}

size_t fi_top_k_scratch_size(int64_t width) {
    const size_t row = (size_t)fi_sample_row_capacity(width);
    return row * (sizeof(int32_t) + sizeof(int32_t) + 2 * sizeof(uint64_t))
        + 2 * ((size_t)fi_sample_blocks(width, FI_SAMPLE_GROUP) + FI_SAMPLE_SLACK) * sizeof(uint64_t);
}

void fi_ops_keep_greatest(uint64_t *entries, int64_t size, int64_t count, uint64_t *copy) {
    // Byte by byte from the highest: the count-th greatest has the prefix at which the entries from above reach the count.
    uint64_t prefix = 0;
    int64_t left = count, candidates = size;
    const uint64_t *from = entries;
    for (int shift = 56; shift >= 0 && candidates > 1; shift -= 8) {
        int64_t counts[256] = {0};
        for (int64_t i = 0; i < candidates; i++) counts[(from[i] >> shift) & 255]++;
        int digit = 255;
        while (counts[digit] < left) left -= counts[digit--];
        int64_t kept = 0;
        for (int64_t i = 0; i < candidates; i++) {
            const uint64_t entry = from[i];
            if (((entry >> shift) & 255) == (uint64_t)digit) copy[kept++] = entry;
        }
        candidates = kept;
        from = copy;
        prefix |= (uint64_t)digit << shift;
    }
    // Entries differ, so one is left: the last that is kept.
    const uint64_t last = candidates == 1 ? from[0] : prefix;
    int64_t kept = 0;
    for (int64_t i = 0; i < size; i++) {
        const uint64_t entry = entries[i];
        if (entry >= last) entries[kept++] = entry;
    }
}

void fi_ops_sort_descending(uint64_t *entries, int64_t count, uint64_t *copy) {
    if (count <= 64) {
        for (int64_t i = 1; i < count; i++) {
            const uint64_t entry = entries[i];
            int64_t at = i;
            for (; at > 0 && entries[at - 1] < entry; at--) entries[at] = entries[at - 1];
            entries[at] = entry;
        }
        return;
    }
    // Eight bytes from the lowest on, so that the result ends where it began.
    for (int shift = 0; shift < 64; shift += 8) {
        int64_t starts[256] = {0};
        for (int64_t i = 0; i < count; i++) starts[(entries[i] >> shift) & 255]++;
        int64_t next = 0;
        for (int digit = 255; digit >= 0; digit--) {
            const int64_t found = starts[digit];
            starts[digit] = next;
            next += found;
        }
        for (int64_t i = 0; i < count; i++) copy[starts[(entries[i] >> shift) & 255]++] = entries[i];
        uint64_t *swapped = entries;
        entries = copy;
        copy = swapped;
    }
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
