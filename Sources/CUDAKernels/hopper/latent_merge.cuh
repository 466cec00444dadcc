// How the parts of an item's rows become one, by all blocks that have a part and nothing else left to do.
//
// Whoever comes last could merge alone, as it does elsewhere; but parts of latent rows are 128 KiB each, and one processor reads a
// hundredth of what all of them do. So a block whose list has ended waits a while for the others, and all who are there share the rows.
// Nobody depends on those who wait: the last to come merges what is left, whoever else is there, and those who wait give up in time.
#pragma once
#include "hopper/latent_bring.cuh"

/// The three numbers in a merge's word of `arrivals`: parts that have arrived, shares of rows that were asked for, and blocks that have
/// left; the last to leave makes it 0 again.
struct MergeWord {
    static constexpr uint32 arrival = 1, claim = 1 << 10, leave = 1 << 21;
    /// What the fields hold: each block asks once more than there are shares.
    static constexpr int most_parts = 1000;

    FI_DEVICE int arrived(uint32 word) { return word % claim; }
    FI_DEVICE int claimed(uint32 word) { return word % leave / claim; }
    FI_DEVICE int left(uint32 word) { return word / leave; }
};

/// How often a block looks whether all parts have arrived: some 30 us.
constexpr int most_looks = 50;

/// Outputs of `count` rows from `outputs` on, whose parts are `step` elements apart, weighted and added in the order of the parts: each thread
/// has `fours` of them and as many parts under way as `many`.
template <int fours, int many>
FI_DEVICE void add_parts(const fi_attention_params &p, const float *outputs, int64 step, const float *weights, const int64 *targets, int parts,
                         int count) {
#pragma unroll 1
    for (int id = threadIdx.x; id < count * row_fours; id += mergers * fours) {
        float4 v[fours];
#pragma unroll
        for (int i = 0; i < fours; ++i) v[i] = make_float4(0, 0, 0, 0);
#pragma unroll 1
        for (int part = 0; part < parts; part += many)
#pragma unroll
            for (int j = 0; j < many; ++j)
#pragma unroll
                for (int i = 0; i < fours; ++i) {
                    const int own = id + i * mergers, row = own / row_fours, at = part + j;
                    if (at >= parts || row >= count) continue;
                    const float4 x = __ldcg(reinterpret_cast<const float4 *>(outputs + at * step + own * 4));
                    const float weight = weights[row * parts + at];
                    v[i].x += x.x * weight, v[i].y += x.y * weight, v[i].z += x.z * weight, v[i].w += x.w * weight;
                }
#pragma unroll
        for (int i = 0; i < fours; ++i) {
            const int own = id + i * mergers, row = own / row_fours;
            if (row < count) store_output(p, targets[row] + own % row_fours * 4, v[i], 4, p.output_is_aligned);
        }
    }
}

/// Merges rows `first` to `end` of a tile's parts. In the order of the parts' keys, so the result does not depend on who does it.
FI_DEVICE void merge_rows(const fi_attention_params &p, const Item &item, char *shared, int first, int end) {
    const int parts = item.parts, stride = item.part_stride(), lane = threadIdx.x % warp_size;
    const float *lses = pointer<const float>(p.partial_lse) + item.merge_row;
    int64 *targets = reinterpret_cast<int64 *>(shared + Shared::meeting_targets);
    // [rows, parts]: what each part is multiplied by; where queries were.
    float *weights = reinterpret_cast<float *>(shared + Shared::queries);
#pragma unroll 1
    for (int row = first + threadIdx.x / warp_size; row < end; row += mergers / warp_size) {
        float *own = weights + (row - first) * parts;
        float maximum = negative_infinity();
#pragma unroll 4
        for (int part = lane; part < parts; part += warp_size) {
            own[part] = __ldcg(lses + part * stride + row);
            maximum = fmaxf(maximum, own[part]);
        }
#pragma unroll
        for (int step = warp_size / 2; step > 0; step /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, step));
        const float base = reference(maximum, 1);
        float sum = 0;
        for (int part = lane; part < parts; part += warp_size) sum += own[part] = exp2_approximate(own[part] - base);
#pragma unroll
        for (int step = warp_size / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
        const RowOutput out = finish_row(p, item, row, end_row(maximum, sum));
        for (int part = lane; part < parts; part += warp_size) own[part] *= out.factor;
        if (lane == 0) targets[row - first] = out.target;
    }
    sync_block();
    const float *outputs = pointer<const float>(p.partial_output) + static_cast<int64>(item.merge_row) * dim_vo;
    const float *from = outputs + static_cast<int64>(first) * dim_vo;
    const int64 step = static_cast<int64>(stride) * dim_vo;
    // Several fours of few parts at once, or many parts of one.
    if (parts <= 8) add_parts<4, 4>(p, from, step, weights, targets, parts, end - first);
    else add_parts<1, 16>(p, from, step, weights, targets, parts, end - first);
    sync_block();
}

/// Notes that a part has arrived, and merges rows of the item once all have; waits for the others if `may_wait`.
static __device__ __noinline__ void merge_with_others(const fi_attention_params &p, const Item &item, char *shared, bool may_wait) {
    __shared__ int claimed;
    __shared__ bool is_complete;
    const int parts = item.parts;
    if (parts == 0) return;
    if (parts > MergeWord::most_parts) return merge_if_last(p, item, shared);
    uint32 *word = pointer<uint32>(p.arrivals) + item.merge_row;
    // What a block wrote before the barrier is visible, through the one thread's release, to those who see its arrival and go on.
    sync_block();
    if (threadIdx.x == first_merger) {
        bool has_all = MergeWord::arrived(add_acquire_release(word, MergeWord::arrival)) + 1 == parts;
        for (int look = 0; look < most_looks && may_wait && !has_all; ++look) has_all = MergeWord::arrived(load_acquire(word)) == parts;
        is_complete = has_all;
    }
    sync_block();
    const int count = item.row_count, shares = min(parts, count);
    while (is_complete) {
        if (threadIdx.x == first_merger) claimed = MergeWord::claimed(add_acquire_release(word, MergeWord::claim));
        sync_block();
        const int share = claimed;
        if (share >= shares) break;
        merge_rows(p, item, shared, share * count / shares, (share + 1) * count / shares);
    }
    if (threadIdx.x == first_merger && MergeWord::left(add_acquire_release(word, MergeWord::leave)) + 1 == parts) *word = 0;
}
