// Outputs that leave straight from registers: where there is no memory that they could leave through, and parts of cut tiles.
#pragma once
#include "portable/attention_finish.cuh"
#include "primitives/quad.cuh"

/// Queries that the next item's replace at once, or that are narrower, leave no way through theirs.
constexpr bool leaves_from_registers = query_slots == 1 || !can_finish_alone;

/// Ends the rows of a warp that had their keys to itself: 16 bytes a lane, four lanes 64 in a row.
FI_DEVICE void finish_from_registers(const fi_attention_params &p, const Item &item, State &state, int warp_row, float scale) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int lane = threadIdx.x % warp_size;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const bool is_there = row < item.row_count;
        const int query = item.query(p, is_there ? row : 0), head = item.query_head(p, is_there ? row : 0, query);
        const RowEnd end = whole_row(end_row(state.maximum[0][h] * scale, quad_sum(state.sum[0][h])), p, item, query, head);
        const int64 token = item.first_query + query;
        if (is_there && lane % 4 == 0 && p.lse != 0) pointer<float>(p.lse)[token * p.lse_token + head * p.lse_head] = end.lse;
        const float factor = end.factor * value_factor(p, item);
        const VariantRow at(p, item, query, head);
        const auto element = [&](float x) { return variant_output(p, at, x * factor); };
        uint4 *to = pointer<uint4>(p.output + 2 * (token * p.output_token + head * p.output_head)) + lane % 4;
#pragma unroll
        for (int n = 0; n < value_tiles; n += 4) {
            uint32 w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j)
                w[j] = pack<type>(element(state.output[0][n + j][2 * h]), element(state.output[0][n + j][2 * h + 1]));
            transpose_quad(w);
            if (is_there && (n + lane % 4) * 8 < slice_vo) to[n] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

/// An item's part of a tile whose keys were cut, to the workspace.
FI_DEVICE void store_part(const fi_attention_params &p, const Item &item, const State &state, int warp_row, float scale) {
    const int lane = threadIdx.x % warp_size;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const RowEnd end = end_row(state.maximum[0][h] * scale, quad_sum(state.sum[0][h]));
        if (row >= item.row_count) continue;
        const int64 partial = item.partial_row + row;
        if (lane % 4 == 0 && blockIdx.y == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
        float *to = pointer<float>(p.partial_output) + partial * dim_vo + blockIdx.y * slice_vo + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < slice_vo / 8; ++n)
            *reinterpret_cast<float2 *>(to + n * 8) =
                make_float2(state.output[0][n][2 * h] * end.factor, state.output[0][n][2 * h + 1] * end.factor);
    }
}
