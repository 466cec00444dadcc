// What filters of a row share: the shared memory of a block, what is greatest, and sums.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh. FI_SUMS_ONLY: no thresholds are looked for, and no memory is for them. FI_DRAWS: rows are
// drawn from.
#pragma once

#include "primitives/argmax.cuh"
#include "primitives/row_weights.cuh"

#define FI_ROW_NEGATIVE 4

/// Parts of an interval of keys: two for each thread, or fewer.
#define FI_BIN_BITS (FI_THREADS >= 1024 ? 11 : FI_THREADS >= 512 ? 10 : 9)
#define FI_BINS (1 << FI_BIN_BITS)
static_assert(FI_THREADS >= 256, "two bins a thread are all of them");
/// Entries that the first block gathers for a narrow decision: in all, and of each block. As many as the bins' memory holds.
#define FI_GATHERED (FI_TEAM == 1 ? 4096 : 1024)
#define FI_GATHERED_EACH (FI_GATHERED / FI_TEAM)
/// The same of weights, which are shorter; somewhat fewer, so that three blocks fit on a processor.
#define FI_NEAR (FI_TEAM == 1 ? 2048 : 2 * FI_GATHERED_EACH - 16)
/// The same of a block that lists, whose list is done with where weights are gathered: with their places as long as the list's memory.
#define FI_NEAR_ROOM (FI_LISTS ? 8192 : FI_NEAR)
/// The greatest k that is surely found among the threads' maxima of a block, half of them; and that is looked for by an estimate.
#define FI_FEW 128
#define FI_MANY 2048
/// Bins of a sample of the weights: the upper bits of float32, 16 bins an octave, down to 2^-32.
#define FI_SAMPLE_BINS 512
/// Bins of a sample of logits above what was the greatest as it was begun.
#define FI_SAMPLE_ABOVE 64
/// Groups of each warp's run that say what may be among the greatest few.
#define FI_FIRST_GROUPS 256
/// The key of the first bin of the sample, and what a bin has of keys.
#define FI_SAMPLE_SHIFT 19
#define FI_SAMPLE_LOW ((0x3f800000u >> FI_SAMPLE_SHIFT) - FI_SAMPLE_BINS)

/// FI_LIST_MASKS: it is noted which entries were listed, of so many steps of a warp.
#ifndef FI_LIST_MASKS
#define FI_LIST_MASKS 0
#endif
/// Entries that two threads list between them, one from the first slot on and one from the last: as many as two blocks have memory for. How
/// many groups of each warp's run say from where on entries are listed, and the share of a row that is: what fills the fullest pair by four
/// deviations. Of 3-sigma normal logits, top-p of 0.9 keeps 0.044, and of sums of four uniform numbers as wide 0.096.
#define FI_LISTED_PAIR (FI_LIST_MASKS ? 86 : 102)
#define FI_LISTED_FIRST 128
#define FI_LISTED_SHARE (FI_LIST_MASKS ? 0.103f : 0.112f)
#define FI_PAIRS (FI_THREADS / 2)
#define FI_NOTED_STEPS 16

/// An entry of a part: held parts are short.
#if FI_HELD
typedef unsigned short fi_place_in_part;
#else
typedef unsigned int fi_place_in_part;
#endif

/// What the first block tells another.
struct fi_verdict {
    /// What the kept entries of the row sum to, and those of the blocks before this one.
    unsigned long long total, before;
    float threshold;
    unsigned int kth, last;
    int outcome;
};

/// Calls `put(at, i)` for the bits i of `mask` with places that no other thread gets, as long as they are below `limit`; `count` is how many
/// there were.
template <class Put>
static __device__ __forceinline__ void fi_put_each(unsigned int mask, unsigned int *count, unsigned int limit, Put &&put) {
    if (mask == 0) return;
    unsigned int at = atomicAdd(count, (unsigned int)__popc(mask));
#pragma unroll 1
    for (; mask != 0 && at < limit; mask &= mask - 1) put(at++, (unsigned int)__ffs((int)mask) - 1);
}

