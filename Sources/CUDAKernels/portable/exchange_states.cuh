// Exchanges states of attention with the other ranks over peer memory, and merges them: one launch on every rank.
//
// A thread has 16 bytes of a head. It stores them into every other rank's window, and waits in its own for what the same thread of
// the other ranks has stored there, so that nobody counts arrivals and no fence is needed: of each 8 bytes that travel, 4 are the
// number of the exchange, and 8 aligned bytes are written and read as one. That is twice the bytes, where what counts is latency:
// one way over the link, where data, a fence and a flag would take three.
//
// The number is this block's own count in device memory, so that graphs may be replayed. Even and odd exchanges have windows of their
// own: whoever starts exchange n + 2 has ended n + 1, for which every other rank had to start n + 1, and so to end n.
//
// FI_INPUT, FI_OUTPUT: storage types of states and output.

#include "fi_exchange_params.h"
#include "primitives/distribution.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/merge_weights.cuh"

/// Elements of a thread.
static constexpr int vector = 16 / fi_size(FI_INPUT);

static __device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

/// Two words, each with the exchange's number.
static __device__ __forceinline__ void send(
    unsigned long long address, unsigned int first, unsigned int second, unsigned int number
) {
    const unsigned long long high = (unsigned long long)number << 32;
    asm volatile("st.relaxed.sys.global.v2.b64 [%0], {%1, %2};" ::"l"(address), "l"(high | first), "l"(high | second)
                 : "memory");
}

/// Two words, and whether both are of the exchange with that number.
static __device__ __forceinline__ bool receive(
    unsigned long long address, unsigned int number, unsigned int &first, unsigned int &second
) {
    unsigned long long a, b;
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(address) : "memory");
    first = (unsigned int)a, second = (unsigned int)b;
    return (unsigned int)(a >> 32) == number && (unsigned int)(b >> 32) == number;
}

static __device__ __forceinline__ unsigned int load_word(unsigned long long address) {
    unsigned int word;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(word) : "l"(address) : "memory");
    return word;
}

static __device__ __forceinline__ void store_word(unsigned long long address, unsigned int word) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(address), "r"(word) : "memory");
}

/// A thread's part of one rank's state.
struct fi_part {
    unsigned int word[4];
    unsigned int lse;
};

/// Waits for the parts of the other ranks. Gives the rank that did not come, or -1.
template <int most>
static __device__ __forceinline__ int receive_all(
    const fi_exchange_params &p, unsigned long long window, unsigned long long sender_bytes, unsigned int number,
    fi_part (&parts)[most]
) {
    unsigned long long end = 0;
    int missing = -1;
    unsigned int looks = 0;
    do {
        missing = -1;
        // All loads are on their way before the first is looked at.
#pragma unroll
        for (int rank = 0; rank < most; rank++) {
            if (rank < p.merge.states && rank != p.rank) {
                fi_part &part = parts[rank];
                const unsigned long long from = window + rank * sender_bytes;
                unsigned int unused;
                const bool first = receive(from, number, part.word[0], part.word[1]);
                const bool second = receive(from + 16 * FI_THREADS, number, part.word[2], part.word[3]);
                const bool third = receive(from + 32 * FI_THREADS, number, part.lse, unused);
                if (!(first && second && third)) missing = rank;
            }
        }
        // The clock and the host's word are looked at now and then: both are far away.
        if (++looks % 1024 == 0 && missing >= 0) {
            const unsigned long long now = nanoseconds();
            if (end == 0) end = now + p.timeout;
            if (now >= end || load_word(p.missing) != 0) break;
        }
    } while (missing >= 0);
    return missing;
}

