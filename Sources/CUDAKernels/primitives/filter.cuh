// What filters of a row share: weights and masses of its entries, what is greatest, sums, and the walk to a running sum.
//
// An entry's weight is exp((logit - max) / temperature), so that the greatest is 1, or a probability times a power of two that
// makes the greatest 1/2 or more. Masses, which are sums of weights, are integers: any order of adding them gives the same sum, so
// neither threads nor blocks keep to one.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh. FI_SUMS_ONLY: no thresholds are looked for, and no memory is for them. FI_DRAWS: rows are
// drawn from.
#pragma once

#include "primitives/argmax.cuh"
#include "primitives/row_part.cuh"

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
/// The greatest k that is surely found among the threads' maxima of a block, half of them; and that is looked for by an estimate.
#define FI_FEW 128
#define FI_MANY 2048
/// Bins of a sample of the weights: the upper bits of float32, 16 bins an octave, down to 2^-32.
#define FI_SAMPLE_BINS 512
/// Groups of each warp's run that say what may be among the greatest few.
#define FI_FIRST_GROUPS 256
/// The key of the first bin of the sample, and what a bin has of keys.
#define FI_SAMPLE_SHIFT 19
#define FI_SAMPLE_LOW ((0x3f800000u >> FI_SAMPLE_SHIFT) - FI_SAMPLE_BINS)

/// A row: the block's part of it, and what is known of all of it. All threads have the same.
struct fi_row {
    fi_row_part part;
    unsigned int width;
    float maximum, scale;
    /// A weight of 1 is the mass 2^(23 + low_bits).
    int low_bits;
    /// What is not held is sent to `fi_select_few` from this key on, in the first pass.
    unsigned int bound;
    /// Top-k keeps the keys above `kth`, and those equal to it up to place `last`.
    unsigned int kth, last;
    /// Whether what is held are weights.
    bool is_weighed;
    /// Whether the row has been summed by powers of 2, and for what exponent.
    bool is_powers;
    int exponent;
    fi_powers powers;

    __device__ __forceinline__ float weight(float x) const {
        return FI_FORM == 0 ? fi_exp((x - maximum) * scale) : x * scale;
    }
    /// The same for sums: what weighs nothing may weigh 2^-126, which has no mass.
    __device__ __forceinline__ float summed_weight(float x) const {
        return FI_FORM == 0 ? fi_exp_bounded((x - maximum) * scale) : x * scale;
    }
    __device__ __forceinline__ bool keeps(float x, unsigned int place) const {
        const unsigned int key = fi_order_key(x);
        return key > kth || (key == kth && place <= last);
    }
    __device__ __forceinline__ double weight_of_mass(unsigned long long mass) const {
        return (double)mass * __longlong_as_double((long long)(1023 - 23 - low_bits) << 52);
    }
    /// Of (steps of) 2^-23.
    __device__ __forceinline__ float low_unit() const { return __int_as_float((127 + 23 + low_bits) << 23); }
};

/// Sums of round(weight * 2^(23 + low_bits)) for weights of at most 1: in two steps of float32, whose integers lie in the last bits
/// of a float of a known exponent. The two words are sums of their own, of fewer than 256 entries until `flush`.
struct fi_masses {
    unsigned int high = 0, low = 0;
    unsigned long long total = 0;

    static __device__ __forceinline__ void split(float weight, float low_unit, unsigned int &high, unsigned int &low) {
        const float steps = __fadd_rn(weight, 1.0f);
        const float rest = __fsub_rn(weight, __fsub_rn(steps, 1.0f));
        high = __float_as_uint(steps) - 0x3f800000u;
        low = __float_as_uint(__fmaf_rn(rest, low_unit, 0x1.8p23f)) - 0x4b400000u;
    }
    __device__ __forceinline__ void add(float weight, float low_unit) {
        unsigned int a, b;
        split(weight, low_unit, a, b);
        high += a;
        low += b;
    }
    __device__ __forceinline__ void add(float4 weights, float low_unit) {
        unsigned int a[4], b[4];
        split(weights.x, low_unit, a[0], b[0]);
        split(weights.y, low_unit, a[1], b[1]);
        split(weights.z, low_unit, a[2], b[2]);
        split(weights.w, low_unit, a[3], b[3]);
        high += a[0] + a[1] + a[2] + a[3];
        low += b[0] + b[1] + b[2] + b[3];
    }
    __device__ __forceinline__ void flush(int low_bits) {
        total += ((unsigned long long)high << low_bits) + (unsigned long long)(long long)(int)low;
        high = 0;
        low = 0;
    }
};

