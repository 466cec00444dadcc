// Top-p: the least weight t for which the weights greater than t sum to less than a share of the whole.
//
// While the weights are summed, every eighth is counted by its upper bits. What the lesser ones sum to is known well from few of them
// (the greatest few, which may be most of a row, are not), so the counts tell an interval in which t is likely to lie. One
// pass sums what is above the interval in registers and sends the weights in it to the row's first block, which finds t and what
// all blocks keep. An interval with too many weights, or without t, is narrowed by histograms first: a hint cannot change a result.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/intervals.cuh"
#include "primitives/nucleus_list.cuh"

/// Rows from this width on have a sample taken.
#define FI_SAMPLED_WIDTH 4096
/// At most so many bins on either side of the one that the sample names, for its noise, which is about one bin: what does not lie in the interval costs a
/// row three times as much. A block alone would pass over it more often than a cluster, and has room for more.
#define FI_SAMPLE_MARGIN (FI_TEAM == 1 ? 3 : 2)
/// The key of a weight of 1.
#define FI_KEY_ONE 0x3f800000u

#define FI_OUTCOME_FOUND 0
/// One weight, which many entries have.
#define FI_OUTCOME_SAME 1
#define FI_OUTCOME_MANY 2
#define FI_OUTCOME_ELSEWHERE 3

#if FI_HELD
/// How many weights of two neighbouring bins a block's sample has, the first being even.
static __device__ __forceinline__ uint2 fi_sampled(unsigned int bin, unsigned int rank, fi_filter_shared &shared) {
    if (bin >= FI_SAMPLE_BINS) return make_uint2(0, 0);
    uint2 pair = *(const uint2 *)fi_team_at(shared.sample + bin, rank);
    // The last bin has what is in no other.
    if (bin == FI_SAMPLE_BINS - 2) pair.y = 0;
    return pair;
}
#else
/// Cuts an interval that has more than can be gathered, as weights are much alike. Of `tail`, the sample has `shared.above[0]` below the
/// interval, and `shared.above[1]` up to its end: the share of the interval that is left is looked for among the first entries of each
/// warp's run, whose masses are summed by 256 parts of it.
static __device__ __forceinline__ void fi_cut_guess(
    const fi_row &row, unsigned long long tail, fi_filter_shared &shared, unsigned int *low, unsigned int *high
) {
    constexpr unsigned int parts = FI_SAMPLE_BINS / 2;
    const unsigned int bits = fi_interval_bits(*low, *high), shift = bits > 8 ? bits - 8 : 0, first = *low;
    const float below = (float)shared.above[0], inside = (float)(shared.above[1] - shared.above[0]);
    __syncthreads();
    if (threadIdx.x < parts) shared.parts[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        shared.counters[0] = 0;
        shared.found[0] = 0;
        shared.found[1] = (int)parts - 1;
    }
    __syncthreads();
    fi_row_part some = row.part;
    if (some.end - some.begin > FI_LISTED_FIRST) some.end = some.begin + FI_LISTED_FIRST;
    unsigned int own = 0;
    fi_each_group<1>(some, fi_weight_groups<>{row}, [&](float4 x, unsigned int) {
#pragma unroll 1
        for (unsigned int i = 0; i < 4; i++) {
            const float weight = fi_entry(x, i);
            const unsigned int part = (__float_as_uint(weight) - first) >> shift;
            if (__float_as_uint(weight) < first || part >= parts) continue;
            fi_add_to(&shared.parts[part], fi_mass(row, weight));
            own++;
        }
    });
    atomicAdd(&shared.counters[0], own);
    __syncthreads();
    const unsigned long long in = threadIdx.x < parts ? shared.parts[threadIdx.x] : 0;
    const unsigned long long through = fi_block_running_sum<FI_THREADS>(in, shared.slots);
    unsigned long long all = 0;
#pragma unroll
    for (unsigned int warp = 0; warp < FI_WARPS; warp++) all += shared.slots[warp];
    // Four deviations of these entries' share, and of what the sample has below: the weights there are no greater than the least here.
    const float share = fminf(fmaxf(((float)tail - below) / inside, 0.0f), 1.0f);
    const float noise = 4.0f * sqrtf(share * (1.0f - share) / (float)shared.counters[0])
        + 4.0f * sqrtf(8.0f * (float)fi_mass(row, __uint_as_float(first)) * below) / inside;
    const float least = (share - noise) * (float)all, most = (share + noise) * (float)all, before = (float)(through - in);
    if (in > 0 && before < least && (float)through >= least) shared.found[0] = (int)threadIdx.x;
    if (in > 0 && before < most && (float)through >= most) shared.found[1] = (int)threadIdx.x;
    __syncthreads();
    *low = first + ((unsigned int)shared.found[0] << shift);
    const unsigned int end = first + ((unsigned int)shared.found[1] + 1 << shift) - 1;
    if (end < *high) *high = end;
    __syncthreads();
}
#endif

