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

    /// Passes a part's eight rows of this warp on, all of whose lanes have written theirs.
    FI_DEVICE void pass_on(const Block &block, int thread, int stage, int part) {
        const int lane = thread % warp_size;
        if (lane < (part == rest_part ? 1 : Shared::part_columns))
            copy_to_block(blockIdx.x % cluster ^ 1, block.stage(stage) + Shared::part_at(part) + lane * Shared::tile_bytes + first_row(thread) * 128,
                          8 * 128, barrier(block.barriers.full[stage][part]));
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

    /// The key whose row this lane knows of, in the stage that starts with key `first`. Past the last key it is found again.
    FI_DEVICE int known_key(const Item &item, int first, int thread) {
        return min(first + GatheredPlaces::known_row(thread), item.key_end() - 1);
    }
    /// Tells from that key's page.
    __device__ __forceinline__ void find(const KeyFinder &finder, int first, int thread, int64 page) {
        const int64 in_page = finder.row(known_key(finder.item, first, thread));
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

    /// A part's rows as they are. Everything that addresses are told from is known when compiling, or comes before the wait: a warp that looks at
    /// each copy's for itself takes longer to ask than the copies take to come.
    template <bool is_rest> __device__ __forceinline__ void copy_part(const GatheredRows &rows_at, int stage, int part) const {
        constexpr int columns = is_rest ? 1 : Shared::part_columns;
        const int row = GatheredPlaces::first_row(thread) + thread % warp_size / 8;
        const uint32 to = block.stage(stage) + Shared::part_at(part) + row * 128 + ((chunk ^ row % 8) << 4);
        const char *from[gathered_rows];
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i)
            from[i] = rows_at.at(is_rest, i) + (is_rest ? 0 : part * (Shared::part_columns * 128)) + chunk * 16;
        await_empty(stage, part);
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i)
#pragma unroll
            for (int column = 0; column < columns; ++column)
                copy_async_once(GatheredPlaces::advance(to, i) + column * Shared::tile_bytes, from[i] + column * 128, true);
        // Without a wait: the next part's rows are asked for while these come.
        barrier(block.barriers.full[stage][part]).arrive_after_copies();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        const auto look_up = [&](int tile) { return finder.block(GatheredRows::known_key(item, item.key + tile * keys, thread)); };
        int page = look_up(0);
        fi_await_predecessors();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            GatheredRows rows_at;
            rows_at.find(finder, item.key + tile * keys, thread, page);
            // The table is read a stage ahead, and what it says is not looked at before that stage.
            page = look_up(tile + 1);
            // The rest's place was given back long before the others.
            copy_part<true>(rows_at, stage, rest_part);
#pragma unroll 1
            for (int i = 0; i < rest_part; ++i) copy_part<false>(rows_at, stage, part_in_order(stage, i));
            phases.flip(stage);
        }
    }
};

/// Sixteen bytes of memory that are read once.
FI_DEVICE uint4 load_sixteen(uint64 address) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(address) : "memory");
    return v;
}

/// Keeps what a value is told from from the compiler, which would keep that, and what else follows from it, in registers over a loop.
FI_DEVICE uint32 opaque(uint32 x) {
    asm volatile("" : "+r"(x));
    return x;
}

/// 8-bit rows: a thread reads sixteen elements at a time to registers, ahead of the place in memory that they will have, and widens them on their way
/// there when it is free. Where a block has half of a stage's rows, they are read a stage ahead; else a part, as registers do not hold more. The rest
/// of the keys, which is given back long before the others, is copied to the place of the first half of its elements as they will be, and
/// widened there by the thread that copied it.
struct Widener {
    static constexpr bool keeps_stage = is_passed_on;
    static constexpr int rest_rows = block_keys / 32;
    using Values = uint4[gathered_rows][2];

    const Block &block;
    /// The row that this lane knows of; the lane that knows of the first row that it reads, and where in it; where that will lie in a part of
    /// columns, and in the rest: the second half is beside the first, on the side that the row's swizzle says. Eight lanes have two rows, four chunks
    /// of one tile each, so that their stores meet in no bank.
    const uint32 known_row, source_lane, source_at, columns_at, rest_at;
    StagePhases phases;
    /// Where the row lies that this lane knows of, of the stage that is read now, and its page in the next, asked for before it is needed.
    uint64 own_key = 0, own_rest = 0;
    int next_page = 0;
    /// What has been read: of the part that a stage begins with, and of the next.
    Values values[keeps_stage ? 2 : 1];

    __device__ __forceinline__ explicit Widener(const Block &block) : Widener(block, threadIdx.x % bringers, threadIdx.x % warp_size) {
        static_assert(compute_threads % bringers == 0, "threads that bring are counted so");
    }
    __device__ __forceinline__ Widener(const Block &block, uint32 thread, uint32 lane)
        : block(block), known_row(opaque(GatheredPlaces::known_row(thread))), source_lane(opaque(lane / 16 * 2 + lane / 4 % 2)),
          // Of the first two tiles of a part, and of a stage's first 16 rows, or of this block's half.
          source_at(opaque(own_tile(thread) * 64 + lane % 4 * 16)),
          columns_at(opaque(own_tile(thread) * Shared::tile_bytes + place(GatheredPlaces::first_row(thread) + lane / 16 * 2 + lane / 4 % 2, lane % 4))),
          // Whose rows are as long as a tile's: every 32nd follows.
          rest_at(opaque(Shared::part_at(rest_part)
                         + place(GatheredPlaces::first_row(thread) + (is_passed_on ? lane / 4 : lane / 4 % 4 + lane / 16 * 16), lane % 4))) {}

