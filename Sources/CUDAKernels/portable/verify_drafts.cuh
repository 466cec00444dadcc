// Verifies a chain or a tree of drafted tokens against the target's distributions, so that what is emitted has the target's own.
// One block a request.
//
// Without draft probabilities a child stands by its share of what the target has left: then a rejected child's token is taken out.
// With them, a rejection leaves max(left / sum - draft, 0).

#define FI_INPUT FI_FLOAT32
#define FI_FORM 1
#include "fi_sample_params.h"
#include "primitives/filter.cuh"
#include "primitives/philox.cuh"

/// Nodes of a request, at most.
#define FI_NODES 256

/// What rejections have left of a node's target distribution.
struct left_over {
    const float *target, *draft;
    unsigned int rejected;
    /// With draft probabilities: one over the sum before each rejection. Without: the rejected tokens.
    float factors[FI_NODES];
    int tokens[FI_NODES];

    __device__ __forceinline__ float at(unsigned int place) const {
        float x = target[place];
        if (rejected == 0) return x;
        if (draft) {
            const float other = draft[place];
            for (unsigned int i = 0; i < rejected; i++) {
                const float less = __fsub_rn(__fmul_rn(x, factors[i]), other);
                // A NaN stays.
                x = less < 0.0f ? 0.0f : less;
            }
        } else {
            for (unsigned int i = 0; i < rejected; i++) x = tokens[i] == (int)place ? 0.0f : x;
        }
        return x;
    }
};

/// What is greatest of what is left; see `fi_begin_row`. Sets up the row to be summed.
static __device__ __forceinline__ unsigned long long begin_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_filter_shared &shared, unsigned int &turn
) {
    float greatest = 0;
    bool is_nan = false, is_negative = false;
    __syncthreads();
    for (unsigned int place = threadIdx.x; place < p.width; place += FI_THREADS) {
        const float x = left.at(place);
        is_nan |= x != x;
        is_negative |= x < 0;
        greatest = fmaxf(greatest, x);
    }
    unsigned long long top = (unsigned long long)fi_order_key(greatest) << 32;
    if (is_negative) top = FI_TOP_NEGATIVE;
    if (is_nan) top = FI_TOP_NAN;
    if (threadIdx.x == 0) {
        fi_filtered_row &row = shared.row;
        row.address = (unsigned long long)left.target;
        row.held = nullptr;
        row.first = 0;
        row.count = p.width;
        row.width = p.width;
        row.low_bits = p.low_bits;
    }
    top = fi_block_reduce<FI_THREADS>(top, fi_top_max(), shared.slots);
    top = shared.numbers.greatest(top, turn);
    if (fi_top_status(top, false) == FI_ROW_OK) fi_set_scale(top, 1, shared);
    return top;
}

