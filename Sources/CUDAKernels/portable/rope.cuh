// Rotary embedding of queries and keys, each token at its own position.
//
// A block turns a part of the heads of FI_TOKENS tokens: it computes each token's cosines and sines once, in shared memory, and each
// thread turns one vector of pairs of each.
//
// FI_INPUT, FI_OUTPUT: storage types. FI_TABLED: see rope_turn.cuh.

#include "fi_rope_params.h"
#include "portable/rope_turn.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

/// One thread's part of a token: a vector of pairs of one head, or a vector of the elements that stay.
struct rope_place {
    const fi_heads_tensor *from, *to;
    unsigned int head, lane;
    bool inside;
};

static __device__ __forceinline__ rope_place place_of(const fi_rope_params &p, unsigned int thread) {
    const unsigned int lanes = p.turn_lanes + p.copy_lanes;
    const unsigned int head = thread / lanes;
    const bool is_query = head < p.query_heads;
    rope_place at;
    at.head = is_query ? head : head - p.query_heads;
    at.from = is_query ? &p.queries : &p.keys;
    at.to = is_query ? &p.query_output : &p.key_output;
    at.lane = thread - head * lanes;
    at.inside = is_query || at.head < p.key_heads;
    return at;
}

static __device__ __forceinline__ unsigned long long address_of(
    const fi_heads_tensor &tensor, unsigned int token, unsigned int head, unsigned int size
) {
    return tensor.address + (unsigned long long)((token * tensor.token + head * tensor.head) * size);
}

template <int V, bool tabled>
static __device__ __forceinline__ void run(const fi_rope_params &p, float2 (&tables)[FI_TOKENS][FI_ROPE_TABLE_PAIRS]) {
    const unsigned int group = blockIdx.x / p.token_blocks;
    const unsigned int start = group * FI_TOKENS;
    const rope_place at = place_of(p, (blockIdx.x - group * p.token_blocks) * FI_THREADS + threadIdx.x);
    const bool turns = at.lane < p.turn_lanes;
    const unsigned int half = p.rotary_dim / 2;
    const unsigned int pair = at.lane * V;
    long long first, second;
    if (turns) {
        pair_places<V>(p.interleaved, half, pair, first, second);
    } else {
        first = p.rotary_dim + (long long)(at.lane - p.turn_lanes) * V;
        second = first;
    }
    // Parameters are there before anything else is.
    fi_await_predecessors();
    // All tokens' loads are on their way while the angles are computed.
    fi_packed<FI_INPUT, V> low[FI_TOKENS], high[FI_TOKENS];
    int position[FI_TOKENS];
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (start + t >= p.tokens) break;
        if (at.inside) {
            const unsigned long long input = address_of(*at.from, start + t, at.head, fi_size(FI_INPUT));
            low[t] = fi_load<FI_INPUT, V>(input, first);
            if (turns) high[t] = fi_load<FI_INPUT, V>(input, second);
        }
        position[t] = ((const int *)p.positions)[start + t];
    }
    if constexpr (tabled) {
#pragma unroll
        for (int t = 0; t < FI_TOKENS; t++) {
            if (start + t < p.tokens) fill_table(p.angles, half, position[t], tables[t]);
        }
        __syncthreads();
    }
    if (!at.inside) return;
#pragma unroll
    for (int t = 0; t < FI_TOKENS; t++) {
        if (start + t >= p.tokens) break;
        const unsigned long long output = address_of(*at.to, start + t, at.head, fi_size(FI_OUTPUT));
        if (!turns && FI_INPUT == FI_OUTPUT) {
            // A copy of bits.
            fi_packed<FI_OUTPUT, V> same;
#pragma unroll
            for (int w = 0; w < fi_packed<FI_OUTPUT, V>::words; w++) {
                same.word[w] = low[t].word[w % fi_packed<FI_INPUT, V>::words];
            }
            fi_store<FI_OUTPUT, V>(output, first, same);
            continue;
        }
        float a[V], b[V];
        fi_unpack<FI_INPUT, V>(low[t], a);
        if (turns) {
            fi_unpack<FI_INPUT, V>(high[t], b);
            turn<V, tabled>(p.angles, p.interleaved, half, pair, position[t], tables[t], a, b);
            fi_write<FI_OUTPUT, V>(output, second, b);
        }
        fi_write<FI_OUTPUT, V>(output, first, a);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) rope(const __grid_constant__ fi_rope_params p) {
    fi_admit_successors();
    __shared__ float2 tables[FI_TOKENS][FI_ROPE_TABLE_PAIRS];
    if (p.vectorised) {
        run<fi_vector(FI_INPUT, FI_OUTPUT), true>(p, tables);
    } else {
        run<1, false>(p, tables);
    }
}
