// What both forms of Hopper's computing warpgroups are made of: products under way, and what becomes of outputs.
#pragma once
#include "hopper/attention_bring.cuh"
#include "hopper/attention_output.cuh"
#include "hopper/attention_shared.cuh"
#include "hopper/wgmma.cuh"

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

/// The same with the queries in registers. A template, so that what is not for these sizes is left out.
template <int tiles> FI_DEVICE void start_scores(float (&s)[tiles][4], const uint32 (&queries)[held_steps][4], uint64 keys_at) {
    if constexpr (tiles == 16 && held_steps == 8) {
#pragma unroll
        for (int step = 0; step < held_steps; step += 4)
            wgmma_four_by_rows<half_type, 32>(s, queries + step, advance_operand(keys_at, step / 4 * keys * 128), step > 0);
    } else {
#pragma unroll
        for (int step = 0; step < held_steps; ++step)
            wgmma_by_rows<half_type>(s, queries[step], advance_operand(keys_at, step / 4 * keys * 128 + step % 4 * 32), step > 0);
    }
    wgmma_commit();
}

/// output += weights · values of a stage, under way.
template <int tiles> FI_DEVICE void start_values(float (&output)[tiles][4], const uint32 (&weights)[keys / 16][4], uint64 values_at) {
    if constexpr (tiles == 16 && keys % 64 == 0) {
#pragma unroll
        for (int step = 0; step < keys / 16; step += 4)
            wgmma_four<half_type, 16 * 128>(output, weights + step, advance_operand(values_at, step * 16 * 128), true);
    } else {
#pragma unroll
        for (int step = 0; step < keys / 16; ++step)
            wgmma<half_type>(output, weights[step], advance_operand(values_at, step * 16 * 128), true);
    }
    wgmma_commit();
}

/// Zeros in the rows before `first` and from `end` on of a stage's values, which are not the item's: a weight of 0 does not stop
/// what is there if it is no number. For all groups, none of which may have the turn.
FI_DEVICE void clear_values(uint32 stage, int first, int end) {
    constexpr int chunks = Shared::value_columns * 8;
    int thread = threadIdx.x;
    // So that the addresses, rarely needed, are not computed for every item and kept.
    asm volatile("" : "+r"(thread));
#pragma unroll 1
    for (int id = thread; id < (first + keys - end) * chunks; id += threads) {
        const int row = id / chunks < first ? id / chunks : id / chunks - first + end;
        store_shared(stage + (id % chunks / 8 * keys + row) * 128 + id % 8 * 16, make_uint4(0, 0, 0, 0));
    }
    fence_async_proxy();
    sync_block();
}
