// Where rows lie, and walks of one block along one row of any alignment.
#pragma once

#include "fi_rows_params.h"
#include "primitives/element.cuh"

/// Elements from the tensor's start to row `row`.
static __device__ __forceinline__ long long fi_row_start(const fi_row_tensor &tensor, unsigned int row, unsigned int inner) {
    if (inner == 1) return (long long)row * tensor.outer;
    const unsigned int quotient = row / inner;
    return (long long)quotient * tensor.outer + (long long)(row - quotient * inner) * tensor.inner;
}

/// The address of row `row`.
template <int type>
static __device__ __forceinline__ unsigned long long fi_row_address(
    const fi_row_tensor &tensor, unsigned int row, unsigned int inner
) {
    return tensor.address + (unsigned long long)(fi_row_start(tensor, row, inner) * fi_size(type));
}

/// The place of a thread in an elementwise launch: its row and its first column.
struct fi_row_place {
    unsigned int row;
    long long column;
    bool inside;
};

/// Rows that a block of `threads` covers side by side.
template <int threads>
static __device__ __forceinline__ unsigned int fi_rows_aside(const fi_row_tiling &tiling) { return threads >> tiling.lane_bits; }

/// The place for `vector` elements a thread, in blocks of `threads` that cover several short rows or a part of a long one, `rows` times
/// one after the other.
template <int vector, int threads, int rows = 1>
static __device__ __forceinline__ fi_row_place fi_place(const fi_row_tiling &tiling) {
    const unsigned int row_block = blockIdx.x / tiling.column_blocks;
    const unsigned int column_block = blockIdx.x - row_block * tiling.column_blocks;
    const unsigned int lane = threadIdx.x & ((1u << tiling.lane_bits) - 1u);
    fi_row_place place;
    place.row = row_block * rows * fi_rows_aside<threads>(tiling) + (threadIdx.x >> tiling.lane_bits);
    place.column = (((long long)column_block << tiling.lane_bits) + lane) * vector;
    place.inside = place.row < tiling.rows && place.column < tiling.width;
    return place;
}

/// Calls `visit(x, index)` for the elements of a row, in no order, in arrays of neighbours: a vector of 16 bytes, or one element where the
/// row is not aligned. `index` is the first one's.
template <int type, int threads, class Index, class Visit>
static __device__ __forceinline__ void fi_for_vectors(unsigned long long address, Index width, Visit &&visit) {
    constexpr Index vector = 16 / fi_size(type);
    constexpr int unroll = type == FI_FLOAT32 ? 4 : 2;
    const Index thread = (Index)threadIdx.x;
    Index head = (Index)((16u - (unsigned int)(address & 15u)) & 15u) / fi_size(type);
    if (head > width) head = width;
    const Index vectors = (width - head) / vector;
    const Index tail = head + vectors * vector;
    const unsigned long long body = address + (unsigned long long)head * fi_size(type);
    for (Index first = thread; first < vectors; first += threads * unroll) {
        fi_packed<type, vector> packed[unroll];
#pragma unroll
        for (int u = 0; u < unroll; u++) {
            const Index place = first + u * threads;
            if (place < vectors) packed[u] = fi_load<type, vector>(body, (long long)place * vector);
        }
#pragma unroll
        for (int u = 0; u < unroll; u++) {
            const Index place = first + u * threads;
            if (place >= vectors) break;
            float x[vector];
            fi_unpack<type, vector>(packed[u], x);
            visit(x, head + place * vector);
        }
    }
    // At most 15 elements on either side: one each, in two warps.
    const bool before = thread < head;
    const bool after = thread >= 32 && thread - 32 < width - tail;
    if (before || after) {
        const Index index = before ? thread : tail + thread - 32;
        float x[1];
        fi_read<type, 1>(address, (long long)index, x);
        visit(x, index);
    }
}
