// Gated activations: output = activation(gate) * up.
//
// FI_GATE, FI_UP, FI_OUTPUT: storage types; FI_OUTPUT may be FI_BYTES, with a scale that is given. FI_ACTIVATION: see gate.cuh.

#include "fi_rows_params.h"
#include "portable/gated_product.cuh"
#include "portable/quantize.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/rows.cuh"

template <int V>
static __device__ __forceinline__ void run(const fi_gated_activation_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    fi_admit_successors();
    if (!at.inside) return;
    const unsigned int inner = p.tiling.inner_rows;
    float x[V];
    load_product<V>(
        fi_row_address<FI_GATE>(p.gate, at.row, inner), fi_row_address<FI_UP>(p.up, at.row, inner), at.column, x);
    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, at.row, inner);
    if constexpr (FI_OUTPUT == FI_BYTES) {
        fi_write_bytes<V>(p.quantize.type, output, at.column, x, fi_factor(p.quantize));
    } else {
        fi_write<FI_OUTPUT, V>(output, at.column, x);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    gated_activation(const __grid_constant__ fi_gated_activation_params p) {
    if (p.tiling.vectorised) {
        run<fi_vector(FI_GATE, FI_UP, FI_OUTPUT == FI_BYTES ? FI_FLOAT32 : FI_OUTPUT)>(p);
    } else {
        run<1>(p);
    }
}
