// Verifies a chain or a tree of drafted tokens against the target's distributions, so that what is emitted has the target's own.
// One block a request, or a cluster, which holds what is left of a distribution: all blocks walk the tree alike, and share the sums.
//
// Without draft probabilities a child stands by its share of what the target has left: then a rejected child's token is taken out.
// With them, a rejection leaves max(left / sum - draft, 0).
//
// FI_TEAM: see primitives/row_part.cuh.

#define FI_INPUT FI_FLOAT32
#define FI_FORM 1
#define FI_SUMS_ONLY
#include "fi_sample_params.h"
#include "primitives/walk.cuh"
#include "primitives/launch.cuh"
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

    /// Whether what is left depends on the draft's numbers.
    __device__ __forceinline__ bool reads_draft() const { return draft && rejected > 0; }

    /// What is left of a number of the target's, `other` being the draft's.
    __device__ __forceinline__ float of(float x, float other, unsigned int place) const {
        if (rejected > 0) x = without(0, x, other, place);
        return rejected > 1 ? of_many(x, other, place) : x;
    }
    /// What rejection `i` leaves.
    __device__ __forceinline__ float without(unsigned int i, float x, float other, unsigned int place) const {
        if (!draft) return tokens[i] == (int)place ? 0.0f : x;
        const float less = __fsub_rn(__fmul_rn(x, factors[i]), other);
        // A NaN stays.
        return less < 0.0f ? 0.0f : less;
    }
    /// What the rejections after the first leave: rare, so one copy of it will do.
    __device__ __noinline__ float of_many(float x, float other, unsigned int place) const {
        for (unsigned int i = 1; i < rejected; i++) x = without(i, x, other, place);
        return x;
    }
    /// One copy of it, as it is for a few places, and for blocks that hold nothing.
    __device__ __noinline__ float at(unsigned int place) const {
        return of(target[place], reads_draft() ? draft[place] : 0.0f, place);
    }
};

/// The entries of what is left: held, or made anew.
struct left_groups {
    static constexpr bool reads_row = false, walks_at_once = false;
    const left_over &left;
    const fi_row_part &part;
    __device__ __forceinline__ float4 operator()(unsigned int group) const {
#if FI_HELD
        return ((const float4 *)fi_held)[group];
#else
        float x[4];
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = 4 * group + i < part.count ? left.at(4 * group + i) : 0.0f;
        return make_float4(x[0], x[1], x[2], x[3]);
#endif
    }
};

/// What is greatest of what is left; see `fi_begin_row`. Holds what is left, in a cluster, and sets up the row to be summed.
static __device__ __forceinline__ unsigned int begin_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_row &row, fi_filter_shared &shared, unsigned int &turn
) {
    const fi_team_part own = fi_part_of_row(p.width);
    fi_row_part &part = row.part;
    part.first = own.first;
    part.count = own.count;
    part.pad = 0;
    part.spread();
    row.low_bits = p.low_bits;
    const float *const target = left.target + part.first, *const draft = left.draft + part.first;
    const bool reads_draft = left.reads_draft();
    float greatest = 0;
    bool is_nan = false, is_negative = false;
    __syncthreads();
    const auto take = [&](float x, float other, unsigned int index) {
        const float rest = left.of(x, other, part.first + index);
        is_nan |= rest != rest;
        is_negative |= rest < 0;
        greatest = fmaxf(greatest, rest);
        return rest;
    };
    // Loads first, as many as hide a trip to memory; in groups of four where both rows allow it.
    constexpr unsigned int steps = 2;
    const bool is_aligned = (((unsigned long long)target | (reads_draft ? (unsigned long long)draft : 0)) & 15u) == 0;
    const unsigned int groups = is_aligned ? part.count / 4 : 0;
#pragma unroll 1
    for (unsigned int start = threadIdx.x; start < groups; start += FI_THREADS * steps) {
        float4 x[steps], other[steps];
#pragma unroll
        for (unsigned int i = 0; i < steps; i++) {
            const unsigned int group = start + i * FI_THREADS;
            if (group < groups) x[i] = ((const float4 *)target)[group];
            if (reads_draft && group < groups) other[i] = ((const float4 *)draft)[group];
        }
#pragma unroll
        for (unsigned int i = 0; i < steps; i++) {
            const unsigned int group = start + i * FI_THREADS;
            if (group >= groups) break;
            const float4 o = reads_draft ? other[i] : make_float4(0, 0, 0, 0);
            const float4 rest = make_float4(
                take(x[i].x, o.x, 4 * group), take(x[i].y, o.y, 4 * group + 1), take(x[i].z, o.z, 4 * group + 2),
                take(x[i].w, o.w, 4 * group + 3));
#if FI_HELD
            ((float4 *)fi_held)[group] = rest;
#endif
        }
    }
#pragma unroll 4
    for (unsigned int index = 4 * groups + threadIdx.x; index < part.count; index += FI_THREADS) {
        const float rest = take(target[index], reads_draft ? draft[index] : 0.0f, index);
#if FI_HELD
        fi_held[index] = rest;
#endif
    }
#if FI_HELD
    if (threadIdx.x < 4 && part.count + threadIdx.x < 4 * part.groups) fi_held[part.count + threadIdx.x] = 0.0f;
#endif
    unsigned long long top = fi_order_key(greatest);
    if (is_negative) top = FI_KEY_NEGATIVE;
    if (is_nan) top = FI_KEY_NAN;
    top = fi_block_reduce<FI_THREADS>(top, fi_top_max(), shared.slots);
    const unsigned int key = (unsigned int)shared.numbers.greatest(top, turn);
    if (fi_top_status(key, false) == FI_ROW_OK) fi_set_scale(row, key, 1);
    return key;
}

