// Merges states of attention over disjoint keys. One thread a vector of a head's elements, which it sums over all states.
//
// FI_INPUT, FI_OUTPUT: storage types.

#include "fi_merge_params.h"
#include "primitives/distribution.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

/// States whose LSEs and elements are on their way at once: as a rule all there are.
#define FI_AT_ONCE 2
/// Of heads that lie side by side, a block brings the elements of the block so many behind it to the second cache.
#define FI_AHEAD 1024u

template <int V>
static __device__ __forceinline__ void run(const fi_merge_params &p) {
    const unsigned int lanes = 1u << p.lane_bits;
    const unsigned int lane = threadIdx.x & (lanes - 1u);
    const unsigned long long place =
        (unsigned long long)blockIdx.x * (FI_THREADS >> p.lane_bits) + (threadIdx.x >> p.lane_bits);
    const unsigned long long count = (unsigned long long)p.rows * p.heads;
    const bool inside = place < count;
    unsigned int row = 0, head = 0;
    if (inside) {
        // A division of 64 bits takes as long as all else.
        row = count >> 32 == 0 ? (unsigned int)place / p.heads : (unsigned int)(place / p.heads);
        head = (unsigned int)(place - (unsigned long long)row * p.heads);
    }
    const unsigned int states = inside ? p.states : 0;
    const float *lse = (const float *)p.lse + row * p.lse_row + head * p.lse_head;
    const unsigned long long values =
        p.values + (unsigned long long)((row * p.values_row + head * p.values_head) * fi_size(FI_INPUT));
    const unsigned long long output =
        p.output + (unsigned long long)((row * p.output_row + head * p.output_head) * fi_size(FI_OUTPUT));
    const unsigned int heads = FI_THREADS >> p.lane_bits;
    const bool brings = V > 1 && threadIdx.x == 0 && p.values_head == p.width && p.values_row == (long long)p.heads * p.width;
    const auto bring = [&](unsigned int blocks) {
        const unsigned long long first = place + (unsigned long long)blocks * heads;
        if (!brings || first >= count) return;
        const unsigned int there = first + heads > count ? (unsigned int)(count - first) : heads;
        unsigned long long from = p.values + first * p.width * fi_size(FI_INPUT);
#pragma unroll 1
        for (unsigned int state = 0; state < states; state++, from += (unsigned long long)(p.values_state * fi_size(FI_INPUT))) {
            fi_prefetch(from, there * p.width * fi_size(FI_INPUT));
        }
    };
    if (blockIdx.x < FI_AHEAD) bring(0);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    fi_packed<FI_INPUT, V> x[FI_AT_ONCE];
    float weight[FI_AT_ONCE];
    const auto load = [&](unsigned int first, unsigned int index) {
#pragma unroll
        for (int s = 0; s < FI_AT_ONCE; s++) {
            if (first + s < states && index < p.width) x[s] = fi_load<FI_INPUT, V>(values, (first + s) * p.values_state + index);
        }
    };
    const auto load_lse = [&](unsigned int first) {
#pragma unroll
        for (int s = 0; s < FI_AT_ONCE; s++) {
            weight[s] = -fi_infinity();
            if (first + s < states) weight[s] = lse[(first + s) * p.lse_state];
        }
    };
    load_lse(0);
    load(0, lane * V);
    bring(FI_AHEAD);
    float top = -fi_infinity(), total = 0;
#pragma unroll
    for (int s = 0; s < FI_AT_ONCE; s++) top = fmaxf(top, weight[s]);
#pragma unroll 1
    for (unsigned int state = FI_AT_ONCE; state < states; state++) top = fmaxf(top, lse[state * p.lse_state]);
    const bool is_empty = top == -fi_infinity();
    const auto weigh = [&] {
#pragma unroll
        for (int s = 0; s < FI_AT_ONCE; s++) weight[s] = is_empty ? 0.0f : exp2f(weight[s] - top);
    };
    weigh();
#pragma unroll
    for (int s = 0; s < FI_AT_ONCE; s++) total += weight[s];
#pragma unroll 1
    for (unsigned int state = FI_AT_ONCE; state < states; state++) {
        total += is_empty ? 0.0f : exp2f(lse[state * p.lse_state] - top);
    }
    const float scale = is_empty ? 0.0f : 1.0f / total;
    for (unsigned int index = lane * V; index < p.width && inside; index += lanes * V) {
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0;
#pragma unroll 1
        for (unsigned int first = 0; first < states; first += FI_AT_ONCE) {
            if (first > 0 || index != lane * V) {
                load_lse(first);
                load(first, index);
                weigh();
            }
            // An empty state's output counts for nothing, whatever it holds.
#pragma unroll
            for (int s = 0; s < FI_AT_ONCE; s++) {
                if (weight[s] == 0) continue;
                float y[V];
                fi_unpack<FI_INPUT, V>(x[s], y);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] = __fmaf_rn(weight[s], y[i], sum[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] *= scale;
        fi_write<FI_OUTPUT, V>(output, index, sum);
    }
    // The merged LSEs may be a state's own, so they are written when every thread of the head has read those.
    if (p.lane_bits <= 5) __syncwarp();
    else __syncthreads();
    if (inside && lane == 0 && p.merged != 0) {
        ((float *)p.merged)[row * p.merged_row + head * p.merged_head] = is_empty ? -fi_infinity() : top + log2f(total);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) merge_states(const __grid_constant__ fi_merge_params p) {
    fi_admit_successors();
    if (p.vectorised) {
        run<fi_vector(FI_INPUT, FI_OUTPUT)>(p);
    } else {
        run<1>(p);
    }
}
