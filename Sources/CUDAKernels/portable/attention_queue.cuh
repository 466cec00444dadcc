// The queue that blocks take a plan's items from: each its own number first, and then whatever is next.
#pragma once
#include "portable/attention_tile.cuh"

/// Where a tile's queue lies in the items. Claims and the end are one thread's.
struct ItemQueue {
    int start, count;
    uint32 *cursors;

    __device__ __forceinline__ ItemQueue(const fi_attention_params &p) : start(p.queue_start), count(p.queue_count) {
        if (p.queue_indptr != 0) {
            const int *queue = pointer<const int>(p.queue_indptr) + p.tile;
            start = queue[0];
            count = queue[1] - start;
        }
        cursors = pointer<uint32>(p.queue_cursors) + (p.tile * gridDim.y + blockIdx.y) * 2;
    }
    /// The place in the queue of what comes next, where `cluster` blocks claim together.
    __device__ __forceinline__ int claim(int cluster = 1) const { return gridDim.x / cluster + atomicAdd(cursors, 1); }
    /// The last to end leaves the cursors as it found them.
    __device__ __forceinline__ void end(int cluster = 1) const {
        if (atomicAdd(cursors + 1, 1) == gridDim.x / cluster - 1) cursors[0] = cursors[1] = 0;
    }
};