    FI_DEVICE uint32 place(uint32 row, uint32 chunk) { return row * 128 + ((chunk * 2 ^ row % 8) << 4); }
    FI_DEVICE uint32 own_tile(uint32 thread) { return (thread / 8 ^ thread / 4) & 1; }

    /// Waits until a part's place is free.
    __device__ __forceinline__ void begin(int stage, int part) const {
        barrier(block.barriers.empty[stage][part]).wait(phases.of(stage) ^ 1);
        __syncwarp();
        if constexpr (is_passed_on) GatheredPlaces::expect(block, threadIdx.x % bringers, stage, part);
    }
    /// A part is there, behind a fence of all of the warp.
    __device__ __forceinline__ void end(int stage, int part) const {
        if constexpr (is_passed_on) GatheredPlaces::pass_on(block, threadIdx.x % bringers, stage, part);
        barrier(block.barriers.full[stage][part]).arrive();
    }

    /// Past the last key it is found again.
    __device__ __forceinline__ int known_key(const Item &item, int tile) const {
        return min(item.key + tile * keys + static_cast<int>(known_row), item.key_end() - 1);
    }
    __device__ __forceinline__ void look_up(const KeyFinder &finder, int tile) { next_page = finder.block(known_key(finder.item, tile)); }
    /// Goes on to a stage, whose pages have been asked for, and asks for the next one's.
    __device__ __forceinline__ void find(const KeyFinder &finder, int tile) {
        const int64 page = next_page, in_page = finder.row(known_key(finder.item, tile));
        const fi_attention_params &p = finder.p;
        own_key = p.keys.address + page * p.keys.block + in_page * p.keys.token;
        own_rest = p.values.address + page * p.values.block + in_page * p.values.token;
        look_up(finder, tile + 1);
    }

    /// Reads this thread's share of a part.
    __device__ __forceinline__ void read(Values &to, int part) const {
        const uint64 known = own_key + part * (dim_vo / 2);
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i) {
            const uint64 from = __shfl_sync(0xffffffff, known, i * 4 + source_lane) + source_at;
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) to[i][pair] = load_sixteen(from + pair * 128);
        }
    }
    /// Asks for the rest.
    __device__ __forceinline__ void copy_rest(int stage) const {
        begin(stage, rest_part);
        const uint32 lane = threadIdx.x % warp_size, to = block.stage(stage) + rest_at;
#pragma unroll
        for (int i = 0; i < rest_rows; ++i)
            copy_async<16>(to + i * (32 * 128), pointer<const char>(__shfl_sync(0xffffffff, own_rest, lane / 4 + i * 8)) + lane % 4 * 16, true);
        copy_commit();
    }

    /// Sixteen elements to a thread's place.
    FI_DEVICE void widen_to(uint32 at, uint4 bytes) {
        uint4 halves[2];
        widen_sixteen(bytes, halves);
        store_shared(at, halves[0]);
        store_shared(at ^ 16, halves[1]);
    }
    __device__ __forceinline__ void widen_values(const Values &from, int stage, int part) const {
        begin(stage, part);
        const uint32 at = block.stage(stage) + Shared::part_at(part) + columns_at;
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i)
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) widen_to(GatheredPlaces::advance(at, i) + pair * (2 * Shared::tile_bytes), from[i][pair]);
    }
    __device__ __forceinline__ void widen_rest(int stage) const {
        const uint32 at = block.stage(stage) + rest_at;
        copy_wait<0>();
#pragma unroll
        for (int i = 0; i < rest_rows; ++i) widen_to(at + i * (32 * 128), load_shared128(at + i * (32 * 128)));
    }
    /// Orders what the warp has stored with the tensor cores and copies.
    FI_DEVICE void fence() {
        fence_async_proxy();
        __syncwarp();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = __reduce_max_sync(0xffffffff, tiles_of(item));
        if (tiles == 0) return;
        look_up(finder, 0);
        fi_await_predecessors();
        find(finder, 0);
        read(values[0], 0);
        if constexpr (keeps_stage) read(values[1], 1);
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            // Its place was given back long before the others.
            copy_rest(stage);
            widen_values(values[0], stage, stage);
            fence();
            end(stage, stage);
            // Behind the last stage its last row is read again, which nobody needs.
            if constexpr (keeps_stage) find(finder, tile + 1);
            read(values[0], stage ^ 1);
            if constexpr (!keeps_stage) find(finder, tile + 1);
            widen_values(values[keeps_stage], stage, stage ^ 1);
            read(values[keeps_stage], keeps_stage ? stage : stage ^ 1);
            widen_rest(stage);
            fence();
            end(stage, stage ^ 1);
            end(stage, rest_part);
            phases.flip(stage);
        }
    }
};

/// The keys of item after item, a warpgroup.
template <class Bringer> FI_DEVICE void gather_keys(const Block &block, ItemReader<Block> reader) {
    Bringer gatherer(block);
    const int thread = threadIdx.x - compute_threads;
    for (uint32 turn = 0;; ++turn) {
        if (thread < warp_size) reader.fetch(block, turn);
        if (turn == 0) prefetch_keys(block, thread);
        const Item &item = block.await_item(turn);
        if (__all_sync(0xffffffff, item.tile < 0)) return;
        gatherer.gather_item(item);
        // The next item may take the place of one that others of these threads still read.
        sync_threads(bring_barrier, bringers);
    }
}
