// Two warpgroups that compute by turns: the scores of a stage, and beside them the product of the weights of the stage before with its
// values, so that one's exponentials run beside another's products (FlashAttention-3's ping-pong).
#pragma once
#include "hopper/attention_products.cuh"
#include "hopper/attention_weigh.cuh"

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

/// A warpgroup's rows of item after item.
FI_DEVICE void compute_by_turns(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size, warp_row = warp * 16, group = warp / 4;
    Ring key_ring;
    ValueRing value_ring;
    const auto free_stage = [&](const uint64 &empty) {
        __syncwarp();
        if (lane == 0) barrier(empty).arrive();
    };
    // Which part of the queries is the group's: so that the compiler knows it to be the same for all lanes, else all products wait for each other.
    const int part = query_parts == 1 ? 0 : __shfl_sync(0xffffffff, group, 0);
    // The first group has the first turn.
    if (groups > 1 && group == groups - 1) arrive_threads(turn_barrier, 256);
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % item_slots;
        const Item &item = block.items[slot];
        barrier(barriers.item_full[slot]).wait(turn / item_slots);
        if (item.tile < 0) return;
        const uint32 own_queries = block.base + Shared::queries + slot % query_slots * Shared::query_bytes + group * (64 * Shared::key_columns * 128);
        const uint64 queries = operand(own_queries);
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, warp_row);
        const float2 scale = score_scales(p, item);
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        const int own_keys = keys_of_group(span, p, item, group), own_tiles = max(ceil_div(own_keys, keys), 1);
        // Where there is room for one item's queries, the next's are brought beside the last product and the output.
        const auto free_queries = [&](bool is_last) {
            if (query_slots == 1 && is_last) free_stage(barriers.queries_empty[part]);
        };
        const auto keys_at = [&] { return key_operand(block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes); };
        const auto values_stage = [&] { return block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes; };
        State state;
        state.clear();
        barrier(barriers.queries_full[part][slot]).wait(turn / item_slots);
        float s[1][key_tiles][4];
        uint32 weights[keys / 16][4];
        await_stage(barriers.keys_full[key_ring.stage], key_ring.phase);
        wgmma_fence();
        start_scores(s[0], queries, keys_at());
        wgmma_wait<0>();
        // Here, as a branch in the loop is a few percent of its time, though it is not taken.
        if (own_tiles > 1 && span.lead > 0) {
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
            clear_values(values_stage(), span.lead, keys);
        }
        start_nothing(state.output[0], value_operand(values_stage()));
        const int used = leaves_out_stages ? max((own_keys - (own_tiles - 1) * keys + 15) / 16 * 16, 16) : keys;
        // Before the product with the last stage's values.
        const auto prepare_last_values = [&] {
            await_stage(barriers.values_full[value_ring.stage], value_ring.phase);
            clear_values(values_stage(), own_tiles == 1 ? span.lead : 0, min(span.count - (own_tiles - 1) * keys, keys), used);
            wgmma_fence();
        };
#pragma unroll 1
        for (int tile = 0;;) {
            block.give_back(barriers.keys_empty[key_ring.stage]);
            free_queries(tile == own_tiles - 1);
            key_ring.next();
            finish_scores(s, p, item, finder, common, warp_row, span.key(tile * keys), scale.y);
            const ValueFactors<key_tiles> factors(ValueKeys{p, item, finder, span.key(tile * keys)}, 0);
            const Rise rise = weigh_scores(state, s, scale.x);
            factors.multiply(s, 0);
            wgmma_wait<0>();
            if (tile > 0) {
                block.give_back(barriers.values_empty[value_ring.stage]);
                value_ring.next();
                follow(state, rise);
            }
            pack_all(weights, s[0]);
            const bool is_last = ++tile == own_tiles;
            if (leaves_out_stages && is_last) break;
            // Else the last turn starts the last stage's product with its values alone: as text of its own it would take longer to compile than all else here.
            if (is_last) {
                prepare_last_values();
            } else {
                await_stage(barriers.keys_full[key_ring.stage], key_ring.phase);
                if constexpr (groups > 1) sync_threads(turn_barrier + group, 256);
                wgmma_fence();
                start_scores(s[0], queries, keys_at());
                await_stage(barriers.values_full[value_ring.stage], value_ring.phase);
            }
            start_values(state.output[0], weights, value_operand(values_stage()), tile > 1);
            if constexpr (groups > 1) {
                if (!is_last) arrive_threads(turn_barrier + (group + 1) % groups, 256);
            }
            wgmma_wait<1>();
            if (is_last) break;
        }
        if constexpr (leaves_out_stages) {
            prepare_last_values();
            start_last_values(state.output[0], weights, value_operand(values_stage()), own_tiles > 1, used);
        }
        // Beside that product.
        const bool is_part = item.partial_row >= 0;
        const LaneRow own(p, item, state, warp_row, scale.x, is_part);
        wgmma_wait<0>();
        const auto pass_values = [&] {
            block.give_back(barriers.values_empty[value_ring.stage]);
            value_ring.next();
        };
        const auto pass_keys = [&] {
            barrier(barriers.keys_full[key_ring.stage]).wait(key_ring.phase);
            block.give_back(barriers.keys_empty[key_ring.stage]);
            key_ring.next();
            barrier(barriers.values_full[value_ring.stage]).wait(value_ring.phase);
        };
        pass_values();
        if constexpr (leaves_out_stages) {
            // Stages of which the group sees nothing.
#pragma unroll 1
            for (int tile = own_tiles; tile < tiles; ++tile) {
                sync_threads(turn_barrier + group, 256);
                arrive_threads(turn_barrier + (group + 1) % groups, 256);
                pass_keys();
                pass_values();
            }
        }
        if constexpr (leaves_from_registers) {
            end_in_registers(p, item, state, warp_row, own, is_part);
        } else if (is_part) {
            end_in_registers<true>(p, item, state, warp_row, own, is_part);
        } else {
            // Outputs leave through the group's queries, which all its warps have read.
            sync_threads(group_barrier + group, 128);
            finish_alone(p, item, state, own_queries + warp % 4 * 16 * QueryRows::stride, warp_row, own);
        }
        if constexpr (cluster > 1) {
            // The other block's, which this one has brought, too: after the rows have left, as they come no sooner than that block is done with those before.
#pragma unroll 1
            for (int after = block.stages_after(turn, tiles); after > 0; --after) {
                pass_keys();
                pass_values();
            }
        }
        if (is_part) merge_if_last(p, item, shared);
        __syncwarp();
        if (lane == 0) barrier(barriers.item_empty[slot]).arrive();
    }
}
