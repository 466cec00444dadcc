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

#if FI_HELD
/// The entries of what is left, which are held.
struct left_groups {
    static constexpr bool reads_row = false, walks_at_once = false;
    const left_over &left;
    const fi_row_part &part;
    __device__ __forceinline__ float4 operator()(unsigned int group) const { return ((const float4 *)fi_held)[group]; }
};
#else
/// The entries of what is left, made anew of the target's and of the draft's, which has groups of the same places.
struct left_groups {
    static constexpr bool reads_row = true, walks_at_once = true;
    const left_over &left;
    const fi_row_part &part;

    /// The draft's row as the target's is taken: its groups are aligned where both rows are alike.
    __device__ __forceinline__ fi_row_part drafted() const {
        fi_row_part other = part;
        other.address = (unsigned long long)left.draft - 4 * part.pad;
        return other;
    }
    /// The draft's groups beside four of a lane, of which `group` is the first.
    __device__ __forceinline__ void load_draft(unsigned int ends, unsigned int group, float4 (&other)[4]) const {
        const fi_row_part row = drafted();
        fi_load_four(row, row.address % 16 == 0 ? ends : 0, group - threadIdx.x % 32, other);
    }
    /// What one rejection leaves of a group.
    __device__ __forceinline__ float4 without(float4 x, float4 other) const {
        return make_float4(
            left.without(0, x.x, other.x, 0), left.without(0, x.y, other.y, 0), left.without(0, x.z, other.z, 0),
            left.without(0, x.w, other.w, 0));
    }
    /// What is left of a group that may have lost more than that.
    __device__ __noinline__ float4 of_any(float4 x, float4 other, unsigned int group) const {
        const unsigned int place = part.place(4 * group);
        return make_float4(
            left.of(x.x, other.x, place), left.of(x.y, other.y, place + 1), left.of(x.z, other.z, place + 2),
            left.of(x.w, other.w, place + 3));
    }
    __device__ __forceinline__ float4 of(float4 x, unsigned int group) const {
        if (left.rejected == 0 || group >= part.groups) return x;
        float4 other = make_float4(0, 0, 0, 0);
        if (left.draft) {
            const fi_row_part row = drafted();
            const bool is_whole = row.address % 16 == 0 && part.has(4 * group) && part.has(4 * group + 3);
            other = is_whole ? fi_group(fi_load_group(row.address, group)) : fi_read_edge(row.address, group, part.pad, part.count);
        }
        return of_any(x, other, group);
    }
    __device__ __forceinline__ float4 operator()(unsigned int group) const { return of(fi_read_group(part, group), group); }
};
#endif

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

#if FI_HELD
/// What is greatest of what is left; see `fi_begin_row`. Holds what is left, and sums it where it has a distribution.
static __device__ __forceinline__ unsigned int begin_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_row &row, fi_filter_shared &shared, unsigned int &turn,
    fi_row_sum *sum
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
            ((float4 *)fi_held)[group] = rest;
        }
    }
#pragma unroll 4
    for (unsigned int index = 4 * groups + threadIdx.x; index < part.count; index += FI_THREADS) {
        const float rest = take(target[index], reads_draft ? draft[index] : 0.0f, index);
        fi_held[index] = rest;
    }
    if (threadIdx.x < 4 && part.count + threadIdx.x < 4 * part.groups) fi_held[part.count + threadIdx.x] = 0.0f;
    unsigned long long top = fi_order_key(greatest);
    if (is_negative) top = FI_KEY_NEGATIVE;
    if (is_nan) top = FI_KEY_NAN;
    top = fi_block_reduce<FI_THREADS>(top, fi_top_max(), shared.slots);
    const unsigned int key = (unsigned int)shared.numbers.greatest(top, turn);
    if (fi_top_status(key, false) != FI_ROW_OK) return key;
    fi_set_scale(row, key, 1);
    *sum = sum_masses(left, row, shared, turn);
    return key;
}
#else
/// Exponents of weights from here on are looked at by a sum that does not know the greatest yet: those of 2^-77 and more.
#define FI_LEAST_LEFT 50

