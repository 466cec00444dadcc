// Which entries of a row top-k, top-p and min-p keep, without sorting it, by one block or by a cluster of them.
//
// An entry's weight is exp((logit - max) / temperature), so that the greatest is 1, or a probability times a power of two that
// makes the greatest 1/2 or more. Masses, which are sums of weights, are 64-bit integers: any order of adding them gives the same
// sum, so neither threads nor blocks keep to one. A threshold is looked for in an interval of keys (integers in the order of the
// floats), which starts as narrow as what is known of the row allows: a histogram of the interval's parts tells in which part the
// threshold lies, and that part is the next interval, three times at most.
//
// FI_INPUT: storage type. FI_FORM: 0 for logits, 1 for probabilities. FI_TEAM: blocks of a row. Where it is more than 1, a block
// holds its part of the row in shared memory, as float32, so that the row is read once.
#pragma once

#include "primitives/argmax.cuh"
#include "primitives/held.cuh"

/// Parts of an interval: two for each thread.
#define FI_BINS (2 * FI_THREADS)
#define FI_BIN_BITS (FI_THREADS == 1024 ? 11 : 10)
static_assert(FI_THREADS == 1024 || FI_THREADS == 512, "the bins are a power of two");

#define FI_ROW_NEGATIVE 4
/// Rows from this width on have a sample taken.
#define FI_SAMPLED_WIDTH 8192

/// A row's part that one block has, and what is known of the row. It lies in shared memory, as registers are short.
struct fi_filtered_row {
    /// Of the block's first entry.
    unsigned long long address;
    /// The entries as float32, or null: read at the address.
    float *held;
    /// The block's entries: `count` of them from place `first` on; and of the row.
    unsigned int first, count, width;
    float maximum, scale;
    /// A weight of 1 is the mass 2^(23 + low_bits).
    int low_bits;
    /// Top-k keeps the keys above `kth`, and those equal to it up to place `last`.
    unsigned int kth, last;

    __device__ __forceinline__ float weight(float x) const {
        return FI_FORM == 0 ? fi_exp((x - maximum) * scale) : x * scale;
    }
    /// round(weight * 2^(23 + low_bits)) for a weight of at most 1: in two steps of float32, as conversions to 64 bits are slow.
    __device__ __forceinline__ unsigned long long mass(float weight) const {
        const float steps = weight * 0x1p23f;
        const float high = rintf(steps);
        const float low = (steps - high) * __int_as_float((127 + low_bits) << 23);
        return ((unsigned long long)__float2uint_rn(high) << low_bits) + (long long)__float2int_rn(low);
    }
    __device__ __forceinline__ double weight_of_mass(unsigned long long mass) const {
        return (double)mass * __longlong_as_double((long long)(1023 - 23 - low_bits) << 52);
    }
    __device__ __forceinline__ bool keeps(float x, unsigned int place) const;
    /// An entry by its place in the row, which is one of the block's.
    __device__ __forceinline__ float read(unsigned int place) const {
        if (FI_TEAM > 1) return held[place - first];
        float x[1];
        fi_read<FI_INPUT, 1>(address, place - first, x);
        return x[0];
    }
    /// Calls `visit(x, place, valid)` for the block's entries, in no order, from all threads of a warp alike.
    template <class Visit>
    __device__ __forceinline__ void each(Visit &&visit) const {
        if constexpr (FI_TEAM > 1) {
#pragma unroll 2
            for (unsigned int start = 0; start < count; start += FI_THREADS) {
                const unsigned int index = start + threadIdx.x;
                visit(index < count ? held[index] : 0.0f, first + index, index < count);
            }
        } else {
            fi_for_row<FI_INPUT, FI_THREADS, true>(address, count, visit);
        }
    }
    /// What the row's distribution has of an entry of weight(x), in rows whose held entries are weights already.
    __device__ __forceinline__ float kept_weight(float x, unsigned int place) const {
        if (FI_TEAM > 1) return x;
        return keeps(x, place) ? weight(x) : 0.0f;
    }
};

