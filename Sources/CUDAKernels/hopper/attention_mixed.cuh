// Two warpgroups that compute by turns beside one that runs lists (attention_lists.cuh): as those that hold their queries do, with weights by
// sums, but with the queries in memory, as the lists take the registers.
#pragma once
#include "hopper/attention_products.cuh"
#include "hopper/attention_queries.cuh"
#include "hopper/attention_weigh.cuh"

/// A warp's scores once more, by the products of one warp, from queries and keys in global memory, as their stage is given back by then: rarely
/// needed. `first_key` is the stage's first.
FI_DEVICE void compute_scores_anew(float (&s)[key_tiles][4], const fi_attention_params &p, const Item &item, const KeyFinder &finder,
                                   int warp_row, int first_key) {
    // Else the compiler computes addresses for every stage, in registers that all others need.
    const int lane = anew(threadIdx.x) % warp_size;
    const auto row_of = [&](int row) {
        const int there = min(row, item.row_count - 1), query = item.query(p, there);
        return p.queries + ((item.first_query + query) * p.query_token + item.query_head(p, there, query) * p.query_head + lane % 4 * 2) * 2;
    };
    const uint64 above = row_of(warp_row + lane / 4), below = row_of(warp_row + lane / 4 + 8);
    // Tile after tile to the last place, and all others a place up: registers need places that are known, and 16 copies of this were a fifth of
    // what the kernel takes to compile.
#pragma unroll 1
    for (int n = 0; n < key_tiles; ++n) {
        const int key = max(min(first_key + n * 8 + lane / 4, item.key_end() - 1), 0);
        const int64 block = FI_RAGGED ? 0 : finder.block(key), row = FI_RAGGED ? item.only_block + key : finder.row(key);
        const uint64 at = item.keys_address(p) + (block * p.keys.block + row * p.keys.token + lane % 4 * 2) * 2;
#pragma unroll
        for (int other = 1; other < key_tiles; ++other)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[other - 1][i] = s[other][i];
        float(&last)[4] = s[key_tiles - 1];
#pragma unroll
        for (int i = 0; i < 4; ++i) last[i] = 0;
#pragma unroll 1
        for (int byte = 0; byte < dim_qk * 2; byte += 32) {
            const uint32 a[4] = {*pointer<const uint32>(above + byte), *pointer<const uint32>(below + byte),
                                 *pointer<const uint32>(above + byte + 16), *pointer<const uint32>(below + byte + 16)};
            mma<half_type>(last, a, *pointer<const uint32>(at + byte), *pointer<const uint32>(at + byte + 16));
        }
    }
}

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_beside_lists(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    const uint32 own_queries = block.base + Shared::queries + group * (64 * Shared::key_columns * 128);
    Ring key_ring, value_ring;
    float s[1][key_tiles][4];
    const auto free_stage = [&](const uint64 &empty) {
        __syncwarp();
        if (lane == 0) barrier(empty).arrive();
    };
    const auto keys_stage = [&] { return block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes; };
    const auto values_stage = [&] { return block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes; };
    const auto start_stage = [&] {
        wgmma_fence();
        // Else the queries' operands are kept, in registers that all others need.
        start_scores(s[0], operand(anew(own_queries)), key_operand(keys_stage()));
    };
    // Whether there is item number `turn`; if so, its first scores can start.
    const auto await_item = [&](uint32 turn) {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        if (block.items[turn % item_slots].tile < 0) return false;
        barrier(barriers.queries_full[0][turn % item_slots]).wait(turn / item_slots);
        barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
        return true;
    };
    // The first group has the first turn.
    if (group == groups - 1) arrive_threads(turn_barrier, 256);
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
        // After a stage's scores: its keys, and after the last the queries, so that the next item's are brought beside what is left of this one.
        const auto free_scored = [&](bool is_last) {
            free_stage(barriers.keys_empty[key_ring.stage]);
            key_ring.next();
            if (is_last && lane == 0) barrier(barriers.queries_empty[0]).arrive();
        };
        State state;
        // Outputs start with the first product.
#pragma unroll
        for (int h = 0; h < 2; ++h) state.maximum[0][h] = normalises ? negative_infinity() : 0, state.sum[0][h] = 0;
        Weights weights;
        Pair factor;
        // Both end before the loop, whose first stage needs no text of its own then: with this one under way in it more would be spilt.
        start_nothing(state.output[0], value_operand(values_stage()));
        wgmma_wait<0>();
        bool by_sums = false;
#pragma unroll 1
        for (int tile = 0;;) {
            free_scored(tile == tiles - 1);
            // Once, but where weights left float32's range.
#pragma unroll 1
            while (true) {
                const bool by_maximum = !by_sums;
                Pair sums = {0, 0};
                finish_scores(s, p, item, finder, common, warp_row, span.key(tile * keys), scales.y);
                if (by_maximum) raise_to_maximum(state, s[0], scale, factor);
                relate(state, s[0], scale);
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
                    pack_all(weights, s[0]);
                    if (by_maximum || !any_reaches(sums, largest_sum) || raise_to_sums(state, s[0], weights, sums)) {
                        state.sum[0][0] += sums[0], state.sum[0][1] += sums[1];
                        break;
                    }
                }
                wgmma_wait<0>();
                compute_scores_anew(s[0], p, item, finder, warp_row, span.key(tile * keys));
                by_sums = false;
            }
            if (tile > 0) {
                free_stage(barriers.values_empty[value_ring.stage]);
                value_ring.next();
            }
            // The last turn starts the last stage's product with its values alone: as text of its own it would take longer to compile than all else here.
            // With the branches below as one, there are no registers for it (C7511).
            const bool is_last = ++tile == tiles;
            if (tile == 1 && !is_last && span.lead > 0) {
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                clear_values(values_stage(), span.lead, keys);
            }
            if (!is_last) {
                barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
                sync_threads(turn_barrier + group, 256);
            } else {
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
                const int first = tiles == 1 ? span.lead : 0, end = span.count - (tiles - 1) * keys;
                clear_values(values_stage(), first, end);
            }
            wgmma_fence();
            if (!is_last) start_stage();
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            start_values(state.output[0], weights, value_operand(values_stage()), tile > 1);
            if (!is_last) arrive_threads(turn_barrier + (group + 1) % groups, 256);
            wgmma_wait<1>();
            if (is_last) break;
        }
        const bool is_more = await_item(turn + 1);
        // Where there is nothing more, nobody reads what comes of it.
        start_stage();
        wgmma_wait<1>();
        free_stage(barriers.values_empty[value_ring.stage]);
        value_ring.next();
        end_in_registers(p, item, state, warp_row, 1);
        if (item.partial_row >= 0) merge_if_last(p, item, shared);
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[turn % item_slots]).arrive();
        if (!is_more) break;
    }
    wgmma_wait<0>();
}
