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
#pragma unroll 1
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

/// Arrivals of the barrier that is number `at` of a block's. A thread makes each, so that they have one text: one thread's forty were a hundredth of what
/// the kernel takes to compile.
FI_DEVICE int arrivals_of(uint32 at) {
    uint32 end = 0;
    int arrivals = 0;
    // In the order in which they are declared.
    const auto next = [&](uint32 count, int of_each) {
        if (at >= end) arrivals = of_each;
        end += count;
    };
    // Who brings an item is a warp, each lane of which writes its part.
    next(item_slots, warp_size);
    next(query_parts * item_slots, queriers);
    next(item_slots, warps);
    next(1, 1);
    next(query_parts, warps / query_parts);
    next(stages, announcers);
    next(stages, warps * cluster);
    next(stages_of_values, announcers);
    next(stages_of_values, warps * cluster);
    next(cluster > 1 ? index_slots : 1, 1);
    next(raw_stages, 1);
    next(raw_stages, bringers / warp_size);
    return arrivals;
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
    if (threadIdx.x < sizeof(Barriers) / 8) {
        Barrier{shared_address(&barriers) + threadIdx.x * 8}.init(arrivals_of(threadIdx.x));
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
