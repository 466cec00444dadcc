// Top-p of a block alone that has listed what may be kept: the threshold is looked for in the list, and the row is not met again.
//
// FI_INPUT, FI_FORM, FI_LISTS: see row_weights.cuh.
#pragma once

#include "primitives/filter.cuh"
#include "primitives/intervals.cuh"

#if FI_LISTS
/// Weights of an interval that a thread of a block alone finds in its list.
#define FI_NEAR_EACH (4 * FI_NEAR / FI_THREADS)
static_assert(FI_LISTED_PAIR < 256, "slots are bytes");

/// What a thread has listed, as weights.
struct fi_listed {
    const fi_row &row;
    const float *list;
    int step;
    float factor;

    __device__ __forceinline__ fi_listed(const fi_row &row, const fi_filter_shared &shared)
        : row(row), list(shared.list + fi_slot_of(threadIdx.x, 0)), step(threadIdx.x < FI_PAIRS ? FI_PAIRS : -FI_PAIRS),
          factor(fi_power_of_2(row.listed_exponent - row.exponent)) {}
    __device__ __forceinline__ float of(float entry) const {
        return FI_FORM == 1 ? entry * row.scale : FI_LIST_MASKS ? row.weight(entry) : entry * factor;
    }
    __device__ __forceinline__ float operator()(unsigned int i) const { return of(list[(int)i * step]); }
};