/// Shared memory of a block.
struct fi_filter_shared {
    fi_filtered_row row;
    /// Histograms of two turns, as one is read by other blocks while the next is begun.
    union {
        unsigned long long masses[2][FI_BINS];
        unsigned int counts[2][FI_BINS];
    };
    /// The draw's sums.
    unsigned long long parts[FI_THREADS];
    unsigned long long slots[32];
    fi_team_numbers numbers;
    /// What one thread found for all, in two turns.
    unsigned long long above[2], at[2];
    int found[2];
    int place;
};

__device__ __forceinline__ bool fi_filtered_row::keeps(float x, unsigned int place) const {
    const unsigned int key = fi_order_key(x);
    return key > kth || (key == kth && place <= last);
}

/// Takes a row up: the block's part of it, and what is greatest in all of it. `own` is the greatest key of this thread's entries,
/// 0 for none. `held` is memory for FI_TEAM-th part of the row, rounded up to 64 entries, and 4 more.
static __device__ __forceinline__ unsigned long long fi_begin_row(
    unsigned long long address, unsigned int width, int low_bits, float *held, fi_filter_shared &shared,
    unsigned int &turn, unsigned int *own
) {
    const fi_team_part part = fi_part_of_row(width);
    const unsigned int first = part.first, count = part.count;
    address += (unsigned long long)first * fi_size(FI_INPUT);
    fi_candidate best;
    bool is_nan = false, is_negative = false;
    const auto take = [&](float x, unsigned int index) {
        is_nan |= x != x;
        is_negative |= x < 0;
        best.take(x, first + index);
    };
#if FI_TEAM > 1
    held = fi_hold<FI_INPUT>(address, count, held, take);
#else
    fi_for_row<FI_INPUT, FI_THREADS>(address, count, [&](float x, unsigned int index, bool valid) {
        if (valid) take(x, index);
    });
#endif
    if (threadIdx.x == 0) {
        fi_filtered_row &row = shared.row;
        row.address = address;
        row.held = held;
        row.first = first;
        row.count = count;
        row.width = width;
        row.low_bits = low_bits;
        row.kth = 0;
        row.last = 0xffffffffu;
    }
    *own = best.place == 0xffffffffu ? 0 : fi_order_key(best.value);
    unsigned long long top = best.top();
    if (FI_FORM == 1 && is_negative) top = FI_TOP_NEGATIVE;
    if (is_nan) top = FI_TOP_NAN;
    top = fi_block_reduce<FI_THREADS>(top, fi_top_max(), shared.slots);
    return shared.numbers.greatest(top, turn);
}

/// A row's status by what is greatest of it. A greedy choice takes +inf for the greatest.
static __device__ __forceinline__ int fi_top_status(unsigned long long top, bool is_greedy) {
    if (top == FI_TOP_NAN) return FI_ROW_NAN;
    if (top == FI_TOP_NEGATIVE) return FI_ROW_NEGATIVE;
    const float value = fi_top_value(top);
    if (value == (FI_FORM == 0 ? -fi_infinity() : 0.0f)) return FI_ROW_EMPTY;
    return value == fi_infinity() && !is_greedy ? FI_ROW_INFINITE : FI_ROW_OK;
}

/// One over a temperature, bounded, so that 0 times it is 0 for any; 0 for 0.
static __device__ __forceinline__ float fi_temperature_scale(float temperature) {
    return temperature == 0.0f ? 0.0f : temperature > 1e-30f ? 1.0f / temperature : 1e30f;
}

/// Says what weighs 1: after it, weights and masses are defined. For probabilities, what weighs 1/2 to 1 is the greatest, so that
/// the factor, a power of two, changes no digit; `scale` is one over a temperature.
static __device__ __forceinline__ void fi_set_scale(unsigned long long top, float scale, fi_filter_shared &shared) {
    const float maximum = fi_top_value(top);
    if (FI_FORM == 1) {
        const int exponent = (int)(__float_as_uint(maximum) >> 23);
        // The last two are subnormal: 2^-127 and 2^-128.
        scale = __uint_as_float(exponent < 253 ? (unsigned int)(253 - exponent) << 23 : exponent == 253 ? 0x00400000u : 0x00200000u);
    }
    if (threadIdx.x == 0) {
        shared.row.maximum = maximum;
        shared.row.scale = scale;
    }
    __syncthreads();
}

