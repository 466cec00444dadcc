// What the roles of Hopper's latent attention share, and how keys are asked for.
#pragma once
#include "hopper/latent_items.cuh"

/// The block's barriers.
struct Barriers : ItemBarriers {
    /// A part of a stage has come; all who read it are done, in both blocks of a cluster that share it.
    uint64 full[stages][part_count], empty[stages][part_count];
    /// A stage's weights, and what they are relative to, are where the other warpgroup reads them.
    uint64 weights[stages];
};

struct Block : BlockOfItems<Barriers> {
    __device__ __forceinline__ uint32 stage(int stage) const { return base + Shared::stages_at + stage * Shared::stage_bytes; }
    /// Gives a warp's share of a part back, to all who bring it.
    __device__ __forceinline__ void give_back(int stage, int part) const {
        const Barrier empty = barrier(barriers.empty[stage][part]);
        const int lane = threadIdx.x % warp_size;
        if constexpr (is_gathered) {
            empty.arrive();
            if constexpr (is_passed_on) {
                __syncwarp();
                if (lane == 0) empty.arrive_at(blockIdx.x % cluster ^ 1);
            }
            return;
        }
        __syncwarp();
        if constexpr (!is_shared) {
            if (lane == 0) empty.arrive();
        } else {
            if (lane < cluster) empty.arrive_at(lane);
        }
    }
};

/// Which parity of a stage's barriers is waited for next: tile t of an item is in stage t % 2, so that one warpgroup computes its scores.
struct StagePhases {
    uint32 bits = 0;
    __device__ __forceinline__ uint32 of(int stage) const { return bits >> stage; }
    __device__ __forceinline__ void flip(int stage) { bits ^= 1 << stage; }
};

/// Part number `i` in the order in which a stage's are given back, and wanted: the first is that of the warpgroup that weighs the stage.
FI_DEVICE int part_in_order(int stage, int i) { return i < 2 ? stage ^ i : rest_part; }

/// The keys of a stage as boxes, which a warp asks for. Where a box has all of a stage's rows, one lane asks for all of a part's columns at once,
/// or half of them; else a lane has every so many of its place's columns.
struct BoxBringer : BoxPlaces {
    const Block &block;
    const uint32 rank;

    __device__ __forceinline__ explicit BoxBringer(const Block &block) : BoxPlaces(block.maps.box_rows), block(block), rank(blockIdx.x % cluster) {}

    /// Asks for this block's share of a part whose rows start at `row` of `page`, of which this lane knows its own.
    __device__ __forceinline__ void ask(int tile, int part, int row, int page, int used) const {
        const int stage = tile % stages, columns = part == rest_part ? 1 : Shared::part_columns;
        const fi_tensor_map &map = part == rest_part ? block.maps.values : block.maps.keys;
        const int first_column = part == rest_part ? 0 : part * Shared::part_columns;
        const uint32 to = block.stage(stage) + Shared::part_at(part);
        const Barrier full = barrier(block.barriers.full[stage][part]);
        const auto bring = [&](int column, int to_row) {
            const uint32 there = to + column * Shared::tile_bytes + to_row * 128;
            if constexpr (is_shared) copy_box_to(3, there, map, 0, row, first_column + column, page, full, read_once);
            else copy_box(there, map, 0, row, first_column + column, page, full, read_once);
        };
        if (box_rows == keys) {
            // The other block brings the other half; the rest is brought by turns.
            if (lane == 0 && (!is_shared || part != rest_part || ((tile ^ rank) & 1) == 0))
                bring(is_shared && part != rest_part ? rank * (Shared::part_columns / 2) : 0, 0);
        } else if (own_row < used) {
            for_columns(columns, [&](int column) {
                if (!is_shared || ((column ^ (columns == 1 ? tile : 0) ^ rank) & 1) == 0) bring(column, own_row);
            });
        }
    }
};

/// The keys of item after item, a warp.
FI_DEVICE void bring_boxes(const Block &block, ItemReader<Block> reader) {
    const BoxBringer bringer(block);
    StagePhases phases;
    for (uint32 turn = 0;; ++turn) {
        reader.fetch(block, turn);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item), key = item.key, key_end = item.key_end();
        int pages = tiles > 0 ? bringer.look_up(finder, key) : 0;
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages, first = key + tile * keys;
            if (bringer.is_look_due(tile)) pages = bringer.look_up(finder, first);
            const int page = bringer.page(pages, tile);
            const int row = finder.row(first + bringer.own_row), used = bringer.used_rows(key_end - first);
#pragma unroll 1
            for (int i = 0; i < part_count; ++i) {
                const int part = part_in_order(stage, i), columns = part == rest_part ? 1 : Shared::part_columns;
                barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
                if (bringer.lane == 0) barrier(block.barriers.full[stage][part]).arrive_expecting(used * columns * 128);
                bringer.ask(tile, part, row, page, used);
                __syncwarp();
            }
            phases.flip(stage);
        }
    }
}