/// Adds to a sum in shared memory. The hardware adds 32 bits at a time: 64 would be a loop of exchanges.
static __device__ __forceinline__ void fi_add_to(unsigned long long *sum, unsigned long long amount) {
    unsigned int *const words = (unsigned int *)sum;
    const unsigned int low = (unsigned int)amount;
    const unsigned int carry = atomicAdd(&words[0], low) > ~low ? 1 : 0;
    const unsigned int high = (unsigned int)(amount >> 32) + carry;
    if (high != 0) atomicAdd(&words[1], high);
}
static __device__ __forceinline__ void fi_add_to(unsigned int *sum, unsigned int amount) { atomicAdd(sum, amount); }

/// One of four.
static __device__ __forceinline__ float fi_entry(float4 x, unsigned int i) {
    const float low = i & 1 ? x.y : x.x, high = i & 1 ? x.w : x.z;
    return i & 2 ? high : low;
}

static __device__ __forceinline__ float fi_entry(const float4 (&x)[1], unsigned int i) { return fi_entry(x[0], i); }
/// One of sixteen.
static __device__ __forceinline__ float fi_entry(const float4 (&x)[4], unsigned int i) {
    const float4 low = i & 4 ? x[1] : x[0], high = i & 4 ? x[3] : x[2];
    return fi_entry(i & 8 ? high : low, i % 4);
}

/// Shared memory of a block.
struct __align__(16) fi_filter_shared {
#ifndef FI_SUMS_ONLY
    /// Of the sample; later, masses of the gathered weights.
    union {
        unsigned int sample[FI_SAMPLE_BINS];
        unsigned long long parts[FI_SAMPLE_BINS / 2];
    };
    union {
        /// What the blocks have summed in the first pass, and for what exponents; of logits, those of the warps and of the sample too.
        struct {
            unsigned long long sums[FI_TEAM];
            int exponents[FI_TEAM], of_warps[FI_WARPS], of_sample;
        } first;
        /// Later, which of the block's weights were gathered.
        fi_place_in_part near[FI_NEAR];
    };
#endif
    /// Sums of the warps' runs.
    unsigned long long tiles[FI_WARPS];
    unsigned long long slots[FI_WARPS];
    fi_team_numbers numbers;
    /// What one thread found for all, in two turns.
    unsigned long long above[2], at[2];
    int found[2];
    unsigned int counters[4];
    double uniform;
    /// How many entries the blocks have gathered, and the ranges of their keys.
    unsigned int gathered[FI_TEAM];
    unsigned long long ranges[FI_TEAM];
    /// What the first block has found for this one.
    fi_verdict verdict;
#if FI_LISTS && FI_LIST_MASKS
    /// Which entries were listed, of each step of a warp.
    unsigned short masks[FI_NOTED_STEPS][FI_THREADS];
#endif
#ifndef FI_SUMS_ONLY
#if FI_LISTS
    __device__ __forceinline__ unsigned int *near_places() { return near_room.places; }
#else
    __device__ __forceinline__ fi_place_in_part *near_places() { return near; }
#endif
    union {
        /// Histograms of two turns, as one is read by other blocks while the next is begun.
        unsigned long long masses[2][FI_BINS];
        unsigned int counts[2][FI_BINS];
        /// In the first block, what all have gathered: entries of top-k, or weights.
        unsigned long long entries[FI_GATHERED];
        float weights[2 * FI_GATHERED];
#if FI_LISTS
        /// What top-p may keep, of each pair of threads.
        float list[FI_LISTED_PAIR * FI_PAIRS];
        struct {
            float weights[FI_NEAR_ROOM];
            unsigned int places[FI_NEAR_ROOM];
        } near_room;
#endif
    };
#endif
};
#if FI_LISTS
/// The shared memory of a kernel whose blocks list: more than is static.
#define FI_FILTER_SHARED(shared)                     \
    extern __shared__ fi_filter_shared fi_dynamic[]; \
    fi_filter_shared &shared = fi_dynamic[0]
static_assert(2 * (sizeof(fi_filter_shared) + 1024) <= 228 * 1024, "two blocks");
static_assert(sizeof(fi_filter_shared) <= FI_LIST_BYTES, "what the host gives");
#else
#define FI_FILTER_SHARED(shared) __shared__ fi_filter_shared shared
#endif
// What a processor has, where three blocks of 16,384 held entries are to fit on it: a block more costs a third of the speed.
static_assert(
    FI_TEAM == 1 || FI_MIN_BLOCKS < 3 || 3 * (sizeof(fi_filter_shared) + 4 * 16384 + 16 + 1024) <= 228 * 1024, "three blocks");

