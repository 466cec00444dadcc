// Rotary embedding of several tensors' heads, each to a tensor or to a cache, in any type: one launch for queries, keys and values.
//
// A block takes some heads of one tensor, of FI_TOKENS tokens: what it needs to know of the tensor is the same for all of its threads. Where
// heads turn it computes (or looks up) each token's cosines and sines once, in shared memory; each thread turns one vector of pairs or moves
// one vector of elements of each. Heads that are normalised have a power of two of threads, neighbours in a warp, that may take several
// vectors each. Numbers stay in float32 to the store.
//
// FI_INPUT: the storage type of what is read. Those of the outputs and of the cache are chosen at run time. FI_NORMALISED: whether any heads
// are normalised, which takes registers. FI_TABLED: see rope_turn.cuh.

#if FI_NORMALISED
// It takes registers from the others, and gives these some.
#define FI_GLOBAL_ONLY
#endif

#include "fi_rope_parts_params.h"
#include "portable/rope_scale.cuh"
#include "portable/rope_turn.cuh"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/slot.cuh"

/// A thread's head.
struct head_place {
    const fi_rope_part *part;
    unsigned int head, lane;
    /// Of FI_TOKENS, the first, and how many there are.
    unsigned int start, tokens;
};

/// Where an item's elements lie in its head: the first ones, and how far from them the second ones of those that turn.
struct item_place {
    unsigned int first, apart;
    bool turns;
};

template <int V>
static __device__ __forceinline__ item_place item_at(const fi_rope_parts_params &p, const fi_rope_part &part, unsigned int item) {
    item_place at;
    at.turns = item < part.turn_items;
    at.first = at.turns ? item * V << (p.interleaved ? 1 : 0) : part.move_start + (item - part.turn_items) * V;
    at.apart = p.interleaved ? V : p.rotary_dim / 2;
    return at;
}

template <int V>
struct rope_item {
    fi_packed<FI_INPUT, V> low, high;
};

/// The address of an element of the first token's head.
static __device__ __forceinline__ unsigned long long source_of(const head_place &at, unsigned int element) {
    const fi_heads_tensor &from = at.part->source;
    return from.address + (unsigned long long)((at.start * from.token + at.head * from.head + element) * fi_size(FI_INPUT));
}

template <int V>
static __device__ __forceinline__ void load(unsigned long long source, const item_place &place, rope_item<V> &item) {
    item.low = fi_load<FI_INPUT, V>(source, 0);
    if (place.turns) item.high = fi_load<FI_INPUT, V>(source, place.apart);
}

template <int V>
static __device__ __forceinline__ float squares(const fi_packed<FI_INPUT, V> &packed, float sum) {
    float x[V];
    fi_unpack<FI_INPUT, V>(packed, x);
#pragma unroll
    for (int i = 0; i < V; i++) sum = __fmaf_rn(x[i], x[i], sum);
    return sum;
}

template <int V>
static __device__ __forceinline__ void weights(const fi_rope_parts_params &p, unsigned long long weight, unsigned int index, float (&w)[V]) {
    if (p.weight_type == FI_INPUT) {
        fi_read<FI_INPUT, V>(weight, index, w);
    } else {
        fi_with_compute_type(p.weight_type, [&](auto type) { fi_read<decltype(type)::value, V>(weight, index, w); });
    }
#pragma unroll
    for (int i = 0; i < V; i++) w[i] += p.weight_offset;
}

/// Where the heads go that a thread has, and as what.
struct head_target {
    unsigned long long address;
    /// Elements from there to the head of each token.
    long long start[FI_TOKENS];
    bool exists[FI_TOKENS];
    float factor;
    int type;
};

/// A token's slot in the cache.
struct token_slot {
    int block, row;
};

static __device__ __forceinline__ void place_target(
    const fi_rope_parts_params &p, const head_place &at, const token_slot (&slots)[FI_TOKENS], head_target &target
) {
    const fi_rope_part &part = *at.part;
    target.address = part.target.address;
    target.type = part.type;
    target.factor = part.factor;
    if (part.scales != 0) target.factor = 1.0f / __fmul_rn(part.scale, ((const float *)part.scales)[at.head]);
    const long long start = at.head * part.target.head;
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        target.exists[t] = t == 0 || t < at.tokens;
        if (!part.is_stored) {
            target.start[t] = start + (at.start + t) * part.target.token;
        } else {
            target.exists[t] = target.exists[t] && fi_is_slot(slots[t].block, slots[t].row, p.blocks, p.block_rows);
            target.start[t] =
                start + (unsigned int)slots[t].block * part.block + (unsigned int)slots[t].row * part.target.token;
        }
    }
}

