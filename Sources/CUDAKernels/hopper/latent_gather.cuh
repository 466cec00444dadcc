// Latent keys that the copy engine cannot bring: rows of pages that are too small for its boxes, and 8-bit elements, which are widened on
// their way. All threads of a warpgroup look for rows and copy them.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/widen_chunk.cuh"

/// Eight lanes have a row's 128 bytes of a column, and a thread has every 16th row.
constexpr int gathered_rows = keys / (bringers / 8);

/// Where the rows of a stage lie that a warp copies: a lane knows of one, and they tell each other.
struct GatheredRows {
    uint64 own_key, own_rest;

    __device__ __forceinline__ void find(const KeyFinder &finder, int first, int thread) {
        // Past the last key it is found again.
        const int row = thread / warp_size * 4 + thread % 4 + thread % 16 / 4 * 16, key = min(first + row, finder.item.key_end() - 1);
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
        const uint32 to = block.stage(stage) + Shared::part_at(part) + thread / 8 * 128 + ((chunk ^ thread / 8 % 8) << 4);
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i) {
            const char *from = rows_at.at(is_rest, i) + (is_rest ? 0 : part * (Shared::part_columns * 128)) + chunk * 16;
            for (int column = 0; column < columns; ++column)
                copy_async<16>(to + column * Shared::tile_bytes + i * (16 * 128), from + column * 128, true);
        }
        // Without a wait: the next part's rows are asked for while these come.
        barrier(block.barriers.full[stage][part]).arrive_after_copies();
    }

    /// A part's rows of 8-bit elements: a column's of a thread are read at once.
    __device__ __forceinline__ void widen_part(const GatheredRows &rows_at, int stage, int part) {
        const bool is_rest = part == rest_part;
        // Columns of 128 elements, and half of one.
        const int columns = is_rest ? 1 : 2;
        const bool has_chunk = !is_rest || chunk < 4;
#pragma unroll 1
        for (int column = 0; column < columns; ++column) {
            uint4 bytes[gathered_rows];
#pragma unroll
            for (int i = 0; i < gathered_rows; ++i) {
                const char *from = rows_at.at(is_rest, i) + (is_rest ? 0 : part * (Shared::part_columns * 64)) + column * 128 + chunk * 16;
                if (has_chunk) bytes[i] = __ldcg(reinterpret_cast<const uint4 *>(from));
            }
            if (column == 0) await_empty(stage, part);
#pragma unroll
            for (int i = 0; i < gathered_rows; ++i)
                if (has_chunk)
                    widen_chunk(bytes[i], block.stage(stage), thread / 8 + i * 16, part * (Shared::part_columns * 4) + column * 8 + chunk);
        }
        fence_async_proxy();
        barrier(block.barriers.full[stage][part]).arrive();
        __syncwarp();
    }
    /// Brings 8-bit rows to the L2 cache, where the reads that wait for them find them.
    __device__ __forceinline__ void prefetch(const GatheredRows &rows_at) const {
#pragma unroll
        for (int i = 0; i < gathered_rows; ++i) {
            const char *key = rows_at.at(false, i), *rest = rows_at.at(true, i), *from = chunk < dim_vo / 128 ? key + chunk * 128 : rest;
            if (chunk <= dim_vo / 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(from) : "memory");
        }
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const KeyFinder finder{block.p, item};
        const int tiles = tiles_of(item);
        if (tiles == 0) return;
        GatheredRows now, next;
        now.find(finder, item.key, thread);
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const int stage = tile % stages;
            // The table is read a stage ahead.
            if (tile + 1 < tiles) next.find(finder, item.key + (tile + 1) * keys, thread);
#pragma unroll 1
            for (int i = 0; i < part_count; ++i) {
                if constexpr (is_narrow) {
                    widen_part(now, stage, part_in_order(stage, i));
                    if (i == 0 && tile + 1 < tiles) prefetch(next);
                } else {
                    copy_part(now, stage, part_in_order(stage, i));
                }
            }
            phases.flip(stage);
            now = next;
        }
    }
};

/// The keys of item after item, a warpgroup.
FI_DEVICE void gather_keys(const Block &block) {
    Gatherer gatherer(block);
    ItemReader reader;
    for (uint32 turn = 0;; ++turn) {
        if (gatherer.thread < warp_size) reader.fetch(block, turn);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        gatherer.gather_item(item);
        // The next item may take the place of one that others of these threads still read.
        sync_threads(bring_barrier, bringers);
    }
}
