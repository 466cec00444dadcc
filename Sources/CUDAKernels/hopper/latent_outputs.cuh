// The two warpgroups that compute: each has 256 columns of the outputs of all rows, and weighs every other stage of keys.
#pragma once
#include "hopper/latent_merge.cuh"
#include "hopper/latent_scores.cuh"

/// Columns of a warpgroup's outputs, and its tiles of 64 of them.
constexpr int own_columns = dim_vo / 2, own_tiles = own_columns / 64;
using Outputs = float[own_columns / 8][4];

/// Zeros in the rows from `first` on of a warpgroup's columns of a stage: a weight of 0 does not stop what is there if it is no number.
FI_DEVICE void clear_rows(uint32 columns_at, int first) {
    const int thread = threadIdx.x % 128, group = threadIdx.x / 128;
#pragma unroll 1
    for (int id = first * 8 + thread; id < keys * 8; id += 128)
#pragma unroll
        for (int tile = 0; tile < own_tiles; ++tile)
            store_shared(columns_at + tile * Shared::tile_bytes + id * 16, make_uint4(0, 0, 0, 0));
    fence_async_proxy();
    sync_threads(group_barrier + group, 128);
}

/// A thread's rows of an item to the output: 16 bytes a lane, four lanes 64 in a row.
FI_DEVICE void store_rows(const fi_attention_params &p, const Item &item, const float (&output)[own_columns / 8][4], const RowEnd (&ends)[2], int column) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int lane = threadIdx.x % warp_size, warp_row = threadIdx.x / warp_size % 4 * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const bool is_there = row < item.row_count;
        const int query = item.query(p, is_there ? row : 0), head = item.query_head(p, is_there ? row : 0, query);
        const int64 token = item.first_query + query;
        if (is_there && column == 0 && lane % 4 == 0 && p.lse != 0) pointer<float>(p.lse)[token * p.lse_token + head * p.lse_head] = ends[h].lse;
        const float factor = ends[h].factor * p.value_scale;
        uint4 *to = pointer<uint4>(p.output + 2 * (token * p.output_token + head * p.output_head + column)) + lane % 4;
#pragma unroll
        for (int n = 0; n < own_columns / 8; n += 4) {
            uint32 w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) w[j] = pack<type>(output[n + j][2 * h] * factor, output[n + j][2 * h + 1] * factor);
            transpose_quad(w);
            if (is_there) to[n] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/// The same to the workspace as float32, where a row has more parts than are merged by many: rare, so no pairs are exchanged.
FI_DEVICE void store_row_parts(const fi_attention_params &p, const Item &item, const Outputs &output, const RowEnd (&ends)[2], int column) {
    const int lane = threadIdx.x % warp_size, warp_row = threadIdx.x / warp_size % 4 * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const int64 partial = item.partial_row + row;
        float2 *to = pointer<float2>(p.partial_output + 4 * (partial * dim_vo + column)) + lane % 4;
        if (row < item.row_count) {
            if (column == 0 && lane % 4 == 0) pointer<float>(p.partial_lse)[partial] = ends[h].lse;
#pragma unroll
            for (int n = 0; n < own_columns / 8; ++n) to[n * 4] = make_float2(output[n][2 * h] * ends[h].factor, output[n][2 * h + 1] * ends[h].factor);
        }
    }
}

/// The same as float16, see `parts_are_halves`.
FI_DEVICE void store_row_halves(const fi_attention_params &p, const Item &item, const Outputs &output, const RowEnd (&ends)[2], int column) {
    const int lane = threadIdx.x % warp_size, warp_row = threadIdx.x / warp_size % 4 * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const bool is_there = row < item.row_count;
        const int64 partial = item.partial_row + row;
        float top = 0;
#pragma unroll
        for (int n = 0; n < own_columns / 8; ++n) top = fmaxf(top, fmaxf(fabsf(output[n][2 * h]), fabsf(output[n][2 * h + 1])));
        const uint32 exponent = part_exponent(quad_max(top) * fabsf(ends[h].factor));
        char *to = pointer<char>(p.partial_output) + partial * part_row_bytes;
        if (is_there && lane % 4 == 0) {
            if (column == 0) pointer<float>(p.partial_lse)[partial] = ends[h].lse;
            reinterpret_cast<float *>(to + part_scales)[column / own_columns] = part_scale(exponent);
        }
        const float factor = ends[h].factor * part_factor(exponent);
        uint4 *fours = reinterpret_cast<uint4 *>(to + column * 2) + lane % 4;
#pragma unroll
        for (int n = 0; n < own_columns / 8; n += 4) {
            uint32 w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) w[j] = pack<Half::float16>(output[n + j][2 * h] * factor, output[n + j][2 * h + 1] * factor);
            transpose_quad(w);
            if (is_there) fours[n] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/// Outputs follow their rows' references.
FI_DEVICE void scale_outputs(Outputs &output, const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < own_columns / 8; ++n)
        output[n][0] *= factor[0], output[n][1] *= factor[0], output[n][2] *= factor[1], output[n][3] *= factor[1];
}