#if FI_HELD
/// An interval of keys, `low ... high`, in which the weight is likely to lie at and below which the row has the mass `tail`.
static __device__ __forceinline__ void fi_guess(
    const fi_row &row, unsigned long long tail, fi_filter_shared &shared, unsigned int *low, unsigned int *high
) {
    // Two bins a thread.
    const unsigned int bin = 2 * threadIdx.x;
    unsigned long long in_low = 0, in_high = 0;
    if (bin < FI_SAMPLE_BINS) {
        unsigned int counts[2] = {0, 0};
#pragma unroll
        for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
            const uint2 pair = fi_sampled(bin, rank, shared);
            counts[0] += pair.x;
            counts[1] += pair.y;
        }
        const unsigned int key = ((bin + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT) + (1u << (FI_SAMPLE_SHIFT - 1));
        in_low = 8 * counts[0] * fi_mass(row, __uint_as_float(key));
        in_high = 8 * counts[1] * fi_mass(row, __uint_as_float(key + (1u << FI_SAMPLE_SHIFT)));
    }
    if (threadIdx.x == 0) {
        // Where the sample lacks the few that weigh most: theirs.
        const unsigned int bin = (__float_as_uint(row.greatest()) >> FI_SAMPLE_SHIFT) - FI_SAMPLE_LOW;
        shared.found[0] = (int)(bin < FI_SAMPLE_BINS ? bin : FI_SAMPLE_BINS - 1);
    }
    const unsigned long long through = fi_block_running_sum<FI_THREADS>(in_low + in_high, shared.slots);
    const unsigned long long before = through - in_low - in_high;
    if (before < tail && through >= tail) shared.found[0] = (int)(before + in_low >= tail ? bin : bin + 1);
    __syncthreads();
    const int found = shared.found[0];
    if (threadIdx.x < 32) {
        // As wide as fits by the sample's counts, as what does not fit takes the long way.
        const int offset = (int)threadIdx.x - FI_SAMPLE_MARGIN, at = found + offset;
        unsigned int count = 0;
        if (offset <= FI_SAMPLE_MARGIN && at >= 0 && at < FI_SAMPLE_BINS) {
            for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
                const uint2 pair = fi_sampled((unsigned int)at & ~1u, rank, shared);
                count += at & 1 ? pair.y : pair.x;
            }
        }
        int margin = FI_SAMPLE_MARGIN;
        const auto fits = [&] { return 8 * __reduce_add_sync(0xffffffffu, abs(offset) <= margin ? count : 0) <= FI_TEAM * FI_NEAR_ROOM / 4 * 3; };
        bool is_narrow = fits();
        while (margin > 0 && !is_narrow) margin--, is_narrow = fits();
        if (threadIdx.x == 0) shared.found[1] = margin;
    }
    __syncthreads();
    const int margin = shared.found[1];
    if (found - margin > 0) *low = ((unsigned int)(found - margin) + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT;
    if (found + margin + 1 < FI_SAMPLE_BINS) *high = (((unsigned int)(found + margin + 1) + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT) - 1;
    __syncthreads();
}
#else
/// The same of a block alone, by its first warp, whose lanes have sixteen bins each.
static __device__ __forceinline__ void fi_guess(
    const fi_row &row, unsigned long long tail, fi_filter_shared &shared, unsigned int *low, unsigned int *high
) {
    static_assert(FI_SAMPLE_BINS == 512 && FI_SAMPLE_ABOVE % 16 == 0, "sixteen a lane");
    if (threadIdx.x < 32) {
        const int lane = (int)threadIdx.x;
        int shift = 0;
#if FI_POWERS
        // For the exponent that the first entries said.
        if (row.is_powers) shift = 16 * (row.exponent - shared.first.of_sample) - FI_SAMPLE_ABOVE;
#endif
        const unsigned int first = (unsigned int)(16 * lane + shift);
        unsigned int counts[16];
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) {
            const uint4 four = first < FI_SAMPLE_BINS ? ((const uint4 *)(shared.sample + first))[i] : make_uint4(0, 0, 0, 0);
            counts[4 * i] = four.x, counts[4 * i + 1] = four.y, counts[4 * i + 2] = four.z, counts[4 * i + 3] = four.w;
        }
        // The last bin has what is in no other.
        if (first == FI_SAMPLE_BINS - 16) counts[15] = 0;
        const unsigned int key = ((unsigned int)(16 * lane + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT) + (1u << (FI_SAMPLE_SHIFT - 1));
        const auto part = [&](unsigned int i) { return (float)counts[i] * __uint_as_float(key + (i << FI_SAMPLE_SHIFT)); };
        float own = 0;
#pragma unroll
        for (unsigned int i = 0; i < 16; i++) own += part(i);
        const float through = fi_warp_running_sum(own), target = (float)row.weight_of_mass(tail) / 8;
        const float others = __shfl_up_sync(0xffffffffu, through, 1), before = lane == 0 ? 0.0f : others;
        const unsigned int hits = __ballot_sync(0xffffffffu, before < target && through >= target);
        int found = 0;
        float running = before, last = 1;
#pragma unroll
        for (unsigned int i = 0; i < 16; i++) {
            if (running < target) last = part(i), running += last, found = 16 * lane + (int)i;
        }
        // How much of the bin is below.
        const float share = hits != 0 ? fminf(fmaxf(1.0f - (running - target) / last, 0.0f), 1.0f) : 0.5f;
        const int source = hits != 0 ? __ffs((int)hits) - 1 : 0;
        found = __shfl_sync(0xffffffffu, found, source);
        if (lane == source) shared.counters[0] = (unsigned int)(share * (float)(1u << FI_SAMPLE_SHIFT));
        if (hits == 0) {
            // Where the sample lacks the few that weigh most: theirs.
            const unsigned int bin = (__float_as_uint(row.greatest()) >> FI_SAMPLE_SHIFT) - FI_SAMPLE_LOW;
            found = (int)(bin < FI_SAMPLE_BINS ? bin : FI_SAMPLE_BINS - 1);
        }
        // As wide as fits by the sample's counts, as what does not fit takes the long way; but one bin on either side at least, which are looked
        // at again where they have too many.
        const int offset = lane - FI_SAMPLE_MARGIN;
        const unsigned int at = (unsigned int)(found + offset + shift);
        const unsigned int count =
            offset <= FI_SAMPLE_MARGIN && found + offset >= 0 && found + offset < FI_SAMPLE_BINS && at < FI_SAMPLE_BINS - 1 ? shared.sample[at] : 0;
        int margin = FI_SAMPLE_MARGIN;
        const auto fits = [&] { return 8 * __reduce_add_sync(0xffffffffu, abs(offset) <= margin ? count : 0) <= FI_NEAR_ROOM / 4 * 3; };
        bool is_narrow = fits();
        while (margin > 1 && !is_narrow) margin--, is_narrow = fits();
        if (!is_narrow) {
            const int least = max(found - margin, 0), end = found + margin + 1;
            float running = before;
#pragma unroll
            for (unsigned int i = 0; i < 16; i++) {
                const unsigned long long mass = __float2ull_rn(8 * running * row.low_unit());
                if (16 * lane + (int)i == least) shared.above[0] = mass;
                if (16 * lane + (int)i == end) shared.above[1] = mass;
                running += part(i);
            }
            if (lane == 31 && end >= FI_SAMPLE_BINS) shared.above[1] = __float2ull_rn(8 * running * row.low_unit());
        }
        if (lane == 0) {
            shared.found[0] = found;
            shared.found[1] = is_narrow ? margin : margin + FI_SAMPLE_BINS;
        }
    }
    __syncthreads();
    const int found = shared.found[0], margin = shared.found[1] % FI_SAMPLE_BINS;
    if (found - margin > 0) *low = ((unsigned int)(found - margin) + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT;
    if (found + margin + 1 < FI_SAMPLE_BINS) *high = (((unsigned int)(found + margin + 1) + FI_SAMPLE_LOW) << FI_SAMPLE_SHIFT) - 1;
    if (shared.found[1] >= FI_SAMPLE_BINS) fi_cut_guess(row, tail, shared, low, high);
}
#endif

/// Sums the weights above an interval, and sends those in it to the row's first block, with their number; see `fi_sum_of_row`. The thread
/// has `own` of them.
static __device__ __forceinline__ fi_row_sum fi_gather_near(
    const fi_row &row, unsigned int low, unsigned int high, fi_filter_shared &shared, unsigned int &turn, unsigned int *own
) {
    *own = 0;
    __syncthreads();
    // How many, and the range of their keys.
    if (threadIdx.x == 0) {
        shared.counters[0] = 0;
        shared.counters[2] = 0xffffffffu;
        shared.counters[3] = 0;
    }
    __syncthreads();
    fi_masses sum;
    unsigned int near_low = 0xffffffffu, near_high = 0;
    const float unit = row.low_unit();
    const float least = __uint_as_float(low), over = __uint_as_float(high + 1);
    float *const to = fi_team_at(shared.weights + fi_team_rank() * FI_NEAR_ROOM, 0);
    // Of a group, or of four with 32 from one to the next: one question for places in the list.
    const auto take = [&](const auto &weights, unsigned int group) {
        unsigned int mask = 0;
#pragma unroll
        for (unsigned int i = 0; i < sizeof(weights) / sizeof(float4); i++) {
            sum.add(fi_from(weights[i], over), unit);
            const auto is_near = [&](float weight) { return (unsigned int)(weight >= least && weight < over); };
            mask |= (is_near(weights[i].x) | is_near(weights[i].y) << 1 | is_near(weights[i].z) << 2 | is_near(weights[i].w) << 3) << 4 * i;
        }
        *own += (unsigned int)__popc(mask);
        fi_put_each(mask, &shared.counters[0], 0xffffffffu, [&](unsigned int at, unsigned int i) {
            const float weight = fi_entry(weights, i);
            const unsigned int key = __float_as_uint(weight);
            near_low = key < near_low ? key : near_low;
            near_high = key > near_high ? key : near_high;
            if (at >= FI_NEAR_ROOM) return;
            to[at] = weight;
            shared.near_places()[at] = (fi_place_in_part)(4 * (group + 32 * (i / 4)) + i % 4);
        });
    };
    const fi_weight_groups<> groups = {row};
#if FI_HELD
    fi_each_group<2>(
        row.part, groups,
        [&](float4 x, unsigned int group) {
            const float4 weights[1] = {x};
            take(weights, group);
        },
        [&] { sum.flush(row.low_bits); });
#else
    unsigned int steps = 0;
    fi_each_four(row.part, [&](const float4 (&x)[4], unsigned int group) {
        float4 weights[4];
#pragma unroll
        for (unsigned int i = 0; i < 4; i++) weights[i] = groups.of(x[i], group + 32 * i);
        take(weights, group);
        if (++steps % 8 == 0) sum.flush(row.low_bits);
    });
    sum.flush(row.low_bits);
#endif
    if (near_high != 0) {
        atomicMin(&shared.counters[2], near_low);
        atomicMax(&shared.counters[3], near_high);
    }
    fi_row_sum result = {0, 0, fi_sum_of_block(sum.total, shared)};
    // A barrier of the block has come, so its numbers are whole.
    if (threadIdx.x < FI_TEAM) {
        *fi_team_at(&shared.gathered[fi_team_rank()], threadIdx.x) = shared.counters[0];
        *fi_team_at(&shared.ranges[fi_team_rank()], threadIdx.x) = (unsigned long long)shared.counters[3] << 32 | shared.counters[2];
    }
    result.total = shared.numbers.sum(result.own, turn, &result.before);
    return result;
}

/// Calls `visit(weight)` for what a block has sent, in as many of the first block's warps as there are for each; the block's rank is
/// `fi_near_rank()`.
#define FI_NEAR_WARPS (FI_WARPS / FI_TEAM)
static_assert(FI_NEAR_WARPS > 0, "a warp for each block");
static __device__ __forceinline__ unsigned int fi_near_rank() { return threadIdx.x / (32 * FI_NEAR_WARPS); }
template <class Visit>
static __device__ __forceinline__ void fi_each_near(const fi_filter_shared &shared, Visit &&visit) {
    const unsigned int rank = fi_near_rank();
    if (rank >= FI_TEAM) return;
#pragma unroll 1
    for (unsigned int at = threadIdx.x % (32 * FI_NEAR_WARPS); at < shared.gathered[rank]; at += 32 * FI_NEAR_WARPS) {
        visit(shared.weights[rank * FI_NEAR_ROOM + at]);
    }
}

/// The least of weights of `low ... high` above which less than `limit` lies, `above` being the mass above them all. `each(visit)` calls
/// `visit(weight)` for the block's. By one block.
template <class Each>
static __device__ __forceinline__ int fi_decide(
    const fi_row &row, unsigned int low, unsigned int high, unsigned long long above, double limit, fi_filter_shared &shared,
    Each &&each, float *threshold
) {
    constexpr unsigned int bins = FI_SAMPLE_BINS / 2;
    static_assert(bins <= FI_THREADS, "a bin a thread");
    const unsigned int lane = threadIdx.x % 32;
    unsigned int bits = fi_interval_bits(low, high);
#pragma unroll 1
    while (true) {
        const unsigned int shift = bits > 8 ? bits - 8 : 0;
        if (threadIdx.x < bins) shared.parts[threadIdx.x] = 0;
        if (threadIdx.x == 0) {
            shared.found[0] = -1;
            shared.counters[1] = 0;
        }
        __syncthreads();
        each([&](float weight) {
            const unsigned int bin = (__float_as_uint(weight) - low) >> shift;
            if (__float_as_uint(weight) >= low && bin >> (bits - shift) == 0) fi_add_to(&shared.parts[bin], fi_mass(row, weight));
        });
        __syncthreads();
        const unsigned int own = bins - 1 - threadIdx.x;
        const unsigned long long in = threadIdx.x < bins ? shared.parts[own] : 0;
        const unsigned long long through = above + fi_block_running_sum<FI_THREADS>(in, shared.slots);
        if ((double)through >= limit && (double)(through - in) < limit) {
            shared.found[0] = (int)own;
            shared.above[0] = through - in;
        }
        __syncthreads();
        if (shared.found[0] < 0) return FI_OUTCOME_ELSEWHERE;
        low += (unsigned int)shared.found[0] << shift;
        above = shared.above[0];
        bits = shift;
        if (bits == 0) break;
        // The part's few, one a lane: where the bins were.
        float *const few = (float *)shared.parts;
        each([&](float weight) {
            const unsigned int key = __float_as_uint(weight);
            if (key < low || (key - low) >> bits != 0) return;
            const unsigned int at = atomicAdd(&shared.counters[1], 1u);
            if (at < 32) few[at] = weight;
        });
        __syncthreads();
        const unsigned int count = shared.counters[1];
        if (count <= 32) {
            const float weight = lane < count ? few[lane] : 0.0f;
            unsigned long long before = above;
            for (unsigned int i = 0; i < count; i++) {
                const float other = few[i];
                if (other > weight) before += fi_mass(row, other);
            }
            const bool kept = lane < count && (double)before < limit;
            low = __reduce_min_sync(0xffffffffu, kept ? __float_as_uint(weight) : 0xffffffffu);
            break;
        }
        __syncthreads();
    }
    *threshold = __uint_as_float(low);
    return FI_OUTCOME_FOUND;
}

/// The least of the gathered weights, all of `low ... high`, above which less than `limit` lies, `above` being the mass above them all. By
/// the row's first block.
static __device__ __forceinline__ int fi_decide_near(
    const fi_row &row, unsigned int low, unsigned int high, unsigned long long above, double limit,
    fi_filter_shared &shared, float *threshold
) {
    if ((double)above >= limit) return FI_OUTCOME_ELSEWHERE;
    bool fits = true;
    unsigned int least = 0xffffffffu, greatest = 0;
    unsigned long long count = 0;
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
        const unsigned long long range = shared.ranges[rank];
        fits &= shared.gathered[rank] <= FI_NEAR_ROOM;
        count += shared.gathered[rank];
        least = (unsigned int)range < least ? (unsigned int)range : least;
        greatest = (unsigned int)(range >> 32) > greatest ? (unsigned int)(range >> 32) : greatest;
    }
    if (least == greatest) {
        *threshold = __uint_as_float(least);
        return (double)(above + count * fi_mass(row, *threshold)) >= limit ? FI_OUTCOME_SAME : FI_OUTCOME_ELSEWHERE;
    }
    if (!fits) return FI_OUTCOME_MANY;
    return fi_decide(row, low, high, above, limit, shared, [&](auto &&visit) { fi_each_near(shared, visit); }, threshold);
}

/// Tells all blocks what the first has found, and what the row keeps from the threshold on; `above` are what the blocks have above the
/// interval.
static __device__ __forceinline__ void fi_tell_near(
    const fi_row &row, int outcome, float threshold, const unsigned long long *above, fi_filter_shared &shared
) {
    __syncthreads();
    if (outcome == FI_OUTCOME_FOUND) {
        if (threadIdx.x < FI_TEAM) shared.slots[threadIdx.x] = above[threadIdx.x];
        __syncthreads();
        unsigned long long sum = 0;
        fi_each_near(shared, [&](float weight) {
            if (weight >= threshold) sum += fi_mass(row, weight);
        });
        sum = fi_warp_reduce(sum, fi_sum());
        if (threadIdx.x % 32 == 0 && sum != 0) fi_add_to(&shared.slots[fi_near_rank()], sum);
        __syncthreads();
    }
    if (threadIdx.x < FI_TEAM) {
        fi_verdict verdict = {0, 0, threshold, 0, 0, outcome};
#pragma unroll
        for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
            if (rank == threadIdx.x) verdict.before = verdict.total;
            verdict.total += shared.slots[rank];
        }
        *fi_team_at(&shared.verdict, threadIdx.x) = verdict;
    }
}

