// What both forms of Hopper's computing warpgroups are made of: products under way, and what becomes of outputs.
#pragma once
#include "hopper/attention_bring.cuh"
#include "hopper/attention_output.cuh"
#include "hopper/attention_shared.cuh"
#include "hopper/wgmma.cuh"

/// A stage's keys and values as operands.
FI_DEVICE uint64 key_operand(uint32 stage) { return operand(stage, 16, KeyTiles::next_eight); }
FI_DEVICE uint64 value_operand(uint32 stage) { return operand(stage, ValueTiles::next_column, ValueTiles::next_eight); }

/// Steps of 16 elements that are written out; the others are turns of a loop, as each product takes as long to compile as fifty other instructions. Beside
/// lists there are no registers for such a loop.
constexpr int steps_of_turn = is_mixed ? padded_qk / 16 : 4;

/// scores = queries · keys of a stage, under way.
FI_DEVICE void start_scores(float (&s)[key_tiles][4], uint64 queries, uint64 keys_at) {
#pragma unroll 1
    for (int turn = 0; turn < padded_qk / 16 / steps_of_turn; ++turn) {
        const int first = turn * steps_of_turn, column = first / 4, offset = first % 4 * 32;
        const uint64 a = advance_operand(queries, column * 64 * 128 + offset), b = advance_operand(keys_at, column * KeyTiles::next_column + offset);
        // Three groups had 13 instructions more in their loop with four as one text.
        if constexpr (is_threefold) {
#pragma unroll
            for (int step = 0; step < steps_of_turn; ++step)
                wgmma<half_type>(s, advance_operand(a, step % 4 * 32), advance_operand(b, step % 4 * 32), first + step > 0);
        } else {
#pragma unroll
            for (int four = 0; four < steps_of_turn / 4; ++four)
                wgmma_four<half_type>(s, advance_operand(a, four * 64 * 128), advance_operand(b, four * KeyTiles::next_column), first + four > 0);
        }
        wgmma_commit();
    }
}

/// The same with the queries in registers. A template, so that what is not for these sizes is left out.
template <int tiles> FI_DEVICE void start_scores(float (&s)[tiles][4], const uint32 (&queries)[held_steps][4], uint64 keys_at) {
    if constexpr (tiles == 16 && held_steps == 8) {
        wgmma_eight_by_rows<half_type, 32, KeyTiles::next_column>(s, queries, keys_at);
    } else {
#pragma unroll
        for (int step = 0; step < held_steps; ++step)
            wgmma_by_rows<half_type>(s, queries[step], advance_operand(keys_at, step / 4 * KeyTiles::next_column + step % 4 * 32), step > 0);
    }
    wgmma_commit();
}

/// output += weights · values of a stage, under way; or output = weights · values, where there is none yet.
template <int tiles>
FI_DEVICE void start_values(float (&output)[tiles][4], const uint32 (&weights)[keys / 16][4], uint64 values_at, bool adds = true) {
    constexpr int step_bytes = 2 * ValueTiles::next_eight;
    if constexpr (tiles == 16 && keys == 128) {
        wgmma_eight<half_type, step_bytes, 4 * step_bytes>(output, weights, values_at, adds);
    } else if constexpr (tiles == 16 && keys == 64 && !holds_queries) {
        wgmma_four<half_type, step_bytes>(output, weights, values_at, adds);
    } else if constexpr (tiles == 32 && keys == 80) {
        wgmma_five<half_type, step_bytes>(output, weights, values_at, adds);
    } else {
#pragma unroll
        for (int step = 0; step < keys / 16; ++step)
            wgmma<half_type>(output, weights[step], advance_operand(values_at, step * step_bytes), adds || step > 0);
    }
    wgmma_commit();
}

/// The same of a stage's first `used` keys, a multiple of 16 that is the same for all lanes.
template <int tiles>
FI_DEVICE void start_last_values(float (&output)[tiles][4], const uint32 (&weights)[keys / 16][4], uint64 values_at, bool adds, int used) {
    if constexpr (!leaves_out_stages) return start_values(output, weights, values_at, adds);
    constexpr int step_bytes = 2 * ValueTiles::next_eight;
    if constexpr (tiles == 32 && keys == 80) {
        wgmma_up_to_five<half_type, step_bytes>(output, weights, values_at, adds, used);
    } else {
#pragma unroll
        for (int step = 0; step < keys / 16; ++step)
            if (step == 0 || step * 16 < used) wgmma<half_type>(output, weights[step], advance_operand(values_at, step * step_bytes), adds || step > 0);
    }
    wgmma_commit();
}

/// The least product that is one, under way, whose result nobody reads.
///
/// A loop over stages starts with the scores of one at hand and the product of the one before under way. So that the first stage needs no text of
/// its own, something must be under way there too: else the assembler finds outputs in other hands on one of the ways into the loop, and lets
/// all products wait for each other.
template <int tiles> FI_DEVICE void start_nothing(float (&output)[tiles][4], uint64 at) {
    wgmma_fence();
    wgmma_of_zeros(output, at);
    wgmma_commit();
}

/// Zeros in the rows before `first` and from `there` to `used` of a stage's values, which are not the item's: a weight of 0 does not stop
/// what is there if it is no number. For a group, before its product with the first `used` of them.
///
/// Each group writes them for itself, the same zeros over the others': if they waited for each other, both would end their items at one time, and
/// nobody would multiply meanwhile.
FI_DEVICE void clear_values(uint32 stage, int first, int there, int used = keys) {
    if (first <= 0 && there >= used) return;
    constexpr int chunks = Shared::value_columns * 8;
    int thread = threadIdx.x % 128;
    // So that the addresses, rarely needed, are not computed for every item and kept.
    asm volatile("" : "+r"(thread));
#pragma unroll 1
    for (int id = thread; id < (first + used - there) * chunks; id += 128) {
        const int row = id / chunks < first ? id / chunks : id / chunks - first + there;
        store_shared(stage + id % chunks / 8 * ValueTiles::next_column + row / 8 * ValueTiles::next_eight + row % 8 * 128 + id % 8 * 16, make_uint4(0, 0, 0, 0));
    }
    fence_async_proxy();
    sync_threads(group_barrier + threadIdx.x / 128, 128);
}
