// The walk of a row to where the running sum of what is kept, in the order of places, reaches a number.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/filter.cuh"

/// The mass that a number in (0, 1] picks of a total.
static __device__ __forceinline__ unsigned long long fi_share(double uniform, unsigned long long total) {
    const unsigned long long target = __double2ull_ru(uniform * (double)total);
    return target < 1 ? 1 : target > total ? total : target;
}

/// Where in the row a running sum is reached: by the groups of one warp's run, from `begin` to `end`, before which it is `running`.
struct fi_target {
    unsigned long long target, running;
    unsigned int begin, end;
};

/// Whether the block has where the running sum of the row reaches `target`, which is 1 or more and at most the row's sum. Tiles must be
/// up to date, see `fi_row_sum`. All threads get the same.
static __device__ __forceinline__ bool fi_has_target(
    const fi_row_part &part, const fi_row_sum &sum, unsigned long long target, const fi_filter_shared &shared, fi_target *at
) {
    if (target <= sum.before || target > sum.before + sum.own) return false;
    // By each warp, a tile a lane.
    const unsigned int lane = threadIdx.x % 32;
    const unsigned long long tile = lane < FI_WARPS ? shared.tiles[lane] : 0;
    const unsigned long long before = sum.before + fi_warp_running_sum(tile) - tile;
    const unsigned int reached = __ballot_sync(0xffffffffu, lane < FI_WARPS - 1 && target <= before + tile);
    const unsigned int warp = reached != 0 ? (unsigned int)__ffs((int)reached) - 1 : FI_WARPS - 1;
    *at = {target, __shfl_sync(0xffffffffu, before, (int)warp), warp * part.run(), (warp + 1) * part.run()};
    return true;
}

#if FI_SUMS_EARLY && FI_FORM == 0
/// The same of a row that was summed by powers of 2: what is looked for becomes one of the warp's own sum, for the warp's exponent.
static __device__ __forceinline__ bool fi_has_power_target(
    fi_row &row, const fi_row_sum &sum, unsigned long long target, const fi_filter_shared &shared, fi_target *at
) {
    const int exponent = shared.first.exponents[fi_team_rank()];
    const int distance = row.exponent - exponent;
    if (target <= sum.before || target > sum.before + fi_shifted(sum.own, distance)) return false;
    // Sums were rounded down, so what is reached after a shift is reached before it.
    target = (target - sum.before) << distance;
    unsigned int warp = 0;
    unsigned long long running = 0;
    int own;
#pragma unroll 1
    while (true) {
        own = exponent - shared.first.of_warps[warp];
        const unsigned long long tile = fi_shifted(shared.tiles[warp], own);
        if (warp == FI_WARPS - 1 || target <= running + tile) break;
        running += tile;
        warp++;
    }
    row.powers.set_exponent((float)shared.first.of_warps[warp]);
    *at = {(target - running) << own, 0, warp * row.part.run(), (warp + 1) * row.part.run()};
    return true;
}
#endif

#if !FI_HELD
/// Of `fi_walk_run`: what four groups of a thread sum to, which are read at once.
template <class Groups, class Amount>
struct fi_walked {
    const fi_row_part &part;
    const Amount &amount;
    unsigned int begin;
    float4 x[4];
    unsigned long long sums[4], own;