/// What is greatest of a row as one number: the key of its greatest entry, or what is wrong. A NaN's key is above all others.
#define FI_KEY_NAN 0xffffffffu
#define FI_KEY_NEGATIVE 0xfffffffeu

#if FI_LISTS
/// 2^exponent, of at least -126.
static __device__ __forceinline__ float fi_power_of_2(int exponent) { return __int_as_float((max(exponent, -126) + 127) << 23); }

/// The slot of a thread's entry.
static __device__ __forceinline__ unsigned int fi_slot_of(unsigned int thread, unsigned int i) {
    return (thread < FI_PAIRS ? i : FI_LISTED_PAIR - 1 - i) * FI_PAIRS + thread % FI_PAIRS;
}

/// Lists a thread's entries from some number on, where they are read for the first time, so that a threshold above it is looked for in the
/// list. A thread asks nobody for a place, and threads of a warp write to different banks.
struct fi_lister {
    float from;
    /// Addresses in shared memory: the next slot, the least one before which, or from which on, sixteen entries fit.
    unsigned int at, least;
    int step;

    __device__ __forceinline__ fi_lister(float from, const fi_filter_shared &shared) : from(from) {
        constexpr int bytes = 4 * FI_PAIRS;
        const unsigned int base = (unsigned int)shared_address(shared.list) + 4 * (threadIdx.x % FI_PAIRS);
        const bool is_first = threadIdx.x < FI_PAIRS;
        at = is_first ? base : base + (FI_LISTED_PAIR - 1) * bytes;
        least = is_first ? base : base + 15 * bytes;
        step = is_first ? bytes : -bytes;
    }
    /// Whether all of four groups fits.
    __device__ __forceinline__ unsigned int fits() const { return at - least <= (FI_LISTED_PAIR - 16) * 4 * FI_PAIRS ? 1 : 0; }
    /// Lists what reaches the bound of a group, which is one of four that fit.
    __device__ __forceinline__ void put(float4 x, unsigned int group, unsigned int fits) {
        put(x.x, fits, 1u << 4 * group);
        put(x.y, fits, 2u << 4 * group);
        put(x.z, fits, 4u << 4 * group);
        put(x.w, fits, 8u << 4 * group);
    }
    __device__ __forceinline__ void put(float x, unsigned int fits, unsigned int bit) {
#if FI_LIST_MASKS
        asm volatile(
            "{\n\t.reg .pred p, q;\n\t"
            "setp.ne.u32 q, %5, 0;\n\t"
            "setp.ge.and.f32 p, %2, %3, q;\n\t"
            "@p st.shared.f32 [%0], %2;\n\t"
            "@p add.s32 %0, %0, %4;\n\t"
            "@p or.b32 %1, %1, %6;\n\t}"
            : "+r"(at), "+r"(mask) : "f"(x), "f"(from), "r"(step), "r"(fits), "r"(bit) : "memory");
#else
        asm volatile(
            "{\n\t.reg .pred p, q;\n\t"
            "setp.ne.u32 q, %4, 0;\n\t"
            "setp.ge.and.f32 p, %1, %2, q;\n\t"
            "@p st.shared.f32 [%0], %1;\n\t"
            "@p add.s32 %0, %0, %3;\n\t}"
            : "+r"(at) : "f"(x), "f"(from), "r"(step), "r"(fits) : "memory");
#endif
    }
    /// Makes what is listed weights for an exponent that is greater by `distance`.
    __device__ __forceinline__ void shrink(int distance, fi_filter_shared &shared) {
        const float factor = fi_power_of_2(-distance);
        from *= factor;
        const unsigned int end = count(shared);
#pragma unroll 1
        for (unsigned int i = 0; i < end; i++) shared.list[fi_slot_of(threadIdx.x, i)] *= factor;
    }
    __device__ __forceinline__ unsigned int count(const fi_filter_shared &shared) const {
        const unsigned int first = (unsigned int)shared_address(shared.list + fi_slot_of(threadIdx.x, 0));
        return (threadIdx.x < FI_PAIRS ? at - first : first - at) / (4 * FI_PAIRS);
    }
#if FI_LIST_MASKS
    unsigned int mask = 0;
    /// Says which entries of a warp's step, of four groups, were listed.
    __device__ __forceinline__ void note(fi_filter_shared &shared, unsigned int index) {
        if (index < FI_NOTED_STEPS) shared.masks[index][threadIdx.x] = (unsigned short)mask;
        mask = 0;
    }
#endif
    /// Says how many the thread has; a barrier before `check`.
    __device__ __forceinline__ void end(fi_row &row, fi_filter_shared &shared) {
        row.listed = count(shared);
        (shared.near + FI_NEAR - FI_THREADS)[threadIdx.x] = row.listed;
        // Three that weigh nothing, so that it is read by fours: a pair has four slots more than it may fill.
        if (row.listed <= FI_LISTED_PAIR - 16) {
#pragma unroll
            for (unsigned int i = 0; i < 3; i++) {
                shared.list[fi_slot_of(threadIdx.x, row.listed + i)] = FI_LIST_MASKS ? fi_neutral() : 0.0f;
            }
        }
    }
    /// Says in `shared.counters[3]` that there was no room for all of some pair's; a barrier before that is read.
    __device__ __forceinline__ void check(const fi_row &row, fi_filter_shared &shared) {
        const unsigned int both = row.listed + (shared.near + FI_NEAR - FI_THREADS)[threadIdx.x ^ FI_PAIRS];
        if (both > FI_LISTED_PAIR - 4 || row.listed > FI_LISTED_PAIR - 16) shared.counters[3] = 1;
    }
};
#endif

