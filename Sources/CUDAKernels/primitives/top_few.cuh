// Top-k of few: what k entries of a row are the greatest, without a pass over the row for each digit.
//
// A row's k-th greatest entry is no less than the k-th greatest of the maxima that a block's threads have met. So each block sends
// its entries from there on, somewhat more than k of random rows, to the row's first block, which is alone from then on: it looks for
// the k greatest among them, and all that follows is of k entries. One barrier of the cluster, and the others leave.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/first_pass.cuh"
#include "primitives/walk.cuh"

/// Of what `fi_send_few` says: that k entries of the block are equal to its greatest.
#define FI_FEW_TIED 0x80000000u

/// Sends the block's entries that its k greatest are among to the row's first block; says how many they are, of which only
/// FI_GATHERED_EACH are sent, and FI_FEW_TIED. `own` and `top` are of `fi_begin_row`, which has gathered them where they are not held. What is sent is there after a barrier of the team.
template <class Rest = fi_leave_rest>
static __device__ __forceinline__ unsigned int fi_send_few(
    fi_row &row, unsigned int own, unsigned int top, unsigned int k, fi_filter_shared &shared, const Rest &rest = {}
) {
#if FI_HELD
    if (threadIdx.x == 0) shared.counters[0] = 0;
    row.bound = fi_few_bound(own, k, k / 4, shared);
    unsigned long long *const to = fi_team_at(shared.entries + fi_team_rank() * FI_GATHERED_EACH, 0);
    fi_each_four(row.part, [&](const float4 (&x)[4], unsigned int group) {
        fi_gather_few(row.part, x, group, fi_order_value(row.bound), to, &shared.counters[0], rest);
    });
    __syncthreads();
#endif
    return shared.counters[0] | (row.bound == top ? FI_FEW_TIED : 0);
}

/// What the blocks of a row have sent.
struct fi_sent {
    /// The row's greatest key, see FI_KEY_NAN; how many entries; whether all of them were sent, and whether the k-th is the greatest.
    unsigned int top, count;
    bool fits, is_tied;
};

/// `sent` has each block's greatest key in the upper half, and in the lower what `fi_send_few` said.
static __device__ __forceinline__ fi_sent fi_read_sent(const unsigned long long *sent) {
    fi_sent result = {0, 0, true, false};
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
        const unsigned int key = (unsigned int)(sent[rank] >> 32);
        result.top = key > result.top ? key : result.top;
    }
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
        const unsigned int count = (unsigned int)sent[rank] & ~FI_FEW_TIED;
        result.count += count;
        result.fits &= count <= FI_GATHERED_EACH;
        result.is_tied |= ((unsigned int)sent[rank] & FI_FEW_TIED) != 0 && (unsigned int)(sent[rank] >> 32) == result.top;
    }
    return result;
}

/// The k greatest, or all where there are fewer, of the entries that were sent; by the first block. They lie at `entries`, in no order.
/// `counts` are what was sent, `all` entries.
static __device__ __forceinline__ unsigned int fi_select_few(
    const unsigned long long *counts, unsigned int all, unsigned int k, fi_filter_shared &shared
) {
    constexpr unsigned int each = (FI_GATHERED + FI_THREADS - 1) / FI_THREADS;
    unsigned long long own[each];
    unsigned long long least = 0xffffffffffffffffull, greatest = 0;
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        const unsigned int at = i * FI_THREADS + threadIdx.x;
        // Whole blocks' entries lie together: 0 where there are no more.
        own[i] = 0;
        if (at < FI_GATHERED && at % FI_GATHERED_EACH < ((unsigned int)counts[at / FI_GATHERED_EACH] & ~FI_FEW_TIED)) {
            own[i] = shared.entries[at];
        }
        if (own[i] != 0 && own[i] < least) least = own[i];
        if (own[i] > greatest) greatest = own[i];
    }
    for (unsigned int bin = threadIdx.x; bin < FI_SAMPLE_BINS; bin += FI_THREADS) shared.sample[bin] = 0;
    if (threadIdx.x == 0) shared.counters[3] = 0;
    // The keys' range first.
    const unsigned int low_key = __reduce_min_sync(0xffffffffu, (unsigned int)(least >> 32));
    const unsigned int high_key = __reduce_max_sync(0xffffffffu, (unsigned int)(greatest >> 32));
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = (unsigned long long)high_key << 32 | low_key;
    __syncthreads();
    unsigned long long low = 0xffffffffull, high = 0;
