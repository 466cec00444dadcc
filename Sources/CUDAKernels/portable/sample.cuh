// Samples one token from each row of logits by temperature, top-k, top-p and min-p, without sorting. One block a row.
//
// A token's weight is w = exp((logit - max) / temperature), so that the greatest weight is 1. Masses, which are sums of
// weights, are 64-bit integers: any order of adding them gives the same sum, so threads need not keep to one. Thresholds are found
// digit by digit: a histogram of a digit of the values, then of the next digit of those that share the first, three digits for
// any values. The draw then finds the token whose running mass, in the order of ids, reaches its target.
//
// FI_LOGITS: storage type.

#include "fi_sample_params.h"
#include "primitives/argmax.cuh"
#include "primitives/philox.cuh"

#define FI_COUNT_BINS 2048
#define FI_MASS_BINS 1024
/// Parts of a row whose masses are kept for the draw, and the steps of a warp that a part is made of.
#define FI_PARTS FI_THREADS
#define FI_STEPS 6

static_assert(FI_THREADS == FI_MASS_BINS && 2 * FI_THREADS == FI_COUNT_BINS, "each thread scans its bins");

/// A row and what is known of it. It lies in shared memory, as registers are short.
struct sample_row {
    unsigned long long logits;
    unsigned int width;
    float maximum, scale;
    /// 2^mass_bits.
    float mass_scale;
    /// Top-k keeps the keys above `kth`, and those equal to it up to place `last`.
    unsigned int kth;
    unsigned int last;

    __device__ __forceinline__ float weight(float x) const { return fi_exp((x - maximum) * scale); }
    __device__ __forceinline__ unsigned long long mass(float weight) const {
        return __float2ull_rn(weight * mass_scale);
    }
    __device__ __forceinline__ bool keeps(float x, unsigned int place) const;
};

/// Shared memory of a block.
struct sample_shared {
    sample_row row;
    union {
        unsigned long long masses[FI_MASS_BINS];
        unsigned int counts[FI_COUNT_BINS];
        unsigned long long parts[FI_PARTS];
    };
    unsigned long long slots[32];
    /// What one thread found for all.
    unsigned long long above, at;
    /// The mass of the nucleus.
    double limit;
    int found;
};

