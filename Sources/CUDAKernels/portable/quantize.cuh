// Rows stored as 8 bits: the scale, given or of the row's own, and the store of a type chosen at run time.
#pragma once

#include "fi_rows_params.h"
#include "primitives/element.cuh"

/// In the place of a storage type: 8 bits, of the type that fi_quantize says.
#define FI_BYTES 8

/// The greatest of some magnitudes as their bits, whose order is that of the numbers, NaN above all.
struct fi_magnitude_max {
    __device__ __forceinline__ unsigned int operator()(unsigned int a, unsigned int b) const { return a > b ? a : b; }
};

template <int V>
static __device__ __forceinline__ unsigned int fi_magnitude(const float (&x)[V], unsigned int greatest) {
#pragma unroll
    for (int i = 0; i < V; i++) greatest = fi_magnitude_max()(greatest, __float_as_uint(x[i]) & 0x7fffffffu);
    return greatest;
}

/// The scale of a row by the bits of its greatest magnitude; a NaN stays one.
static __device__ __forceinline__ float fi_row_scale(const fi_quantize &q, unsigned int greatest) {
    const float magnitude = __uint_as_float(greatest);
    const float largest = q.type == FI_E4M3 ? 448.0f : q.type == FI_E5M2 ? 57344.0f : 127.0f;
    return __fdiv_rn(magnitude < 1e-10f ? 1e-10f : magnitude, largest);
}

/// What an element is multiplied by where the scale is given.
static __device__ __forceinline__ float fi_factor(const fi_quantize &q) {
    return q.scale == 0 ? q.factor : __fdiv_rn(1.0f, *(const float *)q.scale);
}

/// The greatest magnitude of a group, which `lanes` neighbouring threads of a warp share; all threads of the warp take part.
static __device__ __forceinline__ unsigned int fi_group_magnitude(unsigned int greatest, unsigned int lanes) {
    for (unsigned int distance = lanes / 2; distance > 0; distance /= 2) {
        greatest = fi_magnitude_max()(greatest, __shfl_xor_sync(0xffffffffu, greatest, distance));
    }
    return greatest;
}

/// What the elements of a row's group are multiplied by, whose greatest magnitude is given; one of its threads writes the scale.
static __device__ __forceinline__ float fi_group_factor(
    const fi_quantize &q, unsigned int greatest, unsigned int row, long long group, bool writes
) {
    const float scale = fi_row_scale(q, greatest);
    if (writes) ((float *)q.row_scales)[row * q.scale_row + group * q.scale_group] = scale;
    return __fdiv_rn(1.0f, scale);
}

/// Multiplies and stores.
template <int V>
static __device__ __forceinline__ void fi_write_bytes(
    int type, unsigned long long address, long long index, float (&x)[V], float factor
) {
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], factor);
    if (type == FI_E4M3) {
        fi_write<FI_E4M3, V>(address, index, x);
    } else if (type == FI_INT8) {
        fi_write<FI_INT8, V>(address, index, x);
    } else {
        fi_write<FI_E5M2, V>(address, index, x);
    }
}
