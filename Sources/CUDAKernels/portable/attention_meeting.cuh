// How the states of warps that shared keys become one.
#pragma once
#include "portable/attention_finish.cuh"

/// Ends an item: the states of warps that shared keys meet in shared memory, which is free: every warp is past its last product, and every copy
/// has arrived.
FI_DEVICE void meet(const Item &item, State &state, char *shared, float scale) {
    float *outputs = reinterpret_cast<float *>(shared);
    float2 *ends = reinterpret_cast<float2 *>(shared + Shared::meeting_ends);
    const int lane = threadIdx.x % warp_size, warp_n = threadIdx.x / warp_size % warps_n;
    const int warp_row = threadIdx.x / warp_size / warps_n * warp_rows;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (warp_row + m * 16 + h * 8 >= item.row_count) continue;
            const int row = warp_n * rows + warp_row + m * 16 + h * 8 + lane / 4;
            const float sum = quad_sum(state.sum[m][h]);
            if (lane % 4 == 0) ends[row] = make_float2(state.maximum[m][h] * scale, sum);
            float *to = outputs + row * Shared::meeting_stride;
#pragma unroll
            for (int n = 0; n < value_tiles; n += 2) {
                const float(&x)[4] = state.output[m][n], (&y)[4] = state.output[m][n + 1];
                if constexpr (is_narrow) {
                    // Tiles n and n + 1 have the even and the odd elements of 16: a thread's four are neighbours.
                    *reinterpret_cast<float4 *>(to + n * 8 + 4 * (lane % 4)) = make_float4(x[2 * h], y[2 * h], x[2 * h + 1], y[2 * h + 1]);
                } else {
                    *reinterpret_cast<float2 *>(to + n * 8 + 2 * (lane % 4)) = make_float2(x[2 * h], x[2 * h + 1]);
                    *reinterpret_cast<float2 *>(to + n * 8 + 8 + 2 * (lane % 4)) = make_float2(y[2 * h], y[2 * h + 1]);
                }
            }
        }
    __syncthreads();
}

/// What met leaves row by row: for the output or the workspace.
FI_DEVICE void part(const fi_attention_params &p, const Item &item, char *shared) {
    const float *outputs = reinterpret_cast<const float *>(shared);
    const float2 *ends = reinterpret_cast<const float2 *>(shared + Shared::meeting_ends);
    const bool is_part = item.partial_row >= 0;
    // Each thread finds its row's end anew, which takes less time than to wait for those that would.
#pragma unroll 1
    for (int id = threadIdx.x; id < item.row_count * row_fours; id += threads) {
        const int row = id / row_fours, d = id % row_fours * 4;
        const float *own = outputs + row * Shared::meeting_stride + d;
        float maximum = negative_infinity(), sum = 0;
        float2 of_warp[warps_n];
        float4 x[warps_n], v = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < warps_n; ++w) {
            of_warp[w] = ends[w * rows + row];
            x[w] = *reinterpret_cast<const float4 *>(own + w * rows * Shared::meeting_stride);
        }
#pragma unroll
        for (int w = 0; w < warps_n; ++w) maximum = fmaxf(maximum, of_warp[w].x);
#pragma unroll
        for (int w = 0; w < warps_n; ++w) {
            const float weight = of_warp[w].x == negative_infinity() ? 0 : exp2_approximate(of_warp[w].x - maximum);
            sum += of_warp[w].y * weight;
            v.x += x[w].x * weight, v.y += x[w].y * weight, v.z += x[w].z * weight, v.w += x[w].w * weight;
        }
        const RowEnd end = end_row(maximum, sum);
        if (!is_part) {
            leave(p, item, row, d, v, end);
            continue;
        }
        v.x *= end.factor, v.y *= end.factor, v.z *= end.factor, v.w *= end.factor;
        const int partial = item.partial_row + row;
        if (d == 0 && blockIdx.y == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
        store_partial(p, static_cast<int64>(partial) * dim_vo + blockIdx.y * slice_vo + d, v, count_of_four(d));
    }
}

