// What the roles of Hopper's latent attention of few rows share, and how keys are asked for.
#pragma once
#include "hopper/latent_items.cuh"

/// The block's barriers: of pieces of keys, which have come, or which the four warps that read them last have read; of the weights of each
/// warpgroup's tiles, and what they are relative to; and of a warpgroup's threads.
struct Barriers : ItemBarriers {
    uint64 half_full[half_slots], half_empty[half_slots], rest_full[rest_slots], rest_empty[rest_slots];
    uint64 weights[2], groups[2];
};

struct Block : BlockOfItems<Barriers> {
    __device__ __forceinline__ uint32 half(int slot) const { return base + Shared::halves_at + slot * Shared::half_bytes; }
    __device__ __forceinline__ uint32 rest(int slot) const { return base + Shared::rests_at + slot * Shared::tile_bytes; }
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

/// The pieces of item after item, a warp. A box has all rows of a piece, and all its columns; or a lane has every so many of its place's columns.
FI_DEVICE void bring_pieces(const Block &block, ItemReader<Block> reader) {
    const BoxPlaces boxes(block.maps.box_rows);
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
        int pages = tiles > 0 ? boxes.look_up(finder, key) : 0;
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int first = key + tile * keys;
            if (boxes.is_look_due(tile)) pages = boxes.look_up(finder, first);
            const int page = boxes.page(pages, tile), row = finder.row(first + boxes.own_row), used = boxes.used_rows(key_end - first);
            const auto bring = [&](const fi_tensor_map &map, uint32 to, Barrier full, int first_column, int columns) {
                if (boxes.lane == 0) full.arrive_expecting(used * columns * 128);
                if (boxes.box_rows == keys) {
                    if (boxes.lane == 0) copy_box(to, map, 0, row, first_column, page, full, read_once);
                } else if (boxes.own_row < used) {
                    boxes.for_columns(columns, [&](int column) {
                        copy_box(to + column * Shared::tile_bytes + boxes.own_row * 128, map, 0, row, first_column + column, page, full, read_once);
                    });
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
