// The way that finds any threshold of a row: histograms of an interval of keys (integers in the order of the floats), whose part
// with the threshold is the next interval. It is for what the quick ways (top_few.cuh, nucleus.cuh) do not fit.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/walk.cuh"

/// Adds to a bin. Lanes of a warp that hit one bin together add together: rows of equal entries would otherwise queue.
template <class T>
static __device__ __forceinline__ void fi_add(T *bins, unsigned int bin, T amount, bool valid) {
    const unsigned int all = __ballot_sync(0xffffffffu, valid);
    if (all == 0) return;
    const unsigned int lead = __shfl_sync(0xffffffffu, bin, __ffs((int)all) - 1);
    const bool joins = valid && bin == lead;
    const unsigned int same = __ballot_sync(0xffffffffu, joins);
    if (__popc(same) < 8) {
        if (valid) fi_add_to(&bins[bin], amount);
        return;
    }
    const T sum = fi_warp_reduce(joins ? amount : (T)0, fi_sum());
    if (valid && !joins) fi_add_to(&bins[bin], amount);
    if (threadIdx.x % 32 == 0) fi_add_to(&bins[lead], sum);
}

/// The interval of keys in which a threshold lies: 2^bits keys from `low` on; the entries above it sum to `above`, its own to `at`.
struct fi_interval {
    unsigned int low, bits;
    unsigned long long above, at;
};

/// Bits that the keys of `low ... high` differ in.
static __device__ __forceinline__ unsigned int fi_interval_bits(unsigned int low, unsigned int high) {
    return high > low ? 32u - (unsigned int)__clz((int)(high - low)) : 0;
}

/// Narrows an interval to the part where the sum, from the greatest keys on, reaches what `reaches(sum)` says; false where it does
/// not. `each(add)` calls `add(key, amount, valid)` for the block's entries, from all lanes of a warp alike. A block may be alone in it.
template <bool isOfTeam = true, class T, class Each, class Reaches>
static __device__ __forceinline__ bool fi_narrow(
    fi_interval &interval, T *bins, fi_filter_shared &shared, unsigned int &turn, Each &&each, Reaches &&reaches
) {
    const unsigned int place = turn++ & 1;
    bins += place * FI_BINS;
    const bool has_bins = 2 * threadIdx.x < FI_BINS;
    if (has_bins) {
        bins[2 * threadIdx.x] = 0;
        bins[2 * threadIdx.x + 1] = 0;
    }
    if (threadIdx.x == 0) shared.found[place] = -1;
    __syncthreads();
    const unsigned int low = interval.low;
    const unsigned int shift = interval.bits > FI_BIN_BITS ? interval.bits - FI_BIN_BITS : 0;
    const unsigned int size_bits = interval.bits - shift;
    each([&](unsigned int key, T amount, bool valid) {
        const unsigned int bin = (key - low) >> shift;
        fi_add(bins, bin, amount, valid && key >= low && bin >> size_bits == 0);
    });
    isOfTeam ? fi_team_sync() : __syncthreads();
    // Two bins a thread, from the greatest on.
    const unsigned int lower = FI_BINS - 2 - 2 * threadIdx.x;
    unsigned long long in_low = 0, in_high = 0;
    if (has_bins) {
#pragma unroll
        for (unsigned int rank = 0; rank < (isOfTeam ? FI_TEAM : 1); rank++) {
            const T *pair = isOfTeam ? fi_team_at(bins + lower, rank) : bins + lower;
            in_low += pair[0];
            in_high += pair[1];
        }
    }
    const unsigned long long through = interval.above + fi_block_running_sum<FI_THREADS>(in_high + in_low, shared.slots);
    const unsigned long long before = through - in_low - in_high;
    if (!reaches(before) && reaches(through)) {
        const bool is_high = reaches(before + in_high);
        shared.found[place] = (int)(is_high ? lower + 1 : lower);
        shared.above[place] = is_high ? before : before + in_high;
        shared.at[place] = is_high ? in_high : in_low;
    }
    __syncthreads();
    const int found = shared.found[place];
    if (found < 0) return false;
    interval.low = low + ((unsigned int)found << shift);
    interval.bits = shift;
    interval.above = shared.above[place];
    interval.at = shared.at[place];
    return true;
}

/// Calls `add(key, amount, valid)` for what `of(x, place)` says of the warp's entries, from all lanes alike.
template <class Groups, class Of, class Add>
static __device__ __forceinline__ void fi_each_key(const fi_row_part &part, const Groups &groups, Of &&of, Add &&add) {
#pragma unroll 1
    for (unsigned int start = part.begin; start < part.end; start += 32) {
        const unsigned int group = start + threadIdx.x % 32;
        const bool is_there = group < part.end;
        const float4 x = is_there ? groups(group) : make_float4(0, 0, 0, 0);
#pragma unroll 1
        for (unsigned int i = 0; i < 4; i++) of(fi_entry(x, i), is_there && part.has(4 * group + i), add);
    }
}

