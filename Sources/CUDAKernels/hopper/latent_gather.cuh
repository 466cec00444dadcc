// Latent keys that the copy engine cannot bring: rows of pages that are too small for its boxes, and 8-bit elements, which are widened on
// their way. All threads of a warpgroup look for rows and copy them.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/widen_chunk.cuh"

/// The rows of a stage that a block copies: all, or half of them. A thread has `gathered_rows` of them, which eight lanes share.
constexpr int block_keys = is_passed_on ? keys / cluster : keys, gathered_rows = block_keys / (bringers / 8);

/// Which those are. A warp has four of each 16 rows; or eight that follow each other, which lie together in each tile of columns, so that the warp
/// passes them on when it has them, and asks nobody else.
struct GatheredPlaces {
    /// The first row of this thread's warp, of so many from lane 0's on: lanes `row_lanes` rows apart have rows that follow each other.
    FI_DEVICE int first_row(int thread) {
        const int warp = thread / warp_size;
        return is_passed_on ? blockIdx.x % cluster * block_keys + warp * 8 : warp * 4;
    }
    /// The row that a lane knows of, for its warp: number lane % 4 of those that it has at `turn` lane / 4.
    FI_DEVICE int known_row(int thread) {
        return first_row(thread) + (is_passed_on ? thread % 8 : thread % 4 + thread % 16 / 4 * 16);
    }
    /// From a chunk's address in one of a thread's rows to that of turn `i`: every 16th row, whose swizzle is the same; or the fourth, where it is not.
    FI_DEVICE uint32 advance(uint32 at, int i) { return is_passed_on ? (at ^ i << 6) + i * (4 * 128) : at + i * (16 * 128); }

    /// Passes a part's eight rows of this warp on, when all of its lanes have written theirs.
    FI_DEVICE void pass_on(const Block &block, int thread, int stage, int part) {
        fence_async_proxy();
        __syncwarp();
        const int lane = thread % warp_size;
        if (lane < (part == rest_part ? 1 : Shared::part_columns))
            copy_to_block(blockIdx.x % cluster ^ 1, block.stage(stage) + Shared::part_at(part) + lane * Shared::tile_bytes + first_row(thread) * 128,
                          8 * 128, barrier(block.barriers.full[stage][part]));
        __syncwarp();
    }
    /// Announces the rows of a part that the other block passes on; by one thread.
    FI_DEVICE void expect(const Block &block, int thread, int stage, int part) {
        if (thread == 0)
            barrier(block.barriers.full[stage][part])
                .arrive_expecting((keys - block_keys) * 128 * (part == rest_part ? 1 : Shared::part_columns));
    }
};

/// Where the rows of a stage lie that a warp copies: a lane knows of one, and they tell each other.
struct GatheredRows {
    uint64 own_key, own_rest;

