// The first pass over a row: what is greatest, sums where what entries weigh is known, and what the greatest few are among.
//
// Where a row is not held, its first entries say from where on entries are gathered while all of it passes by.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/filter.cuh"
#include "primitives/launch.cuh"

/// A number that k, or up to `slack` more, of the threads' keys reach, or all of them do.
static __device__ __forceinline__ unsigned int fi_bound_of_threads(unsigned int own, unsigned int k, unsigned int slack, fi_filter_shared &shared) {
    const unsigned int lane = threadIdx.x % 32;
    unsigned int low = __reduce_min_sync(0xffffffffu, own), high = __reduce_max_sync(0xffffffffu, own);
    __syncthreads();
    if (lane == 0) shared.slots[threadIdx.x / 32] = (unsigned long long)high << 32 | low;
    __syncthreads();
    const unsigned long long range = lane < FI_WARPS ? shared.slots[lane] : 0xffffffffull;
    low = __reduce_min_sync(0xffffffffu, (unsigned int)range);
    high = __reduce_max_sync(0xffffffffu, (unsigned int)(range >> 32));
    // Of the keys, `count` are `low` or more, and less than k more than `high`.
    unsigned int count = FI_THREADS;
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
    unsigned int own, unsigned int k, unsigned int slack, fi_filter_shared &shared
) {
    const unsigned int bound = fi_bound_of_threads(own, k, slack, shared), least = fi_order_key(fi_neutral()) + 1;
    return bound > least ? bound : least;
}

/// What is done with the groups that were gathered from: by default, nothing. Four bits of `mask` for each of four groups, of which
/// `group` is the first and 32 are from one to the next, say which entries were gathered.
struct fi_leave_rest {
    __device__ __forceinline__ void operator()(unsigned int, unsigned int) const {}
};
/// Something that is known when a pass is compiled.
template <bool is> struct fi_flag {
    static constexpr bool value = is;
};