/// Adds to a bin. Lanes of a warp that hit one bin together add together: rows of equal entries would otherwise queue.
/// All lanes of the warp take part.
static __device__ __forceinline__ void fi_add(unsigned int *bins, unsigned int bin, unsigned int, bool valid) {
    const unsigned int all = __ballot_sync(0xffffffffu, valid);
    if (all == 0) return;
    const unsigned int lead = __shfl_sync(0xffffffffu, bin, __ffs((int)all) - 1);
    const unsigned int same = __ballot_sync(0xffffffffu, valid && bin == lead);
    if (valid && bin != lead) {
        atomicAdd(&bins[bin], 1u);
    } else if (valid && threadIdx.x % 32 == (unsigned int)__ffs((int)same) - 1) {
        atomicAdd(&bins[bin], (unsigned int)__popc(same));
    }
}

static __device__ __forceinline__ void fi_add(
    unsigned long long *bins, unsigned int bin, unsigned long long mass, bool valid
) {
    const unsigned int all = __ballot_sync(0xffffffffu, valid);
    if (all == 0) return;
    const unsigned int lead = __shfl_sync(0xffffffffu, bin, __ffs((int)all) - 1);
    const unsigned int same = __ballot_sync(0xffffffffu, valid && bin == lead);
    if (__popc(same) < 8) {
        if (valid) atomicAdd(&bins[bin], mass);
        return;
    }
    const bool joins = valid && bin == lead;
    const unsigned long long sum = fi_warp_reduce(joins ? mass : 0ull, fi_sum());
    if (valid && !joins) atomicAdd(&bins[bin], mass);
    if (threadIdx.x % 32 == 0) atomicAdd(&bins[lead], sum);
}

/// The interval of keys in which a threshold lies: 2^bits keys from `low` on; the entries above it sum to `above`, its own to `at`.
struct fi_interval {
    unsigned int low, bits;
    unsigned long long above, at;
};

/// Narrows an interval to the part where the sum, from the greatest keys on, reaches what `reaches(sum)` says; false where it does
/// not. What keys above the interval sum to is `above`, or, where `sums_above`, is found here; then it is false as well where the sum
/// is reached above the interval. `each(add)` calls `add(key, amount, valid)` for the block's entries, from all lanes of a warp alike.
template <class T, class Each, class Reaches>
static __device__ __forceinline__ bool fi_narrow(
    fi_interval &interval, T *bins, fi_filter_shared &shared, unsigned int &turn, bool sums_above, Each &&each,
    Reaches &&reaches
) {
    const unsigned int place = turn++ & 1;
    bins += place * FI_BINS;
    bins[2 * threadIdx.x] = 0;
    bins[2 * threadIdx.x + 1] = 0;
    if (threadIdx.x == 0) shared.found[place] = -1;
    __syncthreads();
    const unsigned int low = interval.low;
    // The last bin is then for what is above.
    const unsigned int part_bits = sums_above ? FI_BIN_BITS - 1 : FI_BIN_BITS;
    const unsigned int shift = interval.bits > part_bits ? interval.bits - part_bits : 0;
    const unsigned int size_bits = interval.bits - shift;
    T over = 0;
    each([&](unsigned int key, T amount, bool valid) {
        const unsigned int bin = (key - low) >> shift;
        const bool joins = valid && key >= low;
        const bool is_inside = bin >> size_bits == 0;
        if (joins && !is_inside) over += amount;
        fi_add(bins, bin, amount, joins && is_inside);
    });
    if (sums_above) {
        const unsigned long long sum = fi_block_reduce<FI_THREADS>((unsigned long long)over, fi_sum(), shared.slots);
        if (threadIdx.x == 0) bins[FI_BINS - 1] = (T)sum;
    }
    fi_team_sync();
    // Two bins a thread, from the greatest on.
    const unsigned int lower = FI_BINS - 2 - 2 * threadIdx.x;
    unsigned long long in_low = 0, in_high = 0;
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
        const T *pair = fi_team_at(bins + lower, rank);
        in_low += pair[0];
        in_high += pair[1];
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
    if (found < 0 || (sums_above && found == FI_BINS - 1)) return false;
    interval.low = low + ((unsigned int)found << shift);
    interval.bits = shift;
    interval.above = shared.above[place];
    interval.at = shared.at[place];
    return true;
}

