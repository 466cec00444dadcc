// Merges the states that tiles of several levels left of the same rows: a block for each list of states, a warp for each row.
//
// FI_OUTPUT       storage type
// FI_HEAD_DIM_VO  elements of a value head

#include "fi_attention_params.h"
#include "primitives/distribution.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

/// A list at work: `count` states, each of whose rows lies `place` after the first.
struct States {
    const int *first;
    const float *lse;
    int count, place;

    __device__ __forceinline__ int row(int state) const { return first[state] + place; }
};

template <int V>
static __device__ __forceinline__ void merge_row(const fi_attention_params &p, const States &states, int token, int kv_head, int head) {
    const int lane = threadIdx.x % 32;
    float top = -fi_infinity();
    for (int state = lane; state < states.count; state += 32) top = fmaxf(top, states.lse[states.row(state)]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, step));
    float total = 0;
    for (int state = lane; state < states.count; state += 32)
        total += top == -fi_infinity() ? 0.0f : exp2f(states.lse[states.row(state)] - top);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffff, total, step);
    // What outputs are weighted relative to, before a sink joins the sum: a score with no value.
    const float base = top;
    const float sink = p.sinks == 0 ? -fi_infinity() : ((const float *)p.sinks)[head] * 1.4426950408889634f;
    float factor = 1;
    if (sink > top) {
        factor = top == -fi_infinity() ? 0.0f : exp2f(top - sink);
        total = total * factor + 1;
        top = sink;
    } else if (sink != -fi_infinity()) {
        total += exp2f(sink - top);
    }
    const bool is_empty = base == -fi_infinity();
    factor = is_empty ? 0.0f : factor / total * p.value_scale;
    if (p.value_scales != 0) factor *= ((const float *)p.value_scales)[kv_head];

    const float *outputs = (const float *)p.partial_output;
    const unsigned long long output =
        p.output + (unsigned long long)((token * p.output_token + head * p.output_head) * fi_size(FI_OUTPUT));
#pragma unroll 1
    for (int d = lane * V; d < FI_HEAD_DIM_VO; d += 32 * V) {
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0;
#pragma unroll 4
        for (int state = 0; state < states.count; state++) {
            const int row = states.row(state);
            const float weight = is_empty ? 0.0f : exp2f(states.lse[row] - base);
            float x[V];
            fi_read<0, V>((unsigned long long)(outputs + (long long)row * FI_HEAD_DIM_VO), d, x);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] = __fmaf_rn(weight, x[i], sum[i]);
        }
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] *= factor;
        fi_write<FI_OUTPUT, V>(output, d, sum);
    }
    if (p.lse != 0 && lane == 0)
        ((float *)p.lse)[token * p.lse_token + head * p.lse_head] = top == -fi_infinity() ? top : top + log2f(total);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) merge_levels(const __grid_constant__ fi_attention_params p) {
    fi_follow_predecessors();
    const int list = blockIdx.x;
    // A captured launch has room for more lists than there may be.
    if (list >= *(const int *)p.list_count) return;
    const int *indptr = (const int *)p.list_indptr + list;
    const int first = indptr[0];
    States states{(const int *)p.states + first, (const float *)p.partial_lse, indptr[1] - first, 0};
    if (states.count == 0) return;
    const int segment = list / p.kv_heads, kv_head = list - segment * p.kv_heads, group = p.group;
    const int start = ((const int *)p.segment_indptr)[segment], end = ((const int *)p.segment_indptr)[segment + 1];
    for (int row = start + threadIdx.x / 32; row < end; row += FI_THREADS / 32) {
        states.place = row - start;
        const int token = row / group, head = kv_head * group + row - token * group;
        if (p.output_is_aligned && FI_HEAD_DIM_VO % 4 == 0) merge_row<FI_HEAD_DIM_VO % 4 == 0 ? 4 : 1>(p, states, token, kv_head, head);
        else merge_row<1>(p, states, token, kv_head, head);
    }
}
