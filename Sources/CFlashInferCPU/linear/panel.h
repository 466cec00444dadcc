/// Private: how a panel of 32 weight rows lies in memory.
///
/// Quantised: for each block of 32 columns, one after another (a panel is a single stream):
///   scales  [32 rows] float16, or float32; two sets where a scale covers 16 columns (q6_K)
///   mins    [32 rows] the same type, where the format has them
///   weights u4: 4 groups of 8 columns; s8: 8 groups of 4 columns; each group one 32-bit word per row, [32 rows].
///           In a u4 word, nibble j holds column 2j and nibble j + 4 column 2j + 1, so that (word >> 4j) & 0x000f000f
///           is the int16 pair of two consecutive columns; in an s8 word the bytes hold columns 0, 2, 1, 3 for the same
///           reason.
/// Floats: for each column, [32 rows] in the file's type.
#pragma once

#include "blocks.h"

/// Compile-time facts of a packed format; tiles take them as constants.
typedef struct fi_panel_layout {
    bool nibbles;      ///< u4 words, else s8
    bool single;       ///< float32 scales and mins, else float16
    bool halves;       ///< a scale for each 16 columns
    bool minimum;      ///< has mins
    int zero_shift;    ///< log2 of the zero point of u4 weights, or 0 for none
} fi_panel_layout;

static inline __attribute__((always_inline)) fi_panel_layout fi_layout_of(fi_weight_format format) {
    switch (format) {
    case FI_WEIGHT_Q4_0: return (fi_panel_layout){.nibbles = true, .zero_shift = 3};
    case FI_WEIGHT_Q4_1: return (fi_panel_layout){.nibbles = true, .minimum = true};
    case FI_WEIGHT_Q5_1: return (fi_panel_layout){.minimum = true};
    case FI_WEIGHT_Q4_K: return (fi_panel_layout){.nibbles = true, .minimum = true, .single = true};
    case FI_WEIGHT_Q5_K: return (fi_panel_layout){.minimum = true, .single = true};
    case FI_WEIGHT_Q6_K: return (fi_panel_layout){.halves = true, .single = true};
    default: return (fi_panel_layout){.nibbles = false};
    }
}

static inline __attribute__((always_inline)) int64_t fi_scale_set_bytes(fi_panel_layout layout) {
    return FI_PANEL_ROWS * (layout.single ? 4 : 2);
}

/// Where a block's mins start.
static inline __attribute__((always_inline)) int64_t fi_min_offset(fi_panel_layout layout) {
    return fi_scale_set_bytes(layout) * (layout.halves ? 2 : 1);
}

/// Where a block's weights start.
static inline __attribute__((always_inline)) int64_t fi_data_offset(fi_panel_layout layout) {
    return fi_min_offset(layout) + (layout.minimum ? fi_scale_set_bytes(layout) : 0);
}

static inline __attribute__((always_inline)) int64_t fi_block_stride(fi_panel_layout layout) {
    return fi_data_offset(layout) + (layout.nibbles ? 512 : 1024);
}
