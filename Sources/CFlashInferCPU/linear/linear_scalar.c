/// Products in portable C: one output at a time, straight from the packed panels. The reference of every other table,
/// which it equals bit for bit.
#include "../include/fi_linear.h"
#include "quantize.h"

/// The scale or min of panel row `lane` in a set.
static float entry(const uint8_t *set, int lane, bool single) {
    return single ? fi_bits_to_float(fi_load_u32(set + 4 * lane)) : fi_half_to_float(fi_load_u16(set + 2 * lane));
}

/// Packed weight of column k (0..<32) of panel row `lane`, before the zero point.
static int32_t weight(fi_panel_layout layout, const uint8_t *data, int lane, int k) {
    if (layout.nibbles) {
        const uint32_t word = fi_load_u32(data + k / 8 * 128 + 4 * lane);
        return (int32_t)(word >> (4 * (k % 8 / 2 + (k & 1) * 4))) & 15;
    }
    static const int position[4] = {0, 2, 1, 3};
    return (int8_t)data[k / 4 * 128 + 4 * lane + position[k & 3]];
}

static float quantized_dot(const fi_linear_call *c, const uint8_t *panel, int lane, int64_t row) {
    const fi_panel_layout layout = fi_layout_of(c->format);
    const int64_t stride = fi_block_stride(layout), count = c->columns / 32;
    const int span = layout.halves ? 16 : 32;
    float acc = 0;
    for (int64_t b = 0; b < count; b++) {
        const uint8_t *w = panel + b * stride;
        const int16_t *q = c->q + row * c->columns + 32 * b;
        const fi_activation_block *a = c->blocks + row * count + b;
        for (int begin = 0; begin < 32; begin += span) {
            int32_t sum = 0;
            for (int k = begin; k < begin + span; k++) sum += weight(layout, w + fi_data_offset(layout), lane, k) * q[k];
            if (layout.zero_shift) sum -= a->sum * (1 << layout.zero_shift);
            const float d = entry(w + begin / 16 * fi_scale_set_bytes(layout), lane, layout.single);
            acc = __builtin_fmaf((float)sum, d * a->scale, acc);
        }
        if (layout.minimum) {
            acc = __builtin_fmaf(entry(w + fi_min_offset(layout), lane, layout.single), a->scaled_sum, acc);
        }
    }
    return acc;
}

static float float_dot(const fi_linear_call *c, const uint8_t *panel, int lane, int64_t row) {
    const int64_t size = fi_weight_block_bytes(c->format);
    float acc = 0;
    for (int64_t begin = 0; begin < c->columns; begin += 32) {
        float sum = 0;
        for (int64_t k = begin; k < begin + 32 && k < c->columns; k++) {
            const uint8_t *p = panel + (k * FI_PANEL_ROWS + lane) * size;
            const float w = c->format == FI_WEIGHT_F32   ? fi_bits_to_float(fi_load_u32(p))
                            : c->format == FI_WEIGHT_F16 ? fi_half_to_float(fi_load_u16(p))
                                                         : fi_bf16_to_float(fi_load_u16(p));
            sum = __builtin_fmaf(w, c->x[row * c->x_stride + k], sum);
        }
        acc += sum;
    }
    return acc;
}

static void product(const fi_linear_call *c, int64_t panel_begin, int64_t panel_end, int64_t row_begin,
                    int64_t row_end) {
    const int64_t panel_bytes = fi_linear_panel_bytes(c->format, c->columns);
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
        const uint8_t *p = (const uint8_t *)c->packed + panel * panel_bytes;
        for (int64_t row = row_begin; row < row_end; row++) {
            float *y = c->y + row * c->y_stride;
            for (int lane = 0; lane < FI_PANEL_ROWS && panel * FI_PANEL_ROWS + lane < c->rows; lane++) {
                const int64_t output = panel * FI_PANEL_ROWS + lane;
                float value = fi_weight_is_quantized(c->format) ? quantized_dot(c, p, lane, row)
                                                                : float_dot(c, p, lane, row);
                if (c->bias) value += c->bias[output];
                y[output] = c->accumulate ? y[output] + value : value;
            }
        }
    }
}

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_scalar(void) { return &kernels; }
