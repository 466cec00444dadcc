// The product of a gated activation, from two vectors.
//
// FI_GATE, FI_UP: storage types; the rest as gate.cuh has it.
#pragma once

#include "portable/gate.cuh"

template <int V>
static __device__ __forceinline__ void product(
    const fi_packed<FI_GATE, V> &gate, const fi_packed<FI_UP, V> &up, float (&x)[V]
) {
    fi_unpack<FI_GATE, V>(gate, x);
    if constexpr (FI_HAS_UP) {
        float y[V];
        fi_unpack<FI_UP, V>(up, y);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = activate(x[i]) * y[i];
    }
}

/// The elements from `index` on of rows at these addresses.
template <int V>
static __device__ __forceinline__ void load_product(
    unsigned long long gate, unsigned long long up, long long index, float (&x)[V]
) {
    const fi_packed<FI_GATE, V> first = fi_load<FI_GATE, V>(gate, index);
    fi_packed<FI_UP, V> second;
    if constexpr (FI_HAS_UP) second = fi_load<FI_UP, V>(up, index);
    product<V>(first, second, x);
}