static __device__ __forceinline__ unsigned long long fi_mass(const fi_row &row, float weight) {
    unsigned int high, low;
    fi_masses::split(weight, row.low_unit(), high, low);
    return ((unsigned long long)high << row.low_bits) + (unsigned long long)(long long)(int)low;
}

/// Weights that are at least `threshold`, and 0 for others.
static __device__ __forceinline__ float4 fi_from(float4 weights, float threshold) {
    return make_float4(
        weights.x >= threshold ? weights.x : 0.0f, weights.y >= threshold ? weights.y : 0.0f,
        weights.z >= threshold ? weights.z : 0.0f, weights.w >= threshold ? weights.w : 0.0f);
}

/// The weights of the entries, 0 for those that top-k does not keep. Held logits are weights since `fi_sum_all` has written them, unless
/// `isRaw`.
template <bool isRaw = false>
struct fi_weight_groups {
    static constexpr bool reads_row = true;
    const fi_row &row;
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
        return of(fi_raw_groups{row.part}(group), group);
    }
    __device__ __forceinline__ float4 of(float4 x, unsigned int group) const {
        if (FI_HELD && FI_FORM == 0 && !isRaw) return x;
        if (!FI_HELD && row.kth > 0) {
            const unsigned int place = row.part.place(4 * group);
            x.x = row.keeps(x.x, place) ? x.x : fi_neutral();
            x.y = row.keeps(x.y, place + 1) ? x.y : fi_neutral();
            x.z = row.keeps(x.z, place + 2) ? x.z : fi_neutral();
            x.w = row.keeps(x.w, place + 3) ? x.w : fi_neutral();
        }
        return make_float4(row.summed_weight(x.x), row.summed_weight(x.y), row.summed_weight(x.z), row.summed_weight(x.w));
    }
};

#if FI_FORM == 0
/// The weights of the entries of a row that may have been summed by powers of 2.
struct fi_drawn_groups {
    const fi_row &row;
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
        return row.is_powers ? row.powers.of(fi_raw_groups{row.part}(group)) : fi_weight_groups<>{row}(group);
    }
};
#else
typedef fi_weight_groups<> fi_drawn_groups;
#endif

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

