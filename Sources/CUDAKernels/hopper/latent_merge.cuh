// How the parts of an item's rows become one, by all blocks that have a part and nothing else left to do.
//
// Whoever comes last could merge alone, as it does elsewhere; but parts of latent rows are 128 KiB each, and one processor reads a
// hundredth of what all of them do. So a block whose list has ended waits a while for the others, and all who are there share the rows.
// Nobody depends on those who wait: the last to come merges what is left, whoever else is there, and those who wait give up in time.
#pragma once
#include "hopper/latent_bring.cuh"

/// What a merge's word of `arrivals` says: parts that have arrived; whether a block left before all had, and then how many shares of rows were
/// asked for; and blocks that have left, of which the last makes it 0 again.
struct MergeWord {
    static constexpr uint32 arrival = 1, claim = 1 << 10, desertion = 1 << 21, leave = 1 << 22;
    /// What the fields hold: each block asks once more than there are shares.
    static constexpr int most_parts = 1000;

    FI_DEVICE int arrived(uint32 word) { return word % claim; }
    FI_DEVICE int claimed(uint32 word) { return word % desertion / claim; }
    FI_DEVICE bool has_deserters(uint32 word) { return (word & desertion) != 0; }
    FI_DEVICE int left(uint32 word) { return word / leave; }
};

/// How often a block looks whether all parts have arrived: some 30 us.
constexpr int most_looks = 50;

/// Rows are shared in quarters: 128 columns, a warp's width in fours.
constexpr int quarter = 128, quarters = dim_vo / quarter;

/// Threads that share a unit of `count` by its parts, so that all have something to read.
FI_DEVICE int merging_groups(int count) { return count > 4 ? 1 : count > 2 ? 2 : count > 1 ? 4 : 8; }

/// Parts of outputs of 16 bits are float16, scaled by a power of two for each row and half of its columns, so that the largest is some 2^14:
/// they are off by 2^-12 of themselves, a fraction of what the output's rounding and the weights' are, and what the L2 cache writes and reads
/// is halved, which is most of what a merge takes. A row has the place that it would have in float32; its scales follow its elements.
FI_DEVICE bool parts_are_halves(const Item &item) { return FI_OUTPUT != 0 && item.parts > 0 && item.parts <= MergeWord::most_parts; }
constexpr int part_row_bytes = dim_vo * 4, part_scales = dim_vo * 2, part_element_bytes = FI_OUTPUT != 0 ? 2 : 4;

/// Four elements of a part.
FI_DEVICE float4 read_part(const char *from) {
    if constexpr (FI_OUTPUT == 0) return __ldcg(reinterpret_cast<const float4 *>(from));
    const uint2 x = __ldcg(reinterpret_cast<const uint2 *>(from));
    return make_float4(unpack<Half::float16>(x.x & 0xffff), unpack<Half::float16>(x.x >> 16), unpack<Half::float16>(x.y & 0xffff),
                       unpack<Half::float16>(x.y >> 16));
}

/// The weighted sum of parts `first`, `first` + `by` and so on of four elements: `many` of them are under way.
template <int many> FI_DEVICE float4 add_parts(const char *from, int64 step, const float *weights, int first, int by, int parts) {
    float4 v = make_float4(0, 0, 0, 0);
#pragma unroll 1
    for (int part = first; part < parts; part += by * many) {
        float4 x[many];
#pragma unroll
        for (int i = 0; i < many; ++i)
            if (part + i * by < parts) x[i] = read_part(from + (part + i * by) * step);
#pragma unroll
        for (int i = 0; i < many; ++i) {
            if (part + i * by >= parts) continue;
            const float weight = weights[part + i * by];
            v.x += x[i].x * weight, v.y += x[i].y * weight, v.z += x[i].z * weight, v.w += x[i].w * weight;
        }
    }
    return v;
}

/// Lanes that share a row's weights: no more than it has parts, so that all rows are weighed at once where parts are few, which takes a warp
/// some 2,000 cycles however many they are.
FI_DEVICE int row_lanes(int parts) { return parts <= 4 ? 4 : parts <= 8 ? 8 : parts <= 16 ? 16 : warp_size; }

