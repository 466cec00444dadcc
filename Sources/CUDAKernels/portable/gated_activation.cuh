// Gated activations: output = activation(gate) * up.
//
// FI_GATE, FI_UP, FI_OUTPUT: storage types. FI_ACTIVATION: 0 SiLU, 1 GELU by the error function, 2 GELU's tanh form.

#include "fi_rows_params.h"
#include "primitives/element.cuh"
#include "primitives/rows.cuh"

/// Exact to rounding where the output shows it, and two units in float32's last place where it does not.
static __device__ __forceinline__ float quotient(float x, float y) {
    return FI_OUTPUT == FI_FLOAT32 ? x / y : __fdividef(x, y);
}

static __device__ __forceinline__ float activate(float x) {
    if constexpr (FI_ACTIVATION == 0) {
        return quotient(x, 1.0f + expf(-x));
    } else if constexpr (FI_ACTIVATION == 1) {
        return 0.5f * x * erfcf(-0.70710678118654752f * x);
    } else {
        // 0.5 x (1 + tanh(u)) = x * sigmoid(2u), which keeps its relative accuracy for negative x.
        const float cubic = __fmaf_rn(x * x, 0.044715f, 1.0f) * x;
        return quotient(x, 1.0f + expf(cubic * -1.5957691216057308f));
    }
}

template <int V>
static __device__ __forceinline__ void run(const fi_gated_activation_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    if (!at.inside) return;
    const unsigned int inner = p.tiling.inner_rows;
    const fi_packed<FI_GATE, V> gate = fi_load<FI_GATE, V>(fi_row_address<FI_GATE>(p.gate, at.row, inner), at.column);
    const fi_packed<FI_UP, V> up = fi_load<FI_UP, V>(fi_row_address<FI_UP>(p.up, at.row, inner), at.column);
    float x[V], y[V];
    fi_unpack<FI_GATE, V>(gate, x);
    fi_unpack<FI_UP, V>(up, y);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = activate(x[i]) * y[i];
    fi_write<FI_OUTPUT, V>(fi_row_address<FI_OUTPUT>(p.output, at.row, inner), at.column, x);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    gated_activation(const __grid_constant__ fi_gated_activation_params p) {
    if (p.tiling.vectorised) {
        run<fi_vector(FI_GATE, FI_UP, FI_OUTPUT)>(p);
    } else {
        run<1>(p);
    }
}