/// Finds what top-k keeps: sets `kth`, and says how many of the keys equal to it are kept; 0 for all.
/// `own` and `top` are of `fi_begin_row`, the latter of the row; 1 <= k < width.
static __device__ __forceinline__ unsigned int fi_find_kth(
    fi_row &row, unsigned int k, unsigned int own, unsigned int top, fi_filter_shared &shared, unsigned int &turn
) {
    const auto reaches = [&](unsigned long long sum) { return sum >= k; };
    // As many threads as k have an entry that is no less than the k-th greatest of the threads' own: a bound from below, to 2^-14,
    // in the first two rounds.
    fi_interval kth = {0, 32, 0, 0};
    bool is_whole = false;
#pragma unroll 1
    for (int round = 0; round <= 2 || (kth.bits > 0 && !is_whole); round++) {
        const bool is_bound = round < 2;
        if (round == 2) kth = {kth.low, fi_interval_bits(kth.low, top), 0, 0};
        const bool is_found = fi_narrow(
            kth, shared.counts[0], shared, turn,
            [&](auto &&add) {
                if (is_bound) {
                    add(own, 1u, row.part.begin + threadIdx.x % 32 < row.part.end);
                } else {
                    fi_each_key(
                        row.part, fi_raw_groups{row.part},
                        [](float x, bool valid, auto &&add) { add(fi_order_key(x), 1u, valid); }, add);
                }
            },
            reaches);
        // Fewer threads than k: from the start.
        if (is_bound && !is_found) {
            kth = {0, 0, 0, 0};
            round = 1;
        }
        // The whole part is kept: what its keys are does not matter.
        is_whole = kth.above + kth.at == k;
    }
    // Of a whole part its lowest key is kept, wherever it is: there may be an entry one key below.
    row.kth = kth.low;
    row.last = 0xffffffffu;
    return is_whole ? 0 : k - (unsigned int)kth.above;
}

/// Says which entries top-k keeps: of several equal to the k-th, those of the lowest places; 1 <= k < width. See `fi_find_kth`; where
/// `is_tied`, the k-th is known to be equal to the greatest.
static __device__ __forceinline__ void fi_keep_top_k(
    fi_row &row, unsigned int k, unsigned int own, unsigned int top, bool is_tied, fi_filter_shared &shared, unsigned int &turn
) {
    unsigned int ties = k;
    if (is_tied) {
        row.kth = top;
    } else {
        ties = fi_find_kth(row, k, own, top, shared, turn);
    }
    // Others may still read this block's histogram, which may end.
    if (ties == 0) return fi_team_sync();
    const auto amount = [&](float x, unsigned int place) {
        return fi_order_key(x) == row.kth && place - row.part.first < row.part.count ? 1ull : 0ull;
    };
    const fi_raw_groups groups = {row.part};
    unsigned long long sum = 0;
    fi_each_group<1>(row.part, groups, [&](float4 x, unsigned int group) {
        const unsigned int place = row.part.place(4 * group);
        sum += amount(x.x, place) + amount(x.y, place + 1) + amount(x.z, place + 2) + amount(x.w, place + 3);
    });
    // Nobody reads the turn before last's any more.
    __syncthreads();
    const fi_row_sum counted = fi_sum_of_row(sum, shared, turn);
    if (threadIdx.x == 0) shared.found[0] = 0;
    __syncthreads();
    fi_walk(row.part, groups, counted, ties, shared, amount, [&](int place) { shared.found[0] = place + 1; });
    __syncthreads();
    row.last = (unsigned int)shared.numbers.greatest((unsigned long long)shared.found[0], turn) - 1;
    __syncthreads();
}

/// Takes what top-k does not keep out of what is held.
static __device__ __forceinline__ void fi_drop(const fi_row &row) {
#if FI_HELD
    fi_each_group<1>(row.part, fi_raw_groups{row.part}, [&](float4 x, unsigned int group) {
        const unsigned int place = row.part.place(4 * group);
        x.x = row.keeps(x.x, place) ? x.x : fi_neutral();
        x.y = row.keeps(x.y, place + 1) ? x.y : fi_neutral();
        x.z = row.keeps(x.z, place + 2) ? x.z : fi_neutral();
        x.w = row.keeps(x.w, place + 3) ? x.w : fi_neutral();
        ((float4 *)fi_held)[group] = x;
    });
#endif
}
