// Attention of many query rows on Hopper: wgmma, the tensor memory accelerator, and warps with roles (FlashAttention-3, arXiv
// 2407.08608), over the plan's queue of work items.
//
// One warpgroup brings: a warp asks the copy engine for keys and values, the others take items from the queue and copy their queries,
// of the item at hand and then of the next; 8-bit elements they widen on their way, and rows of small pages they copy themselves. The other warpgroups compute, 64 rows each: the scores of a stage, and beside them the
// product of the weights of the stage before with its values. They take turns at the tensor cores, so that one's exponentials run
// beside another's products.
#define FI_HOPPER 1
#include "hopper/attention_gather.cuh"
#include "hopper/attention_output.cuh"
#include "hopper/attention_widen.cuh"
#include "hopper/wgmma.cuh"

static_assert(row_tiles == 1 && warps_n == 1, "a warp has 16 rows");

/// Registers of a thread that brings; those that compute get the rest of the processor's.
constexpr int bringer_registers = is_narrow || is_gathered ? 88 : 56;

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
#pragma unroll 2
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

/// scores = queries · keys of a stage, under way.
FI_DEVICE void start_scores(float (&s)[key_tiles][4], uint64 queries, uint64 keys_at) {
#pragma unroll
    for (int step = 0; step < padded_qk / 16; ++step) {
        const int tile = step / 4, within = step % 4 * 32;
        wgmma<half_type>(s, advance_operand(queries, tile * 64 * 128 + within), advance_operand(keys_at, tile * keys * 128 + within),
                         step > 0);
    }
    wgmma_commit();
}

/// output += weights · values of a stage, under way.
FI_DEVICE void start_values(float (&output)[value_tiles][4], const uint32 (&weights)[keys / 16][4], uint64 values_at) {
#pragma unroll
    for (int step = 0; step < keys / 16; ++step) wgmma<half_type>(output, weights[step], advance_operand(values_at, step * 16 * 128), true);
    wgmma_commit();
}

/// Rows' maxima as they now are, what the output is to be multiplied by for it, and whether it is 1 for all rows of the warp.
struct Rise {
    float factor[2];
    bool rises;
};

/// Scores become weights; the output follows later, when the product under way has ended.
FI_DEVICE Rise weigh_scores(State &state, float (&s)[1][key_tiles][4], float scale) {
    Rise rise{{1, 1}, false};
    if constexpr (!normalises) return rise;
    float maximum[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][0][2 * h], odd = s[0][0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[0][n][2 * h]), odd = fmaxf(odd, s[0][n][2 * h + 1]);
        maximum[h] = quad_max(fmaxf(even, odd));
        rise.rises |= (maximum[h] - state.maximum[0][h]) * scale > tolerated_rise;
    }
    rise.rises = __any_sync(0xffffffff, rise.rises);
    if (rise.rises) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float next = fmaxf(maximum[h], state.maximum[0][h]);
            rise.factor[h] = exp2_approximate(state.maximum[0][h] * scale - reference(next, scale));
            state.maximum[0][h] = next;
            state.sum[0][h] *= rise.factor[h];
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float offset = -reference(state.maximum[0][h], scale);
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n) {
            even += s[0][n][2 * h] = exp2_approximate(fmaf(s[0][n][2 * h], scale, offset));
            odd += s[0][n][2 * h + 1] = exp2_approximate(fmaf(s[0][n][2 * h + 1], scale, offset));
        }
        state.sum[0][h] += even + odd;
    }
    return rise;
}

FI_DEVICE void follow(State &state, const Rise &rise) {
    if (!rise.rises) return;
#pragma unroll
    for (int n = 0; n < value_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) state.output[0][n][i] *= rise.factor[i / 2];
}

FI_DEVICE void pack_all(uint32 (&weights)[keys / 16][4], const float (&s)[key_tiles][4]) {
#pragma unroll
    for (int step = 0; step < keys / 16; ++step) pack_weights(weights[step], s, step);
}

/// Zeros in the rows before `first` and from `end` on of a stage's values, which are not the item's: a weight of 0 does not stop
/// what is there if it is no number. For all groups, none of which may have the turn.
FI_DEVICE void clear_values(uint32 stage, int first, int end) {
    constexpr int chunks = Shared::value_columns * 8;
    int thread = threadIdx.x;
    // So that the addresses, rarely needed, are not computed for every item and kept.
    asm volatile("" : "+r"(thread));
    for (int id = thread; id < first * chunks; id += threads)
        store_shared(stage + (id % chunks / 8 * keys + id / chunks) * 128 + id % 8 * 16, make_uint4(0, 0, 0, 0));
    for (int id = end * chunks + thread; id < keys * chunks; id += threads)
        store_shared(stage + (id % chunks / 8 * keys + id / chunks) * 128 + id % 8 * 16, make_uint4(0, 0, 0, 0));
    fence_async_proxy();
    sync_block();
}

