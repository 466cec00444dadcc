// Merges states of attention over disjoint keys, heads of any width and alignment: see merge_heads.cuh for others. One thread a vector of a head's
// elements, which it sums over all states.
//
// FI_INPUT, FI_OUTPUT: storage types.

#include "fi_merge_params.h"
#include "primitives/distribution.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/merge_weights.cuh"

/// What a thread merges: a head's states, and from which element on.
struct MergedHead {
    const float *lse;
    unsigned long long values, output;
    unsigned int states, first, step;
    bool inside;
};

/// The greatest LSE and the sum of weights.
struct MergedSum {
    float top, total;
};

template <int V>
static __device__ __forceinline__ MergedSum merge(const fi_merge_params &p, const MergedHead &at) {
    MergedSum sum = {-fi_infinity(), 0};
    for (unsigned int state = 0; state < at.states; state++) sum.top = fmaxf(sum.top, at.lse[state * p.lse_state]);
    const bool is_empty = sum.top == -fi_infinity();
    const auto weigh = [&](unsigned int state) {
        return state < at.states && !is_empty ? fi_merge_weight(at.lse[state * p.lse_state] - sum.top) : 0.0f;
    };
    float weights[FI_MERGED_AT_ONCE];
#pragma unroll
    for (int i = 0; i < FI_MERGED_AT_ONCE; i++) weights[i] = weigh(i);
    sum.total = fi_merge_total(weights);
    for (unsigned int state = FI_MERGED_AT_ONCE; state < at.states; state++) sum.total += weigh(state);
    const float scale = is_empty ? 0.0f : fi_merge_inverse(sum.total);
    for (unsigned int index = at.first; index < p.width && at.inside; index += at.step) {
        float merged[V];
#pragma unroll
        for (int i = 0; i < V; i++) merged[i] = 0;
        for (unsigned int state = 0; state < at.states && !is_empty; state++) {
            const float weight = weigh(state);
            // An empty state's output counts for nothing, whatever it holds.
            if (weight == 0) continue;
            float y[V];
            fi_read<FI_INPUT, V>(at.values, state * p.values_state + index, y);
#pragma unroll
            for (int i = 0; i < V; i++) merged[i] = __fmaf_rn(weight, y[i], merged[i]);
        }
#pragma unroll
        for (int i = 0; i < V; i++) merged[i] *= scale;
        fi_write<FI_OUTPUT, V>(at.output, index, merged);
    }
    return sum;
}

template <int V>
static __device__ __forceinline__ void run(const fi_merge_params &p) {
    const unsigned int lanes = 1u << p.lane_bits;
    const unsigned int lane = threadIdx.x & (lanes - 1u);
    const unsigned long long place =
        (unsigned long long)blockIdx.x * (FI_THREADS >> p.lane_bits) + (threadIdx.x >> p.lane_bits);
    const unsigned long long count = (unsigned long long)p.rows * p.heads;
    MergedHead at;
    at.inside = place < count;
    unsigned int row = 0, head = 0;
    if (at.inside) {
        // A division of 64 bits takes as long as all else.
        row = count >> 32 == 0 ? (unsigned int)place / p.heads : (unsigned int)(place / p.heads);
        head = (unsigned int)(place - (unsigned long long)row * p.heads);
    }
    at.states = at.inside ? p.states : 0;
    at.first = lane * V;
    at.step = lanes * V;
    at.lse = (const float *)p.lse + row * p.lse_row + head * p.lse_head;
    at.values = p.values + (unsigned long long)((row * p.values_row + head * p.values_head) * fi_size(FI_INPUT));
    at.output = p.output + (unsigned long long)((row * p.output_row + head * p.output_head) * fi_size(FI_OUTPUT));
    // Parameters are there before anything else is.
    fi_await_predecessors();
    const MergedSum sum = merge<V>(p, at);
    // The merged LSEs may be a state's own, so they are written when every thread of the head has read those.
    if (p.lane_bits <= 5) {
        __syncwarp();
    } else {
        __syncthreads();
    }
    if (at.inside && lane == 0 && p.merged != 0) {
        ((float *)p.merged)[row * p.merged_row + head * p.merged_head] =
            sum.top == -fi_infinity() ? sum.top : sum.top + fi_merge_logarithm(sum.total);
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