#pragma unroll
    for (unsigned int warp = 0; warp < FI_WARPS; warp++) {
        const unsigned long long range = shared.slots[warp];
        if ((range & 0xffffffffull) < low) low = range & 0xffffffffull;
        if (range >> 32 > high) high = range >> 32;
    }
    low <<= 32;
    high = high << 32 | 0xffffffffull;
    // Entries are all different: where there are more than k, `from` becomes the k-th greatest, or what lies below it and above the next one. Each
    // round counts what is left by 128 parts, and goes on with the part that the k-th is in.
    unsigned long long from = low;
    if (all > k) {
        const unsigned int lane = threadIdx.x % 32;
        unsigned int bits = 64 - (unsigned int)__clzll((long long)(high - low)), above = 0;
#pragma unroll 1
        for (unsigned int round = 0;; round++) {
            // In the last round there may be fewer parts, above which lies what was counted before.
            const unsigned int shift = bits > 7 ? bits - 7 : 0, parts = 1u << (bits - shift);
            unsigned int *const bins = shared.sample + 128 * (round % 4);
#pragma unroll
            for (unsigned int i = 0; i < each; i++) {
                const unsigned long long bin = (own[i] - from) >> shift;
                if (own[i] >= from && bin < parts) atomicAdd(&bins[(unsigned int)bin], 1u);
            }
            __syncthreads();
            // Read before the last barrier but one, and not used before the next but one.
            if (threadIdx.x < 128) shared.sample[128 * ((round + 2) % 4) + threadIdx.x] = 0;
            // By each warp, four a lane, from the greatest on.
            const uint4 four = ((const uint4 *)bins)[31 - lane];
            const unsigned int in[4] = {four.w, four.z, four.y, four.x}, sum = four.x + four.y + four.z + four.w;
            unsigned int running = above + fi_warp_running_sum(sum) - sum, part = 124 - 4 * lane, inside = 0;
            const unsigned int hits = __ballot_sync(0xffffffffu, running < k && running + sum >= k);
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) {
                if (running < k) running += inside = in[i], part = 127 - 4 * lane - i;
            }
            const int source = __ffs((int)hits) - 1;
            running = __shfl_sync(0xffffffffu, running, source);
            from += (unsigned long long)__shfl_sync(0xffffffffu, part, source) << shift;
            if (running == k) break;
            above = running - __shfl_sync(0xffffffffu, inside, source);
            bits = shift;
        }
    }
    // Everybody has read the list, and the counter of the places is 0.
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        if (own[i] >= from) shared.entries[atomicAdd(&shared.counters[3], 1u)] = own[i];
    }
    __syncthreads();
    return all < k ? all : k;
}

/// What is drawn of few entries, and which of them are kept.
struct fi_few {
    /// Of what is kept: their sum, the least weight, and the place that the draw falls on.
    unsigned long long total;
    float threshold;
    int place;
    /// The last of what top-k keeps.
    unsigned int kth, last;
};

/// Filters the `count` entries that `fi_select_few` has left by top-p and min-p, and draws; by the first block, whose first warp gets all of
/// the result, and one thread the place. `whole` is what top-p
/// is a share of, or 0: what top-k left. `uniform` is 0 where none is drawn.
static __device__ __forceinline__ fi_few fi_finish_few(
    const fi_row &row, unsigned int count, float top_p, float min_p, unsigned long long whole, double uniform,
    fi_filter_shared &shared
) {
    static_assert(FI_GATHERED >= 3 * FI_FEW && FI_THREADS >= FI_FEW, "a thread has one entry");
    unsigned long long *const masses = shared.entries + FI_FEW;
    float *const weights = shared.weights + 4 * FI_FEW;
    const unsigned int own = threadIdx.x;
    const bool is_there = own < count;
    const unsigned long long entry = is_there ? shared.entries[own] : 0xffffffffffffffffull;
    const float weight = is_there ? row.few_weight(fi_order_value((unsigned int)(entry >> 32))) : 0.0f;
    const unsigned long long mass = fi_mass(row, weight);
    if (is_there) {
        masses[own] = mass;
        weights[own] = weight;
    }
    __syncthreads();
    // Warps without an entry have nothing to look for; the first warp's results are the block's.
    const unsigned int steps = (own & ~31u) < count ? count : 0;
    unsigned long long sum = 0, above = 0, last = 0xffffffffffffffffull;
#pragma unroll 4
    for (unsigned int i = 0; i < steps; i++) {
        const unsigned long long other = masses[i];
        sum += other;
        if (weights[i] > weight) above += other;
        if (shared.entries[i] < last) last = shared.entries[i];
    }
    const float least = min_p * row.greatest();
    const double limit = fmax((double)(whole == 0 ? sum : whole) * (double)top_p, 0.5);  // see fi_find_nucleus
    const bool kept = is_there && weight >= least && (top_p >= 1.0f || (double)above < limit);
    __syncthreads();
    if (is_there && !kept) {
        masses[own] = 0;
        weights[own] = 3.0f;
    }
    __syncthreads();
    fi_few result;
    unsigned long long through = 0;
    result.total = 0;
    result.threshold = 3.0f;
    result.place = -1;
    result.kth = (unsigned int)(last >> 32);
    result.last = fi_place_of(last);
#pragma unroll 4
    for (unsigned int i = 0; i < steps; i++) {
        const unsigned long long other = masses[i];
        result.total += other;
        if (fi_place_of(shared.entries[i]) <= fi_place_of(entry)) through += other;
        result.threshold = fminf(result.threshold, weights[i]);
    }
    if (uniform > 0) {
        const unsigned long long target = fi_share(uniform, result.total);
        if (kept && through >= target && through - mass < target) result.place = (int)fi_place_of(entry);
    }
    return result;
}
