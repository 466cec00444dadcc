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

    /// The row of a state, or of the last one past the end. The plan's, so that it may be read before other kernels have ended, but past L1.
    __device__ __forceinline__ int row(int state) const { return __ldcg(first + min(state, count - 1)) + place; }
};

/// States that are read at once.
constexpr int states_at_once = 16;

static __device__ __forceinline__ float over_lanes_max(float x) {
#pragma unroll
    for (int step = states_at_once / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}
static __device__ __forceinline__ float over_lanes_sum(float x) {
#pragma unroll
    for (int step = states_at_once / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

/// `own_row` is the row of this lane's state of the first `states_at_once`.
///
/// There are few rows, and tens of states of each: what takes long is reads that wait for each other. So a lane asks for the row of one state
/// ahead, and all lanes for their elements of many states at once; the sums are rebased where later states raise the maximum.
template <int V>
static __device__ __forceinline__ void merge_row(const fi_attention_params &p, const States &states, int own_row, int token, int kv_head, int head) {
    const int lane = threadIdx.x % 32;
    const float sink = p.sinks == 0 ? -fi_infinity() : ((const float *)p.sinks)[head] * 1.4426950408889634f;
    const float *outputs = (const float *)p.partial_output;
    const unsigned long long output =
        p.output + (unsigned long long)((token * p.output_token + head * p.output_head) * fi_size(FI_OUTPUT));
    float top, total;
#pragma unroll 1
    for (int d = lane * V; d - lane * V < FI_HEAD_DIM_VO; d += 32 * V) {
        const bool has_elements = d < FI_HEAD_DIM_VO;
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0;
        top = -fi_infinity(), total = 0;
        int row = own_row;
#pragma unroll 1
        for (int first = 0; first < states.count; first += states_at_once) {
            const float own_lse = states.lse[row];
            float x[states_at_once][V];
#pragma unroll
            for (int state = 0; state < states_at_once; ++state) {
                const int from = __shfl_sync(0xffffffff, row, state);
#pragma unroll
                for (int i = 0; i < V; i++) x[state][i] = 0;
                if (first + state < states.count && has_elements)
                    fi_read<0, V>((unsigned long long)(outputs + (long long)from * FI_HEAD_DIM_VO), d, x[state]);
            }
            row = states.row(first + states_at_once + lane % states_at_once);
            const float lse = first + lane % states_at_once < states.count ? own_lse : -fi_infinity();
            const float next = fmaxf(top, over_lanes_max(lse)), base = next == -fi_infinity() ? 0.0f : next;
            const float factor = exp2f(top - base), own_weight = exp2f(lse - base);
            top = next;
            total = total * factor + over_lanes_sum(own_weight);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] *= factor;
#pragma unroll
            for (int state = 0; state < states_at_once; ++state) {
                const float weight = __shfl_sync(0xffffffff, own_weight, state);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] = __fmaf_rn(weight, x[state][i], sum[i]);
            }
        }
        // What outputs are weighted relative to was before a sink joins the sum: a score with no value.
        const bool is_empty = top == -fi_infinity();
        float factor = 1;
        if (sink > top) {
            factor = is_empty ? 0.0f : exp2f(top - sink);
            total = total * factor + 1;
            top = sink;
        } else if (sink != -fi_infinity()) {
            total += exp2f(sink - top);
        }
        factor = is_empty ? 0.0f : factor / total * p.value_scale;
        if (p.value_scales != 0) factor *= ((const float *)p.value_scales)[kv_head];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] *= factor;
        if (has_elements) fi_write<FI_OUTPUT, V>(output, d, sum);
    }
    if (p.lse != 0 && lane == 0)
        ((float *)p.lse)[token * p.lse_token + head * p.lse_head] = top == -fi_infinity() ? top : top + log2f(total);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) merge_levels(const __grid_constant__ fi_attention_params p) {
    fi_admit_successors();
    const int list = blockIdx.x;
    const int *indptr = (const int *)p.list_indptr + list;
    // A captured launch has room for more lists than there may be. One block waits all the same: see `fi_await_predecessors`.
    States states{(const int *)p.states, (const float *)p.partial_lse, 0, 0};
    int start = 0, end = 0, own_first = 0;
    const int segment = list / p.kv_heads, kv_head = list - segment * p.kv_heads, group = p.group;
    if (list < __ldcg((const int *)p.list_count)) {
        const int first = __ldcg(indptr);
        states.first += first, states.count = __ldcg(indptr + 1) - first;
        if (states.count > 0) {
            own_first = states.row(threadIdx.x % states_at_once);
            start = __ldcg((const int *)p.segment_indptr + segment), end = __ldcg((const int *)p.segment_indptr + segment + 1);
        }
    }
    if (list > 0 && states.count == 0) return;
    fi_await_predecessors();
    if (states.count == 0) return;
    for (int row = start + threadIdx.x / 32; row < end; row += FI_THREADS / 32) {
        states.place = row - start;
        const int token = row / group, head = kv_head * group + row - token * group, own_row = own_first + states.place;
        if (p.output_is_aligned && FI_HEAD_DIM_VO % 4 == 0)
            merge_row<FI_HEAD_DIM_VO % 4 == 0 ? 4 : 1>(p, states, own_row, token, kv_head, head);
        else merge_row<1>(p, states, own_row, token, kv_head, head);
    }
}