/// Bits that the keys of `low ... high` differ in.
static __device__ __forceinline__ unsigned int fi_interval_bits(unsigned int low, unsigned int high) {
    return high > low ? 32u - (unsigned int)__clz((int)(high - low)) : 0;
}

/// Finds what top-k keeps: sets `kth`, and says how many of the keys equal to it are kept; 0 where all above it are what is kept.
/// `own` is the greatest key of this thread's entries, 0 for none; 1 <= k < width.
static __device__ __forceinline__ unsigned int fi_find_kth(
    unsigned int k, unsigned int own, fi_filter_shared &shared, unsigned int &turn, bool *is_ambiguous
) {
    const fi_filtered_row &row = shared.row;
    const auto reaches = [&](unsigned long long sum) { return sum >= k; };
    // As many threads as k have an entry that is no less than the k-th greatest of the threads' own: a bound from below, to 2^-11.
    fi_interval bound = {0, 32, 0, 0};
    bool is_bound = true;
#pragma unroll 1
    for (int i = 0; i < 2 && is_bound; i++) {
        is_bound = fi_narrow(
            bound, shared.counts[0], shared, turn, false, [&](auto &&add) { add(own, 1u, own != 0); }, reaches);
    }
    fi_interval kth = {is_bound ? bound.low : 0, 0, 0, 0};
    kth.bits = fi_interval_bits(kth.low, fi_order_key(row.maximum));
    bool is_whole;
#pragma unroll 1
    do {
        fi_narrow(
            kth, shared.counts[0], shared, turn, false,
            [&](auto &&add) {
                row.each([&](float x, unsigned int, bool valid) { add(fi_order_key(x), 1u, valid); });
            },
            reaches);
        // The whole part is kept: what its keys are does not matter.
        is_whole = kth.above + kth.at == k;
    } while (kth.bits > 0 && !is_whole);
    const unsigned int kept = is_whole ? 0 : k - (unsigned int)kth.above;
    *is_ambiguous = !is_whole;
    if (threadIdx.x == 0) {
        shared.row.kth = is_whole ? kth.low - 1 : kth.low;
        shared.row.last = 0xffffffffu;
    }
    __syncthreads();
    return kept;
}

/// Replaces the held entries by their weights, 0 for those that top-k does not keep, and says what all of them weigh, with those
/// that are not kept where `is_joint`. Rows that are not held stay as they are.
static __device__ __forceinline__ unsigned long long fi_weigh(
    bool is_joint, fi_filter_shared &shared, unsigned int &turn
) {
    const fi_filtered_row &row = shared.row;
    unsigned long long whole = 0, before;
    row.each([&](float x, unsigned int place, bool valid) {
        if (!valid) return;
        const float weight = row.weight(x);
        const float kept = row.keeps(x, place) ? weight : 0.0f;
        if (FI_TEAM > 1) row.held[place - row.first] = kept;
        whole += row.mass(is_joint ? weight : kept);
    });
    whole = fi_block_reduce<FI_THREADS>(whole, fi_sum(), shared.slots);
    return shared.numbers.sum(whole, turn, &before);
}