/// Merges a tile's parts from the workspace, a thread reading `at_once` parts of `fours` times four elements of a row, and of its end, at once.
///
/// Blocks that decode few keys spend most of their time on what follows from what: this takes one wait for memory, or a few, and
/// `merge_parts` three and more.
template <int fours, int at_once> FI_DEVICE void merge_at_once(const fi_attention_params &p, const Item &item) {
    const int parts = item.parts, stride = item.part_stride();
    const float *lses = pointer<const float>(p.partial_lse) + item.merge_row;
    const float *outputs = pointer<const float>(p.partial_output) + static_cast<int64>(item.merge_row) * dim_vo + blockIdx.y * slice_vo;
    // A thread's fours are as far apart as its neighbours' are many, so that those read lines.
    constexpr int across = row_fours / fours;
#pragma unroll 1
    for (int id = threadIdx.x; id < item.row_count * across; id += threads) {
        const int row = id / across, d = id % across * 4;
        float maximum = negative_infinity(), sum = 0;
        float4 v[fours];
#pragma unroll
        for (int f = 0; f < fours; ++f) v[f] = make_float4(0, 0, 0, 0);
        // Addresses step from part to part: computed anew they were half of the instructions.
        const float *lse_at = lses + row, *from = outputs + row * dim_vo + d;
        const int64 step = static_cast<int64>(stride) * dim_vo;
        // Parts are added in the order of their keys, so the result does not depend on who came last.
#pragma unroll 1
        for (int first = 0; first < parts; first += at_once) {
            float of_part[at_once];
            float4 x[at_once][fours];
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                of_part[i] = negative_infinity();
#pragma unroll
                for (int f = 0; f < fours; ++f) x[i][f] = make_float4(0, 0, 0, 0);
                if (first + i < parts) {
                    of_part[i] = __ldcg(lse_at);
#pragma unroll
                    for (int f = 0; f < fours; ++f) x[i][f] = __ldcg(reinterpret_cast<const float4 *>(from) + f * across);
                }
                lse_at += stride, from += step;
            }
            float next = maximum;
#pragma unroll
            for (int i = 0; i < at_once; ++i) next = fmaxf(next, of_part[i]);
            const float base = reference(next, 1), factor = exp2_approximate(maximum - base);
            maximum = next;
            sum *= factor;
#pragma unroll
            for (int f = 0; f < fours; ++f) v[f].x *= factor, v[f].y *= factor, v[f].z *= factor, v[f].w *= factor;
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                const float weight = exp2_approximate(of_part[i] - base);
                sum += weight;
#pragma unroll
                for (int f = 0; f < fours; ++f)
                    v[f].x += x[i][f].x * weight, v[f].y += x[i][f].y * weight, v[f].z += x[i][f].z * weight, v[f].w += x[i][f].w * weight;
            }
        }
        const RowOutput out = finish_row_here(p, item, row, end_row(maximum, sum));
#pragma unroll
        for (int f = 0; f < fours; ++f) leave_four(p, item, row, d + f * across * 4, v[f], out);
    }
}

/// The same in the way that is faster for so many rows: what is not there takes its instructions too, and rows that wait for those before
/// take their time (H200: four requests of 1,024 keys in 8 parts each 7.95 us with 8 at once and 8.14 with 16, one of 32,768 in 33 35.2 and 34.9;
/// 32 requests of groups of 8 in 2 parts 65.9 with a four a thread and 65.0 with two).
FI_DEVICE void merge_many_at_once(const fi_attention_params &p, const Item &item) {
    constexpr bool may_pair = row_fours % 2 == 0 && rows * row_fours > threads;
    if (may_pair && item.row_count * row_fours > threads) merge_at_once<may_pair ? 2 : 1, 4>(p, item);
    else merge_at_once<1, 8>(p, item);
}

/// The same as `merge_if_last` for a list's items. Not a function of its own: a launch ends with the last of these, and there the parameter
/// is constants that are here, where a function would read it as memory, a line after the other.
FI_DEVICE void merge_part_if_last(const fi_attention_params &p, const Item &item, char *shared) {
    if constexpr (is_latent || dim_vo % 4 != 0 || slice_vo % 4 != 0) merge_if_last(p, item, shared);
    else if (arrives_last(p, item)) merge_many_at_once(p, item);
}
