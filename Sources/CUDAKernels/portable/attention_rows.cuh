// Keys and values as whole rows that the copy engine brings (cp.async.bulk, compute capability 9.0): for lists, where a block has few
// warps and what they do for themselves is what takes time. A thread looks up and asks for the same rows of every stage, with one
// instruction each where copies in chunks take eight; and it knows its first rows before the queries may be read.
#pragma once
#include "hopper/barrier.cuh"
#include "portable/attention_load.cuh"

/// Asks for `bytes`, a multiple of 16 as both addresses are, to be brought to shared memory and counted by a barrier there.
FI_DEVICE void bring(uint32 to, const void *from, int bytes, Barrier counted_by) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
                 "r"(counted_by.address)
                 : "memory");
}

/// This thread's rows of each stage: of the first stages where they lie, of the one after them its block.
struct RowSources {
    static constexpr int turns = 2 * keys < threads ? 1 : 2 * keys / threads;
    static_assert(!copies_rows || turns * threads == 2 * keys, "threads divide a stage's rows evenly");
    static constexpr int key_bytes = dim_qk * element_bytes, value_bytes = slice_vo * element_bytes;
    static_assert(!copies_rows || (key_bytes % 16 == 0 && value_bytes % 16 == 0), "rows are whole chunks");

    uint64 first[stages - 1][turns];
    int block[turns];

    FI_DEVICE int row(int turn) { return (turn * threads + threadIdx.x) % keys; }
    FI_DEVICE bool is_value(int turn) { return turn * threads + threadIdx.x >= keys; }

    /// The key of a row of stage `tile`; past the last key that one again, whose weight is nothing there.
    FI_DEVICE int key(const Stages &those, int tile, int turn) { return those.key(min(tile * keys + row(turn), those.count() - 1)); }
    FI_DEVICE uint64 address(const KeyFinder &finder, int key, int block, int turn) {
        const fi_attention_params &p = finder.p;
        const int64 b = FI_RAGGED ? 0 : block, r = FI_RAGGED ? finder.item.only_block + key : finder.row(key);
        return is_value(turn) ? finder.item.values_address(p) + (b * p.values.block + r * p.values.token) * element_bytes
                              : finder.item.keys_address(p) + (b * p.keys.block + r * p.keys.token) * element_bytes;
    }
    /// Looks up the block of stage `tile`'s rows.
    __device__ __forceinline__ void find(const KeyFinder &finder, const Stages &those, int tile) {
        if constexpr (!FI_RAGGED) {
            if (tile * keys >= those.count()) return;
#pragma unroll
            for (int turn = 0; turn < turns; ++turn) block[turn] = finder.block(key(those, tile, turn));
        }
    }
    /// Finds the first stages' rows, and has them brought to L2: whoever may still write some of them writes there too.
    __device__ __forceinline__ void find_first(const KeyFinder &finder, const Stages &those, bool prefetches) {
        int blocks[stages - 1][turns];
#pragma unroll
        for (int stage = 0; stage < stages - 1; ++stage)
#pragma unroll
            for (int turn = 0; turn < turns; ++turn)
                blocks[stage][turn] = FI_RAGGED || stage * keys >= those.count() ? 0 : finder.block(key(those, stage, turn));
        find(finder, those, stages - 1);
#pragma unroll
        for (int stage = 0; stage < stages - 1; ++stage)
#pragma unroll
            for (int turn = 0; turn < turns; ++turn) {
                if (stage * keys >= those.count()) continue;
                first[stage][turn] = address(finder, key(those, stage, turn), blocks[stage][turn], turn);
#if __CUDA_ARCH__ >= 900
                if (prefetches) {
                    if (is_value(turn)) prefetch_to_cache<value_bytes>(pointer<const char>(first[stage][turn]));
                    else prefetch_to_cache<key_bytes>(pointer<const char>(first[stage][turn]));
                }
#endif
            }
    }
    /// Asks for this thread's row of a stage.
    FI_DEVICE void bring_row(uint32 key_stage, uint32 value_stage, uint64 from, Barrier full, int turn) {
        if (is_value(turn)) bring(value_stage + row(turn) * ValueRows::stride, pointer<const char>(from), value_bytes, full);
        else bring(key_stage + row(turn) * KeyRows::stride, pointer<const char>(from), key_bytes, full);
    }
    static constexpr int stage_bytes = keys * (key_bytes + value_bytes);
};

/// A block's stages: which have arrived.
struct ArrivedStages {
    /// [stages] of mbarrier.
    uint32 barriers;
    /// Of each stage a bit: the parity of its next arrival.
    uint32 parities = 0;

    __device__ __forceinline__ Barrier full(int stage) const { return {barriers + stage * 8}; }
    __device__ __forceinline__ void init() const {
        for (int stage = 0; stage < stages; ++stage) full(stage).init(1);
        publish_barriers();
    }
    __device__ __forceinline__ void wait(int stage) {
        full(stage).wait(parities >> stage & 1);
        parities ^= 1u << stage;
    }
};

/// Whether queries can be brought as rows as well, if they are aligned.
constexpr bool brings_queries = copies_rows && !has_narrow_keys && !has_narrow_queries && dim_qk % 16 == 0;

/// Zeros in the rows of queries that there are not: what is computed of them goes nowhere, but decides on when states are rescaled.
FI_DEVICE void clear_queries(uint32 queries, int row_count) {
    constexpr int chunks = padded_qk / 8;
    for (int id = row_count * chunks + threadIdx.x; id < rows * chunks; id += threads)
        store_shared(queries + QueryRows::offset(id / chunks, id % chunks), make_uint4(0, 0, 0, 0));
}
