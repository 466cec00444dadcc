// Outputs that leave straight from registers: where there is no memory that they could leave through, and parts of cut tiles.
#pragma once
#include "portable/attention_finish.cuh"
#include "primitives/quad.cuh"

/// Queries that the next item's replace at once, or that are narrower, leave no way through theirs.
constexpr bool leaves_from_registers = query_slots == 1 || !can_finish_alone;

/// How many of a thread's two rows are text of their own: with one, a kernel takes 3 to 6 % less to compile. With e4m3 that puts moves into the loop over
/// stages (1,253 to 1,310 us, heads of 128).
#ifdef FI_HOPPER_FLOAT8
constexpr int rows_of_text = 2;
#else
constexpr int rows_of_text = 1;
#endif

/// Ends a warp's rows: to the output where they had their keys to themselves, 16 bytes a lane, four lanes 64 in a row; else an item's part of a
/// tile whose keys were cut, to the workspace.
///
/// One function, as what both do is a fortieth of what the kernel takes to compile. `has_parts_only` where whole rows leave another way.
template <bool has_parts_only = false>
FI_DEVICE void end_in_registers(const fi_attention_params &p, const Item &item, State &state, int warp_row, const LaneRow &own, bool is_part) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    constexpr bool has_one_text = rows_of_text == 1;
    const int lane = threadIdx.x % warp_size;
    const auto scale_row = [&](int h, int of) {
        const float factor = __shfl_sync(0xffffffff, own.end.factor, of);
#pragma unroll
        for (int n = 0; n < value_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) state.output[0][n][has_one_text ? i : 2 * h + i] = state.output[0][n][2 * h + i] * factor;
    };
    scale_row(0, lane / 4);
#pragma unroll rows_of_text
    for (int turn = 0; turn < 2; ++turn) {
        const int h = has_one_text ? 0 : turn, of = turn * 8 + lane / 4;
        const bool is_there = warp_row + of < item.row_count;
        const uint64 output = of_row(own.output, of);
        if (is_part) {
            float *to = pointer<float>(output) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < slice_vo / 8; ++n)
                if (is_there) *reinterpret_cast<float2 *>(to + n * 8) = make_float2(state.output[0][n][2 * h], state.output[0][n][2 * h + 1]);
        } else {
            const VariantRow at = own.variant_row(p, item, of);
            const auto element = [&](float x) { return variant_output(p, at, x); };
            uint4 *to = pointer<uint4>(output) + lane % 4;
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
        // In one text the lower row takes the upper one's place.
        if (turn == 0) scale_row(1, 8 + lane / 4);
    }
}

template <bool has_parts_only = false>
FI_DEVICE void end_in_registers(const fi_attention_params &p, const Item &item, State &state, int warp_row, float scale) {
    const bool is_part = has_parts_only || item.partial_row >= 0;
    end_in_registers<has_parts_only>(p, item, state, warp_row, LaneRow(p, item, state, warp_row, scale, is_part), is_part);
}