/// Whether groups of which none was gathered may be passed over.
template <class Rest> struct fi_leaves : fi_flag<false> {};
template <> struct fi_leaves<fi_leave_rest> : fi_flag<true> {};

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
    fi_put_each(mask, count, FI_GATHERED_EACH, [&](unsigned int at, unsigned int i) {
        to[at] = fi_ranked(fi_entry(x, i), part.place(4 * (group + 32 * (i / 4)) + i % 4));
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

/// The greatest of the keys of a block's threads.
static __device__ __forceinline__ unsigned int fi_greatest_of_block(unsigned int key, fi_filter_shared &shared) {
    key = __reduce_max_sync(0xffffffffu, key);
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = key;
    __syncthreads();
    const unsigned int lane = threadIdx.x % 32;
    key = __reduce_max_sync(0xffffffffu, lane < FI_WARPS ? (unsigned int)shared.slots[lane] : 0u);
    // The slots are written again without a barrier, at the pass's end.
    __syncthreads();
    return key;
}

#if !FI_HELD
/// The greatest key that a thread meets among the first groups of each warp's run.
static __device__ __forceinline__ unsigned int fi_first_key(const fi_row_part &part, unsigned int groups = FI_FIRST_GROUPS) {
    fi_row_part first = part;
    first.end = part.end - part.begin < groups ? part.end : part.begin + groups;
    float greatest = fi_neutral();
    fi_each_group<4>(first, fi_raw_groups{first}, [&](float4 x, unsigned int) { fi_raise(greatest, x); });
    return fi_order_key(greatest);
}

/// What the wanted entries reach, and not many others, by the first entries of each warp's run. More than FI_FEW of the greatest are an
/// estimate, that fewer may reach.
static __device__ __forceinline__ unsigned int fi_bound_of_part(
    const fi_row_part &part, const fi_wanted &wanted, fi_filter_shared &shared
) {
    const unsigned int few = wanted.few;
    const unsigned int own = fi_first_key(part);
    if (threadIdx.x == 0) shared.counters[0] = 0;
    if (wanted.min_p > 0.0f) {
        // The greatest is no less than this one; what is rounded is less than what is added.
        const float top = fi_order_value(fi_greatest_of_block(own, shared));
        const float bound = FI_FORM == 0 ? __fadd_rd(top, (__logf(wanted.min_p) - 1e-4f) / wanted.scale) : top * wanted.min_p * 0.99999f;
        return max(fi_order_key(bound), fi_order_key(fi_neutral()) + 1);
    }
    unsigned int rank = few, slack = few / 4;
    if (few > FI_FEW) {
        // Of threads with so many entries each, as many have one of so many more of the row's greatest that fewer than k hardly ever
        // reach the bound (five deviations), nor more than fit: one such row takes longer than all others.
        const float each = 4.0f * FI_FIRST_GROUPS / 32, share = fminf((1.35f * (float)few + 350.0f) / (float)part.count, 1.0f);
        rank = (unsigned int)((float)FI_THREADS * (1.0f - exp2f(each * log2f(1.0f - share))));
        slack = 4;
        if (rank > FI_THREADS * 7 / 8 || part.run() < FI_FIRST_GROUPS) return fi_order_key(fi_infinity());
    }
    return fi_few_bound(own, rank, slack, shared);
}
#endif

#if FI_LISTS
/// Bins of what says from where on entries are listed, which must be 0 and a barrier have come: before what a list ends with, which may be
/// written while slow warps still read these.
#define FI_FIRST_BINS 512
static __device__ __forceinline__ unsigned int *fi_first_bins(fi_filter_shared &shared) { return shared.near + FI_NEAR - FI_THREADS - FI_FIRST_BINS; }

/// Says from where on entries are listed: an estimate of what FI_LISTED_SHARE of them reach, by the first entries of each warp's run, `x`, of
/// each four of which the greatest counts; `top` gets the block's greatest. `high` is log2(e) / temperature.
static __device__ __forceinline__ float fi_first_listed(
    const fi_row_part &part, const float4 (&x)[4], float high, fi_filter_shared &shared, float *top
) {
    static_assert(FI_LISTED_FIRST == 128 && FI_FIRST_BINS == FI_THREADS, "four groups a thread, and a bin");
    const unsigned int lane = threadIdx.x % 32;
    float groups[4], most = fi_neutral(), least = fi_infinity();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        groups[i] = fi_neutral();
        fi_raise(groups[i], x[i]);
        fi_raise(most, groups[i]);
        least = fminf(least, groups[i]);
    }
    const unsigned int own_low = __reduce_min_sync(0xffffffffu, fi_order_key(least));
    const unsigned int own_high = __reduce_max_sync(0xffffffffu, fi_order_key(most));
    if (lane == 0) shared.slots[threadIdx.x / 32] = (unsigned long long)own_high << 32 | own_low;
    if (threadIdx.x == 0) shared.found[0] = -1;
    __syncthreads();
    const unsigned long long range = shared.slots[lane % FI_WARPS];
    float low = fi_order_value(__reduce_min_sync(0xffffffffu, (unsigned int)range));
    *top = fi_order_value(__reduce_max_sync(0xffffffffu, (unsigned int)(range >> 32)));
    // Bins of about equal shares of the weights' logarithms, from 2^-24 of the greatest on.
    low = fmaxf(low, FI_FORM == 0 ? *top - 24.0f / high : *top * 0x1p-24f);
    const auto number = [&](float x) { return FI_FORM == 0 ? x - low : (float)(__float_as_int(x) - __float_as_int(low)); };
    const float whole = number(*top);
    if (part.run() < FI_LISTED_FIRST || !(whole < 0x1p100f) || !(FI_FORM == 0 || (low > 0.0f && *top < 0x1p100f))) return fi_infinity();
    const float per_bin = whole > 0.0f ? ((float)FI_FIRST_BINS - 0.125f) / whole : 0.0f, width = whole * (1.0f / ((float)FI_FIRST_BINS - 0.125f));
    unsigned int *const bins = fi_first_bins(shared);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (groups[i] >= low) atomicAdd(&bins[(unsigned int)(number(groups[i]) * per_bin)], 1u);
    }
    __syncthreads();
    // As many of the groups reach the bound as have an entry of that share. One warp looks for it, sixteen bins a lane from the greatest on: that
    // is one barrier, where all warps would need three.
    if (threadIdx.x < 32) {
        const float share = FI_LISTED_SHARE * fminf(131072.0f / (float)part.count, 1.0f), rest = (1.0f - share) * (1.0f - share);
        const unsigned int rank = (unsigned int)(4.0f * FI_THREADS * (1.0f - rest * rest));
        static_assert(FI_FIRST_BINS == 512, "sixteen a lane");
        const uint4 *const last = (const uint4 *)bins + FI_FIRST_BINS / 4 - 1 - 4 * lane;
        unsigned int in[16], own = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 four = *(last - i);
            in[4 * i] = four.w, in[4 * i + 1] = four.z, in[4 * i + 2] = four.y, in[4 * i + 3] = four.x;
            own += four.x + four.y + four.z + four.w;
        }
        const unsigned int through = fi_warp_running_sum(own);
        unsigned int running = through - own;
        if (running < rank && through >= rank) {
            int found = 0;
#pragma unroll
            for (int i = 0; i < 16; i++) {
                if (running < rank) running += in[i], found = i;
            }
            shared.found[0] = (int)(FI_FIRST_BINS - 1 - 16 * lane) - found;
        }
    }
    __syncthreads();
    const int bin = shared.found[0];
    const float edge = FI_FORM == 0 ? low + (float)bin * width : __int_as_float(__float_as_int(low) + (int)((float)bin * width));
    return bin < 0 ? low : edge;
}
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
#if !FI_HELD
    if (wanted.is_any()) row.bound = fi_bound_of_part(row.part, wanted, shared);
    const float bound = wanted.is_any() ? fi_order_value(row.bound) : fi_infinity();
    const auto gather = [&](const float4 (&x)[4], unsigned int group) {
        if (wanted.is_any()) fi_gather_few(row.part, x, group, bound, shared.entries, &shared.counters[0], rest);
    };
