// Rotary embedding of several tensors' heads, each to a tensor or to a cache, in any type: one launch for queries, keys and values.
//
// A block takes a part of the heads of FI_TOKENS tokens, tensor after tensor. Where some of them turn it computes (or looks up) each
// token's cosines and sines once, in shared memory; each thread turns one vector of pairs or moves one vector of elements of each. Heads that are normalised
// have a power of two of threads, neighbours in a warp, that may take several vectors each. Numbers stay in float32 to the store.
//
// FI_INPUT: the storage type of what is read. Those of the outputs and of the cache are chosen at run time. FI_NORMALISED: whether any heads
// are normalised, which takes registers. FI_TABLED: see rope_turn.cuh.

#include "fi_rope_parts_params.h"
#include "portable/rope_turn.cuh"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/slot.cuh"

/// A thread's head.
struct head_place {
    const fi_rope_part *part;
    unsigned int head, lane;
    /// Whether there is one.
    bool inside;
};

static __device__ __forceinline__ head_place place_of(const fi_rope_parts_params &p, unsigned int thread) {
    int which = 0;
#pragma unroll
    for (int i = 0; i < FI_ROPE_PARTS - 1; i++) {
        const unsigned int threads = p.parts[i].heads * p.parts[i].lanes;
        if (which == i && thread >= threads) {
            thread -= threads;
            which = i + 1;
        }
    }
    head_place at;
    const fi_rope_part &part = p.parts[which];
    at.part = &part;
    at.head = thread / part.lanes;
    at.lane = thread - at.head * part.lanes;
    at.inside = at.head < part.heads;
    return at;
}

/// Where an item's elements lie in its head: of one that turns its first and second ones, of one that moves the first.
template <int V>
static __device__ __forceinline__ bool elements_of(
    const fi_rope_parts_params &p, const fi_rope_part &part, unsigned int item, long long &first, long long &second
) {
    if (item < part.turn_items) {
        pair_places<V>(p.interleaved, p.rotary_dim / 2, item * V, first, second);
        return true;
    }
    first = part.move_start + (long long)(item - part.turn_items) * V;
    second = first;
    return false;
}

template <int V>
struct rope_item {
    fi_packed<FI_INPUT, V> low, high;
    long long first, second;
    bool turns;
};

template <int V>
static __device__ __forceinline__ void load(
    const fi_rope_parts_params &p, const head_place &at, unsigned int token, unsigned int index, rope_item<V> &item
) {
    const fi_heads_tensor &from = at.part->source;
    const unsigned long long source = from.address + (unsigned long long)((token * from.token + at.head * from.head) * fi_size(FI_INPUT));
    item.turns = elements_of<V>(p, *at.part, index, item.first, item.second);
    item.low = fi_load<FI_INPUT, V>(source, item.first);
    if (item.turns) item.high = fi_load<FI_INPUT, V>(source, item.second);
}

template <int V>
static __device__ __forceinline__ float squares(const fi_packed<FI_INPUT, V> &packed, float sum) {
    float x[V];
    fi_unpack<FI_INPUT, V>(packed, x);
#pragma unroll
    for (int i = 0; i < V; i++) sum = __fmaf_rn(x[i], x[i], sum);
    return sum;
}

/// What a head is multiplied by, besides its weights: all threads of the warp take part.
template <int V>
static __device__ __forceinline__ float norm_scale(
    const fi_rope_parts_params &p, const head_place &at, unsigned int token, unsigned int items, const rope_item<V> &held
) {
    float sum = 0;
    if (at.inside && at.part->weight != 0) {
        for (unsigned int index = at.lane; index < items; index += at.part->lanes) {
            rope_item<V> item = held;
            if (index != at.lane) load<V>(p, at, token, index, item);
            sum = squares<V>(item.low, sum);
            if (item.turns) sum = squares<V>(item.high, sum);
        }
    }
    for (unsigned int distance = p.norm_lanes / 2; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    }
    return 1.0f / sqrtf(sum / (float)p.norm_width + p.epsilon);
}

template <int V>
static __device__ __forceinline__ void normalise(
    const fi_rope_parts_params &p, unsigned long long weight, long long index, float scale, float (&x)[V]
) {
    fi_with_compute_type(p.weight_type, [&](auto type) {
        float w[V];
        fi_read<decltype(type)::value, V>(weight, index, w);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = x[i] * scale * (w[i] + p.weight_offset);
    });
}

/// Where a head's elements go, and as what.
struct head_target {
    unsigned long long address;
    long long start;
    float factor;
    int type;
};