template <int V>
static __device__ __forceinline__ void store(const head_target &target, long long index, float (&x)[V]) {
    // Most outputs and caches have the input's type: one comparison, not one for each type.
    if (target.type == FI_INPUT) {
        if (target.factor != 1.0f) {
#pragma unroll
            for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], target.factor);
        }
        fi_write<FI_INPUT, V>(target.address, index, x);
        return;
    }
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], target.factor);
    fi_with_type(target.type, [&](auto type) { fi_write<decltype(type)::value, V>(target.address, index, x); });
}

/// Items of a part in which nothing turns and nothing is normalised.
template <int V>
static __device__ __forceinline__ void move(
    const fi_rope_parts_params &p, const head_target &target, const item_place &place, const rope_item<V> (&item)[FI_TOKENS]
) {
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (!target.exists[t]) continue;
        const long long index = target.start[t] + place.first;
        if (target.type == FI_INPUT && target.factor == 1.0f) {
            // A copy of bits.
            fi_store<FI_INPUT, V>(target.address, index, item[t].low);
        } else {
            float a[V];
            fi_unpack<FI_INPUT, V>(item[t].low, a);
            store<V>(target, index, a);
        }
    }
}

/// A vector of weights for the first elements of an item, and for the second ones.
template <int V>
struct item_weights {
    float low[V], high[V];
};

template <int V>
static __device__ __forceinline__ void load_weights(
    const fi_rope_parts_params &p, const fi_rope_part &part, const item_place &place, item_weights<V> &by
) {
    if (part.weight == 0) return;
    weights<V>(p, part.weight, place.first, by.low);
    if (place.turns) weights<V>(p, part.weight, place.first + place.apart, by.high);
}

template <int V, bool tabled>
static __device__ __forceinline__ void finish(
    const fi_rope_parts_params &p, const head_place &at, const head_target &target, int t, unsigned int index, const item_place &place,
    int position, const float2 *table, float scale, item_weights<V> &by, const rope_item<V> &item
) {
    const bool normalises = FI_NORMALISED && at.part->weight != 0;
    // Two tokens' vectors leave no registers for weights that are held.
    const bool loads = FI_TOKENS > 1;
    float a[V], b[V];
    fi_unpack<FI_INPUT, V>(item.low, a);
    if (normalises) {
        if (loads) weights<V>(p, at.part->weight, place.first, by.low);
#pragma unroll
        for (int i = 0; i < V; i++) a[i] = a[i] * scale * by.low[i];
    }
    if (place.turns) {
        fi_unpack<FI_INPUT, V>(item.high, b);
        if (normalises) {
            if (loads) weights<V>(p, at.part->weight, place.first + place.apart, by.high);
#pragma unroll
            for (int i = 0; i < V; i++) b[i] = b[i] * scale * by.high[i];
        }
        turn<V, tabled>(p.angles, p.interleaved, p.rotary_dim / 2, index * V, position, table, a, b);
        store<V>(target, target.start[t] + place.first + place.apart, b);
    }
    store<V>(target, target.start[t] + place.first, a);
}

