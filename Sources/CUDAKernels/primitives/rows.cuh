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

/// The place for `vector` elements a thread, in blocks of `threads` that cover several short rows or a part of a long one.
template <int vector, int threads>
static __device__ __forceinline__ fi_row_place fi_place(const fi_row_tiling &tiling) {
    const unsigned int row_block = blockIdx.x / tiling.column_blocks;
    const unsigned int column_block = blockIdx.x - row_block * tiling.column_blocks;
    const unsigned int lane = threadIdx.x & ((1u << tiling.lane_bits) - 1u);
    fi_row_place place;
    place.row = row_block * (threads >> tiling.lane_bits) + (threadIdx.x >> tiling.lane_bits);
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

/// Calls `visit(x, index, valid)` for the elements of a row, in no order, from all threads of the block alike: those with
/// nothing left call it with `valid` false, so that `visit` may exchange values between the lanes of a warp.
///
/// The row may start anywhere: elements before the first 16-byte boundary and after the last go one by one. Long visits are
/// compiled once for all elements of a vector, which are then taken from its low end one after another (`isLong`). `Index` is
/// `long long`, or `unsigned int` where rows have fewer than 2^31 elements.
template <int type, int threads, bool isLong = false, class Index, class Visit>
static __device__ __forceinline__ void fi_for_row(unsigned long long address, Index width, Visit &&visit) {
    constexpr Index vector = 16 / fi_size(type);
    constexpr int unroll = type == FI_FLOAT32 && !isLong ? 4 : 2;
    const Index thread = (Index)threadIdx.x;
    Index head = (Index)((16u - (unsigned int)(address & 15u)) & 15u) / fi_size(type);
    if (head > width) head = width;
    const Index vectors = (width - head) / vector;
    const Index tail = head + vectors * vector;
    const unsigned long long body = address + (unsigned long long)head * fi_size(type);

    for (Index first = 0; first < vectors; first += threads * unroll) {
        fi_packed<type, vector> packed[unroll];
#pragma unroll
        for (int u = 0; u < unroll; u++) {
            const Index place = first + u * threads + thread;
            if (place < vectors) packed[u] = fi_load<type, vector>(body, (long long)place * vector);
        }
        if constexpr (isLong) {
            Index place = first + thread;
#pragma unroll 1
            for (int u = 0; u < unroll && place - thread < vectors; u++, place += threads) {  // for the whole block
#pragma unroll 1
                for (int i = 0; i < vector; i++) {
                    const float x = fi_take<type, vector>(packed[0]);
                    visit(place < vectors ? x : 0.0f, head + place * vector + i, place < vectors);
                }
#pragma unroll
                for (int next = 1; next < unroll; next++) packed[next - 1] = packed[next];
            }
        } else {
#pragma unroll
            for (int u = 0; u < unroll; u++) {
                const Index place = first + u * threads + thread;
                if (first + u * threads >= vectors) break;  // for the whole block
                const bool valid = place < vectors;
                float x[vector];
                if (valid) fi_unpack<type, vector>(packed[u], x);
#pragma unroll
                for (int i = 0; i < vector; i++) visit(valid ? x[i] : 0.0f, head + place * vector + i, valid);
            }
        }
    }
    // At most 15 elements on either side: one each, in two warps.
    if (head > 0 || tail < width) {
        const bool before = thread < head;
        const bool after = thread >= 32 && thread - 32 < width - tail;
        const Index index = before ? thread : tail + thread - 32;
        float x[1] = {0.0f};
        if (before || after) fi_read<type, 1>(address, (long long)index, x);
        visit(x[0], index, before || after);
    }
}
