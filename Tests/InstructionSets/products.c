/// Products with packed weights: the same bits on every instruction set.
#include "check.h"

#include <string.h>

/// Bytes of a file's row in which scales are numbers of sane size, and all else is anything.
static void fill_weights(fi_weight_format format, uint8_t *row, int64_t columns) {
    if (!fi_weight_is_quantized(format)) {
        const fi_dtype dtype = format == FI_WEIGHT_F32 ? FI_DTYPE_F32 : format == FI_WEIGHT_F16 ? FI_DTYPE_F16 : FI_DTYPE_BF16;
        return fill_elements(dtype, row, (size_t)columns);
    }
    const int64_t size = fi_weight_block_bytes(format), blocks = columns / fi_weight_block_size(format);
    // Where a block's scales of 16 bits lie: the last two bytes of Q6_K, else the first two, or four where there is a least number, too.
    const bool is_last = format == FI_WEIGHT_Q6_K;
    const bool has_least =
        format == FI_WEIGHT_Q4_1 || format == FI_WEIGHT_Q5_1 || format == FI_WEIGHT_Q4_K || format == FI_WEIGHT_Q5_K;
    for (int64_t block = 0; block < blocks; block++) {
        uint8_t *bytes = row + block * size;
        for (int64_t i = 0; i < size; i++) bytes[i] = (uint8_t)next_bits();
        fill_elements(FI_DTYPE_F16, bytes + (is_last ? size - 2 : 0), has_least ? 2 : 1);
    }
}

static void check_product(fi_isa isa, const char *level, fi_weight_format format) {
    const fi_linear_kernels *own = fi_linear_table(isa), *other = fi_linear_table(FI_ISA_SCALAR);
    const bool is_quantized = fi_weight_is_quantized(format);
    const int m = 1 + below(14), n = 1 + below(90), k = is_quantized ? 256 * (1 + below(3)) : 1 + below(300);
    begin_case(level, "product", "format %d, M %d, N %d, K %d", format, m, n, k);
    const int64_t row_bytes = (k / fi_weight_block_size(format)) * fi_weight_block_bytes(format);
    const int64_t panel_bytes = fi_linear_panel_bytes(format, k), panels = (n + FI_PANEL_ROWS - 1) / FI_PANEL_ROWS;
    uint8_t *packed = room((size_t)(panels * panel_bytes), 64);
    for (int64_t panel = 0; panel < panels; panel++) {
        const void *rows[FI_PANEL_ROWS];
        for (int i = 0; i < FI_PANEL_ROWS; i++) {
            if (panel * FI_PANEL_ROWS + i >= n) {
                rows[i] = NULL;
                continue;
            }
            uint8_t *row = room((size_t)row_bytes, 1);
            fill_weights(format, row, k);
            rows[i] = row;
        }
        fi_linear_pack_panel(format, rows, k, packed + panel * panel_bytes);
    }
    const int64_t x_stride = k + below(3), y_stride = n + below(3);
    float *x = room((size_t)(x_stride * (m - 1) + k) * 4, 4), *bias = room((size_t)n * 4, 4);
    const size_t y_bytes = (size_t)(y_stride * (m - 1) + n) * 4;
    float *y = room(y_bytes, 4), *expected = room(y_bytes, 4);
    for (int64_t i = 0; i < x_stride * (m - 1) + k; i++) x[i] = spread();
    fill_elements(FI_DTYPE_F32, bias, (size_t)n);
    fill_elements(FI_DTYPE_F32, y, y_bytes / 4);
    memcpy(expected, y, y_bytes);
    fi_linear_call call = {.packed = packed, .x = x, .y = y, .bias = below(2) ? bias : NULL, .x_stride = x_stride, .y_stride = y_stride,
                           .rows = n, .columns = k, .format = format, .accumulate = below(2)};
    if (is_quantized) {
        const size_t blocks = (size_t)(m * k / FI_ACTIVATION_BLOCK);
        int16_t *q = room((size_t)(m * k) * 2, 4), *expected_q = room((size_t)(m * k) * 2, 4);
        fi_activation_block *scales = room(blocks * sizeof *scales, 4), *expected_scales = room(blocks * sizeof *scales, 4);
        memset(scales, 0, blocks * sizeof *scales), memset(expected_scales, 0, blocks * sizeof *scales);
        // A block of zeros, and one that is no number.
        if (below(3) == 0) memset(x, 0, 32 * 4);
        if (below(5) == 0) x[k / 2] = 1.0f / 0.0f;
        for (int row = 0; row < m; row++) {
            own->quantize(x + row * x_stride, k, q + row * k, scales + row * k / 32);
            other->quantize(x + row * x_stride, k, expected_q + row * k, expected_scales + row * k / 32);
        }
        expect_same("quantised activations", q, expected_q, (size_t)(m * k) * 2);
        expect_near("scales", &scales[0].scale, &expected_scales[0].scale, 1, 0, 0);
        expect_same("blocks", scales, expected_scales, blocks * sizeof *scales);
        call.q = q, call.blocks = scales;
    }
    // In two parts of rows and of panels, as threads share them.
    const int64_t row = below(m + 1), panel = below((int)panels + 1);
    own->product(&call, 0, panel, 0, row), own->product(&call, panel, panels, 0, row);
    own->product(&call, 0, panel, row, m), own->product(&call, panel, panels, row, m);
    call.y = expected;
    other->product(&call, 0, panels, 0, m);
    expect_near("y", y, expected, y_bytes / 4, 0, 0);
    leave_rooms();
}

void check_products(fi_isa isa, const char *level) {
    for (int format = 0; format < FI_WEIGHT_FORMAT_COUNT; format++)
        for (int i = 0; i < 40; i++) check_product(isa, level, (fi_weight_format)format);
}