// MARK: sums

/// What a row's kept entries sum to: all of them, and of the blocks before this one and of this one.
struct fi_row_sum {
    unsigned long long total, before, own;
};

/// The block's sum by those of its threads; `tiles` has the warps'.
static __device__ __forceinline__ unsigned long long fi_sum_of_block(unsigned long long sum, fi_filter_shared &shared) {
    sum = fi_warp_reduce(sum, fi_sum());
    if (threadIdx.x % 32 == 0) shared.tiles[threadIdx.x / 32] = sum;
    __syncthreads();
    unsigned long long result = 0;
#pragma unroll
    for (unsigned int warp = 0; warp < FI_WARPS; warp++) result += shared.tiles[warp];
    return result;
}

/// The row's sum by those of its threads; `tiles` has the warps' of this block.
static __device__ __forceinline__ fi_row_sum fi_sum_of_row(
    unsigned long long sum, fi_filter_shared &shared, unsigned int &turn
) {
    fi_row_sum result = {0, 0, fi_sum_of_block(sum, shared)};
    if (FI_TEAM == 1) {
        result.total = result.own;
    } else {
        result.total = shared.numbers.sum(result.own, turn, &result.before);
    }
    return result;
}

/// Whether the first pass can sum what it meets: probabilities, and logits that are drawn from or are not held.
#if !defined(FI_SUMS_ONLY) && (FI_FORM == 1 || (FI_POWERS && (defined(FI_DRAWS) || !FI_HELD)))
#define FI_SUMS_EARLY 1
#else
#define FI_SUMS_EARLY 0
#endif

/// A sum for a greater exponent.
static __device__ __forceinline__ unsigned long long fi_shifted(unsigned long long sum, int distance) {
    return distance < 64 ? sum >> distance : 0;
}

/// The greatest of the exponents of sums; `joined` is the sum of all for it.
template <unsigned int count>
static __device__ __forceinline__ int fi_join_exponents(
    const unsigned long long *sums, const int *exponents, unsigned long long *joined
) {
    if constexpr (count > 8) {
        // One a lane, of all warps alike.
        const unsigned int lane = threadIdx.x % 32;
        const int own = lane < count ? exponents[lane] : -0x7fffffff;
        const int greatest = __reduce_max_sync(0xffffffffu, own);
        *joined = fi_warp_reduce(lane < count ? fi_shifted(sums[lane], greatest - own) : 0ull, fi_sum());
        return greatest;
    }
    int greatest = exponents[0];
#pragma unroll
    for (unsigned int i = 1; i < count; i++) greatest = exponents[i] > greatest ? exponents[i] : greatest;
    *joined = 0;
#pragma unroll
    for (unsigned int i = 0; i < count; i++) *joined += fi_shifted(sums[i], greatest - exponents[i]);
    return greatest;
}

