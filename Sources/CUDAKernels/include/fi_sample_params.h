// The parameters of sampling.
#ifndef FLASHINFER_SAMPLE_PARAMS_H
#define FLASHINFER_SAMPLE_PARAMS_H

#include "fi_rows_params.h"

/// How one row is sampled.
typedef struct {
    unsigned long long seed, step;
    /// One over the temperature, bounded; 0: greedy.
    float scale;
    /// 1: off, 0: off.
    float top_p, min_p;
    /// 0: off.
    unsigned int top_k;
} fi_sampling_row;

/// One token a row.
typedef struct {
    /// [rows, width]
    fi_row_tensor logits;
    /// [rows] of fi_sampling_row.
    unsigned long long rows;
    /// [rows], int32; [rows], uint8.
    unsigned long long tokens, status;
    unsigned int width;
    /// Masses are integers: a weight of 1 is 2^mass_bits.
    int mass_bits;
    /// Top-p is a share of the whole distribution rather than of what top-k left.
    int joint;
} fi_sample_params;

#endif