#else
    const float bound = fi_infinity();
    const auto gather = [](const float4 (&)[4], unsigned int) {};
#endif
#if FI_SUMS_EARLY
    fi_masses sum;
    if (samples) {
        fi_clear_sample(shared);
#if FI_LISTS
        // Before the barriers of the first entries.
        fi_first_bins(shared)[threadIdx.x] = 0;
        // What a look at the list, or the list itself, had no room for: so it stays.
        if (threadIdx.x == 0) shared.counters[2] = shared.counters[3] = 0;
#else
        __syncthreads();
#endif
    }
    fi_wait_brought();
    float exponent = FI_LEAST_EXPONENT;
#if FI_LISTS
    fi_lister list(fi_infinity(), shared);
    float first_top = 0;
    // The first entries are read once.
    const unsigned int ends = fi_run_ends(row.part);
    float4 first_groups[4];
    if (samples) {
        fi_load_four(row.part, ends, row.part.begin, first_groups);
        // What comes next is on its way while the first entries say what is listed: two steps, a line a lane.
        const unsigned int next = row.part.begin + 128 + threadIdx.x % 32 * (32 / fi_size(FI_INPUT));
        if (2 * next < ends) fi_prefetch(row.part.address + 4ull * fi_size(FI_INPUT) * next);
        list.from = fi_first_listed(row.part, first_groups, FI_FORM == 0 ? row.powers.high : 0.0f, shared, &first_top);
    }
#endif
#if FI_FORM == 0 && !FI_HELD
    // A sample's bins are for the exponent that the first entries say.
    if (samples) {
#if FI_LISTS
        const float first = first_top;
#else
        const float first = fi_order_value(fi_greatest_of_block(fi_first_key(row.part), shared));
#endif
        exponent = fmaxf(fi_exponent_of(first * row.powers.high), FI_LEAST_EXPONENT);
        if (threadIdx.x == 0) shared.first.of_sample = (int)exponent;
    }
    const float of_sample = exponent;
