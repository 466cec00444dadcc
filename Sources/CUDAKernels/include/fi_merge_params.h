// The parameter of merging states of attention.
#ifndef FLASHINFER_MERGE_PARAMS_H
#define FLASHINFER_MERGE_PARAMS_H

#include "fi_division.h"

/// Up to so many states are added up in one order by all kernels that merge, so that the bits do not depend on which of them does.
enum { FI_MERGED_AT_ONCE = 8 };

/// output = sum of 2^(lse - m) * values over sum of 2^(lse - m), merged = m + log2 of that sum, m the greatest lse.
typedef struct {
    /// [states, rows, heads, width]; strides in elements.
    unsigned long long values;
    long long values_state, values_row, values_head;
    /// [states, rows, heads], float32, base 2.
    unsigned long long lse;
    long long lse_state, lse_row, lse_head;
    /// [rows, heads, width]
    unsigned long long output;
    long long output_row, output_head;
    /// [rows, heads], float32, or 0.
    unsigned long long merged;
    long long merged_row, merged_head;
    unsigned int states, rows, heads, width;
    /// 2^lane_bits threads of a block of 256 are side by side on a head.
    unsigned int lane_bits;
    /// Division by `heads`.
    fi_division by_heads;
    int vectorised;
} fi_merge_params;

#endif
