// Rotary embedding of queries and keys, each token at its own position.
//
// A block turns a part of one token's heads: it computes the token's cosines and sines once, in shared memory, and each thread
// turns one vector of pairs.
//
// FI_INPUT, FI_OUTPUT: storage types. FI_TABLED: see rope_turn.cuh.

#include "fi_rope_params.h"
#include "portable/rope_turn.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

/// From so many blocks on angles of a table go to no shared memory, and inputs are asked for ahead.
#define FI_DIRECT_BLOCKS 2048

/// Of many blocks, the first one of a token brings the heads of the token so many behind it to the second cache.
#define FI_AHEAD 512

/// One thread's part of a token: a vector of pairs of one head, or a vector of the elements that stay.
struct rope_item {
    unsigned long long input, output;
    unsigned int lane;
    bool inside;
};

static __device__ __forceinline__ rope_item item_of(const fi_rope_params &p, unsigned int token, unsigned int part) {
    const unsigned int lanes = p.turn_lanes + p.copy_lanes;
    const unsigned int place = part * FI_THREADS + threadIdx.x;
    const unsigned int head = divided(place, p.by_lanes);
    const bool is_query = head < p.query_heads;
    const unsigned int own = is_query ? head : head - p.query_heads;
    const fi_heads_tensor &from = is_query ? p.queries : p.keys;
    const fi_heads_tensor &to = is_query ? p.query_output : p.key_output;
    rope_item item;
    item.lane = place - head * lanes;
    item.inside = is_query || own < p.key_heads;
    item.input = from.address + (unsigned long long)((token * from.token + own * from.head) * fi_size(FI_INPUT));
    item.output = to.address + (unsigned long long)((token * to.token + own * to.head) * fi_size(FI_OUTPUT));
    return item;
}

/// Where heads lie side by side.
static __device__ __forceinline__ void bring(const fi_rope_params &p, unsigned int token) {
    const auto bring = [&](const fi_heads_tensor &from, unsigned int heads) {
        if (heads == 0 || from.head != p.head_dim) return;
        fi_prefetch(from.address + (unsigned long long)(token * from.token) * fi_size(FI_INPUT), heads * p.head_dim * fi_size(FI_INPUT));
    };
    bring(p.queries, p.query_heads);
    bring(p.keys, p.key_heads);
}

template <int V, bool tabled>
static __device__ __forceinline__ void run(const fi_rope_params &p, float2 *table) {
    const unsigned int token = divided(blockIdx.x, p.by_token_blocks);
    const rope_item item = item_of(p, token, blockIdx.x - token * p.token_blocks);
    const bool turns = item.lane < p.turn_lanes;
    const unsigned int half = p.rotary_dim / 2;
    const unsigned int pair = item.lane * V;
    long long first, second;
    if (turns) {
        pair_places<V>(p.interleaved, half, pair, first, second);
    } else {
        first = p.rotary_dim + (long long)(item.lane - p.turn_lanes) * V;
        second = first;
    }
    const unsigned long long fraction = tabled ? first_fraction(p.angles, half) : 0;
    const bool brings = tabled && V > 1 && gridDim.x >= FI_DIRECT_BLOCKS && threadIdx.x == 0 && blockIdx.x == token * p.token_blocks;
    if (brings && token < FI_AHEAD) bring(p, token);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    // The loads are on their way while the angles are computed.
    fi_packed<FI_INPUT, V> low, high;
    if (item.inside) {
        low = fi_load<FI_INPUT, V>(item.input, first);
        if (turns) high = fi_load<FI_INPUT, V>(item.input, second);
    }
    const int position = ((const int *)p.positions)[token];
    if (brings && (token + FI_AHEAD) * p.token_blocks < gridDim.x) bring(p, token + FI_AHEAD);
    bool is_direct = false;
    if constexpr (FI_TABLED && tabled && V % 4 == 0) {
        // Of many blocks each thread looks its own angles up, and none waits for others; one block's would be three trips to memory.
        is_direct = gridDim.x >= FI_DIRECT_BLOCKS
            && ((p.angles.table | (unsigned long long)(4 * p.angles.table_stride)) & 15) == 0;
        if (is_direct && turns) {
            if (!item.inside) return;
            float a[V], b[V], cosines[V], sines[V];
            if ((unsigned int)position < p.angles.table_rows) {
                const unsigned long long row = p.angles.table + (unsigned long long)(4 * (position * p.angles.table_stride));
                fi_read<FI_FLOAT32, V>(row, pair, cosines);
                fi_read<FI_FLOAT32, V>(row, half + pair, sines);
            } else {
#pragma unroll
                for (int i = 0; i < V; i++) cosines[i] = sines[i] = __int_as_float(0x7fffffff);
            }
            fi_unpack<FI_INPUT, V>(low, a);
            fi_unpack<FI_INPUT, V>(high, b);
            turn<V>(p.interleaved, cosines, sines, a, b);
            fi_write<FI_OUTPUT, V>(item.output, second, b);
            fi_write<FI_OUTPUT, V>(item.output, first, a);
            return;
        }
    }
    if (tabled && !is_direct) {
        fill_table<V>(p.angles, half, position, fraction, table);
        __syncthreads();
    }
    if (!item.inside) return;
    if (!turns && FI_INPUT == FI_OUTPUT) {
        // A copy of bits.
        fi_packed<FI_OUTPUT, V> same;
#pragma unroll
        for (int w = 0; w < fi_packed<FI_OUTPUT, V>::words; w++) same.word[w] = low.word[w % fi_packed<FI_INPUT, V>::words];
        fi_store<FI_OUTPUT, V>(item.output, first, same);
        return;
    }
    float a[V], b[V];
    fi_unpack<FI_INPUT, V>(low, a);
    if (turns) {
        fi_unpack<FI_INPUT, V>(high, b);
        turn<V, tabled>(p.angles, p.interleaved, half, pair, position, table, a, b);
        fi_write<FI_OUTPUT, V>(item.output, second, b);
    }
    fi_write<FI_OUTPUT, V>(item.output, first, a);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) rope(const __grid_constant__ fi_rope_params p) {
    fi_admit_successors();
    __shared__ __align__(16) float2 table[FI_ROPE_TABLE_PAIRS];
    if (p.vectorised) {
        run<fi_vector(FI_INPUT, FI_OUTPUT), true>(p, table);
    } else {
        run<1, false>(p, table);
    }
}
