// Top-k of up to some thousands: the k greatest are looked for by the row's first block alone, among somewhat more than k entries.
//
// Each block names a bound that its share of k threads' maxima reach; k entries of the row reach the least of these bounds. Each lists
// its own entries from there on, in the order of places, and sends them to the first block, which no longer needs what it held.
// Three barriers of the cluster, and the others leave. Blocks with more entries than their list has room for (ties, sorted rows) take
// the way of intervals.
//
// FI_INPUT, FI_FORM, FI_TEAM: see row_part.cuh.
#pragma once

#include "primitives/intervals.cuh"
#include "primitives/top_few.cuh"

/// Entries that fit where the first block held its part: what was sent, and after it what is kept.
#define FI_MANY_PLACES 8192

/// Lists what is kept of the block's entries, in the order of places: `put(index, before, x, place)`, `index` being among the block's own,
/// which come after `before` others. Says how many they are; nothing is put where the block has more than `most`.
template <class Keeps, class Put>
static __device__ __forceinline__ fi_row_sum fi_list_entries(
    const fi_row_part &part, unsigned int most, fi_filter_shared &shared, unsigned int &turn, Keeps &&keeps, Put &&put
) {
    const unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // Each warp's run is counted first and listed then.
    unsigned int offset = 0;
    fi_row_sum counted = {0, 0, 0};
#pragma unroll 1
    for (int round = 0; round < 2; round++) {
#pragma unroll 1
        for (unsigned int start = part.begin; start < part.end; start += 32) {
            const unsigned int group = start + lane;
            const float4 x = group < part.end ? fi_raw_groups{part}(group) : make_float4(0, 0, 0, 0);
            unsigned int mask = 0, before = offset;
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) {
                const bool kept = group < part.end && part.has(4 * group + i) && keeps(fi_entry(x, i), part.place(4 * group + i));
                mask |= kept ? 1u << i : 0;
                const unsigned int all = __ballot_sync(0xffffffffu, kept);
                before += __popc(all & ((1u << lane) - 1u));
                offset += __popc(all);
            }
            if (round == 0) continue;
#pragma unroll 1
            for (; mask != 0; mask &= mask - 1) {
                const unsigned int i = (unsigned int)__ffs((int)mask) - 1;
                put(before++, (unsigned int)counted.before, fi_entry(x, i), part.place(4 * group + i));
            }
        }
        if (round == 1) break;
        // The lanes' counts are the warp's: one of them adds it.
        __syncthreads();
        counted = fi_sum_of_row(lane == 0 ? offset : 0, shared, turn);
        if (counted.own > most) break;
        offset = 0;
#pragma unroll
        for (unsigned int other = 0; other < FI_WARPS; other++) offset += other < warp ? (unsigned int)shared.tiles[other] : 0;
    }
    return counted;
}

#if FI_HELD
/// Sends the block's entries from a bound on to where the row's first block held its part. Says how many the row has; 0 where they
/// are fewer than k, or too many. `sent` has the blocks' bounds in its lower halves.
static __device__ __forceinline__ unsigned int fi_send_many(
    const fi_row &row, const unsigned long long *sent, unsigned int k, unsigned int *least, fi_filter_shared &shared,
    unsigned int &turn
) {
    unsigned int bound = 0xffffffffu;
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) bound = (unsigned int)sent[rank] < bound ? (unsigned int)sent[rank] : bound;
    *least = bound;
    // True of NaN as well.
    const float value = fi_order_value(bound);
    const fi_row_sum counted = fi_list_entries(
        row.part, FI_GATHERED, shared, turn, [&](float x, unsigned int) { return !(x < value); },
        [&](unsigned int index, unsigned int, float x, unsigned int place) { shared.entries[index] = fi_ranked(x, place); });
    const unsigned long long *const counts = shared.numbers.of[(turn - 1) & 1];
    bool fits = counted.total >= k && counted.total + k <= FI_MANY_PLACES;
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) fits &= counts[rank] <= FI_GATHERED;
    // All blocks know the same.
    if (!fits) return 0;
    fi_team_sync();
    unsigned long long *const to = fi_team_at((unsigned long long *)fi_held, 0) + counted.before;
    for (unsigned int index = threadIdx.x; index < counted.own; index += FI_THREADS) to[index] = shared.entries[index];
    fi_team_sync();
    return (unsigned int)counted.total;
}

/// A number that the k greatest of `count` entries reach, which are all different, and no others; by one block. 1 <= k <= count. Their keys
/// are `low ... high`.
static __device__ __forceinline__ unsigned long long fi_find_ranked(
    const unsigned long long *entries, unsigned int count, unsigned int k, unsigned int low, unsigned int high, unsigned int width,
    fi_filter_shared &shared, unsigned int &turn
) {
    // By keys, and those that are equal to the k-th by places.
    unsigned int kth = 0;
    fi_interval interval = {low, fi_interval_bits(low, high), 0, 0};
#pragma unroll 1
    for (bool is_tied = false;;) {
        fi_narrow<false>(
            interval, shared.counts[0], shared, turn,
            [&](auto &&add) {
#pragma unroll 1
                for (unsigned int start = 0; start < count; start += FI_THREADS) {
                    const unsigned int index = start + threadIdx.x;
                    const unsigned long long entry = index < count ? entries[index] : 0;
                    const unsigned int key = (unsigned int)(entry >> 32);
                    add(is_tied ? (unsigned int)entry : key, 1u, index < count && (!is_tied || key == kth));
                }
            },
            [&](unsigned long long sum) { return sum >= k; });
        const bool is_whole = interval.above + interval.at == k;
        if (is_tied) {
            if (is_whole || interval.bits == 0) return (unsigned long long)kth << 32 | interval.low;
        } else if (is_whole) {
            return (unsigned long long)interval.low << 32;
        } else if (interval.bits == 0) {
            kth = interval.low;
            is_tied = true;
            interval = {0u - width, fi_interval_bits(0u - width, 0xffffffffu), interval.above, 0};
        }
    }
}

/// Lists the k greatest of the `count` entries that `fi_send_many` has sent, in the order of places; by the first block.
static __device__ __forceinline__ unsigned long long *fi_select_many(
    const fi_row &row, unsigned int count, unsigned int k, unsigned int low, unsigned int top, fi_filter_shared &shared,
    unsigned int &turn
) {
    unsigned long long *const entries = (unsigned long long *)fi_held, *const list = entries + FI_MANY_PLACES - k;
    const unsigned long long least = fi_find_ranked(entries, count, k, low, top, row.width, shared, turn);
    // Neighbours to each thread: counted first, and listed then.
    const unsigned int share = (count + FI_THREADS - 1) / FI_THREADS, begin = threadIdx.x * share;
    const unsigned int end = begin + share < count ? begin + share : count;
    unsigned int at = 0;
#pragma unroll 1
    for (int round = 0; round < 2; round++) {
        unsigned int kept = 0;
#pragma unroll 1
        for (unsigned int index = begin; index < end; index++) {
            const unsigned long long entry = entries[index];
            if (entry < least) continue;
            if (round == 1) list[at + kept] = entry;
            kept++;
        }
        if (round == 0) at = (unsigned int)fi_block_running_sum<FI_THREADS>(kept, shared.slots) - kept;
    }
    __syncthreads();
    return list;
}
#endif
