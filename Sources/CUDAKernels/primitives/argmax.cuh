// The place of a row's greatest entry.
#pragma once

#include "primitives/distribution.cuh"

/// A candidate for the greatest entry: the greater value wins, then the lower place. A place of -1 is none.
struct fi_candidate {
    float value;
    long long place;
};

struct fi_greater_candidate {
    __device__ __forceinline__ bool operator()(const fi_candidate &a, const fi_candidate &b) const {
        if (b.place < 0) return a.place >= 0;
        if (a.place < 0) return false;
        return a.value > b.value || (a.value == b.value && a.place < b.place);
    }
};

/// The place of the greatest entry, the lowest of several, or -1 with the reason in `status`. +inf is an entry; zeros of both
/// signs are equal.
template <int type, int threads>
static __device__ __forceinline__ int fi_argmax_row(unsigned long long address, long long width, int *status) {
    __shared__ float values[32];
    __shared__ long long places[32];
    const fi_greater_candidate greater;
    fi_candidate best = {-fi_infinity(), -1};
    bool has_nan = false;
    fi_for_row<type, threads>(address, width, [&](float x, long long index, bool valid) {
        if (!valid) return;
        has_nan |= x != x;
        if (x == -fi_infinity()) return;
        const fi_candidate here = {x, index};
        if (greater(here, best)) best = here;
    });
    const bool any_nan = __syncthreads_or(has_nan) != 0;
    const auto reduce = [&](int lanes) {
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
            fi_candidate other;
            other.value = __shfl_xor_sync(0xffffffffu, best.value, distance);
            other.place = __shfl_xor_sync(0xffffffffu, best.place, distance);
            if (greater(other, best)) best = other;
        }
    };
    reduce(32);
    if (threads > 32) {
        __syncthreads();
        if (threadIdx.x % 32 == 0) {
            values[threadIdx.x / 32] = best.value;
            places[threadIdx.x / 32] = best.place;
        }
        __syncthreads();
        best.value = values[threadIdx.x % (threads / 32)];
        best.place = places[threadIdx.x % (threads / 32)];
        reduce(threads / 32);
    }
    *status = any_nan ? FI_ROW_NAN : best.place < 0 ? FI_ROW_EMPTY : FI_ROW_OK;
    return *status == FI_ROW_OK ? (int)best.place : -1;
}
