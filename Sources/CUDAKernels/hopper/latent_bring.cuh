// What the roles of Hopper's latent attention share, and how keys are asked for.
#pragma once
#include "fi_hopper_attention_params.h"
#include "portable/attention_finish.cuh"
#include "hopper/tensor_copy.cuh"
#include "primitives/launch.cuh"

/// The block's barriers.
struct Barriers {
    uint64 item_full[item_slots], item_empty[item_slots];
    /// A part of a stage has come; all who read it are done, in both blocks of a cluster that share it.
    uint64 full[stages][part_count], empty[stages][part_count];
    /// A stage's weights, and what they are relative to, are where the other warpgroup reads them.
    uint64 weights[stages];
};
FI_DEVICE Barrier barrier(const uint64 &word) { return {shared_address(&word)}; }

struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    /// Those at hand, and the first once more, which stays.
    Item (&items)[item_slots + 1];

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
    /// Item number `turn` of this block; of tile -1 where there is no more.
    __device__ __forceinline__ const Item &await_item(uint32 turn) const {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        return items[turn % item_slots];
    }
};

FI_DEVICE int tiles_of(const Item &item) { return ceil_div(item.key_count, keys); }

/// Which parity of a stage's barriers is waited for next: tile t of an item is in stage t % 2, so that one warpgroup computes its scores.
struct StagePhases {
    uint32 bits = 0;
    __device__ __forceinline__ uint32 of(int stage) const { return bits >> stage; }
    __device__ __forceinline__ void flip(int stage) { bits ^= 1 << stage; }
};

/// Part number `i` in the order in which a stage's are given back, and wanted: the first is that of the warpgroup that weighs the stage.
FI_DEVICE int part_in_order(int stage, int i) { return i < 2 ? stage ^ i : rest_part; }

/// An item is read by so many lanes, 16 bytes each, all at once.
constexpr int item_chunks = sizeof(fi_attention_item) / 16;
static_assert(sizeof(fi_attention_item) % 16 == 0 && item_chunks <= warp_size, "a warp reads an item");

/// This block's list of items: the first is where the list's number says, the rest are where the table says. For one warp. It is the plan's:
/// read before what was enqueued earlier is done, so past L1.
struct ItemReader {
    int next = 0, end = 0;

    /// Item number `turn` to its place, with this block's part of the rows; of tile -1 where there is no more. The first before the block's
    /// barriers are made, as it is what all others wait for.
    __device__ __forceinline__ void read(const Block &block, int turn) {
        const fi_attention_params &p = block.p;
        const int lane = threadIdx.x % warp_size;
        Item &item = block.items[turn % item_slots];
        int index = blockIdx.x / cluster;
        if (turn == 0) {
            const int *rest = pointer<const int>(p.item_indptr) + index;
            next = __ldcg(rest), end = __ldcg(rest + 1);
        } else {
            index = next < end ? next++ : -1;
        }
        if (index >= 0 && lane < item_chunks)
            reinterpret_cast<uint4 *>(&item)[lane] =
                __ldcg(reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index) + lane);
        __syncwarp();
        if (lane == 0) {
            if (index >= 0) item.take_part(blockIdx.x % cluster);
            else item.tile = -1;
        }
        __syncwarp();
    }
    /// Keeps the first item for those who look at it beside its roles, and are not waited for.
    __device__ __forceinline__ void keep_first(const Block &block) const {
        const int lane = threadIdx.x % warp_size;
        if (lane < item_chunks) reinterpret_cast<uint4 *>(&block.items[item_slots])[lane] = reinterpret_cast<const uint4 *>(&block.items[0])[lane];
    }
    /// Tells the others, by each lane that wrote.
    __device__ __forceinline__ void publish(const Block &block, int turn) const {
        if (threadIdx.x % warp_size < item_chunks) barrier(block.barriers.item_full[turn % item_slots]).arrive();
        __syncwarp();
    }
    /// The next item, when its place is free; the first has been read before there were barriers.
    __device__ __forceinline__ void fetch(const Block &block, int turn) {
        if (turn > 0) {
            barrier(block.barriers.item_empty[turn % item_slots]).wait(turn / item_slots ^ 1);
            read(block, turn);
        }
        publish(block, turn);
    }
};

