// Draws of a block alone from the list of what it has gathered in its only pass over the row (first_pass.cuh).
//
// Nothing is sorted: the threshold of top-p and the place that is drawn are both found by histograms of masses, over weights from the
// greatest on and over places from the first on.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/intervals.cuh"
#include "primitives/top_few.cuh"

/// Draws from the first `count` entries that `fi_select_few` has left, of what top-p and min-p keep of them; `whole` as of
/// `fi_finish_few`. All threads get the place; false where min-p keeps more than FI_MANY.
static __device__ __forceinline__ bool fi_draw_listed(
    const fi_row &row, unsigned int count, float top_p, float min_p, unsigned long long whole, double uniform,
    fi_filter_shared &shared, unsigned int &turn, int *place
) {
    constexpr unsigned int each = FI_GATHERED / FI_THREADS;
    static_assert(sizeof(shared.masses) <= (FI_GATHERED - FI_MANY) * 8, "the list is behind the histograms");
    unsigned long long *const list = shared.entries + FI_GATHERED - FI_MANY;
    const float least = min_p * row.greatest();
    const auto weight_of = [](unsigned long long entry) { return __uint_as_float((unsigned int)(entry >> 32)); };
    unsigned long long own[each], sum = 0;
#pragma unroll 1
    for (unsigned int at = threadIdx.x; at < count; at += FI_THREADS) {
        // A weight instead of a key.
        const unsigned long long entry = shared.entries[at];
        const float weight = row.few_weight(fi_order_value((unsigned int)(entry >> 32)));
        sum += fi_mass(row, weight);
        shared.entries[at] = (unsigned long long)__float_as_uint(weight) << 32 | (unsigned int)entry;
    }
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        const unsigned int at = i * FI_THREADS + threadIdx.x;
        own[i] = at < count ? shared.entries[at] : 0;
    }
    if (threadIdx.x == 0) shared.counters[3] = 0;
    sum = fi_sum_of_block(sum, shared);
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        if (own[i] == 0 || !(weight_of(own[i]) >= least)) continue;
        const unsigned int at = atomicAdd(&shared.counters[3], 1u);
        if (at < FI_MANY) list[at] = own[i];
    }
    __syncthreads();
    count = shared.counters[3];
    if (count > FI_MANY) return false;
    float threshold = least;
    // The least weight that top-p keeps, from the greatest on; then the place, from the first on, whose complements are the keys.
#pragma unroll 1
    for (bool is_draw = top_p >= 1.0f;; is_draw = true) {
        unsigned long long limit;
        fi_interval interval;
        if (is_draw) {
            sum = 0;
#pragma unroll 1
            for (unsigned int at = threadIdx.x; at < count; at += FI_THREADS) {
                const float weight = weight_of(list[at]);
                if (weight >= threshold) sum += fi_mass(row, weight);
            }
            __syncthreads();
            limit = fi_share(uniform, fi_sum_of_block(sum, shared));
            interval = {0u - row.width, fi_interval_bits(0u - row.width, 0xffffffffu), 0, 0};
        } else {
            limit = __double2ull_ru(fmax((double)(whole == 0 ? sum : whole) * (double)top_p, 0.5));
            interval = {__float_as_uint(least), fi_interval_bits(__float_as_uint(least), 0x3f800000u), 0, 0};
        }
        bool is_found;
        do {
            is_found = fi_narrow<false>(
                interval, shared.masses[0], shared, turn,
                [&](auto &&add) {
#pragma unroll 1
                    for (unsigned int start = 0; start < count; start += FI_THREADS) {
                        const unsigned int at = start + threadIdx.x;
                        const unsigned long long entry = at < count ? list[at] : 0;
                        const float weight = weight_of(entry);
                        add((unsigned int)(is_draw ? entry : entry >> 32), fi_mass(row, weight), at < count && weight >= threshold);
                    }
                },
                [&](unsigned long long through) { return through >= limit; });
        } while (is_found && interval.bits > 0);
        if (is_draw) {
            *place = (int)(0xffffffffu - interval.low);
            return true;
        }
        if (is_found) threshold = fmaxf(least, __uint_as_float(interval.low));
    }
}
