// How an item of few rows ends: each warpgroup's half of its outputs goes where it belongs.
#pragma once
#include "hopper/latent_merge.cuh"
#include "hopper/latent_short_tile.cuh"

/// Of one of the warpgroups. All threads of both take part.
struct Finisher {
    using Outputs = float[half_columns][2][4];

    const Block &block;
    const Item &item;
    TileComputer &computer;
    const int own, column;

    __device__ __forceinline__ Finisher(const Block &block, const Item &item, TileComputer &computer)
        : block(block), item(item), computer(computer), own(computer.group), column(own * (dim_vo / 2)) {}

    FI_DEVICE int lane() { return TileComputer::lane(); }
    FI_DEVICE int warp() { return TileComputer::warp(); }
    FI_DEVICE int row_of(int n) { return TileComputer::row_of(n); }
    /// How rows `row_of(n)` and the next end, by the sums of both warpgroups' weights, which are relative to the same by now.
    __device__ __forceinline__ void end_rows(RowEnd (&ends)[2][2]) const {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const float all[2] = {column_sum(computer.sum[n][0]), column_sum(computer.sum[n][1])};
            if (lane() < 4)
                store_shared(computer.of_warp(Shared::sums, own, warp(), row_of(n)), make_uint2(__float_as_uint(all[0]), __float_as_uint(all[1])));
        }
        sync_block();
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float total[2] = {};
#pragma unroll
            for (int warp = 0; warp < 8; ++warp) {
                const float2 x = load_shared_float2(computer.of_warp(Shared::sums, 0, warp, row_of(n)));
                total[0] += x.x, total[1] += x.y;
            }
#pragma unroll
            for (int j = 0; j < 2; ++j) ends[n][j] = end_row(computer.maximum[n][j] * computer.scale, total[j]);
        }
    }
    /// Outputs as 16 bits, turned, to the place of the queries: rows of 512 bytes, swizzled; and from there `store(row, chunk of this
    /// lane, sixteen bytes)`, a warp a row.
    template <Half type, class Store> __device__ __forceinline__ void store_turned(const Outputs &output, Store store) const {
        const uint32 staged = block.base + Shared::staged + own * Shared::staged_bytes;
        const int to_row = TileComputer::turned_row();
#pragma unroll
        for (int m = 0; m < half_columns; ++m) {
            const float(&x)[2][4] = output[m];
            const uint32 packed[4] = {pack<type>(x[0][0], x[0][1]), pack<type>(x[0][2], x[0][3]), pack<type>(x[1][0], x[1][1]),
                                      pack<type>(x[1][2], x[1][3])};
            store_matrices_transposed(packed,
                                      staged + to_row * 512 + ((m * 8 + warp() * 2 + TileComputer::turned_chunk() ^ to_row % 8) << 4));
        }
        computer.sync_group();
#pragma unroll
        for (int turn = 0; turn < rows / 4; ++turn) {
            const int row = turn * 4 + warp();
            if (row < item.row_count) store(row, load_shared128(staged + row * 512 + ((lane() ^ row % 8) << 4)));
        }
    }

    /// Whole rows to the output.
    __device__ __forceinline__ void store_rows(const Outputs &output) const {
        const fi_attention_params &p = block.p;
        store_turned<FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16>(output, [&](int row, uint4 v) {
            const int query = item.query(p, row), head = item.query_head(p, row, query);
            pointer<uint4>(p.output + 2 * ((item.first_query + query) * p.output_token + head * p.output_head + column))[lane()] = v;
        });
    }
    /// Parts to the workspace as float16, see `parts_are_halves`.
    __device__ __forceinline__ void store_halves(Outputs &output) const {
        char *const to = pointer<char>(block.p.partial_output) + static_cast<int64>(item.partial_row) * part_row_bytes;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float top[2] = {};
#pragma unroll
            for (int m = 0; m < half_columns; ++m)
#pragma unroll
                for (int j = 0; j < 2; ++j) top[j] = fmaxf(top[j], fmaxf(fabsf(output[m][n][j]), fabsf(output[m][n][j + 2])));
            const float all[2] = {column_max(top[0]), column_max(top[1])};
            if (lane() < 4)
                store_shared(computer.of_warp(Shared::maxima, own, warp(), row_of(n)), make_uint2(__float_as_uint(all[0]), __float_as_uint(all[1])));
        }
        computer.sync_group();
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float2 all = make_float2(0, 0);
#pragma unroll
            for (int warp = 0; warp < 4; ++warp) {
                const float2 x = load_shared_float2(computer.of_warp(Shared::maxima, own, warp, row_of(n)));
                all = make_float2(fmaxf(all.x, x.x), fmaxf(all.y, x.y));
            }
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int row = row_of(n) + j;
                const uint32 exponent = part_exponent(j == 0 ? all.x : all.y);
                if (lane() < 4 && warp() == 0 && row < item.row_count)
                    reinterpret_cast<float *>(to + row * part_row_bytes + part_scales)[own] = part_scale(exponent);
                const float factor = part_factor(exponent);