/// What the row keeps, by the verdict, and this block's warps, which add what they have of the interval.
static __device__ __forceinline__ fi_row_sum fi_sum_near(const fi_row &row, fi_filter_shared &shared) {
    const fi_verdict verdict = shared.verdict;
#pragma unroll 1
    for (unsigned int i = threadIdx.x; i < shared.counters[0]; i += FI_THREADS) {
        const unsigned int index = shared.near_places()[i];
        // A block alone has sent them to itself.
        const float weight = FI_TEAM == 1 ? shared.weights[i] : fi_entry(fi_weight_groups<>{row}(index / 4), index % 4);
        if (weight >= verdict.threshold) fi_add_to(&shared.tiles[fi_warp_of(row.part, index)], fi_mass(row, weight));
    }
    __syncthreads();
    fi_row_sum result = {verdict.total, verdict.before, 0};
#pragma unroll
    for (unsigned int warp = 0; warp < FI_WARPS; warp++) result.own += shared.tiles[warp];
    return result;
}

/// The least weight that top-p keeps. `whole` is what `top_p` is a share of, or 0: of what top-k has left. `sum` is of all weights, and
/// becomes that of what is kept, unless `is_known` says that it does not.
static __device__ __forceinline__ float fi_find_nucleus(
    fi_row &row, float top_p, unsigned long long whole, fi_filter_shared &shared, unsigned int &turn, fi_row_sum *sum,
    bool *is_known
) {
    // Masses are integers: half of one is more than no mass, so that a share of 0 has the greatest, and it changes no other.
    const double limit = fmax((double)(whole == 0 ? sum->total : whole) * (double)top_p, 0.5);
#if FI_LISTS
    const float listed_from = shared.counters[3] == 0 ? row.listed_from : fi_infinity();
    row.listed_from = fi_infinity();
#endif
    // All together have less than the share: each is in.
    if ((double)sum->total < limit) {
        *is_known = !row.is_powers;
        return 0;
    }
    // An entry of the nucleus has what is not in the share at or below it: it weighs that over the width or more.
    const double tail = (double)sum->total - limit;
    const float floor = (float)(tail * row.weight_of_mass(1)) * __fdividef(0.999f, (float)row.width);
    unsigned int low = floor > 0 ? __float_as_uint(floor) : 1, high = FI_KEY_ONE;
    const unsigned int least = low;
    if (row.width >= FI_SAMPLED_WIDTH) fi_guess(row, (unsigned long long)tail, shared, &low, &high);
    if (low < least) low = least;
    if (high < low) high = low;
#if FI_LISTS
    if (listed_from < fi_infinity() && (FI_FORM == 1 || FI_LIST_MASKS || row.is_powers)) {
        // What weighs more than the least of the list is in it; somewhat more, as exponentials are rounded. An interval that begins below
        // is cut there: another look at the list costs a tenth of another pass over the row.
        const unsigned int from = __float_as_uint(row.few_weight(listed_from)) + 8;
        // First near to where the sample has it: to 2.5 bins on either side, 2 of probabilities, or 1.25 where each look has exponentials to take.
        constexpr unsigned int half = (FI_FORM == 1 ? 8u : FI_LIST_MASKS ? 5u : 10u) << (FI_SAMPLE_SHIFT - 2);
        const bool is_whole = (high - low + 1) >> FI_SAMPLE_SHIFT == 2 * FI_SAMPLE_MARGIN + 1;
        const unsigned int middle = low + ((unsigned int)FI_SAMPLE_MARGIN << FI_SAMPLE_SHIFT) + shared.counters[0];
#pragma unroll 1
        for (bool is_near = is_whole;; is_near = false) {
            float threshold;
            const unsigned int begin = is_near ? middle - half : low, end = is_near ? middle + half - 1 : high;
            if (from <= end && fi_find_listed(row, begin > from ? begin : from, end, limit, shared, &threshold, sum)) {
                row.listed_from = listed_from;
                return threshold;
            }
            if (!is_near) break;
        }
    }
#endif
#pragma unroll 1
    while (true) {
        unsigned int own;
        const fi_row_sum above = fi_gather_near(row, low, high, shared, turn, &own);
        if (fi_team_rank() == 0) {
            float threshold = 0;
            const int outcome = fi_decide_near(row, low, high, above.total, limit, shared, &threshold);
            fi_tell_near(row, outcome, threshold, shared.numbers.of[(turn - 1) & 1], shared);
        }
        fi_team_sync();
        const int outcome = shared.verdict.outcome;
        const float threshold = shared.verdict.threshold;
        if (outcome == FI_OUTCOME_FOUND) {
            *sum = fi_sum_near(row, shared);
            return threshold;
        }
        if (outcome == FI_OUTCOME_SAME) {
            // How many they are says what they sum to.
            const unsigned long long mass = fi_mass(row, threshold);
            own = __reduce_add_sync(0xffffffffu, own);
            if (threadIdx.x % 32 == 0) shared.tiles[threadIdx.x / 32] += own * mass;
            *sum = {0, 0, 0};
#pragma unroll
            for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
                const unsigned long long amount = shared.numbers.of[(turn - 1) & 1][rank] + shared.gathered[rank] * mass;
                if (rank == fi_team_rank()) sum->before = sum->total, sum->own = amount;
                sum->total += amount;
            }
            __syncthreads();
            return threshold;
        }
        fi_interval interval = {low, fi_interval_bits(low, high), above.total, 0};
        if (outcome == FI_OUTCOME_ELSEWHERE) {
            interval = {least, fi_interval_bits(least, FI_KEY_ONE), 0, 0};
            high = FI_KEY_ONE;
        }
        const bool is_found = fi_narrow(
            interval, shared.masses[0], shared, turn,
            [&](auto &&add) {
                fi_each_key(
                    row.part, fi_weight_groups<>{row},
                    [&](float weight, bool valid, auto &&add) {
                        const unsigned int key = __float_as_uint(weight);
                        add(key, fi_mass(row, weight), valid && weight > 0.0f && key <= high);
                    },
                    add);
            },
            [&](unsigned long long sum) { return (double)sum >= limit; });
        // Below: from the start.
        low = is_found ? interval.low : least;
        high = is_found ? low + (1u << interval.bits) - 1 : FI_KEY_ONE;
        // A part that is one key wide is the threshold.
        if (is_found && interval.bits == 0) break;
        // Other blocks may still read the first one's histogram, where weights will be sent.
        fi_team_sync();
    }
    *is_known = false;
    return __uint_as_float(low);
}

/// The least weight that min-p keeps.
static __device__ __forceinline__ float fi_least_weight(const fi_row &row, float min_p) {
    return min_p * row.greatest();
}

/// The least weight that top-p and min-p keep of what top-k does; `whole` as of `fi_find_nucleus`. `sum` is of all weights, or without
/// top-p of what min-p keeps, and becomes that of what is kept.
static __device__ __forceinline__ float fi_keep_weights(
    fi_row &row, float top_p, float min_p, unsigned long long whole, fi_filter_shared &shared, unsigned int &turn,
    fi_row_sum *sum
) {
    const float least = fi_least_weight(row, min_p);
    if (top_p >= 1.0f) return least;
    bool is_known = true;
    float threshold = fi_find_nucleus(row, top_p, whole, shared, turn, sum, &is_known);
    if (threshold < least) {
        threshold = least;
        is_known = false;
    }
#if FI_LISTS
    if (!is_known && row.listed_from < fi_infinity()) {
        *sum = fi_sum_listed(row, threshold, shared);
        return threshold;
    }
#endif
    if (!is_known) *sum = fi_sum_from(row, threshold, shared, turn);
    return threshold;
}
