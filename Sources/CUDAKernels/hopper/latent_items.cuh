// Lists of items of latent attention on Hopper, and what is read of an item ahead of its time.
#pragma once
#include "portable/attention_finish.cuh"
#include "hopper/barrier.cuh"
#include "hopper/tensor_copy.cuh"
#include "primitives/launch.cuh"

/// Items that may be known at a time.
constexpr int item_slots = 4;

/// An item is read by so many lanes, 16 bytes each, all at once.
constexpr int item_chunks = sizeof(fi_attention_item) / 16;
static_assert(sizeof(fi_attention_item) % 16 == 0 && item_chunks <= warp_size, "a warp reads an item");

FI_DEVICE Barrier barrier(const uint64 &word) { return {shared_address(&word)}; }

/// Of places for items: one has been read, by all lanes that write it; it is no longer looked at, by the warps that compute.
struct ItemBarriers {
    uint64 item_full[item_slots], item_empty[item_slots];

    __device__ __forceinline__ void init_items() {
        for (int slot = 0; slot < item_slots; ++slot) {
            barrier(item_full[slot]).init(item_chunks);
            barrier(item_empty[slot]).init(compute_threads / warp_size);
        }
    }
};

/// What all roles of a block have: the parameter, where its shared memory starts, its barriers, and its items.
template <class Barriers> struct BlockOfItems {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    /// Those at hand, and the first once more, which stays.
    Item (&items)[item_slots + 1];

    /// Item number `turn` of this block; of tile -1 where there is no more.
    __device__ __forceinline__ const Item &await_item(uint32 turn) const {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        return items[turn % item_slots];
    }
};

FI_DEVICE int tiles_of(const Item &item) { return ceil_div(item.key_count, keys); }

/// Reads something of each line of the parameter: constant memory is cold when a kernel starts, and what is first needed at an item's end would be
/// waited for there.
FI_DEVICE void touch_parameter(const fi_attention_params &p) {
    const uint32 *words = reinterpret_cast<const uint32 *>(&p);
#pragma unroll
    for (int at = 0; at < static_cast<int>(sizeof p); at += 64) asm volatile("" ::"r"(words[at / 4]));
}

/// This block's list of items: the first is where the list's number says, the rest are where the table says. For one warp. It is the plan's:
/// read before what was enqueued earlier is done, so past L1. `Block` has the parameter, the places of items and their barriers.
template <class Block> struct ItemReader {
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
        while (true) {
            if (index >= 0 && lane < item_chunks)
                reinterpret_cast<uint4 *>(&item)[lane] =
                    __ldcg(reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index) + lane);
            __syncwarp();
            // Items of requests with other numbers of rows are another launch's.
            if (index < 0 || item.tile == p.tile) break;
            index = next < end ? next++ : -1;
            __syncwarp();
        }
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

/// The boxes of a tile of keys, by the lanes of a warp that asks for them. A lane has one of the boxes' places among the tile's rows; where a box has all
/// of them, that is place 0 for every lane, and one lane asks for all.
struct BoxPlaces {
    const int lane, box_rows, rows_shift, places_shift, place, own_row, look_mask;
    static_assert(keys == 64, "shifts");

    __device__ __forceinline__ explicit BoxPlaces(int box_rows)
        : lane(threadIdx.x % warp_size), box_rows(box_rows), rows_shift(31 - __clz(box_rows)), places_shift(6 - rows_shift),
          place(lane & (1 << places_shift) - 1), own_row(place << rows_shift), look_mask((warp_size >> places_shift) - 1) {}

    /// Rows of boxes that hold keys, of `count`.
    __device__ __forceinline__ int used_rows(int count) const { return (min(count, keys) + box_rows - 1) & -box_rows; }
    /// The pages of the boxes from `key` on, one a lane: looked up once for many tiles.
    __device__ __forceinline__ int look_up(const KeyFinder &finder, int key) const { return finder.block(key + (lane << rows_shift)); }
    /// Whether another look is due before tile number `tile`, the first of which was before tile 0.
    __device__ __forceinline__ bool is_look_due(int tile) const { return (tile & look_mask) == 0 && tile > 0; }
    /// The page of this lane's place of tile number `tile`, from the last look.
    __device__ __forceinline__ int page(int pages, int tile) const {
        return __shfl_sync(0xffffffff, pages, ((tile & look_mask) << places_shift) + place);
    }
    /// Calls `bring(column)` for this lane's columns of so many.
    template <class Bring> __device__ __forceinline__ void for_columns(int columns, const Bring &bring) const {
#pragma unroll 1
        for (int column = lane >> places_shift; column < columns; column += warp_size >> places_shift) bring(column);
    }
};

/// Stages whose keys are brought to the L2 cache while the kernels ahead end.
constexpr int early_stages = cluster == 1 ? 2 : 0;

/// Brings the first keys of this block's first item to the L2 cache, each of a cluster's blocks half of their columns: memory has nothing else to
/// do while the kernels ahead end. Writes that come later are seen there. By thread `thread` of those that bring and have nothing to do yet.
template <class Block> FI_DEVICE void prefetch_keys(const Block &block, int thread) {
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