/// The least weight t of a kept entry for which the weights greater than t sum to less than `top_p` of the whole; 0 for none.
/// Follows `fi_weigh`.
static __device__ __forceinline__ float fi_mass_threshold(
    float top_p, unsigned long long whole, bool has_joint_top_k, fi_filter_shared &shared, unsigned int &turn
) {
    const fi_filtered_row &row = shared.row;
    const double limit = (double)whole * (double)top_p;
    // An entry of the nucleus has (1 - top_p) of the whole at or below it: it weighs that over the width or more. Where the whole
    // is more than what is kept, that does not hold.
    const float floor =
        has_joint_top_k ? 0.0f : (float)(0.999 * (1.0 - (double)top_p) * row.weight_of_mass(whole) / row.width);
    const unsigned int least = __float_as_uint(floor);
    const auto reaches = [&](unsigned long long sum) { return (double)sum >= limit; };
    const auto each = [&](auto &&add) {
        row.each([&](float x, unsigned int place, bool valid) {
            const float weight = valid ? row.kept_weight(x, place) : 0.0f;
            const bool joins = __float_as_uint(weight) >= least && weight > 0.0f;
            const unsigned long long mass = joins ? row.mass(weight) : 0;
            add(__float_as_uint(weight), mass, mass > 0);
        });
    };
    fi_interval interval = {least, fi_interval_bits(least, 0x3f800000u), 0, 0};
    // Where the row is long, every 17th entry tells about where the threshold is, and one pass over the row whether it is there: then
    // few entries are counted.
    bool is_near = false;
    if (row.width >= FI_SAMPLED_WIDTH) {
        const double share = limit / 17;
        is_near = fi_narrow(
            interval, shared.masses[0], shared, turn, false,
            [&](auto &&add) {
                const unsigned int count = row.count / 17;
                for (unsigned int start = 0; start < count; start += FI_THREADS) {
                    const unsigned int place = row.first + 17 * (start + threadIdx.x);
                    const bool valid = start + threadIdx.x < count;
                    const float weight = valid ? row.kept_weight(row.read(place), place) : 0.0f;
                    add(__float_as_uint(weight), row.mass(weight), weight > 0.0f);
                }
            },
            [&](unsigned long long sum) { return (double)sum >= share; });
        if (is_near) {
            const unsigned int part = 1u << interval.bits, margin = 16 * part;
            const unsigned int high = interval.low + part + margin - 1;
            const unsigned int low = interval.low - least > margin ? interval.low - margin : least;
            interval = {low, fi_interval_bits(low, high), 0, 0};
            is_near = fi_narrow(interval, shared.masses[0], shared, turn, true, each, reaches);
        }
        if (!is_near) interval = {least, fi_interval_bits(least, 0x3f800000u), 0, 0};
    }
#pragma unroll 1
    while (!is_near || interval.bits > 0) {
        // All kept entries together have less than the share: each is in.
        if (!fi_narrow(interval, shared.masses[0], shared, turn, false, each, reaches)) return 0;
        is_near = true;
    }
    return __uint_as_float(interval.low);
}

