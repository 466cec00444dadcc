// Stores new tokens' keys and values in a cache, converting to its type.
//
// A thread has a vector's place in a token, for FI_TOKENS tokens. Tokens of few vectors lie side by side in a block.
//
// FI_SOURCE: the storage type of the new keys and values. The cache's is chosen at run time.

#include "fi_cache_params.h"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/slot.cuh"

template <int CACHE, int V>
static __device__ __forceinline__ void store(
    const fi_append_half &half, unsigned int head, long long target, const fi_packed<FI_SOURCE, V> &packed
) {
    float scale = half.scale;
    if (half.scales != 0) scale = __fmul_rn(scale, ((const float *)half.scales)[head]);
    const float factor = 1.0f / scale;
    if constexpr (CACHE == FI_SOURCE) {
        if (factor == 1.0f) {
            fi_store<CACHE, V>(half.cache, target, packed);
            return;
        }
    }
    float x[V];
    fi_unpack<FI_SOURCE, V>(packed, x);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __fmul_rn(x[i], factor);
    fi_write<CACHE, V>(half.cache, target, x);
}

template <int CACHE, int V>
static __device__ __forceinline__ void run(const fi_append_params &p) {
    const unsigned int group = blockIdx.x / p.token_blocks;
    unsigned int place = (blockIdx.x - group * p.token_blocks) * FI_THREADS + threadIdx.x, side = 0;
    if (p.sides > 1) {
        const unsigned int items = p.heads[0] * p.half[0].lanes + p.heads[1] * p.half[1].lanes;
        side = place / items;
        if (side >= p.sides) return;
        place -= side * items;
    }
    const unsigned int first = group * p.sides * FI_TOKENS + side;
    const unsigned int keys = p.heads[0] * p.half[0].lanes;
    const bool is_key = place < keys;
    const fi_append_half &half = p.half[is_key ? 0 : 1];
    const unsigned int item = is_key ? place : place - keys;
    const unsigned int head = item / half.lanes;
    if (head >= p.heads[is_key ? 0 : 1]) return;
    const unsigned int index = (item - head * half.lanes) * V;
    // A line of memory for every thread that begins one.
    if (index * fi_size(FI_SOURCE) % 128 == 0) {
#pragma unroll
        for (int t = 0; t < FI_TOKENS; t++) {
            const unsigned int token = first + t * p.sides;
            if (token >= p.tokens) break;
            const long long element = token * half.source_token + head * half.source_head + index;
            fi_prefetch(half.source + (unsigned long long)(element * fi_size(FI_SOURCE)));
        }
    }
    // Parameters are there before anything else is.
    fi_await_predecessors();
    // All tokens' elements and slots are on their way before any is waited for.
    fi_packed<FI_SOURCE, V> packed[FI_TOKENS];
    int block[FI_TOKENS], row[FI_TOKENS];
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        const unsigned int token = first + t * p.sides;
        block[t] = row[t] = -1;
        if (token < p.tokens) {
            packed[t] = fi_load<FI_SOURCE, V>(half.source, token * half.source_token + head * half.source_head + index);
            block[t] = ((const int *)p.slots)[token];
            row[t] = ((const int *)p.slots)[p.tokens + token];
        }
    }
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (!fi_is_slot(block[t], row[t], p.blocks, p.block_rows)) continue;
        store<CACHE, V>(half, head, block[t] * half.block + row[t] * half.token + head * half.head + index, packed[t]);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) append_kv(const __grid_constant__ fi_append_params p) {
    fi_admit_successors();
    fi_with_type(p.cache_type, [&](auto type) {
        constexpr int CACHE = decltype(type)::value;
        if (p.vectorised) {
            run<CACHE, fi_vector(FI_SOURCE, CACHE)>(p);
        } else {
            run<CACHE, 1>(p);
        }
    });
}
