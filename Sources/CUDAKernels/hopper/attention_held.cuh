// Warpgroups that compute by turns with weights by sums: the scores of a stage, and beside them the product of the weights of the stage before
// with its values (FlashAttention-3's ping-pong). The next item's first scores are under way while one ends.
//
// Two groups hold their queries in registers, which leaves memory for three stages and the queries' place to the next item's. Of outputs of 64
// elements three groups compute, with the queries in memory: their registers have no room. What one group does in a row there, from its turn
// to the last exponential, takes four times as long as the tensor cores or the exponentials of a stage do, and so two groups left both idle half
// of the time (H200, 4,096 keys: 457 TFLOP/s with two groups, 570 with three).
#pragma once
#include "hopper/attention_products.cuh"
#include "hopper/attention_weigh.cuh"

/// The address of a lane's part of 16 queries, of a step of 16 elements.
FI_DEVICE uint32 query_part(uint32 queries, int lane, int step) {
    return queries + lane % 16 * 128 + step / 4 * (64 * 128) + ((step % 4 * 2 + lane / 16 ^ lane % 8) << 4);
}

/// A warp's scores once more, by the products of one warp: rarely needed, and without the other warps of its group. A loop of one step, which
/// chooses its queries where they are held, as steps that are written out are a seventh of what the whole kernel takes to compile.
FI_DEVICE void compute_scores_again(float (&s)[key_tiles][4], const uint32 (&held)[held_steps][4], uint32 queries, uint32 stage) {
    // Else the compiler computes these addresses for every stage, in registers that all others need.
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    const uint32 row = stage + lane / 16 * KeyTiles::next_eight + lane % 8 * 128;
#pragma unroll
    for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll 1
    for (int step = 0; step < padded_qk / 16; ++step) {
        const uint32 column = row + step / 4 * KeyTiles::next_column + ((step % 4 * 2 + lane / 8 % 2 ^ lane % 8) << 4);
        uint32 a[4];
        if constexpr (holds_queries) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                a[i] = held[0][i];
#pragma unroll
                for (int other = 1; other < held_steps; ++other) a[i] = step == other ? held[other][i] : a[i];
            }
        } else {
            load_matrices(a, query_part(queries, lane, step));
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

/// Keeps the assembler from waiting for the product under way before the sums are there: it moves that wait up over everything but branches
/// and memory. So a byte is read, of which nothing becomes, at an address that the sums might decide on.
FI_DEVICE void keep_behind(const Pair &sums, const Item &item) {
    asm volatile(
        "{\n"
        ".reg .b32 at, unused;\n"
        "shr.u32 at, %0, 31;\n"
        "add.u32 at, at, %1;\n"
        "ld.volatile.shared.u8 unused, [at];\n"
        "}\n" ::"r"(__float_as_uint(sums[0] + sums[1])), "r"(shared_address(&item)) : "memory");
}

/// Whether the text that starts an item's first scores and ends the item before stands at the head of the loop over items, once, and not before it
/// too: a fifteenth of what the kernel takes to compile. Three groups and variants have no registers for it.
constexpr bool starts_at_head = holds_queries && !has_variant;

/// Key tiles of a stage whose exponentials come before the wait for the product under way. Of 16, with 4 of them the kernel took 1.014 of the time, with
/// 8 1.006, with 12 1.017, and with all 1.039 (H200, 4,096 keys), as conversions beside exponentials cost less than after them. Scores that a factor
/// of any sign scales first have no registers for it.
constexpr int tiles_before_wait = groups == 2 && key_tiles == 16 && logits != Logits::scaled ? 6 : key_tiles / 2;

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_by_sums(const Block &block, char *shared) {
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
    // The group's queries of item number `turn`.
    const auto own_queries = [&](uint32 turn) {
        return block.base + Shared::queries + turn % query_slots * Shared::query_bytes + group * (64 * Shared::key_columns * 128);
    };
    const auto start_stage = [&](uint32 turn) {
        wgmma_fence();
        if constexpr (holds_queries) start_scores(s[0], held, key_operand(keys_stage()));
        else start_scores(s[0], operand(own_queries(turn)), key_operand(keys_stage()));
    };
    // Whether there is item number `turn`; if so, its queries are held, and its first scores can start.
    const auto await_item = [&](uint32 turn) {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        if (block.items[turn % item_slots].tile < 0) return false;
        barrier(barriers.queries_full[0][turn % item_slots]).wait(turn / item_slots);
        if constexpr (holds_queries) {
#pragma unroll
            for (int step = 0; step < held_steps; ++step) load_matrices(held[step], query_part(own_queries(turn) + warp % 4 * 16 * 128, lane, step));
            free_stage(barriers.queries_empty[0]);
        }
        await_stage(barriers.keys_full[key_ring.stage], key_ring.phase);
        return true;
    };
    // The first group has the first turn.
    if (groups > 1 && group == groups - 1) arrive_threads(turn_barrier, 256);
    State state;
    // Of the item that ends: worked out beside its last product.
    LaneRow own;
    bool is_part = false;
    // Starts the first scores of item number `turn` and ends the item before; whether there is such an item.
    const auto start_item = [&](uint32 turn) {
        const bool is_more = await_item(turn);
        // Where there is nothing more, nobody reads what comes of it.
        start_stage(turn);
        wgmma_wait<1>();
        if (turn > 0) {
            const Item &item = block.items[(turn - 1) % item_slots];
            block.give_back(barriers.values_empty[value_ring.stage]);
            value_ring.next();
            end_in_registers(p, item, state, warp_row, own, is_part);
            if (is_part) merge_if_last(p, item, shared);
            __syncwarp();
            if (lane == 0) barrier(barriers.item_empty[(turn - 1) % item_slots]).arrive();
        }
        return is_more;
    };
    if constexpr (starts_at_head) {
        start_nothing(state.output[0], value_operand(block.base));
    } else {
        if (!await_item(0)) return;
        start_stage(0);
    }
    for (uint32 turn = 0;; ++turn) {
        if (starts_at_head && !start_item(turn)) break;
        const Item &item = block.items[turn % item_slots];
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, warp_row);
        const float2 scales = score_scales(p, item);
        const Pair scale = {scales.x, scales.x};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        const int own_keys = keys_of_group(span, p, item, group), own_tiles = max(ceil_div(own_keys, keys), 1);
        const auto free_keys = [&] {
            block.give_back(barriers.keys_empty[key_ring.stage]);
            key_ring.next();
        };
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
        // Here, as a branch in the loop is a few percent of its time, though it is not taken.
        if (own_tiles > 1 && span.lead > 0) {
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            clear_values(values_stage(), span.lead, keys);
        }
        // One loop for all stages, as of `compute_by_turns`, would be a tenth less to compile, but 1 to 4 % slower (H200, 1,024 keys).
#pragma unroll 1
        for (int tile = 1; tile < own_tiles; ++tile) {
            await_stage(barriers.keys_full[key_ring.stage], key_ring.phase);
            if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
            start_stage(turn);
            await_stage(barriers.values_full[value_ring.stage], value_ring.phase);
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
                exponentiate<0, tiles_before_wait>(s[0], sums);
                // That product reads the weights of the stage before, and must end before these take their place. Beside the exponentials of three
                // groups the others' products run: there, waiting before them was faster (571 TFLOP/s, and 542 after half of them).
                if constexpr (!is_threefold) keep_behind(sums, item);
                wgmma_wait<0>();
                if (by_maximum) {
                    multiply_output(state, factor);
                    by_sums = is_settled(state);
                }
                exponentiate<tiles_before_wait, key_tiles>(s[0], sums);
                factors.multiply(s, 0);
                pack_all(weights, s[0]);
                if (by_maximum || !any_reaches(sums, largest_sum) || raise_to_sums(state, s[0], weights, sums)) {
                    state.sum[0][0] += sums[0], state.sum[0][1] += sums[1];
                    break;
                }
                compute_scores_again(s[0], held, own_queries(turn) + warp % 4 * 16 * 128, keys_stage());
                by_sums = false;
            }
            block.give_back(barriers.values_empty[value_ring.stage]);
            value_ring.next();
            free_keys();
        }
        await_stage(barriers.values_full[value_ring.stage], value_ring.phase);
        // Zeros in the rows that are not the item's.
        const int there = min(span.count - (own_tiles - 1) * keys, keys);
        const int used = leaves_out_stages ? max((own_keys - (own_tiles - 1) * keys + 15) / 16 * 16, 16) : keys;
        clear_values(values_stage(), own_tiles == 1 ? span.lead : 0, there, used);
        wgmma_fence();
        start_last_values(state.output[0], weights, value_operand(values_stage()), own_tiles > 1, used);
        is_part = item.partial_row >= 0;
        own = LaneRow(p, item, state, warp_row, 1, is_part);
        if (is_threefold && own_tiles < tiles) {
            wgmma_wait<0>();
#pragma unroll 1
            for (int tile = own_tiles; tile < tiles; ++tile) {
                block.give_back(barriers.values_empty[value_ring.stage]);
                value_ring.next();
                sync_threads(turn_barrier + group, 256);
                arrive_threads(turn_barrier + (group + 1) % groups, 256);
                barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
                free_keys();
                barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            }
        }
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
        if (!starts_at_head && !start_item(turn + 1)) break;
    }
    wgmma_wait<0>();
}
