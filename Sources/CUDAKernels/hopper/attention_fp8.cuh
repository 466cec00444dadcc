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

/// Registers of a thread that computes.
constexpr int computer_registers = is_threefold ? (512 - bringer_registers) / 3 : (504 - bringer_registers) / 2 / 8 * 8;

/// Whether a stage's softmax runs beside the product of the stage before: where registers hold its weights too. With wide heads the
/// other group's products are as long as a softmax, and hide it alone.
constexpr bool overlaps = padded_vo <= 128 && !is_threefold;

/// A place in a ring of stages, as one number: of a thread that computes outputs of 256 elements, registers are few.
template <int count> struct Place {
    int at = 0;
    __device__ __forceinline__ int stage() const { return at >= count ? at - count : at; }
    __device__ __forceinline__ uint32 phase() const { return at >= count; }
    __device__ __forceinline__ void next() { at = at == 2 * count - 1 ? 0 : at + 1; }
};

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

/// output = weights · values of a stage, added to what is there if `adds`, under way.
FI_DEVICE void start_values(float (&output)[value_tiles][4], const Weights &weights, uint32 values_at, bool adds) {
    const uint64 b = TurnedColumn::operand(values_at);
#pragma unroll
    for (int step = 0; step < keys / 32; ++step) {
        const int column = step * 32 / Shared::turned_width, within = step * 32 % Shared::turned_width;
        wgmma_e4m3(output, weights[step], advance_operand(b, column * padded_vo * Shared::turned_width + within),
                   step > 0 || adds);
    }
    wgmma_commit();
}