/// Merges quarters `first` to `end` of a tile's rows. In an order that does not depend on who does it. A function of its own: its registers would
/// cost others theirs.
static __device__ __noinline__ void merge_quarters(const fi_attention_params &p, const Item &item, char *shared, int first, int end) {
    const int parts = item.parts, stride = item.part_stride(), lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    const float *lses = pointer<const float>(p.partial_lse) + item.merge_row;
    int64 *targets = reinterpret_cast<int64 *>(shared + Shared::meeting_targets);
    // [rows, 3, parts]: a part's share of the row, and what its columns, left and right, are multiplied by; where queries were.
    float *weights = reinterpret_cast<float *>(shared + Shared::queries);
    const int first_row = first / quarters;
    const char *outputs = pointer<const char>(p.partial_output) + static_cast<int64>(item.merge_row) * part_row_bytes;
    const int64 step = static_cast<int64>(stride) * part_row_bytes;
    const int rows_end = (end - 1) / quarters + 1, lanes = row_lanes(parts), own_lane = lane % lanes;
#pragma unroll 1
    for (int turn = first_row; turn < rows_end; turn += mergers / lanes) {
        const int row = turn + static_cast<int>(threadIdx.x) / lanes, own_parts = row < rows_end ? parts : 0;
        float *own = weights + (row - first_row) * 3 * parts;
        float maximum = negative_infinity();
#pragma unroll 4
        for (int part = own_lane; part < own_parts; part += lanes) {
            const float lse = __ldcg(lses + part * stride + row);
            float2 scales = make_float2(1, 1);
            if constexpr (FI_OUTPUT != 0)
                scales = __ldcg(reinterpret_cast<const float2 *>(outputs + part * step + row * part_row_bytes + part_scales));
            own[part] = lse, own[parts + part] = scales.x, own[2 * parts + part] = scales.y;
            maximum = fmaxf(maximum, lse);
        }
        for (int by = lanes / 2; by > 0; by /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, by));
        const float base = reference(maximum, 1);
        float sum = 0;
        for (int part = own_lane; part < own_parts; part += lanes) sum += own[part] = exp2_approximate(own[part] - base);
        for (int by = lanes / 2; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffff, sum, by);
        if (row < rows_end) {
            const RowOutput out = finish_row(p, item, row, end_row(maximum, sum));
            for (int part = own_lane; part < parts; part += lanes) {
                const float weight = own[part] * out.factor;
                own[parts + part] *= weight, own[2 * parts + part] *= weight;
            }
            if (own_lane == 0) targets[row - first_row] = out.target;
        }
        __syncwarp();
    }
    sync_block();
    const auto part_of = [&](int unit) {
        return outputs + unit / quarters * part_row_bytes + (unit % quarters * quarter + lane * 4) * part_element_bytes;
    };
    const auto weights_of = [&](int unit) { return weights + ((unit / quarters - first_row) * 3 + 1 + unit % quarters / (quarters / 2)) * parts; };
    const int count = end - first, groups = merging_groups(count);
    // One of the quarter's fours.
    const auto store = [&](int unit, float4 v) {
        store_output(p, targets[unit / quarters - first_row] + unit % quarters * quarter + lane * 4, v, 4, p.output_is_aligned);
    };
    if (groups == 1) {
        constexpr int at_once = 4;
#pragma unroll 1
        for (int at = first + warp; at < end; at += mergers / warp_size * at_once) {
            float4 v[at_once];
#pragma unroll
            for (int i = 0; i < at_once; ++i) v[i] = make_float4(0, 0, 0, 0);
#pragma unroll 4
            for (int part = 0; part < parts; ++part)
#pragma unroll
                for (int i = 0; i < at_once; ++i) {
                    const int unit = min(at + i * (mergers / warp_size), end - 1);
                    const float4 x = read_part(part_of(unit) + part * step);
                    const float weight = weights_of(unit)[part];
                    v[i].x += x.x * weight, v[i].y += x.y * weight, v[i].z += x.z * weight, v[i].w += x.w * weight;
                }
#pragma unroll
            for (int i = 0; i < at_once; ++i)
                if (at + i * (mergers / warp_size) < end) store(at + i * (mergers / warp_size), v[i]);
        }
    } else {
        // [warps, 32] of sums.
        float4 *sums = reinterpret_cast<float4 *>(shared + Shared::queries + 48 * 1024);
        const int unit = first + warp / groups;
        if (unit < end)
            sums[threadIdx.x] = add_parts<4>(part_of(unit), step, weights_of(unit), warp % groups, groups, parts);
        sync_block();
        if (unit < end && warp % groups == 0) {
            float4 v = sums[threadIdx.x];
            for (int group = 1; group < groups; ++group) {
                const float4 x = sums[threadIdx.x + group * warp_size];
                v.x += x.x, v.y += x.y, v.z += x.z, v.w += x.w;
            }
            store(unit, v);
        }
    }
    sync_block();
}

/// Waits a while for all parts, if it may, after this block's own was number `order` to arrive. The word as it was when all had arrived, or 0
/// if this block is not to wait any longer, and has left. For one thread.
FI_DEVICE uint32 await_parts(uint32 *word, int parts, bool may_wait, int &order) {
    uint32 seen = add_acquire_release(word, MergeWord::arrival) + MergeWord::arrival;
    order = MergeWord::arrived(seen) - 1;
    for (int look = 0; may_wait && look < most_looks && MergeWord::arrived(seen) < parts; ++look) seen = load_acquire(word);
    while (MergeWord::arrived(seen) < parts) {
        const uint32 found = compare_and_swap(word, seen, (seen | MergeWord::desertion) + MergeWord::leave);
        if (found == seen) return 0;
        seen = found;
    }
    return seen;
}

/// Notes that a part has arrived, and merges rows of the item once all have; waits for the others if `may_wait`.
static __device__ __noinline__ void merge_with_others(const fi_attention_params &p, const Item &item, char *shared, bool may_wait) {
    __shared__ int share;
    __shared__ uint32 word_then;
    const int parts = item.parts;
    if (parts == 0) return;
    if (parts > MergeWord::most_parts) return merge_if_last(p, item, shared);
    uint32 *word = pointer<uint32>(p.arrivals) + item.merge_row;
    // What a block wrote before the barrier is visible, through the one thread's release, to those who see its arrival and go on.
    sync_block();
    if (threadIdx.x == first_merger) {
        int order;
        word_then = await_parts(word, parts, may_wait, order);
        share = order;
    }
    sync_block();
    if (word_then == 0) return;
    const int count = item.row_count * quarters, shares = min(parts, count);
    if (!MergeWord::has_deserters(word_then)) {
        // All are there, and each has its own.
        if (share < shares) merge_quarters(p, item, shared, share * count / shares, (share + 1) * count / shares);
    } else {
        while (true) {
            sync_block();
            if (threadIdx.x == first_merger) share = MergeWord::claimed(add_acquire_release(word, MergeWord::claim));
            sync_block();
            if (share >= shares) break;
            merge_quarters(p, item, shared, share * count / shares, (share + 1) * count / shares);
        }
    }
    if (threadIdx.x == first_merger && MergeWord::left(add_acquire_release(word, MergeWord::leave)) + 1 == parts) *word = 0;
}
