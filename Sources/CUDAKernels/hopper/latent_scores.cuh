// The warpgroup that computes scores and turns them into weights: it holds an item's queries in registers, and the products of one
// stage's keys are under way while it weighs those of the stage before.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/wgmma.cuh"
#include "primitives/quad.cuh"

/// Steps of 16 elements whose queries are held.
constexpr int held_steps = held_tiles * 4;

/// scores = queries · keys of a stage, under way.
FI_DEVICE void start_scores(float (&s)[key_tiles][4], const uint32 (&held)[held_steps][4], uint64 stored, uint64 keys_at) {
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < held_steps; ++step)
        wgmma_by_rows<half_type>(s, held[step], advance_operand(keys_at, step / 4 * keys * 128 + step % 4 * 32), step > 0);
#pragma unroll
    for (int step = 0; step < stored_tiles * 4; ++step)
        wgmma<half_type>(s, advance_operand(stored, step / 4 * rows * 128 + step % 4 * 32),
                         advance_operand(keys_at, (held_tiles + step / 4) * keys * 128 + step % 4 * 32), true);
    wgmma_commit();
}

/// Where a row's elements from `chunk` times eight on are, in either of the queries' tensors.
struct QueryRow {
    const uint16 *nope, *rope;
    bool is_there;

    __device__ __forceinline__ QueryRow(const fi_attention_params &p, const Item &item, int row) : is_there(row < item.row_count) {
        const int own = is_there ? row : 0;
        nope = query_row(p, item, own);
        rope = part_of_query(p, item, own, nope, dim_vo);
    }
    __device__ __forceinline__ uint4 chunk(int chunk) const {
        const uint16 *from = (chunk < dim_vo / 8 ? nope : rope) + chunk * 8;
        return is_there ? *reinterpret_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
    }
};

/// An item's queries, held and stored. The four lanes of a row have 16 bytes each of 64, and exchange them for their parts of operands.
FI_DEVICE void take_queries(const Block &block, const Item &item, uint32 (&held)[held_steps][4]) {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const QueryRow row(block.p, item, warp * 16 + h * 8 + lane / 4);
#pragma unroll
        for (int pair = 0; pair < held_steps / 2; ++pair) {
            const uint4 v = row.chunk(pair * 4 + lane % 4);
            uint32 w[4] = {v.x, v.y, v.z, v.w};
            transpose_quad(w);
            held[2 * pair][h] = w[0], held[2 * pair][2 + h] = w[1], held[2 * pair + 1][h] = w[2], held[2 * pair + 1][2 + h] = w[3];
        }
#pragma unroll
        for (int turn = 0; turn < stored_tiles * 2; ++turn) {
            const int own = warp * 16 + h * 8 + lane / 4, chunk = turn * 4 + lane % 4;
            store_shared(block.base + Shared::queries + chunk / 8 * (rows * 128) + own * 128 + ((chunk % 8 ^ own % 8) << 4),
                         row.chunk(held_tiles * 8 + chunk));
        }
    }
    fence_async_proxy();
    sync_threads(scores_barrier, score_threads);
}

/// What a warp knows of its rows: two of each thread's.
struct ScoreState {
    /// What weights are relative to, not scaled; and this thread's share of the weights' sum.
    float maximum[2], sum[2];
};

/// Hides the keys that rows do not see, of a stage from key `first_key` on.
FI_DEVICE void hide_scores(float (&s)[key_tiles][4], const fi_attention_params &p, const Item &item, int first_key) {
    // Made here each time: kept, it would take registers that the queries need.
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    const int row = thread / warp_size * 16 + thread % warp_size / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int query = item.query(p, max(min(row + h * 8, item.row_count - 1), 0));
        const int last = min(last_visible(p, item, query), item.key_end() - 1) - first_key - thread % 4 * 2;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (n * 8 + i > last) s[n][2 * h + i] = negative_infinity();
    }
}