/// Integers in the order of the floats, zeros of both signs being equal; 0 is below every number.
static __device__ __forceinline__ unsigned int order_key(float x) {
    const unsigned int bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ bool sample_row::keeps(float x, unsigned int place) const {
    const unsigned int key = order_key(x);
    return key > kth || (key == kth && place <= last);
}

/// Adds to a shared counter. Lanes of a warp that hit one bin together add together: rows of equal logits would otherwise queue.
/// All lanes of the warp take part.
static __device__ __forceinline__ void add_count(unsigned int *bins, unsigned int bin, bool valid) {
    const unsigned int all = __ballot_sync(0xffffffffu, valid);
    if (all == 0) return;
    const unsigned int lead = __shfl_sync(0xffffffffu, bin, __ffs((int)all) - 1);
    const unsigned int same = __ballot_sync(0xffffffffu, valid && bin == lead);
    const unsigned int lane = threadIdx.x % 32;
    if (valid && bin != lead) {
        atomicAdd(&bins[bin], 1u);
    } else if (valid && lane == (unsigned int)__ffs((int)same) - 1) {
        atomicAdd(&bins[bin], (unsigned int)__popc(same));
    }
}

static __device__ __forceinline__ void add_mass(
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

/// Finds the k-th greatest key: returns it, with the keys above it counted in `above` and those equal to it in `equal`.
/// 1 <= k <= width.
static __device__ __forceinline__ unsigned int kth_greatest(
    const sample_row &row, unsigned int k, sample_shared &shared, unsigned int *above, unsigned int *equal
) {
    unsigned int prefix = 0;
    *above = 0;
#pragma unroll 1
    for (int digit = 0; digit < 3; digit++) {
        const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
        const unsigned int bins = digit == 2 ? 1024 : 2048;
        __syncthreads();
        for (unsigned int i = threadIdx.x; i < FI_COUNT_BINS; i += FI_THREADS) shared.counts[i] = 0;
        __syncthreads();
        fi_for_row<FI_LOGITS, FI_THREADS, true>(row.logits, row.width, [&](float x, unsigned int, bool valid) {
            const unsigned int key = order_key(x);
            const bool joins = digit == 0 || (digit == 1 ? key >> 21 == prefix >> 21 : key >> 10 == prefix >> 10);
            add_count(shared.counts, (key >> shift) & (bins - 1), valid && joins);
        });
        __syncthreads();
        // Two bins a thread, from the greatest on.
        const unsigned int high = FI_COUNT_BINS - 1 - 2 * threadIdx.x, low = high - 1;
        const unsigned int in_high = shared.counts[high], in_low = shared.counts[low];
        const unsigned long long through = fi_block_running_sum<FI_THREADS>(in_high + in_low, shared.slots);
        const unsigned long long before = *above + through - in_low - in_high;
        if (before < k && before + in_high + in_low >= k) {
            const bool is_high = before + in_high >= k;
            shared.found = is_high ? high : low;
            shared.above = before + (is_high ? 0 : in_high);
            shared.at = is_high ? in_high : in_low;
        }
        __syncthreads();
        prefix |= (unsigned int)shared.found << shift;
        *above = (unsigned int)shared.above;
        *equal = (unsigned int)shared.at;
    }
    return prefix;
}

/// The least weight t of a kept token for which the weights greater than t sum to less than `top_p` of the whole; 0 for none.
static __device__ __forceinline__ float mass_threshold(
    const sample_row &row, float top_p, bool is_joint, bool has_top_k, sample_shared &shared
) {
    // A token of the nucleus has (1 - top_p) of the whole, which is at least 1, at or below it: it weighs that over the width
    // or more. Where the whole is more than what is kept, that does not hold.
    const float floor = is_joint && has_top_k ? 0.0f : 0.999f * (1.0f - top_p) / (float)row.width;
    unsigned int prefix = 0;
    if (threadIdx.x == 0) shared.above = 0;
#pragma unroll 1
    for (int digit = 0; digit < 3; digit++) {
        const int shift = 20 - 10 * digit;
        __syncthreads();
        shared.masses[threadIdx.x] = 0;
        __syncthreads();
        unsigned long long whole = 0;
        fi_for_row<FI_LOGITS, FI_THREADS, true>(row.logits, row.width, [&](float x, unsigned int place, bool valid) {
            const float weight = row.weight(x);
            const unsigned int bits = __float_as_uint(weight);
            const bool kept = valid && row.keeps(x, place);
            const unsigned long long mass = row.mass(weight);
            if (digit == 0 && (kept || (valid && is_joint))) whole += mass;
            const bool joins = digit == 0 || bits >> (shift + 10) == prefix >> (shift + 10);
            add_mass(shared.masses, (bits >> shift) & 1023u, mass, kept && joins && weight >= floor && mass > 0);
        });
        if (digit == 0) {
            whole = fi_block_reduce<FI_THREADS>(whole, fi_sum(), shared.slots);
            if (threadIdx.x == 0) shared.limit = (double)whole * (double)top_p;
        }
        if (threadIdx.x == 0) shared.found = -1;
        __syncthreads();
        const unsigned int bin = FI_MASS_BINS - 1 - threadIdx.x;
        const unsigned long long own = shared.masses[bin];
        const unsigned long long through = shared.above + fi_block_running_sum<FI_THREADS>(own, shared.slots);
        const double limit = shared.limit;
        // Everybody has read the old sums before one thread writes the new.
        __syncthreads();
        if ((double)(through - own) < limit && (double)through >= limit) {
            shared.found = bin;
            shared.above = through - own;
        }
        __syncthreads();
        // All kept tokens together have less than the share: each is in.
        if (shared.found < 0) return 0;
        prefix |= (unsigned int)shared.found << shift;
    }
    return __uint_as_float(prefix);
}

/// What the draw sums: tokens kept, by mass, or tokens equal to the k-th, by number.
struct draw_rule {
    float threshold;
    bool counts_ties;

    __device__ __forceinline__ unsigned long long mass(const sample_row &row, unsigned int place) const {
        float x[1] = {-fi_infinity()};
        if (place < row.width) fi_read<FI_LOGITS, 1>(row.logits, place, x);
        return mass_of(row, x[0], place);
    }
    __device__ __forceinline__ unsigned long long mass_of(const sample_row &row, float x, unsigned int place) const {
        if (place >= row.width) return 0;
        if (counts_ties) return order_key(x) == row.kth ? 1 : 0;
        const float weight = row.weight(x);
        return weight >= threshold && row.keeps(x, place) ? row.mass(weight) : 0;
    }
};

/// The first place, in the order of places, at which the running sum of masses reaches the target: `count` where ties are
/// counted, else the row's random number times the sum of all. -1 where the sum is 0.
static __device__ __forceinline__ int first_reaching(
    const sample_row &row, const draw_rule &rule, unsigned int count, const fi_sampling_row &own,
    sample_shared &shared
) {
    const unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned int step = 32 * FI_STEPS;
    // A part is as many whole steps as make the row FI_PARTS parts or fewer.
    const unsigned int part = step * (unsigned int)((row.width - 1ull) / ((unsigned long long)step * FI_PARTS) + 1);
    const unsigned int parts = (row.width - 1) / part + 1;
    __syncthreads();
    shared.parts[threadIdx.x] = 0;
    if (threadIdx.x == 0) shared.found = -1;
    __syncthreads();
#pragma unroll 1
    for (unsigned int index = warp; index < parts; index += FI_THREADS / 32) {
        unsigned long long sum = 0;
#pragma unroll 1
        for (unsigned int offset = lane; offset < part; offset += step) {
            const unsigned int first = (unsigned int)index * part + offset;
            float x[FI_STEPS][1];
#pragma unroll
            for (int i = 0; i < FI_STEPS; i++) {
                x[i][0] = -fi_infinity();
                if (first + i * 32 < row.width) fi_read<FI_LOGITS, 1>(row.logits, first + i * 32, x[i]);
            }
#pragma unroll
            for (int i = 0; i < FI_STEPS; i++) sum += rule.mass_of(row, x[i][0], first + i * 32);
        }
        sum = fi_warp_reduce(sum, fi_sum());
        if (lane == 0) shared.parts[index] = sum;
    }
    __syncthreads();
    const unsigned long long mine = shared.parts[threadIdx.x];
    const unsigned long long through = fi_block_running_sum<FI_THREADS>(mine, shared.slots);
    if (threadIdx.x == FI_THREADS - 1) shared.at = through;
    __syncthreads();
    const unsigned long long total = shared.at;
    unsigned long long target = count;
    if (!rule.counts_ties) {
        target = __double2ull_ru(fi_uniform(own.seed, own.step) * (double)total);
        target = target < 1 ? 1 : target > total ? total : target;
    }
    if (through - mine < target && through >= target) {
        shared.found = threadIdx.x;
        shared.above = through - mine;
    }
    __syncthreads();
    const int index = shared.found;
    unsigned long long running = shared.above;
    __syncthreads();
    if (index < 0) return -1;
    // One warp walks the part; the others wait for what it finds.
    if (warp == 0) {
        bool done = false;
#pragma unroll 1
        for (unsigned int offset = 0; offset < part && !done; offset += 32) {
            const unsigned int first = (unsigned int)index * part + offset;
            const unsigned long long reached = running + fi_warp_running_sum(rule.mass(row, first + lane));
            const unsigned int reaching = __ballot_sync(0xffffffffu, reached >= target);
            done = reaching != 0;
            if (done && lane == 0) shared.found = (int)first + __ffs((int)reaching) - 1;
            running = __shfl_sync(0xffffffffu, reached, 31);
        }
    }
    __syncthreads();
    const int place = shared.found;
    __syncthreads();
    return place;
}

static __device__ __forceinline__ int sample_token(
    const fi_sample_params &p, const fi_sampling_row &own, sample_shared &shared
) {
    sample_row &row = shared.row;
    const bool has_top_k = own.top_k > 0 && own.top_k < row.width;
    bool is_ambiguous = false;
    unsigned int ties = 0;
    if (has_top_k) {
        unsigned int above, equal;
        const unsigned int kth = kth_greatest(row, own.top_k, shared, &above, &equal);
        if (threadIdx.x == 0) row.kth = kth;
        __syncthreads();
        is_ambiguous = equal > own.top_k - above;
        ties = own.top_k - above;
    }
    float threshold = own.min_p;
    int place = -1;
    // Two rounds, of one copy of the code: of several equal to the k-th, the lowest places are in; then the draw.
#pragma unroll 1
    for (int round = is_ambiguous ? 0 : 1; round < 2; round++) {
        if (round == 1 && own.top_p < 1.0f) {
            threshold = fmaxf(threshold, mass_threshold(row, own.top_p, p.joint != 0, has_top_k, shared));
        }
        const draw_rule rule = {threshold, round == 0};
        place = first_reaching(row, rule, ties, own, shared);
        if (round == 0) {
            if (threadIdx.x == 0) row.last = (unsigned int)place;
            __syncthreads();
        }
    }
    return place;
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) sample(const __grid_constant__ fi_sample_params p) {
    __shared__ sample_shared shared;
    const fi_sampling_row &own = ((const fi_sampling_row *)p.rows)[blockIdx.x];
    const unsigned long long logits = fi_row_address<FI_LOGITS>(p.logits, blockIdx.x, 1);
    bool has_nan;
    const fi_candidate best = fi_greatest<FI_LOGITS, FI_THREADS>(logits, p.width, &has_nan);
    const bool is_greedy = own.scale == 0.0f;
    const int status = is_greedy ? fi_greedy_status(best.value, has_nan) : fi_scan_status(best.value, has_nan);
    int token = status == FI_ROW_OK ? (int)best.place : -1;
    if (!is_greedy && status == FI_ROW_OK) {
        if (threadIdx.x == 0) {
            sample_row &row = shared.row;
            row.logits = logits;
            row.width = p.width;
            row.maximum = best.value;
            row.scale = own.scale;
            row.mass_scale = exp2f((float)p.mass_bits);
            row.kth = 0;
            row.last = 0xffffffffu;
        }
        __syncthreads();
        token = sample_token(p, own, shared);
    }
    if (threadIdx.x == 0) {
        ((int *)p.tokens)[blockIdx.x] = token;
        ((unsigned char *)p.status)[blockIdx.x] = (unsigned char)status;
    }
}