/// False where the token has no slot in the cache.
static __device__ __forceinline__ bool target_of(
    const fi_rope_parts_params &p, const head_place &at, unsigned int token, head_target &target
) {
    const fi_rope_part &part = *at.part;
    target.address = part.target.address;
    target.start = at.head * part.target.head;
    target.type = part.type;
    target.factor = part.factor;
    if (part.scales != 0) target.factor = 1.0f / __fmul_rn(part.scale, ((const float *)part.scales)[at.head]);
    if (!part.is_stored) {
        target.start += token * part.target.token;
        return true;
    }
    const int *slots = (const int *)p.slots;
    const long long block = slots[token], row = slots[p.tokens + token];
    if (!fi_is_slot(block, row, p.blocks, p.block_rows)) return false;
    target.start += block * part.block + row * part.target.token;
    return true;
}

template <int V>
static __device__ __forceinline__ void store(const head_target &target, long long index, float (&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], target.factor);
    // Most outputs and caches have the input's type: one comparison, not one for each type.
    if (target.type == FI_INPUT) {
        fi_write<FI_INPUT, V>(target.address, target.start + index, x);
        return;
    }
    fi_with_type(target.type, [&](auto type) {
        fi_write<decltype(type)::value, V>(target.address, target.start + index, x);
    });
}

template <int V, bool tabled>
static __device__ __forceinline__ void finish(
    const fi_rope_parts_params &p, const head_place &at, const head_target &target, unsigned int index, int position,
    const float2 *table, float scale, const rope_item<V> &item
) {
    const unsigned long long weight = FI_NORMALISED ? at.part->weight : 0;
    if (!item.turns && weight == 0 && target.type == FI_INPUT && target.factor == 1.0f) {
        // A copy of bits.
        fi_store<FI_INPUT, V>(target.address, target.start + item.first, item.low);
        return;
    }
    float a[V], b[V];
    fi_unpack<FI_INPUT, V>(item.low, a);
    if (weight != 0) normalise<V>(p, weight, item.first, scale, a);
    if (item.turns) {
        fi_unpack<FI_INPUT, V>(item.high, b);
        if (weight != 0) normalise<V>(p, weight, item.second, scale, b);
        turn<V, tabled>(p.angles, p.interleaved, p.rotary_dim / 2, index * V, position, table, a, b);
        store<V>(target, item.second, b);
    }
    store<V>(target, item.first, a);
}

template <int V, bool tabled>
static __device__ __forceinline__ void run(
    const fi_rope_parts_params &p, float2 (&tables)[FI_TOKENS][FI_ROPE_TABLE_PAIRS]
) {
    const unsigned int group = blockIdx.x / p.token_blocks;
    const unsigned int block = blockIdx.x - group * p.token_blocks, start = group * FI_TOKENS;
    const head_place at = place_of(p, block * FI_THREADS + threadIdx.x);
    const unsigned int items = at.part->turn_items + at.part->move_items;
    const bool has_item = at.inside && at.lane < items;
    // Blocks in which nothing turns need no angles.
    const bool fills = tabled && block * FI_THREADS < p.turning_threads;
    const unsigned long long fraction = fills ? first_fraction(p.angles, p.rotary_dim / 2) : 0;
    // Parameters are there before anything else is.
    fi_await_predecessors();
    // The loads of all tokens are on their way while the angles are computed, and so are the slots: behind the barrier they would be
    // waited for once more.
    rope_item<V> item[FI_TOKENS];
    head_target target[FI_TOKENS];
    int position[FI_TOKENS];
    bool goes[FI_TOKENS];
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        item[t].turns = false;
        goes[t] = false;
        if (start + t >= p.tokens) continue;
        if (has_item) load<V>(p, at, start + t, at.lane, item[t]);
        position[t] = ((const int *)p.positions)[start + t];
    }
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (has_item && start + t < p.tokens) goes[t] = target_of(p, at, start + t, target[t]);
    }
    if constexpr (tabled) {
        if (fills) {
#pragma unroll
            for (int t = 0; t < FI_TOKENS; t++) {
                if (start + t < p.tokens) fill_table(p.angles, p.rotary_dim / 2, position[t], fraction, tables[t]);
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        float scale = 1.0f;
        if constexpr (FI_NORMALISED) scale = norm_scale<V>(p, at, start + t, items, item[t]);
        if (!goes[t]) continue;
        finish<V, tabled>(p, at, target[t], at.lane, position[t], tables[t], scale, item[t]);
        if constexpr (FI_NORMALISED) {
            // Heads wider than their threads' vectors.
            for (unsigned int index = at.lane + at.part->lanes; index < items; index += at.part->lanes) {
                load<V>(p, at, start + t, index, item[t]);
                finish<V, tabled>(p, at, target[t], index, position[t], tables[t], scale, item[t]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    rope_parts(const __grid_constant__ fi_rope_parts_params p) {
    fi_admit_successors();
    __shared__ float2 tables[FI_TOKENS][FI_ROPE_TABLE_PAIRS];
    if (p.vectorised) {
        run<fi_vector(FI_INPUT), true>(p, tables);
    } else {
        run<1, false>(p, tables);
    }
}