/// One of the two warpgroups at work on an item.
struct Computer {
    const Block &block;
    const Item &item;
    StagePhases &phases;
    const int group, tiles;
    const float scale;
    /// Keys before this one are seen by all rows of the warp.
    const int masked;
    const bool has_rows;
    RowState state;

    __device__ __forceinline__ Computer(const Block &block, const Item &item, StagePhases &phases, int group)
        : block(block), item(item), phases(phases), group(group), tiles(tiles_of(item)), scale(score_scales(block.p, item).x),
          masked(min(item.key_end(), last_visible(block.p, item, item.query(block.p, max(min(first_row(), item.row_count - 1), 0))) + 1)),
          has_rows(first_row() < item.row_count) {}

    FI_DEVICE int first_row() { return threadIdx.x % 128 / warp_size * 16; }
    /// Where this thread's first row of a stage's references, or a warpgroup's sums, lies; the second is eight rows on.
    __device__ __forceinline__ uint32 row_at(int table, int which) const {
        return block.base + table + (which * rows + first_row() + threadIdx.x % warp_size / 4) * 4;
    }
    __device__ __forceinline__ uint32 weights_at() const { return block.base + Shared::weights; }
    /// This warpgroup's columns of a stage's values, with nothing behind the last key.
    __device__ __forceinline__ uint64 values(int tile, int stage) const {
        const uint32 at = block.stage(stage) + Shared::part_at(group);
        const int there = item.key_count - tile * keys;
        if (there < keys) clear_rows(at, there);
        return operand(at, Shared::tile_bytes);
    }

    /// Waits for the weights of the other warpgroup's stage, and takes over its references.
    __device__ __forceinline__ void follow_other(Outputs &output) {
        const int stage = group ^ 1;
        barrier(block.barriers.weights[stage]).wait(phases.of(stage));
        if constexpr (FI_GATHER) fence_async_proxy();
        const uint32 at = row_at(Shared::references, stage);
        const float next[2] = {load_shared_float(at), load_shared_float(at + 8 * 4)};
        if (__any_sync(0xffffffff, next[0] != state.maximum[0] || next[1] != state.maximum[1])) {
            float factor[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                factor[h] = exp2_approximate(state.maximum[h] * scale - reference(next[h], scale));
                state.maximum[h] = next[h];
                state.sum[h] *= factor[h];
            }
            scale_outputs(output, factor);
        }
    }
    /// outputs += weights · values of the other warpgroup's stage, under way.
    __device__ __forceinline__ void start_other(Outputs &output, int tile) {
        const int stage = group ^ 1;
        const uint64 b = values(tile, stage), a = operand(weights_at());
        wgmma_fence();
        wgmma_four_by_columns<half_type, 32, 16 * 128>(output, a, b);
        wgmma_commit();
    }
    /// When those are done.
    __device__ __forceinline__ void end_other() {
        const int stage = group ^ 1;
        block.give_back(stage, group);
        phases.flip(stage);
    }

    /// Weights of this warpgroup's stage from its scores, handed to the other; `packed` are left operands. Whether outputs are to be multiplied
    /// by `factor` first.
    __device__ __forceinline__ bool weigh(float (&s)[key_tiles][4], uint32 (&packed)[keys / 16][4], float (&factor)[2], int tile) {
        const int lane = threadIdx.x % warp_size;
        bool rises = false;
        // Where a warp has no rows, no matter what is multiplied.
        if (has_rows) {
            const int first_key = item.key + tile * keys, row = first_row() + lane % 16;
            if (first_key + keys > masked) hide_scores(s, block.p, item, first_key);
            rises = weigh_scores(state, s, scale, factor);
            const uint32 to = weights_at() + row * 128;
#pragma unroll
            for (int step = 0; step < keys / 16; ++step) {
                pack_weights(packed[step], s, step);
                store_matrices(packed[step], to + ((step * 2 + lane / 16 ^ row % 8) << 4));
            }
        }
        if (lane % 4 == 0) {
            const uint32 at = row_at(Shared::references, group);
            store_shared(at, __float_as_uint(state.maximum[0]));
            store_shared(at + 8 * 4, __float_as_uint(state.maximum[1]));
        }
        fence_async_proxy();
        barrier(block.barriers.weights[group]).arrive();
        __syncwarp();
        return rises;
    }
    /// outputs += weights · values of this warpgroup's stage, under way.
    __device__ __forceinline__ void start_own(Outputs &output, const uint32 (&packed)[keys / 16][4], int tile) {
        const uint64 b = values(tile, group);
        wgmma_fence();
        wgmma_four<half_type, 16 * 128>(output, packed, b);
        wgmma_commit();
    }
    /// When those are done.
    __device__ __forceinline__ void end_own() {
        block.give_back(group, group);
        phases.flip(group);
    }

