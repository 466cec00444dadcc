// Conversion between storage types: output = convert(input * scale).
//
// FI_INPUT: a storage type. The output's is chosen at run time.

#include "fi_rows_params.h"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/rows.cuh"

template <int OUTPUT, int V>
static __device__ __forceinline__ void run(const fi_convert_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    if (!at.inside) return;
    const unsigned long long input = fi_row_address<FI_INPUT>(p.input, at.row, p.tiling.inner_rows);
    const unsigned long long output = fi_row_address<OUTPUT>(p.output, at.row, p.tiling.inner_rows);
    const fi_packed<FI_INPUT, V> packed = fi_load<FI_INPUT, V>(input, at.column);
    if constexpr (OUTPUT == FI_INPUT) {
        // A copy of bits where nothing changes: infinities stay, and NaNs keep their payload.
        if (p.scale == 1.0f) {
            fi_store<OUTPUT, V>(output, at.column, packed);
            return;
        }
    }
    float x[V];
    fi_unpack<FI_INPUT, V>(packed, x);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], p.scale);
    fi_write<OUTPUT, V>(output, at.column, x);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) convert(const __grid_constant__ fi_convert_params p) {
    fi_follow_predecessors();
    fi_with_type(p.output_type, [&](auto type) {
        constexpr int OUTPUT = decltype(type)::value;
        if (p.tiling.vectorised) {
            run<OUTPUT, fi_vector(FI_INPUT, OUTPUT)>(p);
        } else {
            run<OUTPUT, 1>(p);
        }
    });
}
