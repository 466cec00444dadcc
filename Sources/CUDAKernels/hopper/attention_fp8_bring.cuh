// Queries, keys and values of e4m3 into shared memory: keys as they are, values transposed on the way, as products of 8 bits take
// rows of what is multiplied over only.
#pragma once
#include "hopper/attention_queries.cuh"

/// Registers of a thread that brings; those that compute get the rest of the processor's.
constexpr int bringer_registers = FI_BRINGER_REGISTERS;

/// The warp that asks for keys and values.
FI_DEVICE void bring_stages(const Block &block) {
    const fi_attention_params &p = block.p;
    const Barriers &barriers = block.barriers;
    const int lane = threadIdx.x % warp_size;
    const BoxShare share(block.maps.box_rows);
    Ring key_ring;
    RawRing raw_ring;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.items[turn % 2];
        barrier(barriers.item_full[turn % 2]).wait(turn / 2);
        if (item.tile < 0) return;
        const KeyFinder finder{p, item};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        Boxes before;
        // Keys are wanted a stage before the values beside them.
        for (int tile = 0; tile <= tiles; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
            Boxes boxes;
            if (tile < tiles) {
                boxes.find(share, item, finder, span, tile);
                barrier(barriers.keys_empty[key_ring.stage]).wait(key_ring.phase ^ 1);
                boxes.copy(share, block.maps.keys, block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes, Shared::key_columns,
                           Shared::key_width, Shared::key_width, 0, item.head, barrier(barriers.keys_full[key_ring.stage]));
                key_ring.next();
            }
            if (tile > 0) {
                barrier(barriers.raw_empty[raw_ring.stage]).wait(raw_ring.phase ^ 1);
                before.copy(share, block.maps.values, block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes, Shared::value_columns,
                            Shared::value_width, Shared::value_width, 0, item.head, barrier(barriers.raw_full[raw_ring.stage]));
                raw_ring.next();
            }
            before = boxes;
        }
    }
}

/// One of the threads that transpose values.
///
/// A transposed load of 8 × 8 pairs of bytes gives a lane, of keys 2q and 2q + 1 (q = lane % 4), elements 2p and 2p + 1
/// (p = lane / 4). Two such of keys 0 to 15 become, by two byte permutations, a word of four keys for either element: 2q, 2q + 1,
/// 8 + 2q and 8 + 2q + 1. That is the order in which a lane of the product before has its sums, so the weights need no more than
/// being rounded, and stores of matrices write the words as rows of keys.
struct Transposer {
    const Block &block;
    int thread;
    Ring value_ring;
    RawRing raw_ring;

    /// Zeros in the rows before `first` and from `end` on, which are not the item's: a weight of 0 does not stop what is there if it
    /// is no number.
    __device__ __forceinline__ void clear(uint32 raw, int first, int end) const {
        constexpr int chunks = Shared::value_width / 16;
        // Those who read what was here before have passed the barrier of the stage by one lane a warp; this says so for all lanes.
        sync_threads(bringers_barrier, bringers);
#pragma unroll 1
        for (int id = thread; id < keys * chunks * Shared::value_columns; id += bringers) {
            const int row = id / chunks % keys;
            if (row < first || row >= end) store_shared(raw + id * 16, make_uint4(0, 0, 0, 0));
        }
        sync_threads(bringers_barrier, bringers);
    }

    __device__ __forceinline__ void transpose(uint32 raw, uint32 to) const {
        // A warp takes 16 elements of all keys at a time, 32 keys with a load; several loads before the first store.
        constexpr int blocks = keys / 32, batch = bringer_registers >= 40 && blocks % 4 == 0 ? 4 : 2;
        const int thread = anew(this->thread), lane = thread % warp_size;
        // Even elements of one half of the lanes go with odd ones of the other, so that eight rows lie in different banks.
        const uint32 even = lane < 16 ? 0x6420 : 0x7531, odd = even ^ (0x6420 ^ 0x7531);
        const int element = 2 * (lane % 8) + ((lane / 4 ^ lane / 8) & 1);
#pragma unroll 1
        for (int d = thread / warp_size * 16; d < padded_vo; d += bringers / warp_size * 16) {
            const uint32 from = raw + d / Shared::value_width * (keys * Shared::value_width)
                                + ValueColumn::offset(lane, d % Shared::value_width / 16);
            const uint32 first_to = to + TurnedColumn::offset(d + element, lane / 16);
#pragma unroll
            for (int first = 0; first < blocks; first += batch) {
                uint32 r[batch][4];
#pragma unroll
                for (int i = 0; i < batch; ++i) load_matrices_transposed(r[i], from + (first + i) * 32 * Shared::value_width);
#pragma unroll
                for (int i = 0; i < batch; ++i) {
                    const int key = (first + i) * 32;
                    const uint32 words[4] = {__byte_perm(r[i][0], r[i][1], even), __byte_perm(r[i][0], r[i][1], odd),
                                             __byte_perm(r[i][2], r[i][3], even), __byte_perm(r[i][2], r[i][3], odd)};
                    // The chunks' numbers have no bit in common, so the swizzle leaves them two steps of XOR.
                    store_matrices(words, (first_to ^ key % Shared::turned_width)
                                              + key / Shared::turned_width * (padded_vo * Shared::turned_width));
                }
            }
        }
    }

    __device__ __forceinline__ void transpose_item(const Span &span) {
        const Barriers &barriers = block.barriers;
        const int tiles = span.tiles();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const uint32 raw = block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes;
            barrier(barriers.raw_full[raw_ring.stage]).wait(raw_ring.phase);
            const int first = tile == 0 ? span.lead : 0, end = span.count - tile * keys;
            if (first > 0 || end < keys) clear(raw, first, end);
            barrier(barriers.values_empty[value_ring.stage]).wait(value_ring.phase ^ 1);
            transpose(raw, block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes);
            fence_async_proxy();
            barrier(barriers.values_full[value_ring.stage]).arrive();
            __syncwarp();
            if (thread % warp_size == 0) barrier(barriers.raw_empty[raw_ring.stage]).arrive();
            raw_ring.next();
            value_ring.next();
        }
    }
};

/// The warps that take items, copy queries, and transpose values.
FI_DEVICE void bring_queries(const Block &block, int thread) {
    const fi_attention_params &p = block.p;
    Transposer transposer{block, thread};
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % 2;
        if (thread < warp_size) fetch_item(block, turn);
        const Item &item = block.items[slot];
        barrier(block.barriers.item_full[slot]).wait(turn / 2);
        if (item.tile < 0) return;
        const uint32 to = block.base + Shared::queries + slot * Shared::query_bytes;
        copy_queries<1>(p, item, anew(thread), [&](int row, int chunk) {
            return to + row / 64 * (64 * padded_qk) + chunk * 16 / Shared::key_width * (64 * Shared::key_width)
                   + KeyColumn::offset(row % 64, chunk * 16 % Shared::key_width / 16);
        });
        barrier(block.barriers.queries_full[slot]).arrive();
        transposer.transpose_item(Span(item, block.maps.box_rows));
    }
}
