// Scores of a stage's keys, and how a warpgroup turns them into weights.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/wgmma.cuh"
#include "primitives/quad.cuh"

/// Asks for an item's queries, by all who compute.
FI_DEVICE void ask_queries(const Block &block, const Item &item) {
    const fi_attention_params &p = block.p;
    const int chunk = threadIdx.x % 8, count = item.row_count;
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) {
        const int row = threadIdx.x / 8 + turn * 32;
        const bool is_there = row < count;
        const int own = is_there ? row : 0;
        const uint16 *nope = query_row(p, item, own), *rope = part_of_query(p, item, own, nope, dim_vo);
        const uint32 to = block.base + Shared::queries + row * 128 + ((chunk ^ row % 8) << 4);
#pragma unroll
        for (int column = 0; column < Shared::columns; ++column) {
            // Elements of the rest are counted from the key's start.
            const uint16 *from = (column < dim_vo / 64 ? nope : rope) + column * 64 + chunk * 8;
            copy_async<16>(to + column * (rows * 128), from, is_there);
        }
    }
}

/// Waits for those, all of them.
FI_DEVICE void await_queries() {
    copy_wait_all();
    fence_async_proxy();
    sync_block();
}

/// scores = queries · keys of a stage, or += from the second part on, under way: parts `first` to `end`, in order, as they come. `between` is done
/// behind the first few products, which keep the tensor cores busy meanwhile.
template <int first, int end, class Between>
FI_DEVICE void start_scores(float (&s)[key_tiles][4], const Block &block, int stage, uint32 phase, Between between) {
    const uint64 queries = operand(block.base + Shared::queries), keys_at = operand(block.stage(stage));
    wgmma_fence();
#pragma unroll
    for (int i = first; i < end; ++i) {
        const int part = part_in_order(stage, i), at = Shared::part_at(part);
        if constexpr (!FI_GATHER) {
            barrier(block.barriers.full[stage][part]).wait(phase);
        } else if (i == first) {
            // Threads' copies arrive as they are: one fence for all parts, of which the rest has been there for long.
#pragma unroll
            for (int other = first; other < end; ++other) barrier(block.barriers.full[stage][part_in_order(stage, other)]).wait(phase);
            fence_async_proxy();
        }
        const uint64 a = advance_operand(queries, at), b = advance_operand(keys_at, at);
#pragma unroll
        for (int column = 0; column < (i == rest_part ? 1 : Shared::part_columns); ++column) {
            wgmma_four<half_type>(s, advance_operand(a, column * Shared::tile_bytes), advance_operand(b, column * Shared::tile_bytes), i + column > 0);
            if (i == first && column == 0) between();
        }
    }
    wgmma_commit();
}

template <int first, int end> FI_DEVICE void start_scores(float (&s)[key_tiles][4], const Block &block, int stage, uint32 phase) {
    start_scores<first, end>(s, block, stage, phase, [] {});
}

/// What a warpgroup knows of its rows: two of each thread's.
struct RowState {
    /// What weights and outputs are relative to, not scaled; and this thread's share of the sum of its own stages' weights.
    float maximum[2] = {negative_infinity(), negative_infinity()}, sum[2] = {0, 0};
};

/// Hides the keys that rows do not see, of a stage from key `first_key` on.
FI_DEVICE void hide_scores(float (&s)[key_tiles][4], const fi_attention_params &p, const Item &item, int first_key) {
    const int row = threadIdx.x % 128 / warp_size * 16 + threadIdx.x % warp_size / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int query = item.query(p, max(min(row + h * 8, item.row_count - 1), 0));
        const int last = min(last_visible(p, item, query), item.key_end() - 1) - first_key - threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (n * 8 + i > last) s[n][2 * h + i] = negative_infinity();
    }
}

/// Scores become weights; `factor` is what the rows' outputs are to be multiplied by, as references follow maxima that rise by more than
/// `tolerated_rise`. Whether any do, for all lanes.
FI_DEVICE bool weigh_scores(RowState &state, float (&s)[key_tiles][4], float scale, float (&factor)[2]) {
    float top[2];
    bool rises = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][2 * h], odd = s[0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[n][2 * h]), odd = fmaxf(odd, s[n][2 * h + 1]);
        top[h] = quad_max(fmaxf(even, odd));
        rises |= (top[h] - state.maximum[h]) * scale > tolerated_rise;
    }
    rises = __any_sync(0xffffffff, rises);
    if (rises) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float next = fmaxf(top[h], state.maximum[h]);
            factor[h] = exp2_approximate(state.maximum[h] * scale - reference(next, scale));
            state.maximum[h] = next;
            state.sum[h] *= factor[h];
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float offset = -reference(state.maximum[h], scale);
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n) {
            even += s[n][2 * h] = exp2_approximate(fmaf(s[n][2 * h], scale, offset));
            odd += s[n][2 * h + 1] = exp2_approximate(fmaf(s[n][2 * h + 1], scale, offset));
        }
        state.sum[h] += even + odd;
    }
    return rises;
}