/// An item's part of a tile whose keys were cut, to the workspace.
FI_DEVICE void store_part(const fi_attention_params &p, const Item &item, const State &state, int warp_row, float scale) {
    const int lane = threadIdx.x % warp_size;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const RowEnd end = end_row(state.maximum[0][h] * scale, quad_sum(state.sum[0][h]));
        if (row >= item.row_count) continue;
        const int64 partial = item.partial_row + row;
        if (lane % 4 == 0 && blockIdx.y == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
        float *to = pointer<float>(p.partial_output) + partial * dim_vo + blockIdx.y * slice_vo + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < slice_vo / 8; ++n)
            *reinterpret_cast<float2 *>(to + n * 8) =
                make_float2(state.output[0][n][2 * h] * end.factor, state.output[0][n][2 * h + 1] * end.factor);
    }
}

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_items(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    Ring key_ring, value_ring;
    const auto free_stage = [&](const uint64 &empty) {
        __syncwarp();
        if (lane == 0) barrier(empty).arrive();
    };
    // The first group has the first turn.
    if (groups > 1 && group == groups - 1) arrive_threads(turn_barrier, 256);
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % 2;
        const Item &item = block.items[slot];
        barrier(barriers.item_full[slot]).wait(turn / 2);
        if (item.tile < 0) return;
        const uint32 own_queries = block.base + Shared::queries + slot % query_slots * Shared::query_bytes + group * (64 * Shared::key_columns * 128);
        const uint64 queries = operand(own_queries);
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, warp_row);
        const float2 scale = score_scales(p, item);
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        // Where there is room for one item's queries, the next's are brought beside the last product and the output.
        const auto free_queries = [&](bool is_last) {
            if (query_slots == 1 && is_last) free_stage(barriers.queries_empty);
        };
        const auto keys_at = [&] { return operand(block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes); };
        const auto values_stage = [&] { return block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes; };
        State state;
        state.clear();
        barrier(barriers.queries_full[slot]).wait(turn / 2);
        free_queries(tiles == 0);
        if (tiles > 0) {
            float s[1][key_tiles][4];
            uint32 weights[keys / 16][4];
            barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
            wgmma_fence();
            start_scores(s[0], queries, keys_at());
            wgmma_wait<0>();
            free_stage(barriers.keys_empty[key_ring.stage]);
            free_queries(tiles == 1);
            key_ring.next();
            finish_scores(s, p, item, finder, common, warp_row, span.key(0), scale.y);
            weigh_scores(state, s, scale.x);
            pack_all(weights, s[0]);
            // One loop for all stages would be a quarter less to compile, but the products would then wait for each other.
#pragma unroll 1
            for (int tile = 1; tile < tiles; ++tile) {
                if (tile == 1 && span.lead > 0) {
                    barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                    clear_values(values_stage(), span.lead, keys);
                }
                barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
                if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
                wgmma_fence();
                start_scores(s[0], queries, keys_at());
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                start_values(state.output[0], weights, operand(values_stage(), keys * 128));
                if constexpr (groups > 1) arrive_threads(turn_barrier + (group + 1) % groups, 256);
                wgmma_wait<1>();
                free_stage(barriers.keys_empty[key_ring.stage]);
                free_queries(tile == tiles - 1);
                key_ring.next();
                finish_scores(s, p, item, finder, common, warp_row, span.key(tile * keys), scale.y);
                const Rise rise = weigh_scores(state, s, scale.x);
                wgmma_wait<0>();
                free_stage(barriers.values_empty[value_ring.stage]);
                value_ring.next();
                follow(state, rise);
                pack_all(weights, s[0]);
            }
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            const int first = tiles == 1 ? span.lead : 0, end = span.count - (tiles - 1) * keys;
            if (first > 0 || end < keys) clear_values(values_stage(), first, end);
            wgmma_fence();
            start_values(state.output[0], weights, operand(values_stage(), keys * 128));
            wgmma_wait<0>();
            free_stage(barriers.values_empty[value_ring.stage]);
            value_ring.next();
        }
        if (item.partial_row < 0) {
            if constexpr (leaves_from_registers) {
                finish_from_registers(p, item, state, warp_row, scale.x);
            } else {
                // Outputs leave through the group's queries, which all its warps have read.
                sync_threads(group_barrier + group, 128);
                finish_alone(p, item, state, own_queries + warp % 4 * 16 * QueryRows::stride, warp_row, scale.x);
            }
        } else {
            store_part(p, item, state, warp_row, scale.x);
            merge_if_last(p, item, shared);
        }
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[slot]).arrive();
    }
}

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

extern "C" __global__ void __launch_bounds__(all_threads, 1) fi_hopper_attention(const __grid_constant__ AlignedParams maps) {
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
        grow_registers<groups == 2 ? (504 - bringer_registers) / 2 / 8 * 8 : 152>();
        compute_items(block, shared);
    }
}
