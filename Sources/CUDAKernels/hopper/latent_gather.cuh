// Latent keys that the copy engine cannot bring: rows of pages that are too small for its boxes, and 8-bit elements, which are widened on
// their way. All threads of a warpgroup look for rows and copy them.
#pragma once
#include "hopper/latent_bring.cuh"

/// Where the rows of a stage lie that a warp copies, four of each 16: a lane knows of one, and they tell each other.
struct GatheredRows {
    uint64 own_key, own_rest;

    __device__ __forceinline__ void find(const KeyFinder &finder, int first, int thread) {
        // Past the last key it is found again.
        const int key = min(first + thread / warp_size * 4 + thread % 4 + thread % 16 / 4 * 16, finder.item.key_end() - 1);
        const int64 page = finder.block(key), in_page = finder.row(key);
        const fi_attention_params &p = finder.p;
        own_key = p.keys.address + (page * p.keys.block + in_page * p.keys.token) * element_bytes;
        own_rest = p.values.address + (page * p.values.block + in_page * p.values.token) * element_bytes;
    }
    /// Row number `i` of this thread's; for all lanes.
    __device__ __forceinline__ const char *at(bool is_rest, int i) const {
        return pointer<const char>(__shfl_sync(0xffffffff, is_rest ? own_rest : own_key, i * 4 + threadIdx.x % warp_size / 8));
    }
};

struct Gatherer {
    const Block &block;
    const int thread, chunk;
    StagePhases phases;

    __device__ __forceinline__ explicit Gatherer(const Block &block)
        : block(block), thread(threadIdx.x - compute_threads), chunk(thread % 8) {}

    __device__ __forceinline__ void await_empty(int stage, int part) const {
        barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
        __syncwarp();
    }

    /// A part's rows as they are.
    __device__ __forceinline__ void copy_part(const GatheredRows &rows_at, int stage, int part) {
        const bool is_rest = part == rest_part;
        const int columns = is_rest ? 1 : Shared::part_columns;
        await_empty(stage, part);
        const int row = thread / 8 % 4 + thread / warp_size * 4;
        const uint32 to = block.stage(stage) + Shared::part_at(part) + row * 128 + ((chunk ^ row % 8) << 4);
#pragma unroll
        for (int i = 0; i < keys / (bringers / 8); ++i) {
            const char *from = rows_at.at(is_rest, i) + (is_rest ? 0 : part * (Shared::part_columns * 128)) + chunk * 16;
            for (int column = 0; column < columns; ++column)
                copy_async<16>(to + i * (16 * 128) + column * Shared::tile_bytes, from + column * 128, true);
        }
        // Without a wait: the next part's rows are asked for while these come.
        barrier(block.barriers.full[stage][part]).arrive_after_copies();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        GatheredRows now, next;
        now.find(finder, item.key, thread);
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            // The table is read a stage ahead.
            if (tile + 1 < tiles) next.find(finder, item.key + (tile + 1) * keys, thread);
#pragma unroll 1
            for (int i = 0; i < part_count; ++i) copy_part(now, stage, part_in_order(stage, i));
            phases.flip(stage);
            now = next;
        }
    }
};

/// Sixteen bytes of memory that are read once; neighbours read what is beside them.
FI_DEVICE uint4 load_sixteen(uint64 address) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(address)
                 : "memory");
    return v;
}

/// 8-bit rows: a thread reads sixteen elements at a time to registers, ahead of the place in memory that they will have, and widens them on their way
/// there when it is free. Where two blocks have half of a stage's rows each, they are read a stage ahead; else a part, as registers do not hold more.
///
/// A warp has a tile of 64 columns of a part, four lanes to a row, so that its rows follow each other in memory and are passed on at once; and some
/// rows of the rest. Eight lanes store to chunks of two rows that have all banks.
struct Widener {
    static constexpr bool keeps_stage = is_passed_on;
    /// The rows of a stage that this block brings, by eights, and those of them that a lane knows of.
    static constexpr int block_keys = is_passed_on ? keys / cluster : keys, eights = block_keys / 8, known = block_keys / warp_size;

