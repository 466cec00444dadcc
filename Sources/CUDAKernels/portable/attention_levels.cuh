// Merging where several levels of requests have the same rows: each item leaves its state, and whoever leaves a row's last one merges it.
//
// Rows meet in segments, whose rows are in the same tile at every level: a tile of a shared prefix has many of them, a tile of one
// sequence one. A block counts itself in at each of its segments, a thread for each.
#pragma once

/// A row of the tile at hand that this block merges, in 16 bytes.
struct LevelRow {
    /// The list's first state; the number of states and the row's place in its segment. 0 states: left to others.
    int first;
    uint16 count, place;
    /// The largest log-sum-exp, as a reference, and what the weighted sum is multiplied by.
    float base, factor;
};
static_assert(sizeof(LevelRow) == 16, "what a merge has for each row of a tile");

/// Merges the rows of an item that no other item has yet to come to.
static __device__ __noinline__ void merge_if_last(const fi_attention_params &p, const Item &item, char *shared) {
    LevelRow *level_rows = reinterpret_cast<LevelRow *>(shared + Shared::meeting_ends);
    const int *segments = pointer<const int>(p.segment_indptr) + item.merge_row;
    const int *lists = pointer<const int>(p.list_indptr), *states = pointer<const int>(p.states);
    const int first_row = item.first_query * static_cast<int>(p.group) + item.row;
    // As for the parts of one tile: what the block wrote before the barrier is visible before each thread's arrivals are, and what
    // others wrote before theirs is to the block after the next barrier.
    sync_block();
#pragma unroll 1
    for (int i = threadIdx.x; i < item.parts; i += threads) {
        const int list = (item.merge_row + i) * p.kv_heads + item.head, first = lists[list], count = lists[list + 1] - first;
        uint32 *arrivals = pointer<uint32>(p.arrivals) + static_cast<int64>(list) * gridDim.y + blockIdx.y;
        const bool is_last = add_acquire_release(arrivals, 1) == static_cast<uint32>(count - 1);
        if (is_last) *arrivals = 0;
        const int start = segments[i], end = segments[i + 1];
#pragma unroll 1
        for (int row = start; row < end; ++row)
            level_rows[row - first_row] = {first, static_cast<uint16>(is_last ? count : 0), static_cast<uint16>(row - start), 0, 0};
    }
    sync_block();

    // States are added in the order of the list, so the result does not depend on who came last.
    const float *lses = pointer<const float>(p.partial_lse);
    const int lane = threadIdx.x % warp_size;
#pragma unroll 1
    for (int row = threadIdx.x / warp_size; row < item.row_count; row += warps) {
        const LevelRow at = level_rows[row];
        if (at.count == 0) continue;
        const auto lse = [&](int state) { return __ldcg(lses + states[at.first + state] + at.place); };
        // A lane has every 32nd state; the first of them stays in a register.
        const float first_lse = lane < at.count ? lse(lane) : negative_infinity();
        float maximum = first_lse;
#pragma unroll 1
        for (int state = lane + warp_size; state < at.count; state += warp_size) maximum = fmaxf(maximum, lse(state));
#pragma unroll
        for (int step = warp_size / 2; step > 0; step /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, step));
        const float base = reference(maximum, 1);
        float sum = exp2_approximate(first_lse - base);
#pragma unroll 1
        for (int state = lane + warp_size; state < at.count; state += warp_size) sum += exp2_approximate(lse(state) - base);
#pragma unroll
        for (int step = warp_size / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
        if (lane == 0) {
            int64 target;
            level_rows[row].factor = finish_row(p, item, row, end_row(maximum, sum), target);
            level_rows[row].base = base;
        }
    }
    sync_block();
    const float *outputs = pointer<const float>(p.partial_output) + blockIdx.y * slice_vo;
#pragma unroll 1
    for (int id = threadIdx.x; id < item.row_count * row_fours; id += threads) {
        const int row = id / row_fours, d = id % row_fours * 4, elements = count_of_four(d);
        const LevelRow at = level_rows[row];
        if (at.count == 0) continue;
        float4 v = make_float4(0, 0, 0, 0);
#pragma unroll 4
        for (int state = 0; state < at.count; ++state) {
            const int from_row = states[at.first + state] + at.place;
            const float weight = exp2_approximate(__ldcg(lses + from_row) - at.base);
            const float *from = outputs + static_cast<int64>(from_row) * dim_vo + d;
            float4 x = make_float4(0, 0, 0, 0);
            if constexpr (dim_vo % 4 == 0 && slice_vo % 4 == 0) {
                x = __ldcg(reinterpret_cast<const float4 *>(from));
            } else {
                x.x = __ldcg(from);
                if (elements > 1) x.y = __ldcg(from + 1);
                if (elements > 2) x.z = __ldcg(from + 2);
                if (elements > 3) x.w = __ldcg(from + 3);
            }
            v.x += x.x * weight, v.y += x.y * weight, v.z += x.z * weight, v.w += x.w * weight;
        }
        v.x *= at.factor, v.y *= at.factor, v.z *= at.factor, v.w *= at.factor;
        const int query = item.query(p, row), head = item.query_head(p, row, query);
        const int64 target = (item.first_query + query) * p.output_token + head * p.output_head + blockIdx.y * slice_vo;
        store_output(p, target + d, v, elements, p.output_is_aligned && row_fours * 4 == slice_vo);
    }
}
