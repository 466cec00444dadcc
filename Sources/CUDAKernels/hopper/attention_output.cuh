// Outputs that leave straight from registers: where there is no memory that they could leave through, and parts of cut tiles.
#pragma once
#include "portable/attention_finish.cuh"
#include "primitives/quad.cuh"

/// Queries that the next item's replace at once, or that are narrower, leave no way through theirs.
constexpr bool leaves_from_registers = query_slots == 1 || !can_finish_alone;

/// Ends a warp's rows: to the output where they had their keys to themselves, 16 bytes a lane, four lanes 64 in a row; else an item's part of a
/// tile whose keys were cut, to the workspace.
///
/// One function, as what both do is a fortieth of what the kernel takes to compile. `has_parts_only` where whole rows leave another way.
template <bool has_parts_only = false>
FI_DEVICE void end_in_registers(const fi_attention_params &p, const Item &item, State &state, int warp_row, float scale) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int lane = threadIdx.x % warp_size;
    const bool is_part = has_parts_only || item.partial_row >= 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = warp_row + h * 8 + lane / 4;
        const bool is_there = row < item.row_count;
        const int query = item.query(p, is_there ? row : 0), head = item.query_head(p, is_there ? row : 0, query);
        RowEnd end = end_row(state.maximum[0][h] * scale, quad_sum(state.sum[0][h]));
        float *lse = pointer<float>(p.partial_lse) + item.partial_row + row;
        bool has_lse = blockIdx.y == 0;
        if (!is_part) {
            end = whole_row(end, p, item, query, head);
            end.factor *= value_factor(p, item);
            lse = pointer<float>(p.lse) + (item.first_query + query) * p.lse_token + head * p.lse_head;
            has_lse = p.lse != 0;
        }
        if (is_there && has_lse && lane % 4 == 0) *lse = end.lse;
#pragma unroll
        for (int n = 0; n < value_tiles; ++n) state.output[0][n][2 * h] *= end.factor, state.output[0][n][2 * h + 1] *= end.factor;
        if (is_part) {
            float *to = pointer<float>(p.partial_output) + (static_cast<int64>(item.partial_row) + row) * dim_vo + blockIdx.y * slice_vo + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < slice_vo / 8; ++n)
                if (is_there) *reinterpret_cast<float2 *>(to + n * 8) = make_float2(state.output[0][n][2 * h], state.output[0][n][2 * h + 1]);
            continue;
        }
        const VariantRow at(p, item, query, head);
        const auto element = [&](float x) { return variant_output(p, at, x); };
        uint4 *to = pointer<uint4>(p.output + 2 * ((item.first_query + query) * p.output_token + head * p.output_head)) + lane % 4;
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
