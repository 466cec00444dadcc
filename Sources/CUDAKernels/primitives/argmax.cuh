// The place of a row's greatest entry.
#pragma once

#include "primitives/distribution.cuh"

/// A candidate for the greatest entry: the greater value wins, then the lower place.
struct fi_candidate {
    float value = -fi_infinity();
    unsigned int place = 0xffffffffu;

    __device__ __forceinline__ void take(float other, unsigned int at) {
        if (other > value || (other == value && at < place)) {
            value = other;
            place = at;
        }
    }
    /// As one number that is greater for what comes first, see `fi_top_max`.
    __device__ __forceinline__ unsigned long long top() const {
        return (unsigned long long)fi_order_key(value) << 32 | (0xffffffffu - place);
    }
};

/// What is greatest of a row: the key in the upper half, the complement of its lowest place in the lower; or what is wrong.
#define FI_TOP_NAN 0xffffffffffffffffull
#define FI_TOP_NEGATIVE 0xfffffffffffffffeull

struct fi_top_max {
    __device__ __forceinline__ unsigned long long operator()(unsigned long long a, unsigned long long b) const {
        return a > b ? a : b;
    }
};

static __device__ __forceinline__ float fi_top_value(unsigned long long top) { return fi_order_value((unsigned int)(top >> 32)); }
static __device__ __forceinline__ unsigned int fi_top_place(unsigned long long top) { return 0xffffffffu - (unsigned int)top; }