template <int most>
static __device__ __forceinline__ void run(const fi_exchange_params &p) {
    const fi_merge_params &m = p.merge;
    const unsigned int lane = threadIdx.x & ((1u << m.lane_bits) - 1u);
    const unsigned long long place =
        (unsigned long long)blockIdx.x * (FI_THREADS >> m.lane_bits) + (threadIdx.x >> m.lane_bits);
    const unsigned int row = (unsigned int)(place / m.heads);
    const unsigned int head = (unsigned int)(place - (unsigned long long)row * m.heads);
    const unsigned int index = lane * vector;
    const bool inside = row < m.rows && index < m.width;

    fi_exchange_progress *const progress = (fi_exchange_progress *)p.progress;
    // The number 0 is that of memory nobody has written to.
    const unsigned int count = progress->exchanges[blockIdx.x] + 1;
    const unsigned int number = count == 0 ? 2 : count;
    const bool was_lost = progress->is_lost != 0;

    if (inside) {
        const unsigned long long sender_bytes = (unsigned long long)FI_EXCHANGE_BLOCKS * FI_EXCHANGE_BLOCK_BYTES;
        const unsigned long long place_in_window = (number & 1u) * m.states * sender_bytes +
            (unsigned long long)blockIdx.x * FI_EXCHANGE_BLOCK_BYTES + 16u * threadIdx.x;
        fi_part parts[most];
        const fi_packed<FI_INPUT, vector> own = fi_load<FI_INPUT, vector>(
            m.values, p.rank * m.values_state + row * m.values_row + head * m.values_head + index);
        const unsigned int own_lse =
            ((const unsigned int *)m.lse)[p.rank * m.lse_state + row * m.lse_row + head * m.lse_head];
#pragma unroll
        for (int rank = 0; rank < most; rank++) {
            // Of the others' places this is overwritten.
            parts[rank] = fi_part{{own.word[0], own.word[1], own.word[2], own.word[3]}, own_lse};
            if (rank < m.states && rank != p.rank) {
                const unsigned long long to = p.windows[rank] + place_in_window + p.rank * sender_bytes;
                send(to, own.word[0], own.word[1], number);
                send(to + 16 * FI_THREADS, own.word[2], own.word[3], number);
                send(to + 32 * FI_THREADS, own_lse, 0, number);
            }
        }
        const int missing = was_lost
            ? p.rank
            : receive_all<most>(p, p.windows[p.rank] + place_in_window, sender_bytes, number, parts);
        if (missing >= 0 && !was_lost) {
            // Whichever of the threads; what is there already stays, as it may be the host's.
            if (load_word(p.missing) == 0) store_word(p.missing, 1u + missing);
            store_word(p.progress + sizeof(unsigned int) * FI_EXCHANGE_BLOCKS, 1);
        }

        // From here on as merges on a device, whose arithmetic this is: in the ranks' order, so that all have the same bits.
        float top = -fi_infinity();
#pragma unroll
        for (int rank = 0; rank < most; rank++) {
            if (rank < m.states) top = fmaxf(top, __uint_as_float(parts[rank].lse));
        }
        const bool is_empty = top == -fi_infinity();
        float weights[most], sum[vector];
#pragma unroll
        for (int i = 0; i < vector; i++) sum[i] = 0;
#pragma unroll
        for (int rank = 0; rank < most; rank++) {
            const float below = __uint_as_float(parts[rank].lse) - top;
            const float weight = rank < m.states && !is_empty ? fi_merge_weight(below) : 0.0f;
            weights[rank] = weight;
            float x[vector];
            fi_packed<FI_INPUT, vector> packed;
#pragma unroll
            for (int i = 0; i < 4; i++) packed.word[i] = parts[rank].word[i];
            fi_unpack<FI_INPUT, vector>(packed, x);
            // An empty state's output counts for nothing, whatever it holds.
#pragma unroll
            for (int i = 0; i < vector; i++) sum[i] = weight == 0 ? sum[i] : __fmaf_rn(weight, x[i], sum[i]);
        }
        const float total = fi_merge_total(weights);
        // A state that lacks a rank's is nobody's to take for the whole.
        const float nan = __uint_as_float(0x7fffffffu);
        const float scale = missing >= 0 ? nan : is_empty ? 0.0f : fi_merge_inverse(total);
#pragma unroll
        for (int i = 0; i < vector; i++) sum[i] *= scale;
        const unsigned long long output =
            m.output + (unsigned long long)((row * m.output_row + head * m.output_head) * fi_size(FI_OUTPUT));
        if (m.vectorised) {
            fi_write<FI_OUTPUT, vector>(output, index, sum);
        } else {
            for (int i = 0; i < vector; i++) {
                const float one[1] = {sum[i]};
                fi_write<FI_OUTPUT, 1>(output, index + i, one);
            }
        }
        if (lane == 0 && m.merged != 0) {
            ((float *)m.merged)[row * m.merged_row + head * m.merged_head] =
                missing >= 0 ? nan : is_empty ? -fi_infinity() : top + fi_merge_logarithm(total);
        }
    }
    // Every thread has read the count.
    __syncthreads();
    if (threadIdx.x == 0) progress->exchanges[blockIdx.x] = number;
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    exchange_states(const __grid_constant__ fi_exchange_params p) {
    fi_follow_predecessors();
    if (p.merge.states <= 2) {
        run<2>(p);
    } else if (p.merge.states <= 4) {
        run<4>(p);
    } else {
        run<FI_EXCHANGE_RANKS>(p);
    }
}