#ifndef FI_SUMS_ONLY
/// Bins of the sample that are to be counted must be 0 and a barrier have come.
static __device__ __forceinline__ void fi_clear_sample(fi_filter_shared &shared) {
    for (unsigned int bin = threadIdx.x; bin < FI_SAMPLE_BINS; bin += FI_THREADS) shared.sample[bin] = 0;
}

/// Counts a weight. Bin 0 is for the keys from `low` on, and the last one for all that are in no other.
static __device__ __forceinline__ void fi_sample_weight(float weight, fi_filter_shared &shared, int low) {
    const unsigned int bin = (__float_as_uint(weight) >> FI_SAMPLE_SHIFT) - (unsigned int)low;
    // Without a branch, about which a pass could not be scheduled.
    atomicAdd(&shared.sample[min(bin, FI_SAMPLE_BINS - 1)], 1u);
}

/// Counts a group's first weight, of every other step of the warp: every eighth of all.
static __device__ __forceinline__ void fi_sample_group(
    float4 weights, unsigned int group, fi_filter_shared &shared, int low = FI_SAMPLE_LOW
) {
    if ((group & 32) == 0) fi_sample_weight(weights.x, shared, low);
}
#endif

#ifndef FI_SUMS_ONLY
/// An entry and its place as one integer, greater for what comes first.
static __device__ __forceinline__ unsigned long long fi_ranked(float x, unsigned int place) {
    return (unsigned long long)fi_order_key(x) << 32 | (0xffffffffu - place);
}
static __device__ __forceinline__ unsigned int fi_place_of(unsigned long long entry) {
    return 0xffffffffu - (unsigned int)entry;
}
#endif

/// A row's status by what is greatest of it. A greedy choice takes +inf for the greatest.
static __device__ __forceinline__ int fi_top_status(unsigned int top, bool is_greedy) {
    if (top == FI_KEY_NAN) return FI_ROW_NAN;
    if (top == FI_KEY_NEGATIVE) return FI_ROW_NEGATIVE;
    const float value = fi_order_value(top);
    if (value == (FI_FORM == 0 ? -fi_infinity() : 0.0f)) return FI_ROW_EMPTY;
    return value == fi_infinity() && !is_greedy ? FI_ROW_INFINITE : FI_ROW_OK;
}

/// One over a temperature, bounded, so that 0 times it is 0 for any; 0 for 0.
static __device__ __forceinline__ float fi_temperature_scale(float temperature) {
    return temperature == 0.0f ? 0.0f : temperature > 1e-30f ? 1.0f / temperature : 1e30f;
}

#if FI_POWERS
/// Weights are powers of 2 from here on, as `fi_set_scale` has been told the greatest; of rows whose numbers are too great for that, they stay
/// what they are.
static __device__ __forceinline__ void fi_take_powers(fi_row &row) {
    const float top = row.maximum * row.powers.high;
    if (!(fabsf(top) < -FI_LEAST_EXPONENT)) return;
    row.is_powers = true;
    row.exponent = (int)fi_exponent_of(top);
    row.powers.set_exponent((float)row.exponent);
}
#endif

/// Says what weighs 1: after it, weights and masses are defined. For probabilities, what weighs 1/2 to 1 is the greatest, so that
/// the factor, a power of two, changes no digit; `scale` is one over a temperature.
static __device__ __forceinline__ void fi_set_scale(fi_row &row, unsigned int top, float scale) {
    row.maximum = fi_order_value(top);
    if (FI_FORM == 1) {
        const int exponent = (int)(__float_as_uint(row.maximum) >> 23);
        // The last two are subnormal: 2^-127 and 2^-128.
        scale = __uint_as_float(exponent < 253 ? (unsigned int)(253 - exponent) << 23 : exponent == 253 ? 0x00400000u : 0x00200000u);
    }
    row.scale = scale;
}

