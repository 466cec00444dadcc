// The two warpgroups that have the outputs, 256 columns each of all rows: they multiply weights with the stage that holds the keys,
// whose first elements are the values, and end the items.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/wgmma.cuh"
#include "hopper/widen_chunk.cuh"
#include "primitives/quad.cuh"

/// Columns of a warpgroup, and its tiles of 64 of them.
constexpr int own_columns = dim_vo / 2, own_tiles = own_columns / 64;

/// Zeros in the rows from `first` on of a warpgroup's columns of a stage: a weight of 0 does not stop what is there if it is no number.
FI_DEVICE void clear_rows(uint32 columns_at, int first) {
    const int thread = threadIdx.x % 128, group = threadIdx.x / 128;
    for (int id = first * 8 + thread; id < keys * 8; id += 128)
#pragma unroll
        for (int tile = 0; tile < own_tiles; ++tile)
            store_shared(columns_at + (tile * keys + id / 8) * 128 + id % 8 * 16, make_uint4(0, 0, 0, 0));
    fence_async_proxy();
    sync_threads(group_barrier + group - 1, 128);
}

/// 8-bit keys on their way to the tensor cores' 16 bits, by all threads that have outputs.
struct Widener {
    RawRing raw_ring;
    StageRing ring;

    /// The next stage.
    __device__ __forceinline__ void widen_stage(const Block &block) {
        Barriers &barriers = block.barriers;
        barrier(barriers.raw_full[raw_ring.at]).wait(raw_ring.phase);
        barrier(barriers.empty[ring.at]).wait(ring.phase ^ 1);
        const uint32 from = block.base + Shared::raw + raw_ring.at * Shared::raw_bytes, to = block.stage(ring);
        const int thread = threadIdx.x - first_merger, chunk = thread % 16;
#pragma unroll 1
        for (int column = 0; column < dim_vo / 256; ++column)
#pragma unroll 1
            for (int row = thread / 16; row < keys; row += output_threads / 16)
                widen_chunk(load_shared128(from + (column * keys + row) * 256 + chunk * 16), to, row, column * 16 + chunk);
        if (thread < keys * 4) widen_chunk(load_shared128(from + keys * dim_vo + thread * 16), to, thread / 4, dim_vo / 16 + thread % 4);
        fence_async_proxy();
        __syncwarp();
        if (thread % warp_size == 0) barrier(barriers.full[ring.at]).arrive();
        block.give_back_raw(raw_ring);
        raw_ring.next();
        ring.next();
    }
};

/// Stages that are widened before they are multiplied.
constexpr int widened_ahead = stages - 1;

/// A thread's rows of an item to the output: 16 bytes a lane, four lanes 64 in a row.
FI_DEVICE void store_rows(const fi_attention_params &p, const Item &item, const float (&output)[own_columns / 8][4], uint32 ends, int column) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int lane = threadIdx.x % warp_size, warp_row = threadIdx.x / warp_size % 4 * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const bool is_there = row < item.row_count;
        const int query = item.query(p, is_there ? row : 0), head = item.query_head(p, is_there ? row : 0, query);
        const int64 token = item.first_query + query;
        const float2 end = load_shared_float2(ends + row * 8);
        if (is_there && column == 0 && lane % 4 == 0 && p.lse != 0) pointer<float>(p.lse)[token * p.lse_token + head * p.lse_head] = end.x;
        const float factor = end.y * p.value_scale;
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

/// The same to the workspace, where an item has a part of its rows' keys.
FI_DEVICE void store_row_parts(const fi_attention_params &p, const Item &item, const float (&output)[own_columns / 8][4], uint32 ends,
                               int column) {
    const int lane = threadIdx.x % warp_size, warp_row = threadIdx.x / warp_size % 4 * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        if (row >= item.row_count) continue;
        const float2 end = load_shared_float2(ends + row * 8);
        const int64 partial = item.partial_row + row;
        if (column == 0 && lane % 4 == 0) pointer<float>(p.partial_lse)[partial] = end.x;
        float *to = pointer<float>(p.partial_output) + partial * dim_vo + column + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < own_columns / 8; ++n)
            *reinterpret_cast<float2 *>(to + n * 8) = make_float2(output[n][2 * h] * end.y, output[n][2 * h + 1] * end.y);
    }
}

/// The outputs of item after item.
FI_DEVICE void compute_outputs(const Block &block, char *shared) {
    const fi_attention_params &p = block.p;
    Barriers &barriers = block.barriers;
    const int lane = threadIdx.x % warp_size, group = threadIdx.x / 128 - 1, row = threadIdx.x / warp_size % 4 * 16 + lane / 4;
    const uint32 columns = group * own_tiles * (keys * 128), ends = block.base + Shared::ends;
    const uint64 weights = operand(block.base + Shared::weights);
    const bool asks = threadIdx.x / warp_size == first_merger / warp_size;
    StageRing ring;
    Ring<2> weights_ring;
    Widener widener;
    Pages pages;
    // Stages multiplied; widened, if they are of 8 bits.
    int done = 0;
    const auto widen_one = [&](uint32 turn) {
        widener.widen_stage(block);
        ++done;
        if (asks) ask_ahead(block, done, turn, pages);
    };
    for (uint32 turn = 0;; ++turn) {
        if (asks) ask_ahead(block, done, turn, pages);
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        const int tiles = tiles_of(item);
        float output[own_columns / 8][4];
#pragma unroll
        for (int n = 0; n < own_columns / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) output[n][i] = 0;
        if constexpr (is_narrow) {
#pragma unroll 1
            for (int tile = 0; tile < min(tiles, widened_ahead); ++tile) widen_one(turn);
        }
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            barrier(barriers.weights_full[weights_ring.at]).wait(weights_ring.phase);
            const uint32 factors = block.base + Shared::factors + (weights_ring.at * rows + row) * 4;
            const float above = load_shared_float(factors), below = load_shared_float(factors + 8 * 4);
            if (tile > 0 && __any_sync(0xffffffff, above != 1 || below != 1)) {
#pragma unroll
                for (int n = 0; n < own_columns / 8; ++n)
                    output[n][0] *= above, output[n][1] *= above, output[n][2] *= below, output[n][3] *= below;
            }
            const uint32 values = block.stage(ring) + columns;
            const int there = item.key_count - tile * keys;
            block.await(ring);
            if (there < keys) clear_rows(values, there);
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < keys / 16; ++step)
                wgmma_by_columns<half_type>(output, advance_operand(weights, weights_ring.at * (keys * 2) + step * 32),
                                            operand(values + step * 16 * 128, keys * 128), true);
            wgmma_commit();
            wgmma_wait<0>();
            barrier(barriers.weights_empty[weights_ring.at]).arrive();
            __syncwarp();
            weights_ring.next();
            block.give_back(ring);
            ring.next();
            if constexpr (is_narrow) {
                if (tile + widened_ahead < tiles) widen_one(turn);
            } else {
                ++done;
                if (asks) ask_ahead(block, done, turn, pages);
            }
        }
        barrier(barriers.ends_full).wait(turn);
        if (item.row_count > 0) {
            if (item.partial_row < 0) {
                store_rows(p, item, output, ends, group * own_columns);
            } else {
                store_row_parts(p, item, output, ends, group * own_columns);
                merge_if_last(p, item, shared);
            }
        }
        barrier(barriers.ends_empty).arrive();
        __syncwarp();
    }
}
