/// Packing of file rows into panels, once at load.
#include "panel.h"

int64_t fi_linear_panel_bytes(fi_weight_format format, int64_t columns) {
    if (!fi_weight_is_quantized(format)) return FI_PANEL_ROWS * columns * fi_weight_block_bytes(format);
    return columns / 32 * fi_block_stride(fi_layout_of(format));
}

/// Stores a scale or min: where the file has a float16 for it, its `bits`, else its `value`.
static void store_scale(fi_panel_layout layout, uint8_t *set, int lane, float value, uint16_t bits) {
    if (layout.single) {
        __builtin_memcpy(set + 4 * lane, &value, 4);
    } else {
        __builtin_memcpy(set + 2 * lane, &bits, 2);
    }
}

/// The u4 word of 8 columns, one in each byte of `v` (0 ... 15): columns 0, 2, 4, 6 then 1, 3, 5, 7 from the lowest nibble.
static inline uint32_t nibble_word(uint64_t v) {
    v |= v >> 12;  // bytes 0 and 1: columns 0, 2 and 1, 3; bytes 4 and 5: columns 4, 6 and 5, 7
    return (uint32_t)(v & 0xff) | (uint32_t)((v >> 24) & 0xff00) | (uint32_t)((v & 0xff00) << 8) |
           (uint32_t)((v >> 16) & 0xff000000);
}

/// The s8 word of 4 columns: the middle two change places.
static inline uint32_t byte_word(uint32_t v) {
    return (v & 0xff0000ff) | ((v >> 8) & 0xff00) | ((v << 8) & 0xff0000);
}

static inline void store_word(uint8_t *words, int group, uint32_t word) {
    __builtin_memcpy(words + group * 4 * FI_PANEL_ROWS, &word, 4);
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
            if (layout.nibbles) {
                for (int k = 0; k < 32; k++) b.q[k] = (int8_t)((b.q[k] + zero) & 15);
                for (int group = 0; group < 4; group++) {
                    uint64_t v;
                    __builtin_memcpy(&v, b.q + 8 * group, 8);
                    store_word(words, group, nibble_word(v));
                }
            } else {
                for (int group = 0; group < 8; group++) store_word(words, group, byte_word(fi_load_u32(b.q + 4 * group)));
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
