// Gated activations stored as 8 bits, each group of neighbouring elements of a row with a scale of its own.
//
// Neighbouring threads take a vector each of a group, which a warp always holds a whole number of, and find its greatest magnitude by
// exchanges. Where rows are not aligned a warp takes a group, up to FI_SINGLES elements a thread.
//
// FI_GATE, FI_UP: storage types. FI_OUTPUT: FI_BYTES. FI_ACTIVATION: see gate.cuh.

#include "fi_rows_params.h"
#include "portable/gated_product.cuh"
#include "portable/quantize.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

/// Of the largest group, 128.
#define FI_SINGLES 4

template <int V>
static __device__ __forceinline__ void vectors(const fi_gated_activation_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS>(p.tiling);
    const unsigned int inner = p.tiling.inner_rows, lanes = p.quantize.group / V;
    float x[V];
    unsigned int greatest = 0;
    if (at.inside) {
        load_product<V>(
            fi_row_address<FI_GATE>(p.gate, at.row, inner), fi_row_address<FI_UP>(p.up, at.row, inner), at.column, x);
        greatest = fi_magnitude<V>(x, greatest);
    }
    // A row is whole groups, so all threads of a group are inside or none is.
    greatest = fi_group_magnitude(greatest, lanes);
    if (!at.inside) return;
    const float factor =
        fi_group_factor(p.quantize, greatest, at.row, at.column / p.quantize.group, threadIdx.x % lanes == 0);
    fi_write_bytes<V>(p.quantize.type, fi_row_address<FI_OUTPUT>(p.output, at.row, inner), at.column, x, factor);
}

static __device__ __forceinline__ void singles(const fi_gated_activation_params &p) {
    const unsigned int inner = p.tiling.inner_rows, lane = threadIdx.x % 32;
    const long long groups = p.tiling.width / p.quantize.group;
    const long long warp = (long long)blockIdx.x * (FI_THREADS / 32) + threadIdx.x / 32;
    const long long place = warp / groups;
    if (place >= p.tiling.rows) return;  // for the whole warp
    const unsigned int row = (unsigned int)place;
    const long long group = warp - place * groups;
    const unsigned long long gate = fi_row_address<FI_GATE>(p.gate, row, inner);
    const unsigned long long up = fi_row_address<FI_UP>(p.up, row, inner);
    const long long first = group * p.quantize.group + lane;
    float x[FI_SINGLES][1];
    unsigned int greatest = 0;
#pragma unroll
    for (int i = 0; i < FI_SINGLES; i++) {
        if (32 * i >= p.quantize.group) break;
        load_product<1>(gate, up, first + 32 * i, x[i]);
        greatest = fi_magnitude<1>(x[i], greatest);
    }
    greatest = fi_warp_reduce<32>(greatest, fi_magnitude_max());
    const float factor = fi_group_factor(p.quantize, greatest, row, group, lane == 0);
    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, row, inner);
#pragma unroll
    for (int i = 0; i < FI_SINGLES; i++) {
        if (32 * i >= p.quantize.group) break;
        fi_write_bytes<1>(p.quantize.type, output, first + 32 * i, x[i], factor);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    gated_activation_groups(const __grid_constant__ fi_gated_activation_params p) {
    fi_follow_predecessors();
    if (p.tiling.vectorised) {
        vectors<fi_vector(FI_GATE, FI_UP)>(p);
    } else {
        singles(p);
    }
}