/// The same in one pass, of a block alone: a warp sums for the greatest exponent that it has met, and shifts its sum where it meets a greater
/// one.
static __device__ __noinline__ unsigned int begin_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_row &row, fi_filter_shared &shared, unsigned int &turn,
    fi_row_sum *sum
) {
    const fi_row_part part = fi_take_part((unsigned long long)left.target, p.width);
    row.part = part;
    row.low_bits = p.low_bits;
    const left_groups groups = {left, part};
    // One rejection of a draft, as chains have it.
    const bool is_one = left.draft && left.rejected == 1;
    const unsigned int ends = fi_run_ends(part);
    float greatest = 0;
    unsigned int signs = 0;
    const auto meet = [&](float4 x, float &most) {
        fi_raise(most, x);
        signs |= __float_as_uint(x.x) | __float_as_uint(x.y);
        signs |= __float_as_uint(x.z) | __float_as_uint(x.w);
    };
    int exponent = FI_LEAST_LEFT;
    const auto factor_of = [&](int exponent) { return __int_as_float((126 - exponent + 23 + p.low_bits + 127) << 23); };
    // From here on a weight is of a greater exponent.
    float over = __int_as_float((exponent + 1) << 23), factor = factor_of(exponent);
    unsigned long long own = 0;
    __syncthreads();
    const bool is_summed = is_one || left.rejected == 0;
    if (is_summed) {
        fi_each_four(part, [&](const float4 (&entries)[4], unsigned int group) {
            float4 x[4] = {entries[0], entries[1], entries[2], entries[3]};
            if (is_one) {
                float4 other[4];
                groups.load_draft(ends, group, other);
#pragma unroll
                for (int i = 0; i < 4; i++) x[i] = groups.without(x[i], other[i]);
            }
            float most = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) meet(x[i], most);
            fi_raise(greatest, most);
            if (__any_sync(0xffffffffu, most >= over)) {
                const unsigned int top = __reduce_max_sync(0xffffffffu, most >= over ? __float_as_uint(most) : 0u);
                const int next = (int)(top >> 23);
                own = fi_shifted(own, next - exponent);
                exponent = next;
                over = __int_as_float((exponent + 1) << 23);
                factor = factor_of(exponent);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                own += (unsigned long long)__float2ll_rn(x[i].x * factor) + (unsigned long long)__float2ll_rn(x[i].y * factor)
                    + ((unsigned long long)__float2ll_rn(x[i].z * factor) + (unsigned long long)__float2ll_rn(x[i].w * factor));
            }
        });
    } else {
        fi_each_group<1>(part, groups, [&](float4 x, unsigned int) { meet(x, greatest); });
    }
    // Zeros of both signs are zeros, so signs are looked at once more where there are any.
    unsigned int key = fi_order_key(greatest);
    if (__syncthreads_or(signs >> 31)) {
        bool is_negative = false;
        fi_each_group<1>(part, groups, [&](float4 x, unsigned int) {
            is_negative |= x.x < 0.0f || x.y < 0.0f || x.z < 0.0f || x.w < 0.0f;
        });
        if (is_negative && key != FI_KEY_NAN) key = FI_KEY_NEGATIVE;
    }
    key = __reduce_max_sync(0xffffffffu, key);
    if (threadIdx.x % 32 == 0) shared.slots[threadIdx.x / 32] = (unsigned long long)exponent << 32 | key;
    fi_sum_of_block(own, shared);
    const unsigned int lane = threadIdx.x % 32;
    const unsigned long long slot = lane < FI_WARPS ? shared.slots[lane] : 0;
    key = __reduce_max_sync(0xffffffffu, (unsigned int)slot);
    if (fi_top_status(key, false) != FI_ROW_OK) return key;
    fi_set_scale(row, key, 1);
    const int last = (int)(__float_as_uint(row.maximum) >> 23);
    if (!is_summed || last < FI_LEAST_LEFT) {
        // Of weights as small as that, few digits were summed.
        __syncthreads();
        *sum = sum_masses(left, row, shared, turn);
        return key;
    }
    // The warps' sums for the exponent of the greatest.
    const unsigned long long tile = lane < FI_WARPS ? fi_shifted(shared.tiles[lane], last - (int)(slot >> 32)) : 0;
    __syncthreads();
    if (threadIdx.x < FI_WARPS) shared.tiles[threadIdx.x] = tile;
    sum->before = 0;
    sum->total = sum->own = fi_warp_reduce(tile, fi_sum());
    __syncthreads();
    return key;
}
#endif