/// The sum of what is left as masses, by blocks and warps.
static __device__ __forceinline__ fi_row_sum sum_masses(
    const left_over &left, const fi_row &row, fi_filter_shared &shared, unsigned int &turn
) {
    fi_masses sum;
    const float unit = row.low_unit();
    fi_each_group<4>(
        row.part, left_groups{left, row.part},
        [&](float4 x, unsigned int) {
            sum.add(make_float4(row.weight(x.x), row.weight(x.y), row.weight(x.z), row.weight(x.w)), unit);
        },
        [&] { sum.flush(row.low_bits); });
    return fi_sum_of_row(sum.total, shared, turn);
}

/// The sum of what is left; 0 where it has none.
static __device__ __forceinline__ float sum_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_row &row, fi_filter_shared &shared, unsigned int &turn
) {
    if (fi_top_status(begin_left(left, p, row, shared, turn), false) != FI_ROW_OK) return 0;
    return (float)(row.weight_of_mass(sum_masses(left, row, shared, turn).total) / (double)row.scale);
}

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    verify_drafts(const __grid_constant__ fi_verify_drafts_params p) {
    fi_follow_predecessors();
    __shared__ fi_filter_shared shared;
    __shared__ left_over left;
    fi_row row;
    fi_team_start();
    fi_team_started();
    const unsigned int request = fi_team_row(), nodes = p.nodes;
    const bool writes = threadIdx.x == 0 && fi_team_rank() == 0;
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
                    sum = sum_left(left, p, row, shared, turn);
                    if (!(sum > 0.0f)) break;
                }
            }
            child = is_chain ? -1 : next_sibling[child];
        }
        if (!is_accepted) break;
        if (writes) {
            output[depth] = tokens[child];
            if (p.output_nodes != 0) output_nodes[depth] = child;
        }
        node = (unsigned int)child;
        depth++;
    }
    unsigned int top = begin_left(left, p, row, shared, turn);
    // Rounding may leave nothing where there should be some: then the target's own.
    if (fi_top_status(top, false) == FI_ROW_EMPTY && left.rejected > 0) {
        __syncthreads();
        if (threadIdx.x == 0) left.rejected = 0;
        __syncthreads();
        top = begin_left(left, p, row, shared, turn);
    }
    const int status = fi_top_status(top, false);
    if (status == FI_ROW_OK) {
        const fi_row_sum sum = sum_masses(left, row, shared, turn);
        fi_walk(
            row.part, left_groups{left, row.part}, sum, fi_share(fi_uniform(draw.seed, draw.step, 0), sum.total), shared,
            [&](float x, unsigned int) { return fi_mass(row, row.weight(x)); },
            [&](int token) { output[depth] = token; });
    } else if (writes) {
        output[depth] = -1;
    }
    if (fi_team_rank() != 0) return;
    for (unsigned int i = depth + threadIdx.x; i < nodes; i += FI_THREADS) {
        if (i > depth) output[i] = -1;
        if (p.output_nodes != 0) output_nodes[i] = -1;
    }
    if (writes) {
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
    if (writes) ((int *)p.accepted)[request] = is_chain ? accepted : (int)depth;
}
