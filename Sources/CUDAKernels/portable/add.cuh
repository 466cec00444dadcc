// A weighted sum of two tensors, or one tensor scaled: output = alpha * first + beta * second.
//
// FI_FIRST, FI_SECOND, FI_OUTPUT: storage types.

#include "fi_rows_params.h"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/rows.cuh"

template <int V>
static __device__ __forceinline__ void run(const fi_add_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    if (!at.inside) return;
    const unsigned int inner = p.tiling.inner_rows;
    const bool has_second = p.second.address != 0;
    const fi_packed<FI_FIRST, V> first = fi_load<FI_FIRST, V>(fi_row_address<FI_FIRST>(p.first, at.row, inner), at.column);
    fi_packed<FI_SECOND, V> second;
    if (has_second) second = fi_load<FI_SECOND, V>(fi_row_address<FI_SECOND>(p.second, at.row, inner), at.column);
    float x[V];
    fi_unpack<FI_FIRST, V>(first, x);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], p.alpha);
    if (has_second) {
        float y[V];
        fi_unpack<FI_SECOND, V>(second, y);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = __fmaf_rn(y[i], p.beta, x[i]);
    }
    fi_write<FI_OUTPUT, V>(fi_row_address<FI_OUTPUT>(p.output, at.row, inner), at.column, x);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) add(const __grid_constant__ fi_add_params p) {
    fi_follow_predecessors();
    if (p.tiling.vectorised) {
        run<fi_vector(FI_FIRST, FI_SECOND, FI_OUTPUT)>(p);
    } else {
        run<1>(p);
    }
}