#endif
    if (sums) {
        unsigned int steps = 0;
#if FI_FORM == 0
        // A weight of 1 is 2^bits: its mass is the weight.
        const float bits = 23.0f + (float)low_bits;
        row.powers.set_exponent(exponent - bits);
#if FI_LISTS && !FI_LIST_MASKS
        row.listed_from = list.from;
        list.from = row.powers.of(list.from);
#endif
#if !FI_HELD
        const int least_bin = FI_SAMPLE_LOW + FI_SAMPLE_ABOVE + 16 * (23 + low_bits);
        int sample_low = least_bin;
#endif
#endif
        // Twice where lists are made: what a pass does not do costs it nothing.
        const auto take = [&](const float4 (&x)[4], unsigned int group, auto is_listed, auto some, auto &&begin) {
            constexpr bool lists = decltype(is_listed)::value;
            constexpr unsigned int first = decltype(some)::begin, end = decltype(some)::end;
#if FI_LISTS
            const unsigned int fits = list.fits();
#endif
#if FI_FORM == 0
            float most = fi_neutral();
#pragma unroll
            for (unsigned int i = first; i < end; i++) fi_raise(most, x[i]);
            fi_raise(greatest, most);
#if !FI_HELD
            if constexpr (!lists && fi_leaves<Rest>::value) {
                // What is wanted is seldom among them.
                if (!(most < bound) && wanted.is_any()) fi_gather_few(row.part, x, group, bound, shared.entries, &shared.counters[0], rest);
            } else if constexpr (!lists) {
                gather(x, group);
            }
#endif
            if (__any_sync(0xffffffffu, most * row.powers.high > exponent - 0.5f)) {
                // Something greater: from here on it says what weighs how much.
                const float top = fi_order_value(__reduce_max_sync(0xffffffffu, fi_order_key(most)));
                const float next = fi_exponent_of(top * row.powers.high);
                sum.total = fi_shifted(sum.total, (int)(next - exponent));
#if FI_LISTS && !FI_LIST_MASKS
                if constexpr (lists) list.shrink((int)(next - exponent), shared);
#endif
                exponent = next;
                row.powers.set_exponent(next - bits);
#if !FI_HELD
                sample_low = least_bin - 16 * (int)(next - of_sample);
#endif
            }
            begin();
            // Their masses at once, by the unit for exponentials and conversions, as the others are busy with the weights.
#pragma unroll
            for (unsigned int i = first; i < end; i++) {
                const float4 w = row.powers.of(x[i]);
#if FI_LISTS
                if constexpr (lists) {
                    if (i % 2 == 0) fi_sample_weight(w.x, shared, sample_low);
                    list.put(FI_LIST_MASKS ? x[i] : w, i, fits);
                }
#elif !FI_HELD
                if (samples) fi_sample_group(w, group + 32 * i, shared, sample_low);
#endif
                sum.total += (unsigned long long)__float2ll_rn(w.x) + (unsigned long long)__float2ll_rn(w.y)
                    + ((unsigned long long)__float2ll_rn(w.z) + (unsigned long long)__float2ll_rn(w.w));
            }
#else
#pragma unroll
            for (unsigned int i = first; i < end; i++) {
                meet(x[i]);
                if constexpr (lists) {
                    sum.convert(x[i], row.low_unit());
                } else {
                    sum.add(x[i], row.low_unit());
                }
#if FI_LISTS
                if constexpr (lists) {
                    if (i % 2 == 0) fi_sample_weight(x[i].x, shared, FI_SAMPLE_LOW);
                    list.put(x[i], i, fits);
                }
#else
                if (samples) fi_sample_group(x[i], group + 32 * i, shared);
#endif
            }
            if constexpr (!lists) gather(x, group);
#endif
#if FI_LISTS && FI_LIST_MASKS
            if constexpr (lists && end == 4) list.note(shared, steps);
#endif
            if (end == 4 && ++steps % 8 == 0) sum.flush(low_bits);
        };
#if FI_LISTS
        if (samples) {
#if FI_HALVES
            fi_each_half(row.part, ends, first_groups, [&](const float4 (&x)[4], unsigned int group, auto some, auto &&begin) {
                take(x, group, fi_flag<true>(), some, begin);
            });
#else
            fi_each_four(row.part, ends, first_groups, [&](const float4 (&x)[4], unsigned int group) {
                take(x, group, fi_flag<true>(), fi_some<0, 4>(), [] {});
            });
#endif
        } else
#endif
        {
            fi_each_four(row.part, [&](const float4 (&x)[4], unsigned int group) { take(x, group, fi_flag<false>(), fi_some<0, 4>(), [] {}); });
        }
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
#if FI_LISTS
#if FI_FORM == 0 && !FI_LIST_MASKS
    row.listed_exponent = (int)exponent - 23 - low_bits;
    if (!samples) row.listed_from = fi_infinity();
#else
    row.listed_from = samples ? list.from : fi_infinity();
#endif
    if (samples) list.end(row, shared);
#endif
    *own = fi_order_key(greatest);
    unsigned int top = __reduce_max_sync(0xffffffffu, *own);
    const unsigned int signed_lanes = FI_FORM == 1 ? __ballot_sync(0xffffffffu, signs >> 31) : 0;
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = (unsigned long long)signed_lanes << 32 | top;
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
    const unsigned long long slot = lane < FI_WARPS ? shared.slots[lane] : 0;
    top = __reduce_max_sync(0xffffffffu, (unsigned int)slot);
#if FI_LISTS
    if (samples) list.check(row, shared);
#endif
    // Zeros of both signs are zeros, so signs are looked at once more where there are any.
    if (FI_FORM == 1 && __any_sync(0xffffffffu, slot >> 32 != 0)) {
        bool is_negative = false;
        fi_each_group<1>(row.part, fi_raw_groups{row.part}, [&](float4 x, unsigned int) {
            is_negative |= x.x < 0.0f || x.y < 0.0f || x.z < 0.0f || x.w < 0.0f;
        });
        if (__syncthreads_or(is_negative) && top != FI_KEY_NAN) top = FI_KEY_NEGATIVE;
    }
    return top;
}