/// The sum of what is left; 0 where it has none.
static __device__ __forceinline__ float sum_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_filter_shared &shared, unsigned int &turn
) {
    if (fi_top_status(begin_left(left, p, shared, turn), false) != FI_ROW_OK) return 0;
    const fi_filtered_row &row = shared.row;
    unsigned long long sum = 0;
    for (unsigned int place = threadIdx.x; place < p.width; place += FI_THREADS) {
        sum += row.mass(row.weight(left.at(place)));
    }
    sum = fi_block_reduce<FI_THREADS>(sum, fi_sum(), shared.slots);
    return (float)(row.weight_of_mass(sum) / (double)row.scale);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    verify_drafts(const __grid_constant__ fi_verify_drafts_params p) {
    __shared__ fi_filter_shared shared;
    __shared__ left_over left;
    const unsigned int request = blockIdx.x, nodes = p.nodes;
    const bool is_chain = p.first_child == 0;
    const fi_draw &draw = ((const fi_draw *)p.draws)[request];
    const int *tokens = (const int *)p.tokens + (long long)request * (is_chain ? nodes - 1 : nodes) - (is_chain ? 1 : 0);
    const int *first_child = (const int *)p.first_child + (long long)request * nodes;
    const int *next_sibling = (const int *)p.next_sibling + (long long)request * nodes;
    int *output = (int *)p.output + (long long)request * nodes;
    int *output_nodes = (int *)p.output_nodes + (long long)request * nodes;
    const auto row_of = [&](const fi_row_tensor &tensor, unsigned int node) {
        return (const float *)tensor.address + (long long)request * tensor.outer + (long long)node * tensor.inner;
    };
    const auto stands = [&](float weight, float drafted, unsigned int child) {
        return weight > 0.0f && fi_uniform(draw.seed, draw.step, child) * (double)drafted <= (double)weight;
    };
    unsigned int turn = 0, node = 0, depth = 0;
    // All threads walk the tree alike; a walk that does not end, by wrong links, ends at the number of nodes.
#pragma unroll 1
    while (true) {
        __syncthreads();
        if (threadIdx.x == 0) {
            left.target = row_of(p.target, node);
            left.draft = p.draft.address != 0 ? row_of(p.draft, node) : nullptr;
            left.rejected = 0;
        }
        __syncthreads();
        float sum = 1;
        int child = depth + 1 >= nodes ? -1 : is_chain ? (int)node + 1 : first_child[node];
        bool is_accepted = false;
        unsigned int visited = 0;
#pragma unroll 1
        while (child > 0 && child < (int)nodes && visited++ < nodes) {
            const int token = tokens[child];
            if (token >= 0 && token < (int)p.width) {
                const float weight = left.at((unsigned int)token);
                const float drafted = left.draft ? left.draft[token] : 1.0f;
                if (stands(weight, __fmul_rn(drafted, sum), (unsigned int)child)) {
                    is_accepted = true;
                    break;
                }
                __syncthreads();
                if (threadIdx.x == 0) {
                    left.factors[left.rejected] = __fdiv_rn(1.0f, sum);
                    left.tokens[left.rejected] = token;
                    left.rejected++;
                }
                __syncthreads();
                const int next = is_chain ? -1 : next_sibling[child];
                if (!left.draft) {
                    sum = __fsub_rn(sum, weight);
                } else if (next > 0 && next < (int)nodes) {
                    sum = sum_left(left, p, shared, turn);
                    if (!(sum > 0.0f)) break;
                }
            }
            child = is_chain ? -1 : next_sibling[child];
        }
        if (!is_accepted) break;
        if (threadIdx.x == 0) {
            output[depth] = tokens[child];
            if (p.output_nodes != 0) output_nodes[depth] = child;
        }
        node = (unsigned int)child;
        depth++;
    }
    unsigned long long top = begin_left(left, p, shared, turn);
    // Rounding may leave nothing where there should be some: then the target's own.
    if (fi_top_status(top, false) == FI_ROW_EMPTY && left.rejected > 0) {
        __syncthreads();
        if (threadIdx.x == 0) left.rejected = 0;
        __syncthreads();
        top = begin_left(left, p, shared, turn);
    }
    const int status = fi_top_status(top, false);
    int token = -1;
    if (status == FI_ROW_OK) {
        const fi_filtered_row &row = shared.row;
        token = fi_first_reaching(
            shared, turn, [&](float, unsigned int place) { return row.mass(row.weight(left.at(place))); },
            [&](unsigned long long total) { return fi_share(fi_uniform(draw.seed, draw.step, 0), total); });
    }
    for (unsigned int i = depth + threadIdx.x; i < nodes; i += FI_THREADS) {
        output[i] = i == depth ? token : -1;
        if (p.output_nodes != 0) output_nodes[i] = -1;
    }
    if (threadIdx.x == 0) {
        ((int *)p.emitted)[request] = (int)depth;
        ((unsigned char *)p.status)[request] = (unsigned char)status;
    }
    if (p.accepted == 0) return;
    // A chain's tokens that would each stand alone.
    int accepted = 0;
    for (unsigned int child = 1 + threadIdx.x; is_chain && child < nodes; child += FI_THREADS) {
        const int other = tokens[child];
        if (other < 0 || other >= (int)p.width) continue;
        const float drafted = p.draft.address != 0 ? row_of(p.draft, child - 1)[other] : 1.0f;
        accepted += stands(row_of(p.target, child - 1)[other], drafted, child);
    }
    accepted = (int)fi_block_reduce<FI_THREADS>((unsigned long long)accepted, fi_sum(), shared.slots);
    if (threadIdx.x == 0) ((int *)p.accepted)[request] = is_chain ? accepted : (int)depth;
}
