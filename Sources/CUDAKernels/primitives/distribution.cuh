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

/// Integers in the order of the floats, zeros of both signs being equal; 0 is below every number, and a NaN above all.
static __device__ __forceinline__ unsigned int fi_order_key(float x) {
    const unsigned int bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return x == x ? (bits >> 31 ? ~bits : bits | 0x80000000u) : 0xffffffffu;
}

static __device__ __forceinline__ float fi_order_value(unsigned int key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

static __device__ __forceinline__ int fi_scan_status(float maximum, bool has_nan) {
    if (has_nan) return FI_ROW_NAN;
    if (maximum == -fi_infinity()) return FI_ROW_EMPTY;
    return maximum == fi_infinity() ? FI_ROW_INFINITE : FI_ROW_OK;
}

struct fi_row_scan {
    /// The greatest entry.
    float maximum;
    int status;
    /// sum of exp((x - maximum) * scale), where the status is OK.
    double sum;

    /// Takes what another part of the row has.
    __device__ __forceinline__ void join(const fi_row_scan &other, float scale) {
        const bool has_nan = status == FI_ROW_NAN || other.status == FI_ROW_NAN;
        const float greatest = fmaxf(maximum, other.maximum);
        // Nothing is what -inf alone sums to, whose distance from the greatest may be NaN.
        sum = sum * (double)fi_exp((maximum - greatest) * scale)
            + other.sum * (double)fi_exp((other.maximum - greatest) * scale);
        maximum = greatest;
        status = fi_scan_status(greatest, has_nan);
    }
};

/// One over a temperature, bounded, so that 0 times it is 0 for any temperature.
static __device__ __forceinline__ float fi_reciprocal_temperature(
    unsigned long long temperatures, float temperature, unsigned int row
) {
    const float own = temperatures == 0 ? temperature : ((const float *)temperatures)[row];
    return fminf(1.0f / own, 1e30f);
}

/// Each thread sums relative to an entry that it has met, which is another one as soon as weights may exceed e^20, and the block joins
/// the sums. Weights of one vector are added in float32, as few numbers become 64 bits in a cycle.
template <int type, int threads, class Index>
static __device__ __forceinline__ fi_row_scan fi_scan_row(unsigned long long address, Index width, float scale) {
    __shared__ float maxima[32];
    __shared__ double sums[32];
    float maximum = -fi_infinity(), reference = -fi_infinity();
    double sum = 0;
    bool has_nan = false;
    fi_for_vectors<type, threads>(address, width, [&](const auto &x, Index) {
        constexpr int count = sizeof(x) / sizeof(x[0]);
        float top = x[0];
#pragma unroll
        for (int i = 1; i < count; i++) asm("max.NaN.f32 %0, %0, %1;" : "+f"(top) : "f"(x[i]));
        has_nan |= top != top;
        maximum = fmaxf(maximum, top);
        if ((top - reference) * scale > 20.0f) {
            // The first finite entry finds a sum of 0.
            sum *= (double)fi_exp((reference - top) * scale);
            reference = top;
        }
        // Of -inf, and of infinities from themselves, 0.
        float weights = 0;
#pragma unroll
        for (int i = 0; i < count; i++) weights += fi_exp((x[i] - reference) * scale);
        sum += (double)weights;
    });
    fi_row_scan scan;
    scan.maximum = fi_block_reduce<threads>(maximum, fi_max(), maxima);
    scan.status = fi_scan_status(scan.maximum, __syncthreads_or(has_nan) != 0);
    sum *= (double)fi_exp((reference - scan.maximum) * scale);
    scan.sum = fi_block_reduce<threads>(sum, fi_sum(), sums);
    return scan;
}
