/// Products y[M, N] = x[M, K] · W[N, K]^T with W in the formats of LLM weight files, packed once at load.
///
/// Quantised weights meet 16-bit integer activations: a row of x is cut into blocks of 32, each with one float scale,
/// and every integer dot product of a block is exact. Blocks are summed in order in float32 with fused multiply-adds,
/// the same operations for every M and on every instruction set, so a row of y depends on nothing but its row of x.
#pragma once

#include "fi_cpu.h"

/// A weight format of GGUF or safetensors files. Values are ours, not ggml's type numbers.
typedef enum fi_weight_format {
    FI_WEIGHT_F32 = 0,
    FI_WEIGHT_F16 = 1,
    FI_WEIGHT_BF16 = 2,
    FI_WEIGHT_Q4_0 = 3,
    FI_WEIGHT_Q4_1 = 4,
    FI_WEIGHT_Q5_0 = 5,
    FI_WEIGHT_Q5_1 = 6,
    FI_WEIGHT_Q8_0 = 7,
    FI_WEIGHT_Q4_K = 8,
    FI_WEIGHT_Q5_K = 9,
    FI_WEIGHT_Q6_K = 10,
} fi_weight_format;

#define FI_WEIGHT_FORMAT_COUNT 11

/// Output rows interleaved in one packed panel.
#define FI_PANEL_ROWS 32

/// Columns that share one activation scale.
#define FI_ACTIVATION_BLOCK 32

/// What a block of 32 quantised activations is multiplied by: x[k] ≈ scale · q[k].
typedef struct fi_activation_block {
    float scale;       ///< NaN where the block held a NaN or an infinity (its q are then 0)
    float scaled_sum;  ///< scale · sum
    int32_t sum;       ///< Σ q
    int32_t reserved;
} fi_activation_block;

/// One product. Quantised formats read `q` and `blocks`; float formats read `x`.
typedef struct fi_linear_call {
    const void *packed;                  ///< [ceil(N / 32)] panels of fi_linear_panel_bytes, 64-byte aligned
    const float *x;                      ///< [M, x_stride]
    const int16_t *q;                    ///< [M, K], 4-byte aligned
    const fi_activation_block *blocks;   ///< [M, K / 32]
    float *y;                            ///< [M, y_stride]
    const float *bias;                   ///< [N], may be NULL
    int64_t x_stride, y_stride;          ///< in elements
    int64_t rows, columns;               ///< N, K
    fi_weight_format format;
    bool accumulate;                     ///< y += product instead of y = product
} fi_linear_call;

/// The kernels of one instruction set.
typedef struct fi_linear_kernels {
    /// Quantises one row: x [columns] to q [columns] and blocks [columns / 32]; columns is a multiple of 32.
    void (*quantize)(const float *x, int64_t columns, int16_t *q, fi_activation_block *blocks);
    /// Panels [panel_begin, panel_end) of rows [row_begin, row_end) of x.
    void (*product)(const fi_linear_call *call, int64_t panel_begin, int64_t panel_end, int64_t row_begin,
                    int64_t row_end);
} fi_linear_kernels;

/// The kernels of `isa`, or NULL where this build has none for it.
const fi_linear_kernels *fi_linear_table(fi_isa isa);

/// Elements in a block of a file's row: 1, 32 or 256.
int64_t fi_weight_block_size(fi_weight_format format);

/// Bytes of such a block.
int64_t fi_weight_block_bytes(fi_weight_format format);

/// Whether activations are quantised for this format.
bool fi_weight_is_quantized(fi_weight_format format);

/// Bytes of one packed panel of 32 rows; columns is a multiple of the block size.
int64_t fi_linear_panel_bytes(fi_weight_format format, int64_t columns);

/// Packs 32 file rows into one panel. `rows[i]` is the first byte of a row of `columns` weights (no alignment needed),
/// or NULL for a row of zeros.
void fi_linear_pack_panel(fi_weight_format format, const void *const rows[FI_PANEL_ROWS], int64_t columns,
                          void *panel);

/// 64-byte aligned memory for packed weights, on huge pages where it is large; NULL where there is none.
void *fi_linear_allocate(int64_t bytes);
void fi_linear_free(void *p);
