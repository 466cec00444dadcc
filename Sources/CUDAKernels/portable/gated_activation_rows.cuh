// Gated activations stored as 8 bits, each row with a scale of its own: a block a row, or every so-many-th row.
//
// A row's results stay in registers, FI_CHUNKS vectors a thread, while its greatest magnitude is found. Wider rows, and those that
// are not aligned, are computed twice.
//
// FI_GATE, FI_UP: storage types. FI_OUTPUT: FI_BYTES. FI_ACTIVATION: see gate.cuh.

#include "fi_rows_params.h"
#include "portable/gated_product.cuh"
#include "portable/quantize.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

struct row_addresses {
    unsigned long long gate, up, output;
};

/// Finds and writes the row's scale; what elements are multiplied by. Rows take turns with two sets of slots: who is a barrier ahead writes
/// the other one.
static __device__ __forceinline__ float own_factor(
    const fi_gated_activation_params &p, unsigned int row, unsigned int greatest, unsigned int turn
) {
    __shared__ unsigned int slots[2][FI_THREADS / 32];
    const float scale =
        fi_row_scale(p.quantize, fi_block_reduce<FI_THREADS, true>(greatest, fi_magnitude_max(), slots[turn % 2]));
    if (threadIdx.x == 0) ((float *)p.quantize.row_scales)[row] = scale;
    return __frcp_rn(scale);
}

static __device__ __forceinline__ row_addresses addresses_of(const fi_gated_activation_params &p, unsigned int place) {
    const unsigned int inner = p.tiling.inner_rows;
    row_addresses row;
    row.gate = fi_row_address<FI_GATE>(p.gate, place, inner);
    row.up = fi_row_address<FI_UP>(p.up, place, inner);
    row.output = fi_row_address<FI_OUTPUT>(p.output, place, inner);
    return row;
}

/// What a thread has of a row.
template <int V>
struct held_row {
    fi_packed<FI_GATE, V> gate[FI_CHUNKS];
    fi_packed<FI_UP, V> up[FI_CHUNKS];
};

template <int V>
static __device__ __forceinline__ void load(const row_addresses &row, int chunks, held_row<V> &held) {
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        const int chunk = c * FI_THREADS + (int)threadIdx.x;
        if (chunk < chunks) {
            held.gate[c] = fi_load<FI_GATE, V>(row.gate, chunk * V);
            if constexpr (FI_HAS_UP) held.up[c] = fi_load<FI_UP, V>(row.up, chunk * V);
        }
    }
}

/// The block's rows; the next one's loads are on their way while one is reduced, as few blocks of so many threads fit beside each other.
template <int V>
static __device__ __forceinline__ void held(const fi_gated_activation_params &p) {
    const int chunks = (int)(p.tiling.width / V);
    held_row<V> next;
    load<V>(addresses_of(p, blockIdx.x), chunks, next);
#pragma unroll 1
    for (unsigned int row = blockIdx.x, turn = 0; row < p.tiling.rows; row += gridDim.x, turn++) {
        float x[FI_CHUNKS][V];
        unsigned int greatest = 0;
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            if (c * FI_THREADS + (int)threadIdx.x < chunks) {
                product<V>(next.gate[c], next.up[c], x[c]);
                greatest = fi_magnitude<V>(x[c], greatest);
            }
        }
        if (row + gridDim.x < p.tiling.rows) load<V>(addresses_of(p, row + gridDim.x), chunks, next);
        const float factor = own_factor(p, row, greatest, turn);
        const unsigned long long output = addresses_of(p, row).output;
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            const int chunk = c * FI_THREADS + (int)threadIdx.x;
            if (chunk < chunks) fi_write_bytes<V>(p.quantize.type, output, chunk * V, x[c], factor);
        }
    }
}

template <int V>
static __device__ __forceinline__ void streamed(
    const fi_gated_activation_params &p, unsigned int place, unsigned int turn
) {
    const row_addresses row = addresses_of(p, place);
    const long long first = (long long)threadIdx.x * V, width = p.tiling.width;
    unsigned int greatest = 0;
    float x[V];
    for (long long index = first; index < width; index += FI_THREADS * V) {
        load_product<V>(row.gate, row.up, index, x);
        greatest = fi_magnitude<V>(x, greatest);
    }
    const float factor = own_factor(p, place, greatest, turn);
    for (long long index = first; index < width; index += FI_THREADS * V) {
        load_product<V>(row.gate, row.up, index, x);
        fi_write_bytes<V>(p.quantize.type, row.output, index, x, factor);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    gated_activation_rows(const __grid_constant__ fi_gated_activation_params p) {
    fi_follow_predecessors();
    constexpr int V = fi_vector(FI_GATE, FI_UP);
    if (p.tiling.vectorised && p.tiling.width <= (long long)FI_THREADS * FI_CHUNKS * V) {
        held<V>(p);
    } else {
#pragma unroll 1
        for (unsigned int row = blockIdx.x, turn = 0; row < p.tiling.rows; row += gridDim.x, turn++) {
            if (p.tiling.vectorised) {
                streamed<V>(p, row, turn);
            } else {
                streamed<1>(p, row, turn);
            }
        }
    }
}