/// Stages whose keys are brought to the L2 cache while the kernels ahead end.
constexpr int early_stages = cluster == 1 ? 2 : 0;

/// Brings the first keys of this block's first item to the L2 cache, each of a cluster's blocks half of their columns: memory has nothing else to
/// do while the kernels ahead end. Writes that come later are seen there. By thread `thread` of those that bring and have nothing to do yet.
FI_DEVICE void prefetch_keys(const Block &block, int thread) {
    constexpr int prefetchers = is_gathered ? bringers : bringers - warp_size, bytes = dim_vo * element_bytes / cluster;
    const fi_attention_params &p = block.p;
    const Item &item = block.items[item_slots];
    if (early_stages == 0 || item.tile < 0) return;
    const KeyFinder finder{p, item};
    const int count = min(item.key_count, early_stages * keys), rank = blockIdx.x % cluster;
#pragma unroll 1
    for (int at = thread; at < count; at += prefetchers) {
        const int key = item.key + at;
        const int64 page = finder.block(key), row = finder.row(key);
        const uint64 own = p.keys.address + (page * p.keys.block + row * p.keys.token) * element_bytes + rank * bytes;
#pragma unroll
        for (int line = 0; line < bytes; line += 128) fi_prefetch(own + line);
        if (at % cluster == rank) fi_prefetch(p.values.address + (page * p.values.block + row * p.values.token) * element_bytes);
    }
}

/// The keys of a stage as boxes, which a warp asks for. Where a box has all of a stage's rows, one lane asks for all of a part's columns at once,
/// or half of them; else a lane has one of the boxes' places among its rows, and every so many of its columns.
struct BoxBringer {
    const Block &block;
    const int lane, box_rows, rows_shift, places_shift, place, own_row;
    const uint32 rank;
    static_assert(keys == 64, "shifts");

    __device__ __forceinline__ explicit BoxBringer(const Block &block)
        : block(block), lane(threadIdx.x % warp_size), box_rows(block.maps.box_rows), rows_shift(31 - __clz(box_rows)),
          places_shift(6 - rows_shift), place(lane & (1 << places_shift) - 1), own_row(place << rows_shift), rank(blockIdx.x % cluster) {}

    /// Rows of boxes that hold keys, of `count`.
    __device__ __forceinline__ int used_rows(int count) const { return (min(count, keys) + box_rows - 1) & -box_rows; }

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
#pragma unroll 1
            for (int column = lane >> places_shift; column < columns; column += warp_size >> places_shift)
                if (!is_shared || ((column ^ (columns == 1 ? tile : 0) ^ rank) & 1) == 0) bring(column, own_row);
        }
    }
};

/// The keys of item after item, a warp.
FI_DEVICE void bring_boxes(const Block &block, ItemReader reader) {
    const BoxBringer bringer(block);
    StagePhases phases;
    for (uint32 turn = 0;; ++turn) {
        reader.fetch(block, turn);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item), key = item.key, key_end = item.key_end();
        // The pages of the next boxes, one a lane: looked up once for many stages.
        const int look_mask = (warp_size >> bringer.places_shift) - 1;
        int pages = tiles > 0 ? finder.block(key + (bringer.lane << bringer.rows_shift)) : 0;
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages, first = key + tile * keys, in_look = tile & look_mask;
            if (in_look == 0 && tile > 0) pages = finder.block(first + (bringer.lane << bringer.rows_shift));
            const int page = __shfl_sync(0xffffffff, pages, (in_look << bringer.places_shift) + bringer.place);
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