/// A warp's scores once more, by the products of one warp: rarely needed, and without the other warps of its group.
FI_DEVICE void compute_scores_again(float (&s)[key_tiles][4], uint32 queries, uint32 keys_at) {
    // Else the compiler computes these addresses for every stage, in registers that all others need.
    const int thread = anew(threadIdx.x), lane = thread % warp_size, row = thread / warp_size % 4 * 16 + lane % 16;
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll 1
    for (int step = 0; step < padded_qk / 32; ++step) {
        const int column = step * 32 / Shared::key_width, chunk = step * 32 % Shared::key_width / 16;
        uint32 a[4], b[4];
        load_matrices(a, queries + column * 64 * Shared::key_width + KeyColumn::offset(row, chunk + lane / 16));
#pragma unroll
        for (int pair = 0; pair < key_tiles / 2; ++pair) {
            load_matrices(b, keys_at + column * keys * Shared::key_width
                                 + KeyColumn::offset(pair * 16 + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
            mma_e4m3(s[2 * pair], a, b[0], b[1]);
            mma_e4m3(s[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_items(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    // By a shuffle the assembler knows that it is the same for all lanes, and keeps in uniform registers what follows from it.
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / warp_size, 0), lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    __align__(16) Kept::Room room;
    Place<stages> key_ring;
    Place<stages_of_values> value_ring;
    const auto free_stage = [&](const uint64 &empty) {
        __syncwarp();
        barrier(empty).arrive_once();
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
        const int own_tiles = tiles_of_group(span, p, item, group);
        const auto keys_at = [&] { return block.base + Shared::key_stages + key_ring.stage() * Shared::key_bytes; };
        const auto values_at = [&] { return block.base + Shared::value_stages + value_ring.stage() * Shared::value_bytes; };
        State state;
        // Outputs start with the first product.
#pragma unroll
        for (int h = 0; h < 2; ++h) state.maximum[0][h] = normalises ? negative_infinity() : 0, state.sum[0][h] = 0;
        Kept kept{room, block.base + Shared::kept + threadIdx.x * 16, {0, 0}};
        barrier(barriers.queries_full[0][slot]).wait(turn / 2);
        float s[1][key_tiles][4];
        Weights weights;
        Pair factor;
        const Pair scale = {scales.late(0), scales.late(1)};
        const auto free_keys = [&] {
            free_stage(barriers.keys_empty[key_ring.stage()]);
            key_ring.next();
        };
        const auto free_values = [&] {
            free_stage(barriers.values_empty[value_ring.stage()]);
            value_ring.next();
        };
        // What most stages need nothing of, and those that do one branch for: maxima while some row has seen no key or weights left float32's
        // range, and scales that come before the mask. The same for all lanes.
        constexpr uint32 by_maximum = 1, by_early_scale = 2;
        uint32 special = by_maximum | (__all_sync(0xffffffff, scales.are_late()) ? 0 : by_early_scale);
        const auto settle = [&] { special = special & ~by_maximum | (is_settled(state) ? 0 : by_maximum); };
        const auto finish_stage = [&](int tile) {
            const int key = span.key(tile * keys);
            if (logits != Logits::plain || special != 0 || common.hides(item, finder, key)) {
                scales.apply(s[0]);
                finish_scores(s, p, item, finder, common, warp_row, key, score_scale);
                if (special & by_maximum) raise_to_maximum(state, s[0], scale, factor);
            }
            relate(state, s[0], scale);
        };
        barrier(barriers.keys_full[key_ring.stage()]).wait(key_ring.phase());
        wgmma_fence();
        start_scores(s[0], queries, keys_at());
        wgmma_wait<0>();
        free_keys();
        finish_stage(0);
        exponentiate<0, key_tiles>(s[0], state.sum[0]);
        pack_all(weights, s[0]);
        settle();
#pragma unroll 1
        for (int tile = 1; tile < own_tiles; ++tile) {
            barrier(barriers.keys_full[key_ring.stage()]).wait(key_ring.phase());
            if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
            wgmma_fence();
            start_scores(s[0], queries, keys_at());
            barrier(barriers.values_full[value_ring.stage()]).wait(value_ring.phase());
            start_values(state.output[0], weights, values_at(), Kept::adds(tile - 1));
            if constexpr (groups > 1) arrive_threads(turn_barrier + (group + 1) % groups, 256);
            wgmma_wait<overlaps ? 1 : 0>();
            if constexpr (!overlaps) free_values();
            // Once, but where weights left float32's range.
#pragma unroll 1
            while (true) {
                Pair sums = {0, 0};
                finish_stage(tile);
                exponentiate<0, key_tiles / 2>(s[0], sums);
                // Where a product is under way, this branch also keeps the compiler from waiting for it before the exponentials.
                if (!overlaps || !any_reaches(sums, unsafe_sum) || special & by_maximum) {
                    // That product reads the weights of the stage before, and must end before these take their place.
                    wgmma_wait<0>();
                    exponentiate<key_tiles / 2, key_tiles>(s[0], sums);
                    pack_all(weights, s[0]);
                    bool is_done = true;
                    if (special & by_maximum) {
                        multiply_output(state, factor);
                        settle();
                    } else if (any_reaches(sums, largest_sum)) {
                        is_done = raise_to_sums(state, s[0], weights, sums);
                    }
                    if (is_done) {
                        state.sum[0][0] += sums[0], state.sum[0][1] += sums[1];
                        break;
                    }
                }
                wgmma_wait<0>();
                compute_scores_again(s[0], queries, keys_at());
                special |= by_maximum;
            }
            if constexpr (overlaps) free_values();
            free_keys();
            if (tile % Kept::stages == 0) kept.take(state);
        }
        barrier(barriers.values_full[value_ring.stage()]).wait(value_ring.phase());
        wgmma_fence();
        start_values(state.output[0], weights, values_at(), Kept::adds(own_tiles - 1));
        wgmma_wait<0>();
        free_values();
        if constexpr (is_threefold) {
#pragma unroll 1
            for (int tile = own_tiles; tile < tiles; ++tile) {
                sync_threads(turn_barrier + group, 256);
                arrive_threads(turn_barrier + (group + 1) % groups, 256);
                barrier(barriers.keys_full[key_ring.stage()]).wait(key_ring.phase());
                free_keys();
                barrier(barriers.values_full[value_ring.stage()]).wait(value_ring.phase());
                free_values();
            }
        }
        kept.add_to(state);
        end_in_registers(p, item, state, warp_row, 1);
        if (item.partial_row >= 0) merge_if_last(p, item, shared);
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[slot]).arrive();
    }
}

extern "C" __global__ void __launch_bounds__(all_threads, 1) fi_hopper_attention_fp8(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[2];
    __shared__ Barriers barriers;
    __shared__ ClusterState state;
    const Block block{maps, maps.attention, shared_address(shared), barriers, items, state};
    if (threadIdx.x == 0) {
        barrier(barriers.claim).init(1);
        for (int slot = 0; slot < 2; ++slot) {
            // A warp's, each lane of which writes its part.
            barrier(barriers.item_full[slot]).init(warp_size);
            barrier(barriers.queries_full[0][slot]).init(bringers);
            barrier(barriers.item_empty[slot]).init(warps);
        }
        for (int stage = 0; stage < stages; ++stage) {
            barrier(barriers.keys_full[stage]).init(1);
            barrier(barriers.keys_empty[stage]).init(warps);
        }
        for (int stage = 0; stage < stages_of_values; ++stage) {
            barrier(barriers.values_full[stage]).init(bringers);
            barrier(barriers.values_empty[stage]).init(warps);
        }
        for (int stage = 0; stage < raw_stages; ++stage) {
            barrier(barriers.raw_full[stage]).init(1);
            barrier(barriers.raw_empty[stage]).init(bringers / warp_size);
        }
        publish_barriers();
    }
    fi_follow_predecessors(block.p.place);
    __syncthreads();
    if (threadIdx.x >= threads) {
        shrink_registers<bringer_registers>();
        const int thread = threadIdx.x - threads;
        if (thread < warp_size) bring_stages(block);
        else bring_queries(block, thread - warp_size);
    } else {
        grow_registers<computer_registers>();
        compute_items(block, shared);
    }
    fi_end(block.p.place);
}
