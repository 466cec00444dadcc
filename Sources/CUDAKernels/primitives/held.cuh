// The part of a row that a block of a cluster holds in shared memory, as float32, so that the row is read once.
#pragma once

#include "primitives/element.cuh"
#include "primitives/team.cuh"

#if FI_TEAM > 1
/// The block's entries to `held`, aligned as they are in memory, and `visit(x, index)` for each; returns the first one's address.
template <int type, class Visit>
static __device__ __forceinline__ float *fi_hold(unsigned long long address, unsigned int count, float *held, Visit &&visit) {
    constexpr unsigned int vector = 16 / fi_size(type);
    unsigned int head = ((16u - (unsigned int)(address & 15u)) & 15u) / fi_size(type);
    if (head > count) head = count;
    held += (4 - head % 4) % 4;
    const unsigned int vectors = (count - head) / vector;
    const unsigned int tail = head + vectors * vector;
    const unsigned long long body = address + (unsigned long long)head * fi_size(type);
    constexpr unsigned int unroll = 4;
    for (unsigned int start = threadIdx.x; start < vectors; start += FI_THREADS * unroll) {
        fi_packed<type, vector> packed[unroll];
#pragma unroll
        for (unsigned int u = 0; u < unroll; u++) {
            const unsigned int place = start + u * FI_THREADS;
            if (place < vectors) packed[u] = fi_load<type, vector>(body, (long long)place * vector);
        }
#pragma unroll
        for (unsigned int u = 0; u < unroll; u++) {
            const unsigned int place = start + u * FI_THREADS;
            if (place >= vectors) break;
            float x[vector];
            fi_unpack<type, vector>(packed[u], x);
            const unsigned int index = head + place * vector;
#pragma unroll
            for (unsigned int i = 0; i < vector; i += 4) {
                *(float4 *)(held + index + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
            }
#pragma unroll
            for (unsigned int i = 0; i < vector; i++) visit(x[i], index + i);
        }
    }
    const bool before = threadIdx.x < head;
    const bool after = threadIdx.x >= 32 && threadIdx.x - 32 < count - tail;
    if (before || after) {
        const unsigned int index = before ? threadIdx.x : tail + threadIdx.x - 32;
        float x[1];
        fi_read<type, 1>(address, index, x);
        held[index] = x[0];
        visit(x[0], index);
    }
    return held;
}
#endif