    const Block &block;
    const int lane, warp;
    StagePhases phases;
    /// An item's pages, this lane's first row of its first stage, and its last key.
    const int *table = nullptr;
    int first_key = 0, last_key = 0;
    /// The known rows' pages in the stage that is found next, asked for before they are needed, and where the rows of the stage that is read now lie.
    int pages[known];
    uint64 rows_at[known];
    /// What has been read: of the part that a stage begins with, of the next, and of the rest.
    uint4 values[keeps_stage ? 2 : 1][eights], rest[known];

    __device__ __forceinline__ explicit Widener(const Block &block)
        : block(block), lane(threadIdx.x % warp_size), warp(threadIdx.x / warp_size % 4) {
        static_assert(bringers == 4 * warp_size && Shared::part_columns == 4, "a warp has a tile of columns");
    }

    /// The first of this block's rows of a stage.
    FI_DEVICE int first_row() { return is_passed_on ? blockIdx.x % cluster * block_keys : 0; }
    /// A thread's chunk of the first row that it has of a tile: the second half is beside the first, on the side that the row's swizzle says.
    __device__ __forceinline__ uint32 place() const { return (first_row() + lane / 4) * 128 + ((lane % 4 * 2 ^ lane / 4) << 4); }

    /// Past the last key it is found again.
    __device__ __forceinline__ int known_key(int tile, int i) const { return min(first_key + tile * keys + i * warp_size, last_key); }
    __device__ __forceinline__ void look_up(const KeyFinder &finder, int tile) {
#pragma unroll
        for (int i = 0; i < known; ++i) pages[i] = __ldcg(table + finder.in_block(known_key(tile, i)));
    }
    /// Where the known row lies in one of the cache's tensors, in the stage whose pages have been asked for.
    __device__ __forceinline__ uint64 known_row(const KeyFinder &finder, const fi_kv_tensor &tensor, int tile, int i) const {
        const int64 page = pages[i], row = finder.row(known_key(tile, i));
        return tensor.address + page * tensor.block + row * tensor.token;
    }
    /// Has the L2 cache get what is read of that stage later on: all reads that are under way are waited for together, and soon. Of half of the rows that is
    /// the second part.
    __device__ __forceinline__ void prefetch(const KeyFinder &finder, int tile) const {
#pragma unroll
        for (int i = 0; i < known; ++i) {
            const uint64 row = known_row(finder, block.p.keys, tile, i);
            if constexpr (!keeps_stage) {
                fi_prefetch(row + warp * 128);
                if (warp == 0) fi_prefetch(known_row(finder, block.p.values, tile, i));
            } else if (warp < 2) {
                fi_prefetch(row + (tile % stages ^ 1) * (dim_vo / 2) + warp * 128);
            }
        }
    }
    /// Goes on to that stage: reads its rest, and asks for the next one's pages.
    __device__ __forceinline__ void find(const KeyFinder &finder, int tile) {
#pragma unroll
        for (int i = 0; i < known; ++i) {
            rows_at[i] = known_row(finder, block.p.keys, tile, i);
            rest[i] = load_sixteen(__shfl_sync(0xffffffff, known_row(finder, block.p.values, tile, i), warp * 8 + lane / 4) + lane % 4 * 16);
        }
        look_up(finder, tile + 1);
    }
    /// Reads this thread's share of a part of that stage.
    __device__ __forceinline__ void read(uint4 (&to)[eights], int part) const {
        const uint32 offset = part * (dim_vo / 2) + warp * 64 + lane % 4 * 16;
#pragma unroll
        for (int i = 0; i < eights; ++i) to[i] = load_sixteen(__shfl_sync(0xffffffff, rows_at[i / 4], i % 4 * 8 + lane / 4) + offset);
    }