/// The sum of what is left; 0 where it has none.
static __device__ __forceinline__ float sum_left(
    const left_over &left, const fi_verify_drafts_params &p, fi_row &row, fi_filter_shared &shared, unsigned int &turn
) {
    fi_row_sum sum;
    if (fi_top_status(begin_left(left, p, row, shared, turn, &sum), false) != FI_ROW_OK) return 0;
    return (float)(row.weight_of_mass(sum.total) / (double)row.scale);
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
    int accepted = 0;
    if (is_chain) {
        // Each child is judged by what its own node has, so all of them at once: up to the first that falls they are emitted.
        __syncthreads();
        if (threadIdx.x == 0) shared.counters[0] = nodes;
        __syncthreads();
        const unsigned int child = 1 + threadIdx.x;
        static_assert(FI_NODES <= FI_THREADS, "a thread for each");
        if (child < nodes) {
            const int token = tokens[child];
            const bool is_token = token >= 0 && token < (int)p.width;
            const float drafted = is_token && p.draft.address != 0 ? row_of(p.draft, child - 1)[token] : 1.0f;
            const float weight = is_token ? row_of(p.target, child - 1)[token] : 0.0f;
            accepted = is_token && stands(weight, drafted, child) ? 1 : 0;
            if (accepted == 0) atomicMin(&shared.counters[0], child);
        }
        __syncthreads();
        depth = node = shared.counters[0] - 1;
        if (fi_team_rank() == 0 && child <= depth) {
            output[child - 1] = tokens[child];
            if (p.output_nodes != 0) output_nodes[child - 1] = (int)child;
        }
        if (threadIdx.x == 0) {
            left.target = row_of(p.target, node);
            left.draft = p.draft.address != 0 && node + 1 < nodes ? row_of(p.draft, node) : nullptr;
            const int token = node + 1 < nodes ? tokens[node + 1] : -1;
            left.rejected = token >= 0 && token < (int)p.width ? 1 : 0;
            left.factors[0] = 1;
            left.tokens[0] = token;
        }
        __syncthreads();
    }
    // All threads walk the tree alike; a walk that does not end, by wrong links, ends at the number of nodes.
#pragma unroll 1
    while (!is_chain) {
        __syncthreads();
        if (threadIdx.x == 0) {
            left.target = row_of(p.target, node);
            left.draft = p.draft.address != 0 ? row_of(p.draft, node) : nullptr;
            left.rejected = 0;
        }
        __syncthreads();
        float sum = 1;
        int child = depth + 1 >= nodes ? -1 : first_child[node];
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
                const int next = next_sibling[child];
                if (!left.draft) {
                    sum = __fsub_rn(sum, weight);
                } else if (next > 0 && next < (int)nodes) {
                    sum = sum_left(left, p, row, shared, turn);
                    if (!(sum > 0.0f)) break;
                }
            }
            child = next_sibling[child];
        }
        if (!is_accepted) break;
        if (writes) {
            output[depth] = tokens[child];
            if (p.output_nodes != 0) output_nodes[depth] = child;
        }
        node = (unsigned int)child;
        depth++;
    }
    fi_row_sum sum;
    unsigned int top;
#pragma unroll 1
    while (true) {
        top = begin_left(left, p, row, shared, turn, &sum);
        if (fi_top_status(top, false) != FI_ROW_EMPTY || left.rejected == 0) break;
        // Rounding may leave nothing where there should be some: then the target's own.
        __syncthreads();
        if (threadIdx.x == 0) left.rejected = 0;
        __syncthreads();
    }
    const int status = fi_top_status(top, false);
    if (status == FI_ROW_OK) {
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
    accepted = (int)fi_block_reduce<FI_THREADS>((unsigned long long)accepted, fi_sum(), shared.slots);
    if (writes) ((int *)p.accepted)[request] = is_chain ? accepted : (int)depth;
}
