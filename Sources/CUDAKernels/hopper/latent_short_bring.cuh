// What the roles of Hopper's latent attention of few rows share, and how keys are asked for.
#pragma once
#include "hopper/latent_items.cuh"
#include "hopper/tensor_copy.cuh"

/// The block's barriers: of items; of pieces of keys, which have come, or which the four warps that read them last have read; of the weights of each
/// warpgroup's tiles, and what they are relative to; and of a warpgroup's threads.
struct Barriers {
    uint64 item_full[item_slots], item_empty[item_slots];
    uint64 half_full[half_slots], half_empty[half_slots], rest_full[rest_slots], rest_empty[rest_slots];
    uint64 weights[2], groups[2];
};

struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    /// Those at hand, and the first once more, which stays.
    Item (&items)[item_slots + 1];

    __device__ __forceinline__ uint32 half(int slot) const { return base + Shared::halves_at + slot * Shared::half_bytes; }
    __device__ __forceinline__ uint32 rest(int slot) const { return base + Shared::rests_at + slot * Shared::tile_bytes; }
    /// Item number `turn` of this block; of tile -1 where there is no more.
    __device__ __forceinline__ const Item &await_item(uint32 turn) const {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        return items[turn % item_slots];
    }
};

/// Brings the first item's queries to the L2 cache, as `prefetch_keys` does its keys.
FI_DEVICE void prefetch_queries(const Block &block, int thread) {
    const Item &item = block.items[item_slots];
    if (item.tile < 0) return;
    constexpr int lines = dim_qk * 2 / 128;
#pragma unroll 1
    for (int id = thread; id < item.row_count * lines; id += bringers - warp_size) {
        const int row = id / lines, column = id % lines * 64;
        const uint16 *nope = query_row(block.p, item, row);
        fi_prefetch(reinterpret_cast<uint64>((column < dim_vo ? nope : part_of_query(block.p, item, row, nope, dim_vo)) + column));
    }
}

/// A place in a ring of slots, and the parity of its round.
template <int slots> struct RingPlace {
    int slot = 0;
    uint32 round = 0;

    __device__ __forceinline__ void advance(int by) {
        slot += by;
        if (slot >= slots) slot -= slots, round ^= 1;
    }
};

/// Where a tile of keys starts in both rings.
struct TilePlace {
    RingPlace<half_slots> half;
    RingPlace<rest_slots> rest;

    __device__ __forceinline__ void advance() { half.advance(halves), rest.advance(1); }
};

/// The pieces of item after item, a warp. A box has all rows of a piece, and all its columns; or a lane has one of the boxes' places among its rows,
/// and every so many of its columns.
FI_DEVICE void bring_pieces(const Block &block, ItemReader<Block> reader) {
    const int lane = threadIdx.x % warp_size, box_rows = block.maps.box_rows, rows_shift = 31 - __clz(box_rows), places_shift = 6 - rows_shift;
    const int place = lane & (1 << places_shift) - 1, own_row = place << rows_shift, look_mask = (warp_size >> places_shift) - 1;
    static_assert(keys == 64, "shifts");
    TilePlace at;
    bool was_part = false;
    for (uint32 turn = 0;; ++turn) {
        reader.fetch(block, turn);
        // Parts are merged where the next keys would go.
        if (was_part) barrier(block.barriers.item_empty[(turn - 1) % item_slots]).wait((turn - 1) / item_slots);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        was_part = item.partial_row >= 0;
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item), key = item.key, key_end = item.key_end();
        // The pages of the next boxes, one a lane: looked up once for many tiles.
        int pages = tiles > 0 ? finder.block(key + (lane << rows_shift)) : 0;
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int first = key + tile * keys, in_look = tile & look_mask;
            if (in_look == 0 && tile > 0) pages = finder.block(first + (lane << rows_shift));
            const int page = __shfl_sync(0xffffffff, pages, (in_look << places_shift) + place);
            const int row = finder.row(first + own_row), used = (min(key_end - first, keys) + box_rows - 1) & -box_rows;
            const auto bring = [&](const fi_tensor_map &map, uint32 to, Barrier full, int first_column, int columns) {
                if (lane == 0) full.arrive_expecting(used * columns * 128);
                if (box_rows == keys) {
                    if (lane == 0) copy_box(to, map, 0, row, first_column, page, full, read_once);
                } else if (own_row < used) {
#pragma unroll 1
                    for (int column = lane >> places_shift; column < columns; column += warp_size >> places_shift)
                        copy_box(to + column * Shared::tile_bytes + own_row * 128, map, 0, row, first_column + column, page, full, read_once);
                }
                __syncwarp();
            };
#pragma unroll 1
            for (int half = 0; half < halves; ++half) {
                const int slot = at.half.slot;
                barrier(block.barriers.half_empty[slot]).wait(at.half.round ^ 1);
                bring(block.maps.keys, block.half(slot), barrier(block.barriers.half_full[slot]), half * half_columns, half_columns);
                at.half.advance(1);
            }
            const int slot = at.rest.slot;
            barrier(block.barriers.rest_empty[slot]).wait(at.rest.round ^ 1);
            bring(block.maps.values, block.rest(slot), barrier(block.barriers.rest_full[slot]), 0, 1);
            at.rest.advance(1);
        }
    }
}
