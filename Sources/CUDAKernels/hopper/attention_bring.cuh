// What the roles of Hopper's attention kernel share, and the warp that asks the copy engine for keys and values.
#pragma once
#include "fi_hopper_attention_params.h"
#include "portable/attention_finish.cuh"
#include "portable/attention_queue.cuh"
#include "hopper/tensor_copy.cuh"

constexpr int groups = warps / 4, all_threads = threads + 128;
/// Threads that bring queries, and widen 8-bit elements.
constexpr int bringers = 96;

/// The block's barriers.
struct Barriers {
    uint64 item_full[2], queries_full[2], item_empty[2];
    /// The next item is wanted.
    uint64 claim;
    /// The only queries are done with.
    uint64 queries_empty;
    uint64 keys_full[stages], keys_empty[stages], values_full[stages], values_empty[stages];
    /// 8-bit keys and values on their way to be widened.
    uint64 raw_full[raw_stages], raw_empty[raw_stages];
};
FI_DEVICE Barrier barrier(const uint64 &word) { return {shared_address(&word)}; }

/// A place in a ring of stages: which stage, and the parity of its turn.
template <int count> struct RingOf {
    int stage = 0;
    uint32 phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == count) stage = 0, phase ^= 1;
    }
};
using Ring = RingOf<stages>;
using RawRing = RingOf<raw_stages>;

/// The keys that an item's stages hold: its own, from the start of the box that the first lies in.
struct Span : Hole {
    int first, count, lead;

    __device__ __forceinline__ Span(const Item &item, int box_rows) : Hole(item, item.key - in_box(item, box_rows)) {
        lead = in_box(item, box_rows);
        first = item.key - lead;
        count = item.key_count == 0 ? 0 : item.key_count + lead - jump;
        if (before == 0) lead = 0;
    }
    __device__ __forceinline__ int tiles() const { return ceil_div(count, keys); }
    /// The key that is number `at` of those in stages.
    __device__ __forceinline__ int key(int at) const { return first + at + skipped(at); }
    FI_DEVICE int in_box(const Item &item, int box_rows) { return FI_RAGGED ? 0 : item.key & (box_rows - 1); }
};

struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    Item (&items)[2];
};

/// Where the boxes of a stage lie: a lane knows one, and `used` of them hold keys.
struct Boxes {
    int rows, count, own, used, row, page;

    __device__ __forceinline__ Boxes(int box_rows) : rows(box_rows), count(keys / box_rows), own(threadIdx.x % warp_size % count) {
        used = row = page = 0;
    }
    __device__ __forceinline__ void find(const Item &item, const KeyFinder &finder, const Span &span, int tile) {
        used = ceil_div(min(span.count - tile * keys, keys), rows);
        if (own >= used) return;
        const int key = span.key(tile * keys) + own * rows;
        if constexpr (FI_RAGGED) {
            row = item.only_block + key;
        } else {
            page = finder.block(key);
            row = finder.row(key);
        }
    }
    /// Asks for `columns` boxes beside each other: of `elements` elements and `row_bytes` bytes to a row.
    __device__ __forceinline__ void copy(const fi_tensor_map &map, uint32 to, int columns, int elements, int row_bytes, int first, int head,
                                         Barrier full) const {
        const int lane = threadIdx.x % warp_size;
        if (lane == 0) full.arrive_expecting(used * rows * columns * row_bytes);
        __syncwarp();
        // Whole turns over the boxes, so that a lane's are of one place.
        const int step = warp_size / count * count;
        for (int id = lane < step ? lane : count * columns; id < count * columns; id += step)
            if (own < used)
                copy_box(to + (id / count * keys + own * rows) * row_bytes, map, first + id / count * elements, head, row, page, full);
    }
};

/// The warp that asks for keys and values.
FI_DEVICE void bring_keys(const Block &block) {
    const fi_attention_params &p = block.p;
    const Barriers &barriers = block.barriers;
    const int lane = threadIdx.x % warp_size;
    Ring key_ring, value_ring;
    RawRing raw_ring;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.items[turn % 2];
        barrier(barriers.item_full[turn % 2]).wait(turn / 2);
        if (item.tile < 0) return;
        const KeyFinder finder{p, item};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles(), head = item.head;
        const auto bring = [&](const fi_tensor_map &map, uint32 to, int columns, int dim, int first, const Boxes &boxes, Ring &ring,
                               const uint64 (&full)[stages], const uint64 (&empty)[stages]) {
            if constexpr (is_narrow) {
                barrier(barriers.raw_empty[raw_ring.stage]).wait(raw_ring.phase ^ 1);
                boxes.copy(map, block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes, 1, dim, dim, first, head,
                           barrier(barriers.raw_full[raw_ring.stage]));
                raw_ring.next();
            } else {
                barrier(empty[ring.stage]).wait(ring.phase ^ 1);
                boxes.copy(map, to + ring.stage * keys * columns * 128, columns, 64, 128, first, head, barrier(full[ring.stage]));
                ring.next();
            }
        };
        Boxes before(block.maps.box_rows);
        // Keys are wanted a stage before the values beside them, and are done with a stage before.
        for (int tile = 0; tile <= tiles; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
            Boxes boxes(block.maps.box_rows);
            if (tile < tiles) {
                boxes.find(item, finder, span, tile);
                bring(block.maps.keys, block.base + Shared::key_stages, Shared::key_columns, dim_qk, 0, boxes, key_ring,
                      barriers.keys_full, barriers.keys_empty);
            }
            if (tile > 0)
                bring(block.maps.values, block.base + Shared::value_stages, Shared::value_columns, slice_vo, blockIdx.y * slice_vo,
                      before, value_ring, barriers.values_full, barriers.values_empty);
            before = boxes;
        }
    }
}