    __device__ __forceinline__ void find(const KeyFinder &finder, int first, int thread) {
        // Past the last key it is found again.
        const int key = min(first + GatheredPlaces::known_row(thread), finder.item.key_end() - 1);
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
        const int row = GatheredPlaces::first_row(thread) + thread % warp_size / 8;
        const uint32 to = block.stage(stage) + Shared::part_at(part) + row * 128 + ((chunk ^ row % 8) << 4);
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i) {
            const char *from = rows_at.at(is_rest, i) + (is_rest ? 0 : part * (Shared::part_columns * 128)) + chunk * 16;
            for (int column = 0; column < columns; ++column)
                copy_async<16>(GatheredPlaces::advance(to, i) + column * Shared::tile_bytes, from + column * 128, true);
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

/// 8-bit rows: a thread copies sixteen elements to the place of the first eight of them as they will be, and widens them there when they have come.
/// Nobody else has to do with that place, so that neither more memory is needed nor a word between threads.
struct Widener {
    const Block &block;
    const int thread;
    /// Where the thread's chunk of its first row lies in a part of columns, and in the rest: the second half is beside the first, on the
    /// side that the row's swizzle says. Eight lanes have two rows, four chunks of one tile each, so that their stores meet in no bank.
    const uint32 columns_at, rest_at;
    StagePhases phases;
    /// The page of one row that this lane knows of, asked for before it is needed.
    int page = 0;

    __device__ __forceinline__ explicit Widener(const Block &block)
        : block(block), thread(threadIdx.x - compute_threads), columns_at(own_tile() * Shared::tile_bytes + place(own_row(), thread % 4)),
          rest_at(place(rest_row(), thread % 4)) {}

    FI_DEVICE uint32 place(int row, int chunk) { return row * 128 + ((chunk * 2 ^ row % 8) << 4); }
    /// Of the first two tiles of a part, and of a stage's first 16 rows; every 16th follows. Or of this block's half.
    __device__ __forceinline__ int own_tile() const { return (thread / 8 ^ thread / 4) & 1; }
    __device__ __forceinline__ int own_row() const {
        return GatheredPlaces::first_row(thread) + thread % warp_size / 16 * 2 + thread / 4 % 2;
    }
    /// Of the rest, whose rows are as long as a tile's: every 32nd follows.
    __device__ __forceinline__ int rest_row() const {
        const int lane = thread % warp_size;
        return GatheredPlaces::first_row(thread) + (is_passed_on ? lane / 4 : lane / 4 % 4 + lane / 16 * 16);
    }

    /// Past the last key it is found again.
    __device__ __forceinline__ int known_key(const Item &item, int tile) const {
        return min(item.key + tile * keys + GatheredPlaces::known_row(thread), item.key_end() - 1);
    }
    __device__ __forceinline__ void look_up(const KeyFinder &finder, int tile) { page = finder.block(known_key(finder.item, tile)); }
    __device__ __forceinline__ void await_empty(int stage, int part) const {
        barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
        __syncwarp();
    }

    /// Asks for a stage's rows, each part as a group of copies.
    __device__ __forceinline__ void ask(const KeyFinder &finder, int tile) {
        const fi_attention_params &p = block.p;
        const int stage = tile % stages, lane = thread % warp_size;
        const int64 in_page = finder.row(known_key(finder.item, tile));
        const uint64 key = p.keys.address + page * p.keys.block + in_page * p.keys.token;
        const uint64 rest = p.values.address + page * p.values.block + in_page * p.values.token;
        uint64 from[gathered_rows];
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i)
            from[i] = __shfl_sync(0xffffffff, key, i * 4 + lane / 16 * 2 + lane / 4 % 2) + own_tile() * 64 + lane % 4 * 16;
#pragma unroll
        for (int i = 0; i < part_count; ++i) {
            const int part = i == rest_part ? rest_part : stage ^ i;
            await_empty(stage, part);
            if constexpr (is_passed_on) GatheredPlaces::expect(block, thread, stage, part);
            const uint32 to = block.stage(stage) + Shared::part_at(part);
            if (i == rest_part) {
#pragma unroll
                for (int turn = 0; turn < block_keys / 32; ++turn)
                    copy_async<16>(to + rest_at + turn * (32 * 128),
                                   pointer<const char>(__shfl_sync(0xffffffff, rest, lane / 4 + turn * 8)) + lane % 4 * 16, true);
            } else {
#pragma unroll
                for (int row = 0; row < gathered_rows; ++row)
#pragma unroll
                    for (int pair = 0; pair < 2; ++pair)
                        copy_async<16>(GatheredPlaces::advance(to + columns_at, row) + pair * (2 * Shared::tile_bytes),
                                       pointer<const char>(from[row] + part * (dim_vo / 2) + pair * 128), true);
            }
            copy_commit();
        }
        phases.flip(stage);
    }

    /// Sixteen elements at a thread's place.
    FI_DEVICE void widen_at(uint32 at, uint4 bytes) {
        uint4 halves[2];
        widen_sixteen(bytes, halves);
        store_shared(at, halves[0]);
        store_shared(at ^ 16, halves[1]);
    }
    /// A part that has come.
    template <bool is_rest> __device__ __forceinline__ void widen_part(int stage, int part) const {
        constexpr int pairs = is_rest ? 1 : 2, count = is_rest ? block_keys / 32 : gathered_rows;
        const uint32 at = block.stage(stage) + Shared::part_at(part) + (is_rest ? rest_at : columns_at);
        const auto place = [&](int pair, int i) {
            return (is_rest ? at + i * (32 * 128) : GatheredPlaces::advance(at, i)) + pair * (2 * Shared::tile_bytes);
        };
#pragma unroll
        for (int pair = 0; pair < pairs; ++pair) {
            uint4 bytes[count];
#pragma unroll
            for (int i = 0; i < count; ++i) bytes[i] = load_shared128(place(pair, i));
#pragma unroll
            for (int i = 0; i < count; ++i) widen_at(place(pair, i), bytes[i]);
        }
        fence_async_proxy();
        barrier(block.barriers.full[stage][part]).arrive();
        if constexpr (is_passed_on) GatheredPlaces::pass_on(block, thread, stage, part);
        else __syncwarp();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        look_up(finder, 0);
        fi_await_predecessors();
        int asked = 0;
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            // Both stages at first, and then each as it becomes empty, which needs all before it to have been widened.
#pragma unroll 1
            for (const int end = min(max(tile + 1, 2), tiles); asked < end; ++asked) {
                ask(finder, asked);
                if (asked + 1 < tiles) look_up(finder, asked + 1);
            }
            const int stage = tile % stages;
            const bool is_ahead = asked > tile + 1;
            if (is_ahead) copy_wait<part_count + 2>();
            else copy_wait<2>();
            widen_part<false>(stage, stage);
            if (is_ahead) copy_wait<part_count + 1>();
            else copy_wait<1>();
            widen_part<false>(stage, stage ^ 1);
            if (is_ahead) copy_wait<part_count>();
            else copy_wait<0>();
            widen_part<true>(stage, rest_part);
        }
    }
};

/// The keys of item after item, a warpgroup.
template <class Bringer> FI_DEVICE void gather_keys(const Block &block, ItemReader reader) {
    Bringer gatherer(block);
    for (uint32 turn = 0;; ++turn) {
        if (gatherer.thread < warp_size) reader.fetch(block, turn);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        gatherer.gather_item(item);
        // The next item may take the place of one that others of these threads still read.
        sync_threads(bring_barrier, bringers);
    }
}
