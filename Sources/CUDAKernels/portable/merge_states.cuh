// Merges states of attention over disjoint keys. One thread a vector of a head's elements, which it sums over all states.
//
// FI_INPUT, FI_OUTPUT: storage types.

#include "fi_merge_params.h"
#include "primitives/distribution.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

template <int V>
static __device__ __forceinline__ void run(const fi_merge_params &p) {
    const unsigned int lanes = 1u << p.lane_bits;
    const unsigned int lane = threadIdx.x & (lanes - 1u);
    const unsigned long long place =
        (unsigned long long)blockIdx.x * (FI_THREADS >> p.lane_bits) + (threadIdx.x >> p.lane_bits);
    const bool inside = place < (unsigned long long)p.rows * p.heads;
    const unsigned int row = inside ? (unsigned int)(place / p.heads) : 0;
    const unsigned int head = inside ? (unsigned int)(place - (unsigned long long)row * p.heads) : 0;
    const unsigned int states = inside ? p.states : 0;

    const float *lse = (const float *)p.lse + row * p.lse_row + head * p.lse_head;
    float top = -fi_infinity();
    for (unsigned int state = 0; state < states; state++) top = fmaxf(top, lse[state * p.lse_state]);
    float total = 0;
    for (unsigned int state = 0; state < states; state++) {
        total += top == -fi_infinity() ? 0.0f : exp2f(lse[state * p.lse_state] - top);
    }
    const bool is_empty = top == -fi_infinity();
    const float scale = is_empty ? 0.0f : 1.0f / total;

    const unsigned long long values =
        p.values + (unsigned long long)((row * p.values_row + head * p.values_head) * fi_size(FI_INPUT));
    const unsigned long long output =
        p.output + (unsigned long long)((row * p.output_row + head * p.output_head) * fi_size(FI_OUTPUT));
    for (unsigned int index = lane * V; index < p.width && inside; index += lanes * V) {
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0;
        for (unsigned int state = 0; state < states && !is_empty; state++) {
            const float weight = exp2f(lse[state * p.lse_state] - top);
            // An empty state's output counts for nothing, whatever it holds.
            if (weight == 0) continue;
            float x[V];
            fi_read<FI_INPUT, V>(values, state * p.values_state + index, x);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] = __fmaf_rn(weight, x[i], sum[i]);
        }
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] *= scale;
        fi_write<FI_OUTPUT, V>(output, index, sum);
    }
    // The merged LSEs may be a state's own, so they are written when every thread of the head has read those.
    __syncthreads();
    if (inside && lane == 0 && p.merged != 0) {
        ((float *)p.merged)[row * p.merged_row + head * p.merged_head] = is_empty ? -fi_infinity() : top + log2f(total);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) merge_states(const __grid_constant__ fi_merge_params p) {
    fi_follow_predecessors();
    if (p.vectorised) {
        run<fi_vector(FI_INPUT, FI_OUTPUT)>(p);
    } else {
        run<1>(p);
    }
}