    /// Waits until a part's place is free.
    __device__ __forceinline__ void begin(int stage, int part) const {
        barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
        if (is_passed_on && threadIdx.x % bringers == 0)
            barrier(block.barriers.full[stage][part]).arrive_expecting((keys - block_keys) * 128 * (part == rest_part ? 1 : Shared::part_columns));
        __syncwarp();
    }
    /// A part is there, after a fence and when all of the warp have stored theirs: the other block gets this warp's rows.
    __device__ __forceinline__ void end(int stage, int part) const {
        const Barrier full = barrier(block.barriers.full[stage][part]);
        if constexpr (is_passed_on) {
            const bool is_rest = part == rest_part;
            if (lane == 0)
                copy_to_block(blockIdx.x % cluster ^ 1,
                              block.stage(stage) + Shared::part_at(part) + first_row() * 128 + warp * (is_rest ? 8 * 128 : Shared::tile_bytes),
                              (is_rest ? 8 : block_keys) * 128, full);
        }
        full.arrive();
    }
    /// Sixteen elements of each of some rows to a thread's places, `step` bytes apart. Two rows at a time: a store reads its registers late, where the tensor
    /// cores read what is beside.
    template <int count, int step> FI_DEVICE void widen_to(uint32 at, const uint4 (&bytes)[count]) {
        const uint32 beside = at ^ 16;
        constexpr int together = count > 1 ? 2 : 1;
#pragma unroll
        for (int i = 0; i < count; i += together) {
            uint4 halves[together][2];
#pragma unroll
            for (int j = 0; j < together; ++j) {
                const uint32 words[4] = {bytes[i + j].x, bytes[i + j].y, bytes[i + j].z, bytes[i + j].w};
                uint32 pairs[8];
#pragma unroll
                for (int k = 0; k < 4; ++k) widen_neighbours<narrow>(words[k], pairs[2 * k], pairs[2 * k + 1]);
                halves[j][0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
                halves[j][1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
            }
#pragma unroll
            for (int j = 0; j < together; ++j) {
                store_shared(at + (i + j) * step, halves[j][0]);
                store_shared(beside + (i + j) * step, halves[j][1]);
            }
        }
    }
    __device__ __forceinline__ void widen_values(const uint4 (&from)[eights], int stage, int part) const {
        begin(stage, part);
        widen_to<eights, 8 * 128>(block.stage(stage) + Shared::part_at(part) + warp * Shared::tile_bytes + place(), from);
    }
    __device__ __forceinline__ void widen_rest(int stage) const {
        begin(stage, rest_part);
        widen_to<known, 32 * 128>(block.stage(stage) + Shared::part_at(rest_part) + warp * (8 * 128) + place(), rest);
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        table = item.blocks(block.p);
        first_key = item.key + first_row() + lane, last_key = item.key_end() - 1;
        look_up(finder, 0);
        fi_await_predecessors();
        find(finder, 0);
        read(values[0], 0);
        if constexpr (keeps_stage) read(values[1], 1);
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            widen_values(values[0], stage, stage);
            fence_async_proxy();
            __syncwarp();
            end(stage, stage);
            // Behind the last stage its last row is read again, which nobody needs.
            prefetch(finder, tile + 1);
            if constexpr (!keeps_stage) read(values[0], stage ^ 1);
            widen_rest(stage);
            if constexpr (keeps_stage) {
                find(finder, tile + 1);
                read(values[0], stage ^ 1);
            }
            widen_values(values[keeps_stage], stage, stage ^ 1);
            fence_async_proxy();
            __syncwarp();
            end(stage, stage ^ 1);
            end(stage, rest_part);
            if constexpr (!keeps_stage) find(finder, tile + 1);
            read(values[keeps_stage], keeps_stage ? stage : stage ^ 1);
            phases.flip(stage);
        }
    }
};

/// Rows as they are, half of a stage's for both blocks of a cluster: copied to their places, and passed on when they have come. They are in the L2 cache
/// by then, which they are brought to a stage ahead. A warp has a tile of 64 columns of a part, eight lanes to a row, as above.
struct HalfGatherer {
    static constexpr int block_keys = keys / cluster;
    static_assert(cluster == 1 || block_keys == warp_size, "a lane knows of a row");

    const Block &block;
    const int lane, warp;
    StagePhases phases;
    const int *table = nullptr;
    int first_key = 0, last_key = 0;
    /// The known row's page in the stage that is found next, and where it lies in both tensors in the stage that is copied now.
    int page = 0;
    uint64 key_at = 0, rest_at = 0;

    __device__ __forceinline__ explicit HalfGatherer(const Block &block)
        : block(block), lane(threadIdx.x % warp_size), warp(threadIdx.x / warp_size % 4) {}