/// The first place, in the order of places, at which the running sum of `amount(x, place)` reaches `target(total)`; -1 where
/// the total is 0. All blocks of the row get it.
template <class Amount, class Target>
static __device__ __forceinline__ int fi_first_reaching(
    fi_filter_shared &shared, unsigned int &turn, Amount &&amount, Target &&target_of
) {
    constexpr unsigned int steps = 6;
    const fi_filtered_row &row = shared.row;
    const unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    constexpr unsigned int step = 32 * steps;
    // A part is as many whole steps as make the block's entries as many parts as it has threads, or fewer.
    const unsigned int part = step * (row.count / (step * FI_THREADS) + 1);
    const unsigned int parts = (row.count + part - 1) / part;
    const auto amount_at = [&](unsigned int index) {
        return index < row.count ? amount(row.read(row.first + index), row.first + index) : 0ull;
    };
    __syncthreads();
    shared.parts[threadIdx.x] = 0;
    if (threadIdx.x == 0) shared.place = -1;
    __syncthreads();
#pragma unroll 1
    for (unsigned int own = warp; own < parts; own += FI_THREADS / 32) {
        unsigned long long sum = 0;
#pragma unroll 1
        for (unsigned int offset = lane; offset < part; offset += step) {
            const unsigned int index = own * part + offset;
            float x[steps];
#pragma unroll
            for (int i = 0; i < steps; i++) {
                x[i] = index + i * 32 < row.count ? row.read(row.first + index + i * 32) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < steps; i++) {
                if (index + i * 32 < row.count) sum += amount(x[i], row.first + index + i * 32);
            }
        }
        sum = fi_warp_reduce(sum, fi_sum());
        if (lane == 0) shared.parts[own] = sum;
    }
    __syncthreads();
    const unsigned long long mine = shared.parts[threadIdx.x];
    unsigned long long through = fi_block_running_sum<FI_THREADS>(mine, shared.slots), before;
    // The last thread has the block's sum: it tells thread 0, which tells the other blocks.
    if (threadIdx.x == FI_THREADS - 1) shared.at[0] = through;
    __syncthreads();
    const unsigned long long total = shared.numbers.sum(shared.at[0], turn, &before);
    const unsigned long long target = target_of(total);
    through += before;
    if (through - mine < target && through >= target) {
        shared.place = (int)threadIdx.x;
        shared.above[0] = through - mine;
    }
    __syncthreads();
    const int own = shared.place;
    unsigned long long running = shared.above[0];
    __syncthreads();
    // One warp walks the part; the others wait for what it finds.
    if (own >= 0 && warp == 0) {
        bool done = false;
#pragma unroll 1
        for (unsigned int offset = 0; offset < part && !done; offset += 32) {
            const unsigned int index = (unsigned int)own * part + offset;
            const unsigned long long reached = running + fi_warp_running_sum(amount_at(index + lane));
            const unsigned int reaching = __ballot_sync(0xffffffffu, reached >= target);
            done = reaching != 0;
            if (done && lane == 0) shared.place = (int)(row.first + index) + __ffs((int)reaching) - 1;
            running = __shfl_sync(0xffffffffu, reached, 31);
        }
    }
    __syncthreads();
    const unsigned long long found = shared.numbers.greatest((unsigned long long)(shared.place + 1), turn);
    return (int)found - 1;
}

/// The mass that a number in (0, 1] picks of a total.
static __device__ __forceinline__ unsigned long long fi_share(double uniform, unsigned long long total) {
    const unsigned long long target = __double2ull_ru(uniform * (double)total);
    return target < 1 ? 1 : target > total ? total : target;
}

/// What a running sum along a row counts: what kept entries weigh, or entries equal to the k-th.
struct fi_draw_rule {
    float threshold;
    bool counts_ties;

    __device__ __forceinline__ unsigned long long amount(const fi_filtered_row &row, float x, unsigned int place) const {
        if (counts_ties) return fi_order_key(x) == row.kth ? 1 : 0;
        const float weight = row.kept_weight(x, place);
        return weight >= threshold ? row.mass(weight) : 0;
    }
};

/// The least weight that top-p and min-p keep of what top-k does. Held entries are weights from here on.
static __device__ __forceinline__ float fi_weight_threshold(
    float top_p, float min_p, bool is_joint, bool has_top_k, fi_filter_shared &shared, unsigned int &turn
) {
    unsigned long long whole = 0;
    if (FI_TEAM > 1 || top_p < 1.0f) whole = fi_weigh(is_joint, shared, turn);
    const float threshold = FI_FORM == 0 ? min_p : min_p * (shared.row.maximum * shared.row.scale);
    if (top_p >= 1.0f) return threshold;
    return fmaxf(threshold, fi_mass_threshold(top_p, whole, is_joint && has_top_k, shared, turn));
}

/// Says which entries top-k keeps: of several equal to the k-th, those of the lowest places; 1 <= k < width. See `fi_find_kth`.
static __device__ __forceinline__ void fi_keep_top_k(
    unsigned int k, unsigned int own, fi_filter_shared &shared, unsigned int &turn
) {
    fi_filtered_row &row = shared.row;
    bool is_ambiguous;
    const unsigned int ties = fi_find_kth(k, own, shared, turn, &is_ambiguous);
    if (!is_ambiguous) return;
    const fi_draw_rule rule = {0, true};
    const int last = fi_first_reaching(
        shared, turn, [&](float x, unsigned int at) { return rule.amount(row, x, at); },
        [&](unsigned long long) { return (unsigned long long)ties; });
    if (threadIdx.x == 0) row.last = (unsigned int)last;
    __syncthreads();
}