template <int V, bool tabled>
static __device__ __forceinline__ void run(
    const fi_rope_parts_params &p, float2 (&tables)[FI_TOKENS][FI_ROPE_TABLE_PAIRS]
) {
    const unsigned int group = divided(blockIdx.x, p.by_token_blocks), block = blockIdx.x - group * p.token_blocks;
    unsigned int which = 0;
#pragma unroll
    for (int i = 1; i < FI_ROPE_PARTS; i++) which = block >= p.parts[i].first_block ? i : which;
    const fi_rope_part &part = p.parts[which];
    const unsigned int thread = (block - part.first_block) * FI_THREADS + threadIdx.x;
    head_place at;
    at.part = &part;
    at.head = divided(thread, part.by_lanes);
    at.lane = thread - at.head * part.lanes;
    at.start = group * FI_TOKENS;
    at.tokens = p.tokens - at.start;
    const unsigned int items = part.turn_items + part.move_items;
    const bool has_item = at.head < part.heads && (!FI_NORMALISED || at.lane < items);
    // Blocks in which nothing turns need no angles.
    const bool turns = part.turn_items != 0;
    const unsigned long long fraction = tabled && turns ? first_fraction(p.angles, p.rotary_dim / 2) : 0;
    const item_place place = item_at<V>(p, part, at.lane);
    const unsigned long long source = source_of(at, place.first);
    const unsigned long long step = (unsigned long long)(part.source.token * fi_size(FI_INPUT));
    // Parameters are there before anything else is.
    fi_await_predecessors();
    // The loads of all tokens are on their way while the angles are computed, and so are the slots: behind the barrier they would be
    // waited for once more.
    rope_item<V> item[FI_TOKENS];
    token_slot slots[FI_TOKENS];
    int position[FI_TOKENS];
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (t > 0 && t >= at.tokens) continue;
        if (turns) position[t] = ((const int *)p.positions)[at.start + t];
        if (has_item) load<V>(source + t * step, place, item[t]);
        if (part.is_stored) {
            slots[t].block = ((const int *)p.slots)[at.start + t];
            slots[t].row = ((const int *)p.slots)[p.tokens + at.start + t];
        }
    }
    if constexpr (tabled) {
        if (turns) {
#pragma unroll
            for (int t = 0; t < FI_TOKENS; t++) {
                if (t == 0 || t < at.tokens) fill_table<V>(p.angles, p.rotary_dim / 2, position[t], fraction, tables[t]);
            }
            __syncthreads();
        }
    }
    if (!turns && (!FI_NORMALISED || part.weight == 0)) {
        if (!has_item) return;
        head_target target;
        place_target(p, at, slots, target);
        return move<V>(p, target, place, item);
    }
    float scale[FI_TOKENS];
    item_weights<V> by;
    if constexpr (FI_NORMALISED) {
        float sum[FI_TOKENS];
#pragma unroll
        for (int t = 0; t < FI_TOKENS; t++) {
            sum[t] = 0;
            if (!has_item || (t > 0 && t >= at.tokens)) continue;
            sum[t] = squares<V>(item[t].low, sum[t]);
            if (place.turns) sum[t] = squares<V>(item[t].high, sum[t]);
            // Heads wider than their threads' vectors.
            for (unsigned int index = at.lane + part.lanes; index < items; index += part.lanes) {
                const item_place next = item_at<V>(p, part, index);
                rope_item<V> other;
                load<V>(source_of(at, next.first) + t * step, next, other);
                sum[t] = squares<V>(other.low, sum[t]);
                if (next.turns) sum[t] = squares<V>(other.high, sum[t]);
            }
        }
        // Of one token, weights come while sums are exchanged.
        if (FI_TOKENS == 1 && has_item) load_weights<V>(p, part, place, by);
        norm_scales(p, sum, scale);
    }
    if (!has_item) return;
    head_target target;
    place_target(p, at, slots, target);
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (target.exists[t]) {
            finish<V, tabled>(
                p, at, target, t, at.lane, place, position[t], tables[t], FI_NORMALISED ? scale[t] : 1.0f, by, item[t]);
        }
    }
    if constexpr (FI_NORMALISED) {
        for (unsigned int index = at.lane + part.lanes; index < items; index += part.lanes) {
            const item_place next = item_at<V>(p, part, index);
            if (FI_TOKENS == 1) load_weights<V>(p, part, next, by);
#pragma unroll
            for (int t = 0; t < FI_TOKENS; t++) {
                if (!target.exists[t]) continue;
                load<V>(source_of(at, next.first) + t * step, next, item[t]);
                finish<V, tabled>(p, at, target, t, index, next, position[t], tables[t], scale[t], by, item[t]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    rope_parts(const __grid_constant__ fi_rope_parts_params p) {
    fi_admit_successors();
    __shared__ __align__(16) float2 tables[FI_TOKENS][FI_ROPE_TABLE_PAIRS];
    if (p.vectorised) {
        run<fi_vector(FI_INPUT), true>(p, tables);
    } else {
        run<1, false>(p, tables);
    }
}