    FI_DEVICE int first_row() { return blockIdx.x % cluster * block_keys; }
    __device__ __forceinline__ int known_key(int tile) const { return min(first_key + tile * keys, last_key); }
    __device__ __forceinline__ void look_up(const KeyFinder &finder, int tile) { page = __ldcg(table + finder.in_block(known_key(tile))); }
    /// Goes on to a stage, whose pages have been asked for, and asks for the next one's.
    __device__ __forceinline__ void find(const KeyFinder &finder, int tile) {
        const fi_attention_params &p = block.p;
        const int64 there = page, row = finder.row(known_key(tile));
        key_at = p.keys.address + (there * p.keys.block + row * p.keys.token) * element_bytes;
        rest_at = p.values.address + (there * p.values.block + row * p.values.token) * element_bytes;
        look_up(finder, tile + 1);
    }
    __device__ __forceinline__ void prefetch() const {
        fi_prefetch(key_at + warp * 128);
        fi_prefetch(key_at + dim_vo * element_bytes / 2 + warp * 128);
        if (warp == 0) fi_prefetch(rest_at);
    }

    /// Asks for a part when its place is free.
    __device__ __forceinline__ void ask(int stage, int part) const {
        const bool is_rest = part == rest_part;
        barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
        if (threadIdx.x % bringers == 0)
            barrier(block.barriers.full[stage][part]).arrive_expecting((keys - block_keys) * 128 * (is_rest ? 1 : Shared::part_columns));
        __syncwarp();
        // The fourth row on is at the other side of the swizzle.
        const uint32 to = block.stage(stage) + Shared::part_at(part) + first_row() * 128 + warp * (is_rest ? 8 * 128 : Shared::tile_bytes)
                          + lane / 8 * 128 + ((lane % 8 ^ lane / 8) << 4);
        const uint64 known = is_rest ? rest_at : key_at + part * (dim_vo / 2 * element_bytes) + warp * 128;
        const int first = is_rest ? warp * 8 : 0;
#pragma unroll
        for (int i = 0; i < (is_rest ? 2 : block_keys / 4); ++i)
            copy_async<16>((to ^ i % 2 << 6) + i * (4 * 128), pointer<const char>(__shfl_sync(0xffffffff, known, first + i * 4 + lane / 8)) + lane % 8 * 16,
                           true);
        copy_commit();
    }
    /// Passes a part on that has come, but for `pending` that were asked for later.
    template <int pending> __device__ __forceinline__ void pass_on(int stage, int part) const {
        const Barrier full = barrier(block.barriers.full[stage][part]);
        const bool is_rest = part == rest_part;
        copy_wait<pending>();
        fence_async_proxy();
        __syncwarp();
        if (lane == 0)
            copy_to_block(blockIdx.x % cluster ^ 1,
                          block.stage(stage) + Shared::part_at(part) + first_row() * 128 + warp * (is_rest ? 8 * 128 : Shared::tile_bytes),
                          (is_rest ? 8 : block_keys) * 128, full);
        full.arrive();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        table = item.blocks(block.p);
        first_key = item.key + first_row() + lane, last_key = item.key_end() - 1;
        look_up(finder, 0);
        fi_await_predecessors();
        find(finder, 0);
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            ask(stage, stage);
            ask(stage, stage ^ 1);
            ask(stage, rest_part);
            // Behind the last stage its last row is found again.
            find(finder, tile + 1);
            prefetch();
            pass_on<2>(stage, stage);
            pass_on<1>(stage, stage ^ 1);
            pass_on<0>(stage, rest_part);
            phases.flip(stage);
        }
    }
};

/// The keys of item after item, a warpgroup.
template <class Bringer> FI_DEVICE void gather_keys(const Block &block, ItemReader reader) {
    Bringer gatherer(block);
    const int thread = threadIdx.x - compute_threads;
    for (uint32 turn = 0;; ++turn) {
        if (thread < warp_size) reader.fetch(block, turn);
        if (turn == 0) prefetch_keys(block, thread);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        gatherer.gather_item(item);
        // The next item may take the place of one that others of these threads still read.
        sync_threads(bring_barrier, bringers);
    }
}