/// Looks for the threshold in `low ... high` by what is listed, which has all weights from `low` on; false where it is not there, or there is
/// too much. Nothing is moved, and a thread looks at its own.
///
/// The interval's weights are counted by 256 bins, of whose masses the counts say enough to name the one with the threshold. What is above it
/// is summed, which shows whether that was right, and the bin's few are compared with each other.
static __device__ __forceinline__ bool fi_find_listed(
    const fi_row &row, unsigned int low, unsigned int high, double limit, fi_filter_shared &shared, float *threshold, fi_row_sum *sum
) {
    constexpr int bins = FI_SAMPLE_BINS / 2, room = 32;
    unsigned int *const counts = shared.sample;
    float *const few = (float *)(counts + bins);
    unsigned int *const few_warps = counts + bins + room;
    const fi_listed listed(row, shared);
    const unsigned int slots = (unsigned int)shared_address((unsigned char *)shared.near + threadIdx.x);
    const float unit = row.low_unit(), least = __uint_as_float(low), over = __uint_as_float(high + 1);
    const unsigned int lane = threadIdx.x % 32, bits = fi_interval_bits(low, high), shift = bits > 8 ? bits - 8 : 0;
    // Where entries are less than 2^-80, masses would not be numbers.
    if (FI_FORM == 1 && row.scale > 0x1p80f) return false;
    unsigned long long above = 0;
    unsigned int at = slots;
    __syncthreads();
    if (threadIdx.x < bins) counts[threadIdx.x] = 0;
    if (threadIdx.x == 0) shared.found[0] = -1;
    // Four at once, from the lowest slot on; beside the last there are three that weigh nothing.
    const unsigned int end = row.listed + 3 & ~3u, begin = threadIdx.x < FI_PAIRS ? 0 : FI_LISTED_PAIR - end;
    const float *const list = shared.list + threadIdx.x % FI_PAIRS;
    const float factor = (FI_FORM == 1 ? row.scale : listed.factor) * unit, least_mass = least * unit, over_mass = over * unit;
    const float *next = list + begin * FI_PAIRS;
#pragma unroll 1
    for (unsigned int i = begin; i < begin + end; i += 4, next += 4 * FI_PAIRS) {
        float masses[4];
#pragma unroll
        for (unsigned int j = 0; j < 4; j++) {
            const float entry = next[j * FI_PAIRS];
            masses[j] = FI_FORM == 0 && FI_LIST_MASKS ? row.weight(entry) * unit : entry * factor;
        }
#pragma unroll
        for (unsigned int j = 0; j < 4; j++) {
            // Without a branch, which the next one would wait for. The last place takes what there is no room for.
            asm volatile(
                "{\n\t.reg .pred p, q;\n\t"
                "setp.ge.f32 q, %1, %3;\n\t"
                "setp.ge.and.f32 p, %1, %2, !q;\n\t"
                "@p st.shared.u8 [%0], %4;\n\t"
                "@p add.u32 %0, %0, %5;\n\t"
                "@p min.u32 %0, %0, %6;\n\t"
                "selp.f32 %1, %1, 0f00000000, q;\n\t}"
                : "+r"(at), "+f"(masses[j])
                : "f"(least_mass), "f"(over_mass), "r"(i + j), "n"(FI_THREADS), "r"(slots + (FI_NEAR_EACH - 1) * FI_THREADS)
                : "memory");
        }
        above += (unsigned long long)__float2ll_rn(masses[0]) + (unsigned long long)__float2ll_rn(masses[1])
            + ((unsigned long long)__float2ll_rn(masses[2]) + (unsigned long long)__float2ll_rn(masses[3]));
    }
    const unsigned int count = (at - slots) / FI_THREADS;
    // Calls `visit(weight, bin)` for the thread's weights of the interval, two at once.
    const auto each = [&](auto &&visit) {
#pragma unroll 1
        for (unsigned int i = 0; i < count; i += 2) {
            const unsigned char *const from = (const unsigned char *)shared.near + threadIdx.x + i * FI_THREADS;
            const bool has_second = i + 1 < count;
            const float first = listed.of(list[from[0] * FI_PAIRS]);
            const float second = has_second ? listed.of(list[from[FI_THREADS] * FI_PAIRS]) : 0.0f;
            visit(first, (int)((__float_as_uint(first) - low) >> shift));
            if (has_second) visit(second, (int)((__float_as_uint(second) - low) >> shift));
        }
    };
    __syncthreads();
    each([&](float, int bin) { atomicAdd(&counts[bin], 1u); });
    if (count >= FI_NEAR_EACH - 1) shared.counters[2] = 1;
    const unsigned long long through = fi_sum_of_block(above, shared);
    if (shared.counters[2] != 0 || (double)through >= limit) return false;
    if (threadIdx.x < 32) {
        // Eight bins a lane, from the greatest on.
        static_assert(bins == 256, "eight bins a lane");
        const uint4 *const last = (const uint4 *)counts + bins / 4 - 1 - 2 * lane;
        const uint4 upper = last[0], lower = last[-1];
        const unsigned int in[8] = {upper.w, upper.z, upper.y, upper.x, lower.w, lower.z, lower.y, lower.x};
        const int first = bins - 1 - 8 * (int)lane;
        const auto part = [&](int i) {
            return (float)in[i] * __uint_as_float(low + ((unsigned int)(first - i) << shift) + (shift > 0 ? 1u << (shift - 1) : 0));
        };
        float own = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) own += part(i);
        const float left = (float)((limit - (double)through) * row.weight_of_mass(1));
        const float sum = fi_warp_running_sum(own), others = __shfl_up_sync(0xffffffffu, sum, 1);
        float running = lane == 0 ? 0.0f : others;
        if (running < left && (sum >= left || lane == 31)) {
            int found = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (running < left) running += part(i), found = i;
            }
            shared.found[0] = first - found;
        }
    }
#ifdef FI_DRAWS
    else {
        // What is drawn lies about as far in what is above the interval: the run that the walk will read is on its way meanwhile.
        const float tile = lane < FI_WARPS ? (float)shared.tiles[lane] : 0.0f;
        const unsigned int reached = __ballot_sync(0xffffffffu, fi_warp_running_sum(tile) >= (float)shared.uniform * (float)through);
        const unsigned int run = row.part.run(), begin = min((unsigned int)__ffs((int)reached) - 1, FI_WARPS - 1) * run;
        constexpr unsigned int line = 32 / fi_size(FI_INPUT);
        for (unsigned int group = begin + (threadIdx.x - 32) * line; group < begin + run && group < row.part.groups; group += (FI_THREADS - 32) * line) {
            fi_prefetch(row.part.address + 4ull * fi_size(FI_INPUT) * group);
        }
    }