    /// A stage of this warpgroup, and the one before, which is the other's.
    ///
    /// Scores are begun with the half of the keys that came first, and ended with the other half when the other's stage is multiplied and so
    /// given back: all scores first would keep memory that the next keys wait for, all scores last would keep the other warpgroup waiting.
    template <bool has_other> __device__ __forceinline__ void run(Outputs &output, int tile) {
        float s[key_tiles][4], factor[2];
        uint32 packed[keys / 16][4];
        start_scores<left_part, right_part>(s, block, group, phases.of(group));
        if constexpr (has_other) {
            follow_other(output);
            start_other(output, tile - 1);
        }
        start_scores<right_part, part_count>(s, block, group, phases.of(group), [&] {
            // Given back as soon as it has been multiplied: with all of these scores asked for first it would be 600 cycles later.
            if constexpr (has_other) {
                wgmma_commit();
                wgmma_wait<1>();
                end_other();
            }
        });
        wgmma_wait<0>();
        block.give_back(group, rest_part);
        const bool rises = weigh(s, packed, factor, tile);
        if (rises) scale_outputs(output, factor);
        start_own(output, packed, tile);
        wgmma_wait<0>();
        end_own();
    }

    __device__ __forceinline__ void run_all(Outputs &output) {
        int tile = group;
        if (group == 0 && tiles > 0) {
            run<false>(output, 0);
            tile = 2;
        }
#pragma unroll 1
        for (; tile < tiles; tile += 2) run<true>(output, tile);
        if (tile == tiles && tiles > 0) {
            follow_other(output);
            start_other(output, tile - 1);
            wgmma_wait<0>();
            end_other();
        }
    }

    /// How this thread's rows end, with the sums of both warpgroups, whose references are the same by now.
    __device__ __forceinline__ void end_rows(RowEnd (&ends)[2]) const {
        const float own[2] = {quad_sum(state.sum[0]), quad_sum(state.sum[1])};
        if (threadIdx.x % 4 == 0) {
            const uint32 at = row_at(Shared::sums, group);
            store_shared(at, __float_as_uint(own[0]));
            store_shared(at + 8 * 4, __float_as_uint(own[1]));
        }
        sync_block();
        const uint32 at = row_at(Shared::sums, group ^ 1);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float other = load_shared_float(at + h * 8 * 4);
            // In the same order in both.
            ends[h] = end_row(state.maximum[h] * scale, group == 0 ? own[h] + other : other + own[h]);
        }
    }
};

/// Item after item.
FI_DEVICE void compute_items(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    StagePhases phases;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        ask_queries(block, item);
        Outputs output;
#pragma unroll
        for (int n = 0; n < own_columns / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) output[n][i] = 0;
        Computer computer(block, item, phases, group);
        await_queries();
        computer.run_all(output);
        RowEnd ends[2];
        computer.end_rows(ends);
        // Asked of all lanes, so that the assembler knows that they go together: else it has every exchange of theirs a second time for those that
        // do not, a fourth of all instructions.
        if (__any_sync(0xffffffff, item.row_count > 0)) {
            if (__any_sync(0xffffffff, item.partial_row < 0)) {
                store_rows(p, item, output, ends, group * own_columns);
            } else {
                if (__any_sync(0xffffffff, parts_are_halves(item))) store_row_halves(p, item, output, ends, group * own_columns);
                else store_row_parts(p, item, output, ends, group * own_columns);
                // Nothing is left to do where this was the list's last item.
                merge_with_others(p, item, shared, block.await_item(turn + 1).tile < 0);
            }
        }
        __syncwarp();
        if (threadIdx.x % warp_size == 0) barrier(block.barriers.item_empty[turn % item_slots]).arrive();
    }
}
