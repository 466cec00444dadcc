// Storage types chosen at run time, by a branch that all threads take alike.
#pragma once

#include "primitives/element.cuh"

/// A type as a value, for a generic function to take.
template <int type>
struct fi_type {
    static constexpr int value = type;
};

/// Calls `body(fi_type<type>())` for a type of activations: float32, float16 or bfloat16.
template <class Body>
static __device__ __forceinline__ void fi_with_compute_type(int type, Body &&body) {
    if (type == FI_FLOAT32) {
        body(fi_type<FI_FLOAT32>());
    } else if (type == FI_FLOAT16) {
        body(fi_type<FI_FLOAT16>());
    } else {
        body(fi_type<FI_BFLOAT16>());
    }
}

/// Calls `body(fi_type<type>())` for any storage type.
template <class Body>
static __device__ __forceinline__ void fi_with_type(int type, Body &&body) {
    switch (type) {
    case FI_E4M3: body(fi_type<FI_E4M3>()); break;
    case FI_E5M2: body(fi_type<FI_E5M2>()); break;
    case FI_INT8: body(fi_type<FI_INT8>()); break;
    default: fi_with_compute_type(type, body);
    }
}