/// The lowest place that has the row's greatest entry; all threads get it.
static __device__ __forceinline__ unsigned int fi_place_of_top(
    const fi_row &row, unsigned int top, fi_filter_shared &shared, unsigned int &turn
) {
    const float value = fi_order_value(top);
    unsigned int least = 0xffffffffu;
    fi_each_group<2>(row.part, fi_raw_groups{row.part}, [&](float4 x, unsigned int group) {
        const unsigned int place = row.part.place(4 * group);
        // From the last on, so that the first of them stays; entries that are not the part's are neutral.
        unsigned int found = 0xffffffffu;
        if (x.w == value) found = place + 3;
        if (x.z == value) found = place + 2;
        if (x.y == value) found = place + 1;
        if (x.x == value) found = place;
        least = found < least ? found : least;
    });
    least = __reduce_min_sync(0xffffffffu, least);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = least;
    __syncthreads();
    const unsigned int lane = threadIdx.x % 32;
    least = __reduce_min_sync(0xffffffffu, lane < FI_WARPS ? (unsigned int)shared.slots[lane] : 0xffffffffu);
    return 0xffffffffu - (unsigned int)shared.numbers.greatest(0xffffffffu - least, turn);
}

#if FI_SUMS_EARLY
/// What `fi_begin_row` has summed, after a barrier of the team; false where that is not what the row's entries weigh.
///
/// Rows that sum to 1/2 or more, none of whose entries is above 1, weigh what they are: their sums have 2^44 units and more. Of
/// others, what weighs 1/2 to 1 is the greatest.
static __device__ __forceinline__ bool fi_first_sum(fi_row &row, bool sums, const fi_filter_shared &shared, fi_row_sum *sum) {
    *sum = {0, 0, shared.first.sums[fi_team_rank()]};
#if FI_FORM == 0
    if (!sums || !(fabsf(row.maximum * row.powers.high) < -FI_LEAST_EXPONENT)) return false;
    row.exponent = fi_join_exponents<FI_TEAM>(shared.first.sums, shared.first.exponents, &sum->total);
    for (unsigned int rank = 0; rank < fi_team_rank(); rank++) {
        sum->before += fi_shifted(shared.first.sums[rank], row.exponent - shared.first.exponents[rank]);
    }
    row.is_powers = true;
    row.powers.set_exponent((float)row.exponent);
    return true;
#else
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
        if (rank == fi_team_rank()) sum->before = sum->total;
        sum->total += shared.first.sums[rank];
    }
    if (!sums || row.maximum > 1.0f || sum->total >> (22 + row.low_bits) == 0) return false;
    row.scale = 1.0f;
    return true;
#endif
}
#else
static __device__ __forceinline__ bool fi_first_sum(fi_row &, bool, const fi_filter_shared &, fi_row_sum *) { return false; }
#endif

#ifndef FI_SUMS_ONLY
/// What the weights of a row from `threshold` on sum to, which has none yet. Held logits become weights where `writes`; `samples` as of
/// `fi_begin_row`.
static __device__ __forceinline__ fi_row_sum fi_sum_all(
    fi_row &row, float threshold, bool writes, bool samples, fi_filter_shared &shared, unsigned int &turn
) {
    // Nobody reads the last sums any more.
    if (samples) fi_clear_sample(shared);
    __syncthreads();
    fi_masses sum;
    const float unit = row.low_unit();
    const auto take = [&](float4 weights, unsigned int group) {
#if FI_HELD
        if (FI_FORM == 0 && writes) ((float4 *)fi_held)[group] = weights;
#endif
        if (samples) fi_sample_group(weights, group, shared);
    };
    // Rarely of what the first pass sums.
    fi_each_group<FI_FORM == 0 && (FI_HELD || !FI_SUMS_EARLY) ? 4 : 1>(
        row.part, fi_weight_groups<true>{row},
        [&](float4 weights, unsigned int group) {
            take(weights, group);
            sum.add(fi_from(weights, threshold), unit);
        },
        [&] { sum.flush(row.low_bits); });
    if (FI_HELD && FI_FORM == 0) row.is_weighed = writes;
    return fi_sum_of_row(sum.total, shared, turn);
}

/// What the weights from `threshold` on sum to.
static __device__ __forceinline__ fi_row_sum fi_sum_from(
    const fi_row &row, float threshold, fi_filter_shared &shared, unsigned int &turn
) {
    __syncthreads();
    fi_masses sum;
    const float unit = row.low_unit();
    fi_each_group<1>(
        row.part, fi_weight_groups<>{row},
        [&](float4 weights, unsigned int) { sum.add(fi_from(weights, threshold), unit); },
        [&] { sum.flush(row.low_bits); });
    return fi_sum_of_row(sum.total, shared, turn);
}
#endif