/// Calls `put(at, i)` for the bits i of `mask`, which has four, with places that no other thread gets; `count` is how many there were.
template <class Put>
static __device__ __forceinline__ void fi_put_each(unsigned int mask, unsigned int *count, Put &&put) {
    if (mask == 0) return;
    unsigned int at = atomicAdd(count, (unsigned int)__popc(mask));
#pragma unroll 1
    do {
        put(at++, (unsigned int)__ffs((int)mask) - 1);
        mask &= mask - 1;
    } while (mask != 0);
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

/// Shared memory of a block.
struct fi_filter_shared {
#ifndef FI_SUMS_ONLY
    union {
        /// Histograms of two turns, as one is read by other blocks while the next is begun.
        unsigned long long masses[2][FI_BINS];
        unsigned int counts[2][FI_BINS];
        /// In the first block, what all have gathered: entries of top-k, or weights.
        unsigned long long entries[FI_GATHERED];
        float weights[2 * FI_GATHERED];
    };
    /// Of the sample; later, masses of the gathered weights.
    union {
        unsigned int sample[FI_SAMPLE_BINS];
        unsigned long long parts[FI_SAMPLE_BINS / 2];
    };
    union {
        /// What the blocks have summed in the first pass, and for what exponents; of logits, the warps' exponents too.
        struct {
            unsigned long long sums[FI_TEAM];
            int exponents[FI_TEAM], of_warps[FI_WARPS];
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
};
// What a processor has, where three blocks of 16,384 held entries are to fit on it: a block more costs a third of the speed.
static_assert(
    FI_TEAM == 1 || FI_MIN_BLOCKS < 3 || 3 * (sizeof(fi_filter_shared) + 4 * 16384 + 16 + 1024) <= 228 * 1024, "three blocks");

/// What is greatest of a row as one number: the key of its greatest entry, or what is wrong. A NaN's key is above all others.
#define FI_KEY_NAN 0xffffffffu
#define FI_KEY_NEGATIVE 0xfffffffeu

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

/// Whether the first pass can sum what it meets: probabilities, and logits that are drawn from.
#if !defined(FI_SUMS_ONLY) && (FI_FORM == 1 || defined(FI_DRAWS))
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

/// Counts a group's first weight, of every other step of the warp: every eighth of all.
static __device__ __forceinline__ void fi_sample_group(float4 weights, unsigned int group, fi_filter_shared &shared) {
    if ((group & 32) != 0) return;
    const unsigned int bin = (__float_as_uint(weights.x) >> FI_SAMPLE_SHIFT) - FI_SAMPLE_LOW;
    if ((int)bin >= 0) atomicAdd(&shared.sample[bin < FI_SAMPLE_BINS ? bin : FI_SAMPLE_BINS - 1], 1u);
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

/// A number that k, or up to `slack` more, of the threads' keys reach, or all of them do; `top` is the greatest.
static __device__ __forceinline__ unsigned int fi_bound_of_threads(
    unsigned int own, unsigned int top, unsigned int k, unsigned int slack, fi_filter_shared &shared
) {
    const unsigned int lane = threadIdx.x % 32;
    unsigned int low = __reduce_min_sync(0xffffffffu, own);
    __syncthreads();
    if (lane == 0) shared.slots[threadIdx.x / 32] = low;
    __syncthreads();
    low = __reduce_min_sync(0xffffffffu, lane < FI_WARPS ? (unsigned int)shared.slots[lane] : 0xffffffffu);
    // Of the keys, `count` are `low` or more, and less than k more than `high`.
    unsigned int high = top, count = FI_THREADS;
#pragma unroll 1
    while (high > low && count > k + slack) {
        const unsigned int middle = low + (high - low) / 2 + 1;
        const unsigned int reaching = (unsigned int)__syncthreads_count(own >= middle);
        if (reaching >= k) {
            low = middle;
            count = reaching;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/// The same for no entry without a weight, as those are not kept.
static __device__ __forceinline__ unsigned int fi_few_bound(
    unsigned int own, unsigned int top, unsigned int k, unsigned int slack, fi_filter_shared &shared
) {
    const unsigned int bound = fi_bound_of_threads(own, top, k, slack, shared), least = fi_order_key(fi_neutral()) + 1;
    return bound > least ? bound : least;
}

/// What is done with the groups that were gathered from: by default, nothing. Four bits of `mask` for each of four groups, of which
/// `group` is the first and 32 are from one to the next, say which entries were gathered.
struct fi_leave_rest {
    __device__ __forceinline__ void operator()(unsigned int, unsigned int) const {}
};

/// Puts the entries of four groups from `bound` on into a list, of which `count` is how many they are and FI_GATHERED_EACH fit. The places
/// in the list are asked for once, as each answer is waited for.
template <class Rest>
static __device__ __forceinline__ void fi_gather_few(
    const fi_row_part &part, const float4 (&x)[4], unsigned int group, float bound, unsigned long long *to, unsigned int *count,
    const Rest &rest
) {
    unsigned int mask = 0;
#pragma unroll
    for (unsigned int i = 0; i < 4; i++) {
        // True of NaN as well.
        mask |= (!(x[i].x < bound) | (unsigned int)!(x[i].y < bound) << 1 | (unsigned int)!(x[i].z < bound) << 2
                 | (unsigned int)!(x[i].w < bound) << 3)
            << 4 * i;
    }
    fi_put_each(mask, count, [&](unsigned int at, unsigned int i) {
        const float4 low = i & 4 ? x[1] : x[0], high = i & 4 ? x[3] : x[2];
        const float entry = fi_entry(i & 8 ? high : low, i % 4);
        if (at < FI_GATHERED_EACH) to[at] = fi_ranked(entry, part.place(4 * (group + 32 * (i / 4)) + i % 4));
    });
    rest(mask, group);
}

/// What is gathered of a row in the first pass where it is not held: what the `few` greatest are among, or, where `min_p` is not 0, what
/// min-p keeps of weights of `scale`.
struct fi_wanted {
    unsigned int few;
    float min_p, scale;
    __device__ __forceinline__ bool is_any() const { return few > 0 || min_p > 0.0f; }
};

#if !FI_HELD
/// What the wanted entries reach, and not many others, by the first entries of each warp's run. More than FI_FEW of the greatest are an
/// estimate, that fewer may reach.
static __device__ __forceinline__ unsigned int fi_bound_of_part(
    const fi_row_part &part, const fi_wanted &wanted, fi_filter_shared &shared
) {
    const unsigned int few = wanted.few;
    fi_row_part first = part;
    first.end = part.end - part.begin < FI_FIRST_GROUPS ? part.end : part.begin + FI_FIRST_GROUPS;
    float greatest = fi_neutral();
    fi_each_group<4>(first, fi_raw_groups{first}, [&](float4 x, unsigned int) { fi_raise(greatest, x); });
    if (threadIdx.x == 0) shared.counters[0] = 0;
    if (wanted.min_p > 0.0f) {
        // The greatest is no less than this one; what is rounded is less than what is added.
        const unsigned int key = __reduce_max_sync(0xffffffffu, fi_order_key(greatest));
        if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = key;
        __syncthreads();
        const unsigned int lane = threadIdx.x % 32;
        const float top = fi_order_value(__reduce_max_sync(0xffffffffu, lane < FI_WARPS ? (unsigned int)shared.slots[lane] : 0u));
        const float bound = FI_FORM == 0 ? __fadd_rd(top, (__logf(wanted.min_p) - 1e-4f) / wanted.scale) : top * wanted.min_p * 0.99999f;
        return max(fi_order_key(bound), fi_order_key(fi_neutral()) + 1);
    }
    unsigned int rank = few, slack = few / 4;
    if (few > FI_FEW) {
        // Of threads with so many entries each, as many have one of the row's greatest 1.35 k.
        const float each = 4.0f * FI_FIRST_GROUPS / 32, share = fminf(1.35f * (float)few / (float)part.count, 1.0f);
        rank = (unsigned int)((float)FI_THREADS * (1.0f - exp2f(each * log2f(1.0f - share))));
        slack = 4;
        if (rank > FI_THREADS * 7 / 8 || part.run() < FI_FIRST_GROUPS) return fi_order_key(fi_infinity());
    }
    return fi_few_bound(fi_order_key(greatest), FI_KEY_NAN, rank, slack, shared);
}
#endif
#endif

/// Takes a row up. `own` is the greatest key of this thread's entries, 0 for none; the result is the block's, see FI_KEY_NAN.
///
/// Where `sums`, probabilities are summed, and sampled where `samples`, in the same pass as though they weighed what they are, and
/// logits as powers of 2 by `row.powers`: `fi_first_sum` says whether they are. What is not held has what is `wanted` gathered in the
/// same pass, see `fi_send_few`.
template <class Rest = fi_leave_rest>
static __device__ __forceinline__ unsigned int fi_begin_row(
    fi_row &row, unsigned long long address, unsigned int width, int low_bits, bool sums, bool samples, const fi_wanted &wanted,
    fi_filter_shared &shared, unsigned int *own, const Rest &rest = {}
) {
    fi_team_start();
    row.part = fi_take_part(address, width);
    row.width = width;
    row.low_bits = low_bits;
    row.bound = 0;
    row.kth = 0;
    row.last = 0xffffffffu;
    row.is_weighed = false;
    row.is_powers = false;
    fi_bring(row.part);
    float greatest = fi_neutral();
    unsigned int signs = 0;
    const auto meet = [&](float4 x) {
        fi_raise(greatest, x);
        if (FI_FORM == 1) {
            signs |= __float_as_uint(x.x) | __float_as_uint(x.y);
            signs |= __float_as_uint(x.z) | __float_as_uint(x.w);
        }
    };
#if !defined(FI_SUMS_ONLY) && !FI_HELD
    if (wanted.is_any()) row.bound = fi_bound_of_part(row.part, wanted, shared);
    const float bound = fi_order_value(row.bound);
    const auto gather = [&](const float4 (&x)[4], unsigned int group) {
        if (wanted.is_any()) fi_gather_few(row.part, x, group, bound, shared.entries, &shared.counters[0], rest);
    };
#else
    const auto gather = [](const float4 (&)[4], unsigned int) {};
#endif
#if FI_SUMS_EARLY
    fi_masses sum;
    if (samples) {
        fi_clear_sample(shared);
        __syncthreads();
    }
    fi_wait_brought();
    float exponent = FI_LEAST_EXPONENT;
    if (sums) {
        unsigned int steps = 0;
#if FI_FORM == 0
        // A weight of 1 is 2^bits: its mass is the weight.
        const float bits = 23.0f + (float)low_bits;
        row.powers.set_exponent(exponent - bits);
#endif
        fi_each_four(row.part, [&](const float4 (&x)[4], unsigned int group) {
#if FI_FORM == 0
            float most = fi_neutral();
#pragma unroll
            for (int i = 0; i < 4; i++) fi_raise(most, x[i]);
            fi_raise(greatest, most);
            if (__any_sync(0xffffffffu, most * row.powers.high > exponent - 0.5f)) {
                // Something greater: from here on it says what weighs how much.
                const float top = fi_order_value(__reduce_max_sync(0xffffffffu, fi_order_key(most)));
                const float next = fi_exponent_of(top * row.powers.high);
                sum.total = fi_shifted(sum.total, (int)(next - exponent));
                exponent = next;
                row.powers.set_exponent(next - bits);
            }
            // Their masses at once, by the unit for exponentials and conversions, as the others are busy with the weights.
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float4 w = row.powers.of(x[i]);
                sum.total += (unsigned long long)__float2ll_rn(w.x) + (unsigned long long)__float2ll_rn(w.y)
                    + ((unsigned long long)__float2ll_rn(w.z) + (unsigned long long)__float2ll_rn(w.w));
            }
#else
#pragma unroll
            for (int i = 0; i < 4; i++) {
                meet(x[i]);
                sum.add(x[i], row.low_unit());
                if (samples) fi_sample_group(x[i], group + 32 * i, shared);
            }
            gather(x, group);
#endif
            if (++steps % 8 == 0) sum.flush(low_bits);
        });
        sum.flush(low_bits);
    } else
#else
    fi_wait_brought();
#endif
    {
        fi_each_four(row.part, [&](const float4 (&x)[4], unsigned int group) {
#pragma unroll
            for (int i = 0; i < 4; i++) meet(x[i]);
            gather(x, group);
        });
    }
    *own = fi_order_key(greatest);
    unsigned int top = *own;
    // Zeros of both signs are zeros, so signs are looked at once more where there are any.
    if (FI_FORM == 1 && __syncthreads_or(signs >> 31)) {
        bool is_negative = false;
        fi_each_group<1>(row.part, fi_raw_groups{row.part}, [&](float4 x, unsigned int) {
            is_negative |= x.x < 0.0f || x.y < 0.0f || x.z < 0.0f || x.w < 0.0f;
        });
        if (is_negative && top != FI_KEY_NAN) top = FI_KEY_NEGATIVE;
    }
    top = __reduce_max_sync(0xffffffffu, top);
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = top;
#if FI_SUMS_EARLY
    if (FI_FORM == 0 && threadIdx.x % 32 == 0) shared.first.of_warps[threadIdx.x / 32] = (int)exponent;
    unsigned long long own_sum = fi_sum_of_block(sum.total, shared);
    int own_exponent = 0;
    if (FI_FORM == 0 && sums) own_exponent = fi_join_exponents<FI_WARPS>(shared.tiles, shared.first.of_warps, &own_sum);
    fi_team_started();
    if (threadIdx.x < FI_TEAM) {
        *fi_team_at(&shared.first.sums[fi_team_rank()], threadIdx.x) = own_sum;
        *fi_team_at(&shared.first.exponents[fi_team_rank()], threadIdx.x) = own_exponent;
    }
#else
    fi_team_started();
    __syncthreads();
#endif
    const unsigned int lane = threadIdx.x % 32;
    return __reduce_max_sync(0xffffffffu, lane < FI_WARPS ? (unsigned int)shared.slots[lane] : 0u);
}

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
    const auto flush = [&] { sum.flush(row.low_bits); };
    const fi_weight_groups<true> groups = {row};
    if (threshold > 0.0f) {
        fi_each_group<2>(
            row.part, groups,
            [&](float4 weights, unsigned int group) {
                take(weights, group);
                sum.add(fi_from(weights, threshold), unit);
            },
            flush);
    } else {
        // Rarely of probabilities, which `fi_begin_row` has summed.
        fi_each_group<FI_FORM == 0 ? 4 : 1>(
            row.part, groups,
            [&](float4 weights, unsigned int group) {
                take(weights, group);
                sum.add(weights, unit);
            },
            flush);
    }
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
    unsigned int warp = 0;
    unsigned long long running = sum.before;
#pragma unroll 1
    while (warp < FI_WARPS - 1 && target > running + shared.tiles[warp]) running += shared.tiles[warp++];
    *at = {target, running, warp * part.run(), (warp + 1) * part.run()};
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

/// Calls `found(place)` in one thread of the block, where the running sum of `amount(x, place)` over groups, in the order of places,
/// reaches its target. All threads of the block take part.
template <class Groups, class Amount, class Found>
static __device__ __forceinline__ void fi_walk_run(
    const fi_row_part &part, const Groups &groups, const fi_target &at, fi_filter_shared &shared, Amount &&amount, Found &&found
) {
    // Neighbouring groups to each thread.
    const unsigned int end = at.end < part.groups ? at.end : part.groups;
    const unsigned int share = (end - at.begin + FI_THREADS - 1) / FI_THREADS;
    const unsigned int begin = at.begin + threadIdx.x * share;
    unsigned long long own = 0;
#pragma unroll 1
    for (unsigned int group = begin; group < begin + share && group < end; group++) {
        const float4 x = groups(group);
        const unsigned int place = part.place(4 * group);
        own += amount(x.x, place) + amount(x.y, place + 1) + amount(x.z, place + 2) + amount(x.w, place + 3);
    }
    const unsigned long long reached = at.running + fi_block_running_sum<FI_THREADS>(own, shared.slots);
    // Sums that were shifted may be a few units more than those of the shifted masses.
    unsigned long long target = at.running;
#pragma unroll
    for (unsigned int warp = 0; warp < FI_WARPS; warp++) target += shared.slots[warp];
    if (at.target < target) target = at.target;
    if (reached < target || reached - own >= target) return;
    unsigned long long running = reached - own;
#pragma unroll 1
    for (unsigned int index = 4 * begin;; index++) {
        running += amount(fi_entry(groups(index / 4), index % 4), part.place(index));
        if (running >= target) return found((int)part.place(index));
    }
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