/// Scores become weights; `factor` is what sums and outputs were multiplied by, as references follow maxima that rise by more than
/// `tolerated_rise`.
FI_DEVICE void weigh_scores(ScoreState &state, float (&s)[key_tiles][4], float scale, float (&factor)[2]) {
    float top[2];
    bool rises = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][2 * h], odd = s[0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[n][2 * h]), odd = fmaxf(odd, s[n][2 * h + 1]);
        top[h] = quad_max(fmaxf(even, odd));
        rises |= (top[h] - state.maximum[h]) * scale > tolerated_rise;
        factor[h] = 1;
    }
    if (__any_sync(0xffffffff, rises)) {
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
}

/// The rows of item after item.
FI_DEVICE void compute_scores(const Block &block) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
    // Where this lane's row of weights lies, as matrices are stored: the row, and which of two chunks.
    const int weight_row = warp * 16 + lane % 16;
    const uint32 weights_at = block.base + Shared::weights + weight_row * 128;
    StageRing ring, next;
    Ring<2> weights_ring;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        uint32 held[held_steps][4];
        take_queries(block, item, held);
        const uint64 stored = operand(block.base + Shared::queries);
        const float scale = score_scales(p, item).x;
        const int tiles = tiles_of(item);
        // Keys before this one are seen by all rows of the warp.
        const int masked = min(item.key_end(), last_visible(p, item, item.query(p, max(min(warp * 16, item.row_count - 1), 0))) + 1);
        ScoreState state{{negative_infinity(), negative_infinity()}, {0, 0}};
        const auto weigh = [&](float(&own)[key_tiles][4], int tile) {
            const int first_key = item.key + tile * keys;
            if (first_key + keys > masked) hide_scores(own, p, item, first_key);
            float factor[2];
            weigh_scores(state, own, scale, factor);
            barrier(barriers.weights_empty[weights_ring.at]).wait(weights_ring.phase ^ 1);
#pragma unroll
            for (int step = 0; step < keys / 16; ++step) {
                uint32 a[4];
                pack_weights(a, own, step);
                store_matrices(a, weights_at + ((weights_ring.at * 4 + step * 2 + lane / 16 ^ weight_row % 8) << 4));
            }
            if (lane % 4 == 0) {
                const uint32 to = block.base + Shared::factors + (weights_ring.at * rows + warp * 16 + lane / 4) * 4;
                store_shared(to, __float_as_uint(factor[0]));
                store_shared(to + 8 * 4, __float_as_uint(factor[1]));
            }
            fence_async_proxy();
            barrier(barriers.weights_full[weights_ring.at]).arrive();
            __syncwarp();
            weights_ring.next();
        };
        const auto start = [&](float(&s)[key_tiles][4]) {
            block.await(next);
            start_scores(s, held, stored, operand(block.stage(next)));
            next.next();
        };
        const auto free_stage = [&] {
            block.give_back(ring);
            ring.next();
        };
        if (tiles > 0) {
            // One stage's scores are under way beside the other's softmax. Every way to go on has text of its own: where they meet, the
            // compiler would wait for all products.
            float even[key_tiles][4], odd[key_tiles][4];
            start(even);
#pragma unroll 1
            for (int tile = 0;; tile += 2) {
                if (tile + 1 == tiles) {
                    wgmma_wait<0>();
                    free_stage();
                    weigh(even, tile);
                    break;
                }
                start(odd);
                wgmma_wait<1>();
                free_stage();
                weigh(even, tile);
                if (tile + 2 == tiles) {
                    wgmma_wait<0>();
                    free_stage();
                    weigh(odd, tile + 1);
                    break;
                }
                start(even);
                wgmma_wait<1>();
                free_stage();
                weigh(odd, tile + 1);
            }
        }
        // How the rows end, for those that have the outputs.
        barrier(barriers.ends_empty).wait(turn + 1);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const RowEnd end = end_row(state.maximum[h] * scale, quad_sum(state.sum[h]));
            if (lane % 4 == 0)
                store_shared(block.base + Shared::ends + (warp * 16 + h * 8 + lane / 4) * 8,
                             make_uint2(__float_as_uint(end.lse), __float_as_uint(end.factor)));
        }
        barrier(barriers.ends_full).arrive();
        __syncwarp();
    }
}
