// Two warpgroups that hold their queries in registers and compute by turns: the scores of a stage, and beside them the product of the
// weights of the stage before with its values (FlashAttention-3's ping-pong), with weights by sums.
//
// Queries in registers leave memory for three stages, and their place to the next item's, whose first scores are under way while this
// one ends.
#pragma once
#include "hopper/attention_products.cuh"
#include "hopper/attention_weigh.cuh"

/// A warp's scores once more, by the products of one warp: rarely needed, and without the other warps of its group. A loop of one step, which
/// chooses its queries, as steps that are written out are a seventh of what the whole kernel takes to compile.
FI_DEVICE void compute_scores_again(float (&s)[key_tiles][4], const uint32 (&queries)[held_steps][4], uint32 stage) {
    // Else the compiler computes these addresses for every stage, in registers that all others need.
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    const uint32 row = stage + lane / 16 * KeyTiles::next_eight + lane % 8 * 128;
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll 1
    for (int step = 0; step < held_steps; ++step) {
        const uint32 column = row + step / 4 * KeyTiles::next_column + ((step % 4 * 2 + lane / 8 % 2 ^ lane % 8) << 4);
        uint32 a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a[i] = queries[0][i];
#pragma unroll
            for (int other = 1; other < held_steps; ++other) a[i] = step == other ? queries[other][i] : a[i];
        }
#pragma unroll
        for (int pair = 0; pair < key_tiles / 2; ++pair) {
            uint32 b[4];
            load_matrices(b, column + pair * 2 * KeyTiles::next_eight);
            mma<half_type>(s[2 * pair], a, b[0], b[1]);
            mma<half_type>(s[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_with_held_queries(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    Ring key_ring;
    ValueRing value_ring;
    float s[1][key_tiles][4];
    uint32 held[held_steps][4];
    const auto free_stage = [&](const uint64 &empty) {
        __syncwarp();
        if (lane == 0) barrier(empty).arrive();
    };
    const auto keys_stage = [&] { return block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes; };
    const auto values_stage = [&] { return block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes; };
    const auto start_stage = [&] {
        wgmma_fence();
        start_scores(s[0], held, key_operand(keys_stage()));
    };
    // Whether there is item number `turn`; if so, its queries are held, and its first scores can start.
    const auto await_item = [&](uint32 turn) {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        if (block.items[turn % item_slots].tile < 0) return false;
        barrier(barriers.queries_full[turn % item_slots]).wait(turn / item_slots);
        const uint32 row = block.base + Shared::queries + group * (64 * Shared::key_columns * 128) + (warp % 4 * 16 + lane % 16) * 128;
#pragma unroll
        for (int step = 0; step < held_steps; ++step)
            load_matrices(held[step], row + step / 4 * (64 * 128) + ((step % 4 * 2 + lane / 16 ^ lane % 8) << 4));
        free_stage(barriers.queries_empty);
        barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
        return true;
    };
    // The first group has the first turn.
    if (groups > 1 && group == groups - 1) arrive_threads(turn_barrier, 256);
    if (!await_item(0)) return;
    start_stage();
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.items[turn % item_slots];
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, warp_row);
        const float2 scales = score_scales(p, item);
        const Pair scale = {scales.x, scales.x};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        const auto free_keys = [&] {
            block.give_back(barriers.keys_empty[key_ring.stage]);
            key_ring.next();
        };
        State state;
        // Outputs start with the first product.
#pragma unroll
        for (int h = 0; h < 2; ++h) state.maximum[0][h] = normalises ? negative_infinity() : 0, state.sum[0][h] = 0;
        Weights weights;
        Pair factor;
        wgmma_wait<0>();
        finish_scores(s, p, item, finder, common, warp_row, span.key(0), scales.y);
        free_keys();
        raise_to_maximum(state, s[0], scale, factor);
        relate(state, s[0], scale);
        const ValueFactors<key_tiles> first_factors(ValueKeys{p, item, finder, span.key(0)}, 0);
        exponentiate<0, key_tiles>(s[0], state.sum[0]);
        first_factors.multiply(s, 0);
        pack_all(weights, s[0]);
        bool by_sums = is_settled(state);
        // One loop for all stages would be a quarter less to compile, but the products would then wait for each other.
#pragma unroll 1
        for (int tile = 1; tile < tiles; ++tile) {
            if (tile == 1 && span.lead > 0) {
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                clear_values(values_stage(), span.lead, keys);
            }
            barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
            if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
            start_stage();
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            start_values(state.output[0], weights, value_operand(values_stage()), tile > 1);
            if constexpr (groups > 1) arrive_threads(turn_barrier + (group + 1) % groups, 256);
            wgmma_wait<1>();
            // Once, but where weights left float32's range.
#pragma unroll 1
            while (true) {
                const bool by_maximum = !by_sums;
                Pair sums = {0, 0};
                finish_scores(s, p, item, finder, common, warp_row, span.key(tile * keys), scales.y);
                if (by_maximum) raise_to_maximum(state, s[0], scale, factor);
                relate(state, s[0], scale);
                const ValueFactors<key_tiles> factors(ValueKeys{p, item, finder, span.key(tile * keys)}, 0);
                exponentiate<0, key_tiles / 2>(s[0], sums);
                // This branch also keeps the compiler from waiting for the product under way before the exponentials.
                if (!any_reaches(sums, unsafe_sum) || by_maximum) {
                    // That product reads the weights of the stage before, and must end before these take their place.
                    wgmma_wait<0>();
                    if (by_maximum) {
                        multiply_output(state, factor);
                        by_sums = is_settled(state);
                    }
                    exponentiate<key_tiles / 2, key_tiles>(s[0], sums);
                    factors.multiply(s, 0);
                    pack_all(weights, s[0]);
                    if (by_maximum || !any_reaches(sums, largest_sum) || raise_to_sums(state, s[0], weights, sums)) {
                        state.sum[0][0] += sums[0], state.sum[0][1] += sums[1];
                        break;
                    }
                }
                wgmma_wait<0>();
                compute_scores_again(s[0], held, keys_stage());
                by_sums = false;
            }
            block.give_back(barriers.values_empty[value_ring.stage]);
            value_ring.next();
            free_keys();
        }
        barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
        const int first = tiles == 1 ? span.lead : 0, end = span.count - (tiles - 1) * keys;
        if (first > 0 || end < keys) clear_values(values_stage(), first, end);
        wgmma_fence();
        start_values(state.output[0], weights, value_operand(values_stage()), tiles > 1);
        if (const int after = block.stages_after(turn, tiles); after > 0) {
            // Nothing waits for the other block's stages but what comes after them.
            wgmma_wait<0>();
#pragma unroll 1
            for (int i = 0; i < after; ++i) {
                block.give_back(barriers.values_empty[value_ring.stage]);
                value_ring.next();
                barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
                free_keys();
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            }
        }
        const bool is_more = await_item(turn + 1);
        // Where there is nothing more, nobody reads what comes of it.
        start_stage();
        wgmma_wait<1>();
        block.give_back(barriers.values_empty[value_ring.stage]);
        value_ring.next();
        end_in_registers(p, item, state, warp_row, 1);
        if (item.partial_row >= 0) merge_if_last(p, item, shared);
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[turn % item_slots]).arrive();
        if (!is_more) break;
    }
    wgmma_wait<0>();
}
