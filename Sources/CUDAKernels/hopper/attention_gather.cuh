// Keys and values of pages too small for the copy engine's boxes: each row is looked up and copied by threads.
#pragma once
#include "hopper/attention_bring.cuh"

/// One of the threads that copy. A stage is announced when the next one's copies are under way, so that two stages' are.
struct Gatherer {
    const Block &block;
    int thread;
    Ring key_ring, value_ring;
    /// The barrier of the stage that is under way; 0 where there is none.
    uint32 unannounced = 0;

    template <int pending> __device__ __forceinline__ void announce() {
        if (unannounced == 0) return;
        copy_wait<pending>();
        fence_async_proxy();
        Barrier{unannounced}.arrive();
        unannounced = 0;
    }

    /// A stage's rows from key `first` on, `there` of them, of `dim` elements; zeros for what is not there.
    template <int dim, int padded>
    __device__ __forceinline__ void copy_stage(const KeyFinder &finder, const fi_kv_tensor &tensor, uint64 head, int first, int there,
                                               uint32 to, Ring &ring, const uint64 (&full)[stages], const uint64 (&empty)[stages]) {
        constexpr int chunks = padded / 8;
        barrier(empty[ring.stage]).wait(ring.phase ^ 1);
        to += ring.stage * keys * padded * 2;
#pragma unroll(padded % 128 == 0 ? 4 : 2)
        for (int id = thread; id < keys * chunks; id += bringers) {
            const int row = id / chunks, chunk = id % chunks, key = first + min(row, there - 1);
            const bool is_there = row < there && (padded == dim || chunk * 8 < dim);
            const int64 at = finder.block(key) * tensor.block + finder.row(key) * tensor.token;
            copy_async<16>(to + (chunk / 8 * keys + row) * 128 + ((chunk % 8 ^ row % 8) << 4),
                           pointer<const char>(head + at * 2 + (is_there ? chunk * 16 : 0)), is_there);
        }
        copy_commit();
        announce<1>();
        unannounced = barrier(full[ring.stage]).address;
        ring.next();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const fi_attention_params &p = block.p;
        const Barriers &barriers = block.barriers;
        const KeyFinder finder{p, item};
        const Span span(item, 1);
        const int tiles = span.tiles();
#pragma unroll 1
        for (int tile = 0; tile <= tiles; ++tile) {
            if (tile < tiles)
                copy_stage<dim_qk, padded_qk>(finder, p.keys, item.keys_address(p), span.key(tile * keys), span.count - tile * keys,
                                              block.base + Shared::key_stages, key_ring, barriers.keys_full, barriers.keys_empty);
            if (tile > 0)
                copy_stage<slice_vo, padded_vo>(finder, p.values, item.values_address(p), span.key((tile - 1) * keys),
                                                span.count - (tile - 1) * keys, block.base + Shared::value_stages, value_ring,
                                                barriers.values_full, barriers.values_empty);
        }
        announce<0>();
    }
};
