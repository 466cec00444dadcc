// Attention of many query rows on Hopper: wgmma, the tensor memory accelerator, and warps with roles (FlashAttention-3, arXiv
// 2407.08608), over the plan's queue of work items.
//
// One warpgroup brings: a warp asks the copy engine for keys and values, the others take items from the queue and copy their queries,
// of the item at hand and then of the next; 8-bit elements they widen on their way. Rows of small pages are copied by three warps, and the
// queries by one. The other warpgroups compute, 64 rows each, and take turns at the tensor cores. Where tiles have
// 64 rows, one computes, and two blocks share
// a processor. Where the plan has lists of few rows too, a fourth warpgroup may run them beside the others.
#define FI_HOPPER 1
#include "hopper/attention_gather.cuh"
#include "hopper/attention_held.cuh"
#ifdef FI_MIXED
#include "hopper/attention_lists.cuh"
#include "hopper/attention_mixed.cuh"
#endif
#include "hopper/attention_queries.cuh"
#include "hopper/attention_turns.cuh"
#include "hopper/attention_widen.cuh"
#include "primitives/launch.cuh"

static_assert(row_tiles == 1 && warps_n == 1, "a warp has 16 rows");

/// Registers of a thread that brings; those that compute get the rest of the processor's.
constexpr int bringer_registers = is_mixed || is_threefold ? 32 : is_narrow ? 88 : gathers_rows ? 56 : holds_queries && padded_qk > 64 ? 40 : 56;
/// Those of a thread that runs lists, and of one that computes: 192 beside lists, with 8 fewer products wait for each other; 160 of three groups'.
constexpr int list_registers = 96;
constexpr int computer_registers = is_mixed      ? (512 - bringer_registers - list_registers) / 2 / 8 * 8
                                   : is_threefold ? (512 - bringer_registers) / 3
                                   : groups == 2 ? (504 - bringer_registers) / 2 / 8 * 8
                                                 : 256 - bringer_registers;
/// Threads that copy queries.
constexpr int queriers = gathers_rows ? warp_size : bringers;
/// Who says that keys and values have come: the copy engine's warp, or all who widen or copy.
constexpr int announcers = is_narrow ? bringers : gathers_rows ? gatherers : 1;

/// The warps that take items, copy queries, and widen 8-bit keys and values.
FI_DEVICE void bring_queries(const Block &block, int thread) {
    const fi_attention_params &p = block.p;
    Widener widener{block, thread};
    // Those that widen go on with that at once, and one warp alone has no time.
    const auto await = [](const uint64 &word, uint32 phase) {
        if constexpr (is_narrow || gathers_rows) barrier(word).wait(phase);
        else barrier(word).wait_asleep(phase);
    };
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % item_slots;
        if (thread < warp_size) fetch_item(block, turn);
        const Item &item = block.items[slot];
        await(block.barriers.item_full[slot], turn / item_slots);
        if (item.tile < 0) return;
        const uint32 to = block.base + Shared::queries + slot % query_slots * Shared::query_bytes;
        if constexpr (query_parts > 1) {
            prefetch_queries<queriers>(p, item, thread);
#pragma unroll
            for (int part = 0; part < query_parts; ++part) {
                barrier(block.barriers.queries_empty[part]).wait(turn + 1);
                copy_rows_of_group<queriers>(p, item, thread, part, to);
                barrier(block.barriers.queries_full[part][slot]).arrive();
            }
        } else {
            if constexpr (query_slots == 1) await(block.barriers.queries_empty[0], turn + 1);
            copy_queries<2, queriers>(p, item, thread, [&](uint32 row, uint32 chunk) {
                const uint32 group = rows > 64 ? row / 64 * (64 * Shared::key_columns * 128) : 0, own = rows > 64 ? row % 64 : row;
                return to + group + chunk / 8 * (64 * 128) + own * 128 + ((chunk ^ row) % 8 << 4);
            });
            barrier(block.barriers.queries_full[0][slot]).arrive();
        }
        if constexpr (is_narrow) widener.widen_item(Span(item, block.maps.box_rows).tiles());
    }
}

#if FI_CLUSTER > 1
#define FI_ATTENTION_CLUSTER __attribute__((cluster_dims(FI_CLUSTER, 1, 1)))
#else
#define FI_ATTENTION_CLUSTER
#endif

extern "C" __global__ void FI_ATTENTION_CLUSTER __launch_bounds__(all_threads, FI_MIN_BLOCKS) fi_hopper_attention(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[item_slots];
    __shared__ Barriers barriers;
    __shared__ ClusterState state;
    const Block block{maps, maps.attention, shared_address(shared), barriers, items, state};
    if (threadIdx.x == 0) {
        barrier(barriers.claim).init(1);
        for (int part = 0; part < query_parts; ++part) barrier(barriers.queries_empty[part]).init(warps / query_parts);
        for (int slot = 0; slot < item_slots; ++slot) {
            // A warp's, each lane of which writes its part.
            barrier(barriers.item_full[slot]).init(warp_size);
            for (int part = 0; part < query_parts; ++part) barrier(barriers.queries_full[part][slot]).init(queriers);
            barrier(barriers.item_empty[slot]).init(warps);
        }
        for (int stage = 0; stage < stages; ++stage) {
            barrier(barriers.keys_full[stage]).init(announcers);
            barrier(barriers.keys_empty[stage]).init(warps * cluster);
        }
        for (int stage = 0; stage < stages_of_values; ++stage) {
            barrier(barriers.values_full[stage]).init(announcers);
            barrier(barriers.values_empty[stage]).init(warps * cluster);
        }
        if constexpr (cluster > 1)
            for (int slot = 0; slot < index_slots; ++slot) barrier(barriers.index_full[slot]).init(1);
        for (int stage = 0; stage < raw_stages; ++stage) {
            barrier(barriers.raw_full[stage]).init(1);
            barrier(barriers.raw_empty[stage]).init(bringers / warp_size);
        }
        publish_barriers();
    }
    fi_follow_predecessors(block.p.place);
    if constexpr (cluster > 1) sync_cluster();
    else __syncthreads();
#ifdef FI_MIXED
    if (threadIdx.x >= threads + 128) {
        shrink_registers<list_registers>();
        run_lists(block, shared, threadIdx.x - threads - 128);
    } else
#endif
    if (threadIdx.x >= threads) {
        shrink_registers<bringer_registers>();
        const int thread = threadIdx.x - threads;
        if constexpr (gathers_rows) {
            if (thread < queriers) bring_queries(block, thread);
            else Gatherer(block, thread - queriers).gather();
        } else {
            if (thread < warp_size) bring_keys(block);
            else bring_queries(block, thread - warp_size);
        }
    } else {
        grow_registers<computer_registers>();
#ifdef FI_MIXED
        compute_beside_lists(block, shared);
#else
        if constexpr (goes_by_sums) compute_by_sums(block, shared);
        else compute_by_turns(block, shared);
#endif
    }
    if constexpr (cluster > 1) {
        // The other block may still write here, or arrive at barriers.
        __syncwarp();
        sync_cluster();
    }
    fi_end(block.p.place);
}
