/// The block layouts of ggml's weight formats, byte for byte, decoded to (q, scale, min) for packing.
#include "blocks.h"

int64_t fi_weight_block_size(fi_weight_format format) {
    switch (format) {
    case FI_WEIGHT_F32:
    case FI_WEIGHT_F16:
    case FI_WEIGHT_BF16: return 1;
    case FI_WEIGHT_Q4_0:
    case FI_WEIGHT_Q4_1:
    case FI_WEIGHT_Q5_0:
    case FI_WEIGHT_Q5_1:
    case FI_WEIGHT_Q8_0: return 32;
    case FI_WEIGHT_Q4_K:
    case FI_WEIGHT_Q5_K:
    case FI_WEIGHT_Q6_K: return 256;
    }
    return 0;
}

int64_t fi_weight_block_bytes(fi_weight_format format) {
    switch (format) {
    case FI_WEIGHT_F32: return 4;
    case FI_WEIGHT_F16:
    case FI_WEIGHT_BF16: return 2;
    case FI_WEIGHT_Q4_0: return 18;  // d, 16 bytes of nibbles
    case FI_WEIGHT_Q4_1: return 20;  // d, m, 16
    case FI_WEIGHT_Q5_0: return 22;  // d, 4 bytes of fifth bits, 16
    case FI_WEIGHT_Q5_1: return 24;  // d, m, 4, 16
    case FI_WEIGHT_Q8_0: return 34;  // d, 32
    case FI_WEIGHT_Q4_K: return 144; // d, dmin, 12 bytes of 6-bit scales and mins, 128
    case FI_WEIGHT_Q5_K: return 176; // d, dmin, 12, 32 bytes of fifth bits, 128
    case FI_WEIGHT_Q6_K: return 210; // 128 low nibbles, 64 high pairs, 16 signed scales, d
    }
    return 0;
}

bool fi_weight_is_quantized(fi_weight_format format) { return format >= FI_WEIGHT_Q4_0; }

static inline void nibbles(const uint8_t *qs, int8_t *q) {
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)(qs[j] & 15);
        q[j + 16] = (int8_t)(qs[j] >> 4);
    }
}

static inline void fifth_bits(uint32_t high, int8_t *q) {
    for (int j = 0; j < 32; j++) q[j] |= (int8_t)(((high >> j) & 1) << 4);
}

static inline void set_scale(fi_block32 *out, float scale, float min) {
    out->scale[0] = out->scale[1] = scale;
    out->min = min;
}

/// The 6-bit scale and min of sub-block j (of 8) in the 12 packed bytes of a K-quant super-block.
static inline void scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
        *min = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
    }
}

static void decode_k45(const uint8_t *p, int j, const uint8_t *qs, const uint8_t *qh, fi_block32 *out) {
    // Sub-blocks 2i and 2i + 1 share 32 bytes: low and high nibbles. Fifth bits of sub-block j are bit j of qh.
    const uint8_t *bytes = qs + (j / 2) * 32;
    for (int k = 0; k < 32; k++) {
        const int low = (j & 1) ? bytes[k] >> 4 : bytes[k] & 15;
        out->q[k] = (int8_t)(low | (qh ? ((qh[k] >> j) & 1) << 4 : 0));
    }
    int scale, min;
    scale_min(p + 4, j, &scale, &min);
    set_scale(out, fi_half_to_float(fi_load_u16(p)) * (float)scale,
              -(fi_half_to_float(fi_load_u16(p + 2)) * (float)min));
}

static void decode_q6_k(const uint8_t *p, int j, fi_block32 *out) {
    // Each half of 128 weights: 64 bytes of low nibbles, 32 bytes of 2-bit tops; sub-block j & 3 picks the fields.
    const int half = j / 4, part = j & 3;
    const uint8_t *ql = p + half * 64 + (part & 1) * 32, *qh = p + 128 + half * 32;
    const int8_t *scales = (const int8_t *)p + 192 + half * 8 + part * 2;
    for (int k = 0; k < 32; k++) {
        const int low = part >= 2 ? ql[k] >> 4 : ql[k] & 15;
        out->q[k] = (int8_t)((low | (((qh[k] >> (2 * part)) & 3) << 4)) - 32);
    }
    const float d = fi_half_to_float(fi_load_u16(p + 208));
    out->scale[0] = d * (float)scales[0];
    out->scale[1] = d * (float)scales[1];
    out->min = 0;
}

void fi_decode_block32(fi_weight_format format, const uint8_t *row, int64_t block, fi_block32 *out) {
    const int64_t sub = fi_weight_block_size(format) / 32;
    const uint8_t *p = row + (block / sub) * fi_weight_block_bytes(format);
    const float d = fi_half_to_float(fi_load_u16(p));
    switch (format) {
    case FI_WEIGHT_Q4_0:
        nibbles(p + 2, out->q);
        for (int k = 0; k < 32; k++) out->q[k] -= 8;
        set_scale(out, d, 0);
        break;
    case FI_WEIGHT_Q4_1:
        nibbles(p + 4, out->q);
        set_scale(out, d, fi_half_to_float(fi_load_u16(p + 2)));
        break;
    case FI_WEIGHT_Q5_0:
        nibbles(p + 6, out->q);
        fifth_bits(fi_load_u32(p + 2), out->q);
        for (int k = 0; k < 32; k++) out->q[k] -= 16;
        set_scale(out, d, 0);
        break;
    case FI_WEIGHT_Q5_1:
        nibbles(p + 8, out->q);
        fifth_bits(fi_load_u32(p + 4), out->q);
        set_scale(out, d, fi_half_to_float(fi_load_u16(p + 2)));
        break;
    case FI_WEIGHT_Q8_0:
        __builtin_memcpy(out->q, p + 2, 32);
        set_scale(out, d, 0);
        break;
    case FI_WEIGHT_Q4_K: decode_k45(p, (int)(block % 8), p + 16, 0, out); break;
    case FI_WEIGHT_Q5_K: decode_k45(p, (int)(block % 8), p + 48, p + 16, out); break;
    case FI_WEIGHT_Q6_K: decode_q6_k(p, (int)(block % 8), out); break;
    default: break;
    }
}