#endif
    if (threadIdx.x == 0) shared.counters[1] = 0;
    __syncthreads();
    int bin = shared.found[0];
#pragma unroll 1
    while (true) {
        if (bin < 0 || bin >= bins) return false;
        unsigned long long own = above;
        unsigned int inside = 0;
        float least_inside = fi_infinity(), greatest_inside = 0;
        each([&](float weight, int other) {
            if (other < bin) return;
            if (other > bin) {
                own += (unsigned long long)__float2ll_rn(weight * unit);
                return;
            }
            const unsigned int place = atomicAdd(&shared.counters[1], 1u);
            if (place < room) few[place] = weight, few_warps[place] = threadIdx.x / 32;
            inside++;
            least_inside = fminf(least_inside, weight);
            greatest_inside = fmaxf(greatest_inside, weight);
        });
        const unsigned long long before = fi_sum_of_block(own, shared);
        const unsigned int number = shared.counters[1];
        if (number > room) {
            // Equal ones, as many of 16 bits are, are summed by their number.
            const float weight = few[0];
            if (__syncthreads_or(inside > 0 && (least_inside != weight || greatest_inside != weight))) return false;
            const unsigned long long mass = fi_mass(row, weight), kept = number * mass;
            if ((double)before < limit && (double)(before + kept) >= limit) {
                *threshold = weight;
                inside = __reduce_add_sync(0xffffffffu, inside);
                if (lane == 0) shared.tiles[threadIdx.x / 32] += inside * mass;
                __syncthreads();
                *sum = {before + kept, 0, before + kept};
                return true;
            }
        } else {
            // Each with each, by each warp.
            const float weight = lane < number ? few[lane] : 0.0f;
            const unsigned long long mass = fi_mass(row, weight);
            unsigned long long greater = before;
#pragma unroll 1
            for (unsigned int i = 0; i < number; i++) {
                const float other = few[i];
                if (other > weight) greater += fi_mass(row, other);
            }
            const bool is_kept = lane < number && (double)greater < limit;
            const unsigned long long kept = fi_warp_reduce(is_kept ? mass : 0ull, fi_sum());
            if ((double)before < limit && (double)(before + kept) >= limit) {
                *threshold = __uint_as_float(__reduce_min_sync(0xffffffffu, is_kept ? __float_as_uint(weight) : 0xffffffffu));
                // What the warps have above is in the tiles, which all have read, but for these.
                __syncthreads();
                if (threadIdx.x < 32 && is_kept) fi_add_to(&shared.tiles[few_warps[lane]], mass);
                __syncthreads();
                *sum = {before + kept, 0, before + kept};
                return true;
            }
        }
        // The counts were not exact enough: the neighbour has it.
        bin += (double)before >= limit ? 1 : -1;
        __syncthreads();
        if (threadIdx.x == 0) shared.counters[1] = 0;
        __syncthreads();
    }
}

/// What the weights from `threshold` on sum to, all of which are listed.
static __device__ __forceinline__ fi_row_sum fi_sum_listed(const fi_row &row, float threshold, fi_filter_shared &shared) {
    const fi_listed listed(row, shared);
    unsigned long long own = 0;
#pragma unroll 1
    for (unsigned int i = 0; i < row.listed; i++) {
        const float weight = listed(i);
        own += weight >= threshold ? fi_mass(row, weight) : 0;
    }
    __syncthreads();
    fi_row_sum sum = {0, 0, fi_sum_of_block(own, shared)};
    sum.total = sum.own;
    return sum;
}
#endif
