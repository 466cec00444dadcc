// Attention of e4m3 queries, keys and values on Hopper: the roles and the queue of hopper/attention.cuh with products of 8 bits, as
// FlashAttention-3 has them (arXiv 2407.08608, section 3.3), and sums in two levels.
//
// One warpgroup brings: a warp asks the copy engine for keys and values, the others copy queries and transpose the values. The other
// warpgroups compute, 64 rows each, and take turns at the tensor cores.
#define FI_HOPPER 1
#define FI_HOPPER_FLOAT8 1
#include "hopper/attention_fp8_bring.cuh"
#include "hopper/attention_fp8_softmax.cuh"
#include "primitives/launch.cuh"

static_assert(row_tiles == 1 && warps_n == 1, "a warp has 16 rows");

/// Whether a stage's softmax runs beside the product of the stage before: where registers hold its weights too. With wide heads the
/// other group's products are as long as a softmax, and hide it alone.
constexpr bool overlaps = padded_vo <= 128;

/// scores = queries · keys of a stage, under way.
FI_DEVICE void start_scores(float (&s)[key_tiles][4], uint32 queries, uint32 keys_at) {
    const uint64 a = KeyColumn::operand(queries), b = KeyColumn::operand(keys_at);
#pragma unroll
    for (int step = 0; step < padded_qk / 32; ++step) {
        const int column = step * 32 / Shared::key_width, within = step * 32 % Shared::key_width;
        wgmma_e4m3(s, advance_operand(a, column * 64 * Shared::key_width + within),
                   advance_operand(b, column * keys * Shared::key_width + within), step > 0);
    }
    wgmma_commit();
}

/// output += weights · values of a stage, under way.
FI_DEVICE void start_values(float (&output)[value_tiles][4], const uint32 (&weights)[keys / 32][4], uint32 values_at) {
    const uint64 b = TurnedColumn::operand(values_at);
#pragma unroll
    for (int step = 0; step < keys / 32; ++step) {
        const int column = step * 32 / Shared::turned_width, within = step * 32 % Shared::turned_width;
        wgmma_e4m3(output, weights[step], advance_operand(b, column * padded_vo * Shared::turned_width + within), true);
    }
    wgmma_commit();
}

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_items(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    __align__(16) float room[Kept::is_local ? value_tiles * 4 : 4];
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
        const uint32 queries = block.base + Shared::queries + slot * Shared::query_bytes + group * (64 * padded_qk);
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, warp_row);
        const RowScales scales(p, item, warp_row);
        const float score_scale = score_scales(p, item).y;
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        const auto keys_at = [&] { return block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes; };
        const auto values_at = [&] { return block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes; };
        State state;
        state.clear();
        Kept kept{Kept::is_local ? reinterpret_cast<uint64>(room) : block.base + Shared::kept + threadIdx.x * 16, {0, 0}, false};
        barrier(barriers.queries_full[slot]).wait(turn / 2);
        if (tiles > 0) {
            float s[1][key_tiles][4];
            uint32 weights[keys / 32][4];
            const auto free_keys = [&] {
                free_stage(barriers.keys_empty[key_ring.stage]);
                key_ring.next();
            };
            const auto free_values = [&] {
                free_stage(barriers.values_empty[value_ring.stage]);
                value_ring.next();
            };
            const auto finish_stage = [&](int tile) {
                scales.apply(s[0]);
                finish_scores(s, p, item, finder, common, warp_row, span.key(tile * keys), score_scale);
                return weigh_scores(state, s, scales);
            };
            barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
            wgmma_fence();
            start_scores(s[0], queries, keys_at());
            wgmma_wait<0>();
            free_keys();
            finish_stage(0);
            pack_all(weights, s[0]);
#pragma unroll 1
            for (int tile = 1; tile < tiles; ++tile) {
                barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
                if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
                wgmma_fence();
                start_scores(s[0], queries, keys_at());
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                start_values(state.output[0], weights, values_at());
                if constexpr (groups > 1) arrive_threads(turn_barrier + (group + 1) % groups, 256);
                wgmma_wait<overlaps ? 1 : 0>();
                free_keys();
                if constexpr (!overlaps) free_values();
                const Rise rise = finish_stage(tile);
                if constexpr (overlaps) {
                    wgmma_wait<0>();
                    free_values();
                }
                follow(state, rise);
                if (tile % Kept::stages == 0) kept.take(state, scales);
                pack_all(weights, s[0]);
            }
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            wgmma_fence();
            start_values(state.output[0], weights, values_at());
            wgmma_wait<0>();
            free_values();
            kept.add_to(state, scales);
        }
        // Scaled, and relative to what the weights are.
#pragma unroll
        for (int h = 0; h < 2; ++h) state.maximum[0][h] = state.maximum[0][h] * scales.late(h) - lift;
        if (item.partial_row < 0) {
            finish_from_registers(p, item, state, warp_row, 1);
        } else {
            store_part(p, item, state, warp_row, 1);
            merge_if_last(p, item, shared);
        }
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[slot]).arrive();
    }
}

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

extern "C" __global__ void __launch_bounds__(all_threads, 1) fi_hopper_attention_fp8(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[2];
    __shared__ Barriers barriers;
    const Block block{maps, maps.attention, shared_address(shared), barriers, items};
    if (threadIdx.x == 0) {
        barrier(barriers.claim).init(1);
        for (int slot = 0; slot < 2; ++slot) {
            // A warp's, each lane of which writes its part.
            barrier(barriers.item_full[slot]).init(warp_size);
            barrier(barriers.queries_full[slot]).init(bringers);
            barrier(barriers.item_empty[slot]).init(warps);
        }
        for (int stage = 0; stage < stages; ++stage) {
            barrier(barriers.keys_full[stage]).init(1);
            barrier(barriers.values_full[stage]).init(bringers);
            barrier(barriers.keys_empty[stage]).init(warps);
            barrier(barriers.values_empty[stage]).init(warps);
        }
        for (int stage = 0; stage < raw_stages; ++stage) {
            barrier(barriers.raw_full[stage]).init(1);
            barrier(barriers.raw_empty[stage]).init(bringers / warp_size);
        }
        publish_barriers();
    }
    fi_follow_predecessors();
    __syncthreads();
    if (threadIdx.x >= threads) {
        shrink_registers<bringer_registers>();
        const int thread = threadIdx.x - threads;
        if (thread < warp_size) bring_stages(block);
        else bring_queries(block, thread - warp_size);
    } else {
        grow_registers<(504 - bringer_registers) / 2 / 8 * 8>();
        compute_items(block, shared);
    }
}
