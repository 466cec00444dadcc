// Rows of a table by id.
//
// FI_OUTPUT: a storage type. The table's is chosen at run time.

#include "fi_rows_params.h"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/rows.cuh"

template <int TABLE, int V>
static __device__ __forceinline__ void run(const fi_embedding_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    if (!at.inside) return;
    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, at.row, p.tiling.inner_rows);
    const int id = ((const int *)p.ids)[at.row];
    float x[V];
    if (id < 0 || id >= p.vocabulary) {
        // Nothing outside of the table is read, and the mistake is there to be seen.
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = __int_as_float(0x7fc00000);
        fi_write<FI_OUTPUT, V>(output, at.column, x);
        return;
    }
    const fi_packed<TABLE, V> packed = fi_load<TABLE, V>(p.table, (long long)id * p.table_stride + at.column);
    if constexpr (TABLE == FI_OUTPUT) {
        if (p.scale == 1.0f) {
            fi_store<FI_OUTPUT, V>(output, at.column, packed);
            return;
        }
    }
    fi_unpack<TABLE, V>(packed, x);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], p.scale);
    fi_write<FI_OUTPUT, V>(output, at.column, x);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) embedding(const __grid_constant__ fi_embedding_params p) {
    fi_follow_predecessors();
    fi_with_type(p.table_type, [&](auto type) {
        constexpr int TABLE = decltype(type)::value;
        if (p.tiling.vectorised) {
            run<TABLE, fi_vector(TABLE, FI_OUTPUT)>(p);
        } else {
            run<TABLE, 1>(p);
        }
    });
}
