// Merges states of attention over disjoint keys, of aligned heads that a warp covers: a thread a vector of a head's elements.
//
// What a thread waits for is one trip to memory: parameters are read and addresses computed before the wait for the kernels ahead, and
// elements do not wait for their weights.
//
// FI_INPUT, FI_OUTPUT: storage types. FI_PAIR: whether there are two states, as there are as a rule: then a thread reads both LSEs. Of more, each
// of a head's threads reads one, and they exchange weights.

#include "fi_merge_params.h"
#include "primitives/distribution.cuh"
#include "primitives/divide.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/merge_weights.cuh"

constexpr int V = fi_vector(FI_INPUT, FI_OUTPUT);
typedef fi_packed<FI_INPUT, V> packed_vector;
/// States whose elements are on their way at once.
constexpr int held = FI_PAIR ? 2 : 16 / packed_vector::words;

static __device__ __forceinline__ float load_lse(unsigned long long address) {
    return *(const float *)__cvta_global_to_generic((size_t)address);
}

/// The weighted sum of a head's vectors so far, relative to the greatest LSE.
struct MergedVector {
    float top = -fi_infinity(), total = 0, sum[V];

    /// An empty state's output counts for nothing, whatever it holds.
    __device__ __forceinline__ void add(float weight, packed_vector x) {
        if (weight == 0) {
#pragma unroll
            for (int i = 0; i < packed_vector::words; i++) x.word[i] = 0;
        }
        float y[V];
        fi_unpack<FI_INPUT, V>(x, y);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = __fmaf_rn(weight, y[i], sum[i]);
    }
};

/// A thread's place, and the distances from state to state in bytes.
struct MergedPlace {
    unsigned long long lse, values, lse_step, values_step;
    unsigned int lane;
    /// Whether there is such a head, and whether its elements reach as far as this thread.
    bool has_head, has_elements;
};

static __device__ __forceinline__ void merge_pair(const MergedPlace &at, MergedVector &merged) {
    packed_vector x[2];
    float weight[2] = {-fi_infinity(), -fi_infinity()};
#pragma unroll
    for (int s = 0; s < 2; s++) {
        if (at.has_head) weight[s] = load_lse(at.lse + s * at.lse_step);
    }
#pragma unroll
    for (int s = 0; s < 2; s++) {
        if (at.has_elements) x[s] = fi_load_global<FI_INPUT, V>(at.values + s * at.values_step);
    }
    merged.top = fmaxf(weight[0], weight[1]);
    const bool is_empty = merged.top == -fi_infinity();
#pragma unroll
    for (int s = 0; s < 2; s++) {
        weight[s] = is_empty ? 0.0f : fi_merge_weight(weight[s] - merged.top);
        merged.total += weight[s];
    }
#pragma unroll
    for (int s = 0; s < 2; s++) merged.add(weight[s], x[s]);
}

/// As many states at a time as a head has threads, each of which has one's LSE; sums are rebased where later ones raise the greatest.
static __device__ __forceinline__ void merge_many(const fi_merge_params &p, const MergedPlace &at, MergedVector &merged) {
    const unsigned int lanes = 1u << p.lane_bits;
    unsigned long long values = at.values;
#pragma unroll 1
    for (unsigned int first = 0; first < p.states; first += lanes) {
        const unsigned int count = min(lanes, p.states - first);
        float own = -fi_infinity();
        if (at.has_head && at.lane < count) own = load_lse(at.lse + (first + at.lane) * at.lse_step);
        packed_vector x[held];
#pragma unroll
        for (int k = 0; k < held; k++) {
            if (at.has_elements && k < count) {
                x[k] = fi_load_global<FI_INPUT, V>(values);
                values += at.values_step;
            }
        }
        float top = own;
#pragma unroll 1
        for (unsigned int distance = lanes / 2; distance > 0; distance /= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, distance));
        }
        top = fmaxf(top, merged.top);
        const float base = top == -fi_infinity() ? 0.0f : top, factor = fi_merge_weight(merged.top - base);
        own = fi_merge_weight(own - base);
        float total = own;
#pragma unroll 1
        for (unsigned int distance = lanes / 2; distance > 0; distance /= 2) {
            total += __shfl_xor_sync(0xffffffffu, total, distance);
        }
        merged.top = top;
        merged.total = __fmaf_rn(merged.total, factor, total);
        if (first > 0) {
#pragma unroll
            for (int i = 0; i < V; i++) merged.sum[i] *= factor;
        }
#pragma unroll 1
        for (unsigned int next = 0; next < count; next += held) {
#pragma unroll
            for (int k = 0; k < held; k++) {
                if (next + k >= count) continue;
                const packed_vector current = x[k];
                if (at.has_elements && next + k + held < count) {
                    x[k] = fi_load_global<FI_INPUT, V>(values);
                    values += at.values_step;
                }
                merged.add(__shfl_sync(0xffffffffu, own, next + k, lanes), current);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) merge_heads(const __grid_constant__ fi_merge_params p) {
    MergedPlace at;
    at.lane = threadIdx.x & ((1u << p.lane_bits) - 1u);
    const unsigned int place = blockIdx.x * (FI_THREADS >> p.lane_bits) + (threadIdx.x >> p.lane_bits);
    const unsigned int row = divided(place, p.by_heads), head = place - row * p.heads, element = at.lane * V;
    at.has_head = place < p.rows * p.heads;
    at.has_elements = at.has_head && element < p.width;
    at.lse = p.lse + (unsigned long long)((row * p.lse_row + head * p.lse_head) * 4);
    at.lse_step = (unsigned long long)(p.lse_state * 4);
    at.values = p.values + (unsigned long long)((row * p.values_row + head * p.values_head + element) * fi_size(FI_INPUT));
    at.values_step = (unsigned long long)(p.values_state * fi_size(FI_INPUT));
    unsigned long long output =
        p.output + (unsigned long long)((row * p.output_row + head * p.output_head + element) * fi_size(FI_OUTPUT));
    unsigned long long merged_lse = p.merged;
    if (merged_lse != 0) merged_lse += (unsigned long long)((row * p.merged_row + head * p.merged_head) * 4);
    fi_settle(at.lse, at.values, output, merged_lse);
    // Of few blocks, the first two states' elements are on their way while the kernels ahead end: a line for each eighth thread.
    if (at.has_elements && at.lane % 8 == 0 && gridDim.x <= 512) {
        fi_prefetch(at.values);
        if (p.states > 1) fi_prefetch(at.values + at.values_step);
    }
    fi_await_predecessors();
    fi_admit_successors();
    MergedVector merged;
#pragma unroll
    for (int i = 0; i < V; i++) merged.sum[i] = 0;
    if constexpr (FI_PAIR) {
        merge_pair(at, merged);
    } else {
        merge_many(p, at, merged);
    }
    const bool is_empty = merged.top == -fi_infinity();
    const float scale = is_empty ? 0.0f : fi_merge_inverse(merged.total);
#pragma unroll
    for (int i = 0; i < V; i++) merged.sum[i] *= scale;
    if (at.has_elements) fi_store_global<FI_OUTPUT, V>(output, fi_pack<FI_OUTPUT, V>(merged.sum));
    // The merged LSEs may be a state's own, so they are written when every thread of the head has read those.
    __syncwarp();
    if (at.has_head && at.lane == 0 && merged_lse != 0) {
        *(float *)__cvta_global_to_generic((size_t)merged_lse) =
            is_empty ? merged.top : merged.top + fi_merge_logarithm(merged.total);
    }
}