#pragma unroll
                for (int m = 0; m < half_columns; ++m) output[m][n][j] *= factor, output[m][n][j + 2] *= factor;
            }
        }
        store_turned<Half::float16>(
            output, [&](int row, uint4 v) { reinterpret_cast<uint4 *>(to + row * part_row_bytes + column * 2)[lane()] = v; });
    }
    /// The same as float32, where a row has more parts than are merged by many: rare, so element by element.
    __device__ __forceinline__ void store_parts(const Outputs &output) const {
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int row = row_of(n) + j;
                float *to = pointer<float>(block.p.partial_output) + (static_cast<int64>(item.partial_row) + row) * dim_vo + column + warp() * 16 + lane() / 4;
                if (row < item.row_count)
#pragma unroll
                    for (int m = 0; m < half_columns; ++m) to[m * 64] = output[m][n][j], to[m * 64 + 8] = output[m][n][j + 2];
            }
    }

    /// The rows' LSE, by the lanes that have two rows each, after what takes longer.
    __device__ __forceinline__ void store_ends(const RowEnd (&ends)[2][2]) const {
        const fi_attention_params &p = block.p;
        const bool is_part = item.partial_row >= 0;
        if (!is_part && p.lse == 0) return;
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int row = row_of(n) + j;
                if (row >= item.row_count) continue;
                const int query = item.query(p, row), head = item.query_head(p, row, query);
                *(is_part ? pointer<float>(p.partial_lse) + item.partial_row + row
                          : pointer<float>(p.lse) + (item.first_query + query) * p.lse_token + head * p.lse_head) = ends[n][j].lse;
            }
    }

    __device__ __forceinline__ void finish(char *shared, bool may_wait) const {
        const fi_attention_params &p = block.p;
        const bool is_part = item.partial_row >= 0;
        RowEnd ends[2][2];
        end_rows(ends);
        Outputs &output = computer.output;
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float factor = is_part ? ends[n][j].factor : ends[n][j].factor * p.value_scale;
#pragma unroll
                for (int m = 0; m < half_columns; ++m) output[m][n][j] *= factor, output[m][n][j + 2] *= factor;
            }
        if (!is_part) store_rows(output);
        else if (parts_are_halves(item)) store_halves(output);
        else store_parts(output);
        if (own == 0 && warp() == 0 && lane() < 4) store_ends(ends);
        if (!is_part) return;
        merge_with_others(p, item, shared, may_wait);
        // The copy engine writes keys where parts were merged.
        fence_async_proxy();
    }
};

/// Item after item; of the first it is known where queries come from.
FI_DEVICE void compute_items(const Block &block, char *shared, const QueryCopies &first_queries) {
    const int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    TilePlace at;
    uint32 phases = 0;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.await_item(turn);
        if (item.tile < 0) return;
        if (turn == 0) first_queries.ask();
        else QueryCopies(block, item).ask();
        TileComputer computer(block, item, group, at, phases);
        await_queries();
        computer.run_all();
        const auto may_wait = [&] { return item.partial_row >= 0 && block.await_item(turn + 1).tile < 0; };
        Finisher(block, item, computer).finish(shared, may_wait());
        __syncwarp();
        if (threadIdx.x % warp_size == 0) barrier(block.barriers.item_empty[turn % item_slots]).arrive();
        // All have read what the next item's queries take the place of.
        sync_block();
    }
}
