// 8-bit keys and values on their way to the tensor cores' 16 bits: from rows as they are in the cache to rows as wgmma reads them.
#pragma once
#include "hopper/attention_bring.cuh"
#include "hopper/widen_chunk.cuh"

/// One of the threads that widen. They follow the order in which the copy engine's warp asks: keys, then keys and values by turns.
struct Widener {
    const Block &block;
    int thread;
    Ring key_ring;
    ValueRing value_ring;
    RawRing raw_ring;

    /// A stage of `dim` elements to a row, in tiles of 64 elements beside each other.
    template <int dim, int padded> __device__ __forceinline__ void widen_rows(uint32 from, uint32 to) const {
        constexpr int chunks = padded / 16;
#pragma unroll(padded % 128 == 0 ? 4 : 2)
        for (int id = thread; id < keys * chunks; id += bringers) {
            const int row = id / chunks, chunk = id % chunks;
            uint4 bytes = make_uint4(0, 0, 0, 0);
            if (padded == dim || chunk * 16 < dim) bytes = load_shared128(from + row * dim + chunk * 16);
            widen_chunk(bytes, to, row, chunk);
        }
    }

    template <int dim, int padded, class AnyRing>
    __device__ __forceinline__ void widen_stage(uint32 to, AnyRing &ring, const uint64 *full, const uint64 *empty) {
        const Barriers &barriers = block.barriers;
        barrier(barriers.raw_full[raw_ring.stage]).wait(raw_ring.phase);
        barrier(empty[ring.stage]).wait(ring.phase ^ 1);
        widen_rows<dim, padded>(block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes, to + ring.stage * keys * padded * 2);
        fence_async_proxy();
        barrier(full[ring.stage]).arrive();
        __syncwarp();
        if (thread % warp_size == 0) barrier(barriers.raw_empty[raw_ring.stage]).arrive();
        raw_ring.next();
        ring.next();
    }

    __device__ __forceinline__ void widen_item(int tiles) {
        const Barriers &barriers = block.barriers;
#pragma unroll 1
        for (int tile = 0; tile <= tiles; ++tile) {
            if (tile < tiles)
                widen_stage<dim_qk, padded_qk>(block.base + Shared::key_stages, key_ring, barriers.keys_full, barriers.keys_empty);
            if (tile > 0)
                widen_stage<slice_vo, padded_vo>(block.base + Shared::value_stages, value_ring, barriers.values_full, barriers.values_empty);
        }
    }
};
