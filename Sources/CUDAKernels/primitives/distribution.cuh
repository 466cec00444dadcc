// One pass over a row of logits: its greatest entry, whether it holds a NaN, and what follows for its distribution.
#pragma once

#include "primitives/exp.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

/// What became of a row, numbered as `RowStatus` is.
#define FI_ROW_OK 0
#define FI_ROW_NAN 1
#define FI_ROW_EMPTY 2
#define FI_ROW_INFINITE 3

static __device__ __forceinline__ float fi_infinity() { return __int_as_float(0x7f800000); }

struct fi_row_scan {
    /// The greatest entry.
    float maximum;
    /// sum of exp((x - maximum) * scale), where the status is OK.
    double sum;
    int status;
};

static __device__ __forceinline__ int fi_scan_status(float maximum, bool has_nan) {
    if (has_nan) return FI_ROW_NAN;
    if (maximum == -fi_infinity()) return FI_ROW_EMPTY;
    return maximum == fi_infinity() ? FI_ROW_INFINITE : FI_ROW_OK;
}

/// One over a temperature, bounded, so that 0 times it is 0 for any temperature.
static __device__ __forceinline__ float fi_reciprocal_temperature(
    unsigned long long temperatures, float temperature, unsigned int row
) {
    const float own = temperatures == 0 ? temperature : ((const float *)temperatures)[row];
    return fminf(1.0f / own, 1e30f);
}

/// Each thread sums relative to the greatest entry that it has met, and the block joins the sums.
template <int type, int threads, class Index>
static __device__ __forceinline__ fi_row_scan fi_scan_row(unsigned long long address, Index width, float scale) {
    __shared__ float maxima[32];
    __shared__ double sums[32];
    float maximum = -fi_infinity();
    double sum = 0;
    bool has_nan = false;
    fi_for_row<type, threads>(address, width, [&](float x, Index, bool valid) {
        if (!valid) return;
        has_nan |= x != x;
        if (x > maximum) {
            // The first finite entry finds a sum of 0.
            sum *= (double)fi_exp((maximum - x) * scale);
            maximum = x;
        }
        if (x != -fi_infinity()) sum += (double)fi_exp((x - maximum) * scale);
    });
    fi_row_scan scan;
    scan.maximum = fi_block_reduce<threads>(maximum, fi_max(), maxima);
    scan.status = fi_scan_status(scan.maximum, __syncthreads_or(has_nan) != 0);
    if (maximum == -fi_infinity() || scan.status != FI_ROW_OK) {
        sum = 0;
    } else {
        sum *= (double)fi_exp((maximum - scan.maximum) * scale);
    }
    scan.sum = fi_block_reduce<threads>(sum, fi_sum(), sums);
    return scan;
}
