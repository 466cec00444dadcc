// Rows stored as 8 bits: the scale, given or of the row's own, and the store of a type chosen at run time.
#pragma once

#include "fi_rows_params.h"
#include "primitives/element.cuh"

/// Elements of the largest group.
#define FI_LARGEST_GROUP 128

/// In the place of a storage type: 8 bits, of the type that fi_quantize says.
#define FI_BYTES 8

/// The greatest of some magnitudes as their bits, whose order is that of the numbers, NaN above all.
struct fi_magnitude_max {
    __device__ __forceinline__ unsigned int operator()(unsigned int a, unsigned int b) const { return a > b ? a : b; }
};

/// The greatest of the magnitudes of `x` and of `greatest`, by one instruction an element that keeps NaN.
template <int V>
static __device__ __forceinline__ unsigned int fi_magnitude(const float (&x)[V], unsigned int greatest) {
    float y = __uint_as_float(greatest);
#pragma unroll
    for (int i = 0; i < V; i++) asm("max.NaN.f32 %0, %0, %1;" : "+f"(y) : "f"(fabsf(x[i])));
    return __float_as_uint(y);
}

/// The scale of a row by the bits of its greatest magnitude; a NaN stays one, as infinity does.
///
/// The nearest number to the quotient by the type's largest: by its inverse and one correction, which is exact as long as nothing is
/// subnormal. Division is several times as many instructions.
static __device__ __forceinline__ float fi_row_scale(const fi_quantize &q, unsigned int greatest) {
    const float x = __uint_as_float(greatest), magnitude = x < 1e-10f ? 1e-10f : x;
    const float largest = q.type == FI_E4M3 ? 448.0f : q.type == FI_E5M2 ? 57344.0f : 127.0f;
    const float inverse = q.type == FI_E4M3 ? 1.0f / 448.0f : q.type == FI_E5M2 ? 1.0f / 57344.0f : 1.0f / 127.0f;
    const float near = __fmul_rn(magnitude, inverse);
    const float exact = __fmaf_rn(__fmaf_rn(-near, largest, magnitude), inverse, near);
    return magnitude < __int_as_float(0x7f800000) ? exact : near;
}

/// What an element is multiplied by where the scale is given.
static __device__ __forceinline__ float fi_factor(const fi_quantize &q) {
    return q.scale == 0 ? q.factor : __fdiv_rn(1.0f, *(const float *)q.scale);
}

/// The greatest magnitude of a group, which `lanes` neighbouring threads of a warp share, a power of two up to `most`; all threads of the
/// warp take part.
template <unsigned int most>
static __device__ __forceinline__ unsigned int fi_group_magnitude(unsigned int greatest, unsigned int lanes) {
#pragma unroll
    for (unsigned int distance = most / 2; distance > 0; distance /= 2) {
        // Groups of fewer threads exchange with themselves first.
        const unsigned int other = __shfl_xor_sync(0xffffffffu, greatest, distance < lanes ? distance : 0);
        greatest = fi_magnitude_max()(greatest, other);
    }
    return greatest;
}

/// The group that an element of a row is in. Sizes are powers of two: a 64-bit division would cost more than all else.
static __device__ __forceinline__ long long fi_group_of(const fi_quantize &q, long long index) {
    return index >> (31 - __clz((int)q.group));
}

/// What the elements of a row's group are multiplied by, whose greatest magnitude is given; one of its threads writes the scale.
static __device__ __forceinline__ float fi_group_factor(
    const fi_quantize &q, unsigned int greatest, unsigned int row, long long group, bool writes
) {
    const float scale = fi_row_scale(q, greatest);
    if (writes) ((float *)q.row_scales)[row * q.scale_row + group * q.scale_group] = scale;
    return __frcp_rn(scale);
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
