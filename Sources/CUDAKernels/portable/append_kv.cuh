// Stores new tokens' keys and values in a cache, converting to its type.
//
// FI_SOURCE: the storage type of the new keys and values. The cache's is chosen at run time.

#include "fi_cache_params.h"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"

template <int CACHE, int V>
static __device__ __forceinline__ void run(const fi_append_params &p) {
    const unsigned int token = blockIdx.x / p.token_blocks;
    const unsigned int part = blockIdx.x - token * p.token_blocks;
    const unsigned int place = part * FI_THREADS + threadIdx.x;
    const unsigned int keys = p.heads[0] * p.half[0].lanes;
    const bool is_key = place < keys;
    const fi_append_half &half = p.half[is_key ? 0 : 1];
    const unsigned int item = is_key ? place : place - keys;
    const unsigned int head = item / half.lanes;
    if (head >= p.heads[is_key ? 0 : 1]) return;
    const unsigned int index = (item - head * half.lanes) * V;

    const int *slots = (const int *)p.slots;
    const long long block = slots[token], row = slots[p.tokens + token];
    // Slots in device memory are nobody's to check but ours: what is outside of the cache is not stored.
    if (block < 0 || row < 0) return;
    if (p.block_rows > 0 ? block >= p.blocks || row >= p.block_rows : block + row >= p.blocks) return;

    const fi_packed<FI_SOURCE, V> packed =
        fi_load<FI_SOURCE, V>(half.source, token * half.source_token + head * half.source_head + index);
    const long long target = block * half.block + row * half.token + head * half.head + index;
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

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) append_kv(const __grid_constant__ fi_append_params p) {
    fi_follow_predecessors();
    fi_with_type(p.cache_type, [&](auto type) {
        constexpr int CACHE = decltype(type)::value;
        if (p.vectorised) {
            run<CACHE, fi_vector(FI_SOURCE, CACHE)>(p);
        } else {
            run<CACHE, 1>(p);
        }
    });
}
