// The place of a row's greatest entry.
#pragma once

#include "primitives/distribution.cuh"

/// A candidate for the greatest entry: the greater value wins, then the lower place. -inf is none.
struct fi_candidate {
    float value;
    unsigned int place;

    __device__ __forceinline__ void take(float other, unsigned int at) {
        if (other > value || (other == value && at < place)) {
            value = other;
            place = at;
        }
    }
};

/// Over groups of `lanes` neighbouring threads.
template <int lanes>
static __device__ __forceinline__ void fi_warp_greatest(fi_candidate &best) {
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, best.value, distance);
        const unsigned int place = __shfl_xor_sync(0xffffffffu, best.place, distance);
        best.take(value, place);
    }
}

/// The greatest entry of a row, at the lowest of its places, and whether the row holds a NaN. +inf is an entry; zeros of both
/// signs are equal. `width` is below 2^31.
template <int type, int threads>
static __device__ __forceinline__ fi_candidate fi_greatest(unsigned long long address, unsigned int width, bool *has_nan) {
    constexpr int warps = threads / 32;
    __shared__ float values[warps];
    __shared__ unsigned int places[warps];
    fi_candidate best = {-fi_infinity(), 0xffffffffu};
    bool is_nan = false;
    fi_for_row<type, threads>(address, width, [&](float x, unsigned int index, bool valid) {
        if (!valid) return;
        is_nan |= x != x;
        best.take(x, index);
    });
    *has_nan = __syncthreads_or(is_nan) != 0;
    fi_warp_greatest<32>(best);
    if (threadIdx.x % 32 == 0) {
        values[threadIdx.x / 32] = best.value;
        places[threadIdx.x / 32] = best.place;
    }
    __syncthreads();
    best.value = values[threadIdx.x % warps];
    best.place = places[threadIdx.x % warps];
    fi_warp_greatest<warps>(best);
    return best;
}

/// The status of a greedy choice, for which +inf is as good as any number.
static __device__ __forceinline__ int fi_greedy_status(float greatest, bool has_nan) {
    return has_nan ? FI_ROW_NAN : greatest == -fi_infinity() ? FI_ROW_EMPTY : FI_ROW_OK;
}
