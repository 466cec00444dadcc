// Rotary embedding of queries and keys, and the keys and values stored in a cache: one launch.
//
// A block takes a part of one token's heads: queries, then keys, then values. Where it has queries or keys it computes the token's
// cosines and sines once, in shared memory; each thread turns one vector of pairs or moves one vector of elements. Numbers stay in
// float32 from the turn to the store.
//
// FI_INPUT: the storage type of queries, keys and values. Those of the turned queries and of the cache are chosen at run time.

#include "fi_rope_append_params.h"
#include "portable/rope_turn.cuh"
#include "primitives/dispatch.cuh"

/// One thread's part of a token.
struct append_item {
    unsigned long long input;
    unsigned int head, lane;
    /// Those of a query, of a key, of a value, or of nothing.
    enum { query, key, value, none } kind;
};

static __device__ __forceinline__ append_item item_of(const fi_rope_append_params &p, unsigned int token, unsigned int part) {
    const unsigned int query_lanes = p.turn_lanes + p.query_copy_lanes, key_lanes = p.turn_lanes + p.key_copy_lanes;
    unsigned int place = part * FI_THREADS + threadIdx.x;
    append_item item;
    unsigned int lanes = 1;
    fi_heads_tensor from = p.queries;
    if (place < p.query_heads * query_lanes) {
        item.kind = append_item::query;
        lanes = query_lanes;
    } else if ((place -= p.query_heads * query_lanes) < p.kv_heads * key_lanes) {
        item.kind = append_item::key;
        lanes = key_lanes;
        from = p.keys;
    } else if ((place -= p.kv_heads * key_lanes) < p.kv_heads * p.value_lanes) {
        item.kind = append_item::value;
        lanes = p.value_lanes;
        from = p.values;
    } else {
        item.kind = append_item::none;
    }
    item.head = place / lanes;
    item.lane = place - item.head * lanes;
    item.input = from.address + (unsigned long long)((token * from.token + item.head * from.head) * fi_size(FI_INPUT));
    return item;
}

/// Where a thread's elements go, and as what.
struct append_target {
    unsigned long long address;
    long long start;
    float factor;
    int type;
};

/// False where the token has no slot in the cache.
static __device__ __forceinline__ bool target_of(
    const fi_rope_append_params &p, const append_item &item, unsigned int token, append_target &target
) {
    if (item.kind == append_item::query) {
        target.address = p.query_output.address;
        target.start = token * p.query_output.token + item.head * p.query_output.head;
        target.factor = p.query_factor;
        target.type = p.query_type;
        return true;
    }
    const int *slots = (const int *)p.slots;
    const long long block = slots[token], row = slots[p.tokens + token];
    // Slots in device memory are nobody's to check but ours: what is outside of the cache is not stored.
    if (block < 0 || row < 0) return false;
    if (p.block_rows > 0 ? block >= p.blocks || row >= p.block_rows : block + row >= p.blocks) return false;
    const fi_cache_target &cache = item.kind == append_item::key ? p.key_cache : p.value_cache;
    float scale = cache.scale;
    if (cache.scales != 0) scale = __fmul_rn(scale, ((const float *)cache.scales)[item.head]);
    target.address = cache.address;
    target.start = block * cache.block + row * cache.token + item.head * cache.head;
    target.factor = 1.0f / scale;
    target.type = p.cache_type;
    return true;
}

template <int V>
static __device__ __forceinline__ void store(const append_target &target, long long index, float (&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], target.factor);
    fi_with_type(target.type, [&](auto type) {
        fi_write<decltype(type)::value, V>(target.address, target.start + index, x);
    });
}

template <int V, bool tabled>
static __device__ __forceinline__ void run(const fi_rope_append_params &p, float2 *table) {
    const unsigned int token = blockIdx.x / p.token_blocks;
    const unsigned int part = blockIdx.x - token * p.token_blocks;
    const append_item item = item_of(p, token, part);
    const bool turns = item.kind != append_item::value && item.lane < p.turn_lanes;
    const unsigned int half = p.rotary_dim / 2;
    const unsigned int pair = item.lane * V;
    long long first, second;
    if (turns) {
        pair_places<V>(p.interleaved, half, pair, first, second);
    } else {
        first = (long long)item.lane * V;
        if (item.kind != append_item::value) first += p.rotary_dim - (long long)p.turn_lanes * V;
        second = first;
    }
    // The loads are on their way while the angles are computed.
    fi_packed<FI_INPUT, V> low, high;
    if (item.kind != append_item::none) {
        low = fi_load<FI_INPUT, V>(item.input, first);
        if (turns) high = fi_load<FI_INPUT, V>(item.input, second);
    }
    const int position = ((const int *)p.positions)[token];
    if constexpr (tabled) {
        // Blocks of values alone need none.
        const unsigned int turned =
            p.query_heads * (p.turn_lanes + p.query_copy_lanes) + p.kv_heads * (p.turn_lanes + p.key_copy_lanes);
        if (part * FI_THREADS < turned) {
            for (unsigned int i = threadIdx.x; i < half; i += FI_THREADS) table[i] = cosine_sine(p.turns, i, position);
            __syncthreads();
        }
    }
    append_target target;
    if (item.kind == append_item::none || !target_of(p, item, token, target)) return;
    if (!turns && target.type == FI_INPUT && target.factor == 1.0f) {
        // A copy of bits.
        fi_store<FI_INPUT, V>(target.address, target.start + first, low);
        return;
    }
    float a[V], b[V];
    fi_unpack<FI_INPUT, V>(low, a);
    if (turns) {
        fi_unpack<FI_INPUT, V>(high, b);
        turn<V, tabled>(p.turns, p.interleaved, pair, position, table, a, b);
        store<V>(target, second, b);
    }
    store<V>(target, first, a);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    rope_append(const __grid_constant__ fi_rope_append_params p) {
    __shared__ float2 table[FI_ROPE_TABLE_PAIRS];
    if (p.vectorised) {
        run<fi_vector(FI_INPUT), true>(p, table);
    } else {
        run<1, false>(p, table);
    }
}
