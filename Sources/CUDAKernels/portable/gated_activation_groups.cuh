// Gated activations stored as 8 bits, each group of neighbouring elements of a row with a scale of its own.
//
// Neighbouring threads take a vector each of a group, which a warp always holds a whole number of, and find its greatest magnitude by
// exchanges. Where rows are not aligned a warp takes a group, up to FI_SINGLES elements a thread.
//
// FI_GATE, FI_UP: storage types. FI_OUTPUT: FI_BYTES. FI_ACTIVATION: see gate.cuh. FI_ROWS: vectors of a thread, in as many rows.

#include "fi_rows_params.h"
#include "portable/gated_product.cuh"
#include "portable/quantize.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

#define FI_SINGLES (FI_LARGEST_GROUP / 32)

template <int V>
static __device__ __forceinline__ void vectors(const fi_gated_activation_params &p) {
    const fi_row_place at = fi_place<V, FI_THREADS, FI_ROWS>(p.tiling);
    const unsigned int inner = p.tiling.inner_rows, lanes = p.quantize.group / V, aside = fi_rows_aside<FI_THREADS>(p.tiling);
    const long long group = fi_group_of(p.quantize, at.column);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (FI_ROWS == 1) fi_admit_successors();
    fi_packed<FI_GATE, V> gate[FI_ROWS];
    fi_packed<FI_UP, V> up[FI_ROWS];
    bool inside[FI_ROWS];
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        const unsigned int row = at.row + r * aside;
        inside[r] = at.inside && row < p.tiling.rows;
        if (inside[r]) {
            gate[r] = fi_load<FI_GATE, V>(fi_row_address<FI_GATE>(p.gate, row, inner), at.column);
            if constexpr (FI_HAS_UP) up[r] = fi_load<FI_UP, V>(fi_row_address<FI_UP>(p.up, row, inner), at.column);
        }
    }
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        const unsigned int row = at.row + r * aside;
        float x[V];
        unsigned int greatest = 0;
        if (inside[r]) {
            product<V>(gate[r], up[r], x);
            greatest = fi_magnitude<V>(x, greatest);
        }
        // A row is whole groups, so all threads of a group are inside or none is.
        greatest = fi_group_magnitude<FI_LARGEST_GROUP / V>(greatest, lanes);
        if (!inside[r]) continue;
        const float factor = fi_group_factor(p.quantize, greatest, row, group, (threadIdx.x & (lanes - 1)) == 0);
        fi_write_bytes<V>(p.quantize.type, fi_row_address<FI_OUTPUT>(p.output, row, inner), at.column, x, factor);
    }
}

/// The same where groups are the largest and rows follow each other: a thread finds the scale of one of its rows' groups for all of the group's
/// threads, and addresses go from row to row.
template <int V>
static __device__ __forceinline__ void largest(const fi_gated_activation_params &p) {
    constexpr int lanes = FI_LARGEST_GROUP / V;
    const fi_row_place at = fi_place<V, FI_THREADS, FI_ROWS>(p.tiling);
    const unsigned int aside = fi_rows_aside<FI_THREADS>(p.tiling);
    const unsigned long long gate_row = (unsigned long long)(aside * p.gate.outer * fi_size(FI_GATE));
    const unsigned long long gate_address = fi_row_address<FI_GATE>(p.gate, at.row, 1);
    const unsigned long long up_row = (unsigned long long)(aside * p.up.outer * fi_size(FI_UP));
    const unsigned long long up_address = fi_row_address<FI_UP>(p.up, at.row, 1);
    bool inside[FI_ROWS];
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (FI_ROWS == 1) fi_admit_successors();
    fi_packed<FI_GATE, V> gate[FI_ROWS];
    fi_packed<FI_UP, V> up[FI_ROWS];
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        inside[r] = at.inside && (r == 0 || at.row + r * aside < p.tiling.rows);
        if (inside[r]) {
            gate[r] = fi_load<FI_GATE, V>(gate_address + r * gate_row, at.column);
            if constexpr (FI_HAS_UP) up[r] = fi_load<FI_UP, V>(up_address + r * up_row, at.column);
        }
    }
    float x[FI_ROWS][V];
    unsigned int greatest[FI_ROWS];
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        greatest[r] = 0;
        if (inside[r]) {
            product<V>(gate[r], up[r], x[r]);
            greatest[r] = fi_magnitude<V>(x[r], 0);
        }
    }
    const unsigned int own = fi_reduced<FI_ROWS, lanes>(), row = at.row + own * aside;
    // A row is whole groups, so all threads of a group are inside or none is.
    const float factor = fi_group_factor(
        p.quantize, fi_warp_reduce<lanes>(greatest, fi_magnitude_max()), row, (unsigned int)at.column / FI_LARGEST_GROUP,
        at.inside && row < p.tiling.rows && threadIdx.x % (lanes / FI_ROWS) == 0);
    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, at.row, 1);
    const unsigned long long output_row = (unsigned long long)(aside * p.output.outer);
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        const float by = fi_of_reduced<FI_ROWS, lanes>(factor, r);
        if (inside[r]) fi_write_bytes<V>(p.quantize.type, output + r * output_row, at.column, x[r], by);
    }
}

static __device__ __forceinline__ void singles(const fi_gated_activation_params &p) {
    fi_await_predecessors();
    if (FI_ROWS == 1) fi_admit_successors();
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
    if (FI_ROWS > 1) fi_admit_successors();
    if (p.tiling.vectorised && p.quantize.group == FI_LARGEST_GROUP && p.tiling.inner_rows == 1) {
        largest<fi_vector(FI_GATE, FI_UP)>(p);
    } else if (p.tiling.vectorised) {
        vectors<fi_vector(FI_GATE, FI_UP)>(p);
    } else {
        singles(p);
    }
}