    __device__ __forceinline__ unsigned long long sum(float4 x, unsigned int group) const {
        const unsigned int place = part.place(4 * group);
        return amount(x.x, place) + amount(x.y, place + 1) + amount(x.z, place + 2) + amount(x.w, place + 3);
    }
    __device__ __forceinline__ fi_walked(
        const fi_row_part &part, const Groups &groups, unsigned int begin, unsigned int end, const Amount &amount
    ) : part(part), amount(amount), begin(begin), own(0) {
        const float4 neutral = make_float4(fi_neutral(), fi_neutral(), fi_neutral(), fi_neutral());
        if (begin > 0 && begin + 4 <= end && part.has(4 * begin + 15)) {
            fi_packed<FI_INPUT, 4> packed[4];
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) packed[i] = fi_load_group(part.address, begin + i);
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) x[i] = fi_group(packed[i]);
        } else {
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) {
                x[i] = begin + i < end ? fi_read_edge(part.address, begin + i, part.pad, part.count) : neutral;
            }
        }
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) {
            x[i] = groups.of(x[i], begin + i);
            sums[i] = begin + i < end ? sum(x[i], begin + i) : 0;
            own += sums[i];
        }
    }
    /// The place where a running sum, `running` before the groups, reaches `target`.
    __device__ __forceinline__ int find(unsigned long long running, unsigned long long target) const {
        unsigned int group = 0;
        float4 at = x[0];
#pragma unroll
        for (unsigned int i = 0; i < 3; i++) {
            if (group == i && running + sums[i] < target) {
                running += sums[i];
                group = i + 1;
                at = x[i + 1];
            }
        }
        const unsigned int place = part.place(4 * (begin + group));
        unsigned int i = 0;
#pragma unroll 1
        for (; i < 3; i++) {
            running += amount(fi_entry(at, i), place + i);
            if (running >= target) break;
        }
        return (int)(place + i);
    }
};
#endif

/// Calls `found(place)` in one thread of the block, where the running sum of `amount(x, place)` over groups, in the order of places,
/// reaches its target. All threads of the block take part.
template <class Groups, class Amount, class Found>
static __device__ __forceinline__ void fi_walk_run(
    const fi_row_part &part, const Groups &groups, const fi_target &at, fi_filter_shared &shared, const Amount &amount, Found &&found
) {
    // Neighbouring groups to each thread.
    const unsigned int end = at.end < part.groups ? at.end : part.groups;
    const unsigned int share = (end - at.begin + FI_THREADS - 1) / FI_THREADS;
    const unsigned int begin = at.begin + threadIdx.x * share;
    const auto reach = [&](unsigned long long own, auto &&find) {
        const unsigned long long reached = at.running + fi_block_running_sum<FI_THREADS>(own, shared.slots);
        // Sums that were shifted may be a few units more than those of the shifted masses.
        unsigned long long target = at.running;
#pragma unroll
        for (unsigned int warp = 0; warp < FI_WARPS; warp++) target += shared.slots[warp];
        if (at.target < target) target = at.target;
        if (reached >= target && reached - own < target) found(find(reached - own, target));
    };
#if !FI_HELD
    // Each of the thread's groups would be a trip to memory.
    if constexpr (Groups::walks_at_once) if (share <= 4) {
        const fi_walked<Groups, Amount> walked(part, groups, begin, begin + share < end ? begin + share : end, amount);
        return reach(walked.own, [&](unsigned long long running, unsigned long long target) { return walked.find(running, target); });
    }
#endif
    unsigned long long own = 0;
#pragma unroll 1
    for (unsigned int group = begin; group < begin + share && group < end; group++) {
        const float4 x = groups(group);
        const unsigned int place = part.place(4 * group);
        own += amount(x.x, place) + amount(x.y, place + 1) + amount(x.z, place + 2) + amount(x.w, place + 3);
    }
    reach(own, [&](unsigned long long running, unsigned long long target) {
#pragma unroll 1
        for (unsigned int index = 4 * begin;; index++) {
            running += amount(fi_entry(groups(index / 4), index % 4), part.place(index));
            if (running >= target) return (int)part.place(index);
        }
    });
}

/// The same of the row, whose sum is at least `target`.
template <class Groups, class Amount, class Found>
static __device__ __forceinline__ void fi_walk(
    const fi_row_part &part, const Groups &groups, const fi_row_sum &sum, unsigned long long target, fi_filter_shared &shared,
    Amount &&amount, Found &&found
) {
    fi_target at;
    if (fi_has_target(part, sum, target, shared, &at)) fi_walk_run(part, groups, at, shared, amount, found);
}
