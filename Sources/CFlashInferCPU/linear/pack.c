/// Packing of file rows into panels, once at load.
#include "panel.h"

int64_t fi_linear_panel_bytes(fi_weight_format format, int64_t columns) {
    if (!fi_weight_is_quantized(format)) return FI_PANEL_ROWS * columns * fi_weight_block_bytes(format);
    return columns / 32 * fi_block_stride(fi_layout_of(format));
}

/// The offset, in scale entries, of what the file stores as float16; packed scales of such formats keep those bits.
static void store_scale(fi_panel_layout layout, uint8_t *set, int lane, float value, uint16_t bits) {
    if (layout.single) {
        __builtin_memcpy(set + 4 * lane, &value, 4);
    } else {
        __builtin_memcpy(set + 2 * lane, &bits, 2);
    }
}

static inline uint32_t nibble_word(const int8_t *q, int zero) {
    uint32_t word = 0;
    for (int j = 0; j < 4; j++) {
        word |= (uint32_t)((q[2 * j] + zero) & 15) << (4 * j);
        word |= (uint32_t)((q[2 * j + 1] + zero) & 15) << (4 * (j + 4));
    }
    return word;
}

static inline uint32_t byte_word(const int8_t *q) {
    return (uint32_t)(uint8_t)q[0] | (uint32_t)(uint8_t)q[2] << 8 | (uint32_t)(uint8_t)q[1] << 16 |
           (uint32_t)(uint8_t)q[3] << 24;
}

static void pack_quantized(fi_weight_format format, const void *const *rows, int64_t columns, uint8_t *panel) {
    const fi_panel_layout layout = fi_layout_of(format);
    const int64_t stride = fi_block_stride(layout), mins = fi_min_offset(layout), data = fi_data_offset(layout);
    const int64_t bytes = fi_weight_block_bytes(format);
    const int zero = layout.zero_shift ? 1 << layout.zero_shift : 0;
    for (int lane = 0; lane < FI_PANEL_ROWS; lane++) {
        const uint8_t *row = rows[lane];
        for (int64_t block = 0; block < columns / 32; block++) {
            uint8_t *to = panel + block * stride;
            fi_block32 b = {.min = 0};
            uint16_t scale_bits = 0, min_bits = 0;
            if (row) {
                fi_decode_block32(format, row, block, &b);
                if (!layout.single) {
                    scale_bits = fi_load_u16(row + block * bytes);
                    min_bits = layout.minimum ? fi_load_u16(row + block * bytes + 2) : 0;
                }
            }
            store_scale(layout, to, lane, b.scale[0], scale_bits);
            if (layout.halves) store_scale(layout, to + fi_scale_set_bytes(layout), lane, b.scale[1], 0);
            if (layout.minimum) store_scale(layout, to + mins, lane, b.min, min_bits);
            uint8_t *words = to + data + 4 * lane;
            for (int group = 0; group < (layout.nibbles ? 4 : 8); group++) {
                const uint32_t word = layout.nibbles ? nibble_word(b.q + 8 * group, zero) : byte_word(b.q + 4 * group);
                __builtin_memcpy(words + group * 4 * FI_PANEL_ROWS, &word, 4);
            }
        }
    }
}

void fi_linear_pack_panel(fi_weight_format format, const void *const rows[FI_PANEL_ROWS], int64_t columns,
                          void *panel) {
    if (fi_weight_is_quantized(format)) {
        pack_quantized(format, rows, columns, panel);
        return;
    }
    const int64_t size = fi_weight_block_bytes(format);
    uint8_t *to = panel;
    for (int64_t column = 0; column < columns; column++) {
        for (int lane = 0; lane < FI_PANEL_ROWS; lane++, to += size) {
            const uint8_t *row = rows[lane];
            uint32_t word = 0;
            if (row) __builtin_memcpy(&word, row + column * size, (unsigned long)size);
            __builtin_memcpy(to, &word, (unsigned long)size);
        }
    }
}
