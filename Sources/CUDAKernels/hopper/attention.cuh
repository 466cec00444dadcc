// Attention of many query rows on Hopper: wgmma, the tensor memory accelerator, and warps with roles (FlashAttention-3, arXiv
// 2407.08608), over the plan's queue of work items.
//
// One warpgroup brings: a warp asks the copy engine for keys and values, the others take items from the queue and copy their queries,
// of the item at hand and then of the next; 8-bit elements they widen on their way, and rows of small pages they copy themselves. The
// other warpgroups compute, 64 rows each, and take turns at the tensor cores. Where tiles have 64 rows, one computes, and two blocks share
// a processor.
#define FI_HOPPER 1
#include "hopper/attention_gather.cuh"
#include "hopper/attention_held.cuh"
#include "hopper/attention_turns.cuh"
#include "hopper/attention_widen.cuh"

static_assert(row_tiles == 1 && warps_n == 1, "a warp has 16 rows");

/// Registers of a thread that brings; those that compute get the rest of the processor's.
constexpr int bringer_registers = is_narrow || is_gathered ? 88 : holds_queries && padded_qk > 64 ? 40 : 56;

/// Takes items from the queue, one thread.
struct Claims : ItemQueue {
    __device__ __forceinline__ Claims(const fi_attention_params &p) : ItemQueue(p) {}

    /// Puts item number `turn` of this block where it belongs; of tile -1 where there is no more.
    __device__ __forceinline__ void fetch(const Block &block, uint32 turn) const {
        const int slot = turn % 2;
        uint32 index = blockIdx.x;
        if (turn > 0) {
            barrier(block.barriers.claim).wait(turn - 1);
            index = claim();
        }
        uint4 words[sizeof(fi_attention_item) / 16];
        if (index < count) {
            const auto *from = reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(block.p.items) + start + index);
#pragma unroll
            for (int i = 0; i < sizeof(fi_attention_item) / 16; ++i) words[i] = from[i];
        }
        barrier(block.barriers.item_empty[slot]).wait(turn / 2 + 1);
        Item &item = block.items[slot];
        if (index < count) {
#pragma unroll
            for (int i = 0; i < sizeof(fi_attention_item) / 16; ++i) reinterpret_cast<uint4 *>(&item)[i] = words[i];
        } else {
            item.tile = -1;
            end();
        }
        barrier(block.barriers.item_full[slot]).arrive();
    }
};

/// The warps that take items, copy queries, and widen 8-bit keys and values.
FI_DEVICE void bring_queries(const Block &block, int thread) {
    constexpr int chunks = padded_qk / 8;
    const fi_attention_params &p = block.p;
    const Claims claims(p);
    Widener widener{block, thread};
    Gatherer gatherer{block, thread};
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % 2;
        if (thread == 0) claims.fetch(block, turn);
        // The rest of its warp sleeps meanwhile, and does not wait by asking.
        __syncwarp();
        const Item &item = block.items[slot];
        barrier(block.barriers.item_full[slot]).wait(turn / 2);
        if (item.tile < 0) return;
        const uint32 to = block.base + Shared::queries + slot % query_slots * Shared::query_bytes;
        if constexpr (query_slots == 1) barrier(block.barriers.queries_empty).wait(turn + 1);
#pragma unroll(holds_queries ? 1 : 2)
        for (int id = thread; id < rows * chunks; id += bringers) {
            const int row = id / chunks, chunk = id % chunks;
            const bool is_there = row < item.row_count && chunk * 8 < dim_qk;
            const uint16 *from = query_row(p, item, is_there ? row : 0) + (is_there ? chunk * 8 : 0);
            const uint32 place = row / 64 * (64 * Shared::key_columns * 128) + chunk / 8 * (64 * 128) + row % 64 * 128;
            copy_async<16>(to + place + ((chunk % 8 ^ row % 8) << 4), from, is_there);
        }
        copy_commit();
        copy_wait<0>();
        fence_async_proxy();
        barrier(block.barriers.queries_full[slot]).arrive();
        if constexpr (is_narrow) widener.widen_item(Span(item, block.maps.box_rows).tiles());
        if constexpr (is_gathered) {
            gatherer.gather_item(item);
            if (thread == 0) barrier(block.barriers.claim).arrive();
        }
    }
}

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

extern "C" __global__ void __launch_bounds__(all_threads, FI_MIN_BLOCKS) fi_hopper_attention(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[2];
    __shared__ Barriers barriers;
    const Block block{maps, maps.attention, shared_address(shared), barriers, items};
    if (threadIdx.x == 0) {
        barrier(barriers.claim).init(1);
        barrier(barriers.queries_empty).init(warps);
        for (int slot = 0; slot < 2; ++slot) {
            barrier(barriers.item_full[slot]).init(1);
            barrier(barriers.queries_full[slot]).init(bringers);
            barrier(barriers.item_empty[slot]).init(warps);
        }
        for (int stage = 0; stage < stages; ++stage) {
            // The copy engine's warp, or all who widen or copy.
            barrier(barriers.keys_full[stage]).init(is_narrow || is_gathered ? bringers : 1);
            barrier(barriers.values_full[stage]).init(is_narrow || is_gathered ? bringers : 1);
            barrier(barriers.keys_empty[stage]).init(warps);
            barrier(barriers.values_empty[stage]).init(warps);
        }
        for (int stage = 0; stage < raw_stages; ++stage) {
            barrier(barriers.raw_full[stage]).init(1);
            barrier(barriers.raw_empty[stage]).init(bringers / warp_size);
        }
        publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x >= threads) {
        shrink_registers<bringer_registers>();
        const int thread = threadIdx.x - threads;
        if (thread < warp_size) {
            if constexpr (!is_gathered) bring_keys(block);
        } else {
            bring_queries(block, thread - warp_size);
        }
    } else {
        grow_registers<groups == 2 ? (504 - bringer_registers) / 2 / 8 * 8 : 256 - bringer_registers>();
        if constexpr (holds_queries) compute_with_held_queries(block, shared);
        else compute_by_turns(block, shared);
    }
}
