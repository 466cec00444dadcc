// Rotary embedding of many tokens' heads as rope_parts.cuh does it, bit for bit, where every type is the input's and whole heads turn or move: a
// thread has the same elements of several heads of a token, so that angles, weights and places are there once. A block has some heads of one
// tensor of one token, and brings those of a token far behind it to the second cache.
//
// FI_INPUT: the storage type. FI_NORMALISED: whether any heads are normalised. FI_TABLED: see rope_turn.cuh. FI_INTERLEAVED: whether pairs are
// neighbours. FI_HEADS: heads of a thread, a power of two.

#include "fi_rope_parts_params.h"
#include "portable/rope_scale.cuh"
#include "portable/rope_turn.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/slot.cuh"

/// How many tokens behind.
#define FI_AHEAD 512
#define FI_V fi_vector(FI_INPUT)

typedef fi_packed<FI_INPUT, FI_V> packed_vector;

/// Vectors of 16 bytes at addresses that the compiler knows to be of global memory, whatever their index.
static __device__ __forceinline__ packed_vector load(unsigned long long address) {
    const uint4 words = *(const uint4 *)__cvta_global_to_generic((size_t)address);
    return {{words.x, words.y, words.z, words.w}};
}

static __device__ __forceinline__ void store(unsigned long long address, const packed_vector &x) {
    *(uint4 *)__cvta_global_to_generic((size_t)address) = make_uint4(x.word[0], x.word[1], x.word[2], x.word[3]);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) rope_heads(const __grid_constant__ fi_rope_parts_params p) {
    // Of few blocks, behind the wait: see `fi_admit_successors`.
    const bool is_small = gridDim.x <= 1024;
    if (!is_small) fi_admit_successors();
    constexpr int V = FI_V;
    __shared__ __align__(16) float2 table[FI_TABLED ? 1 : FI_ROPE_TABLE_PAIRS];
    const unsigned int token = divided(blockIdx.x, p.by_token_blocks), block = blockIdx.x - token * p.token_blocks;
    unsigned int which = 0;
#pragma unroll
    for (int i = 1; i < FI_ROPE_PARTS; i++) which = block >= p.parts[i].first_block ? i : which;
    const fi_rope_part &part = p.parts[which];
    const unsigned int own = divided(threadIdx.x, part.by_lanes), lane = threadIdx.x - own * part.lanes;
    const unsigned int aside = divided(FI_THREADS, part.by_lanes);
    const unsigned int head = (block - part.first_block) * FI_HEADS * aside + own;
    const bool turns = part.turn_items != 0;
    const unsigned int half = p.rotary_dim / 2;
    // Of those that turn: from the first elements of a thread to the second ones.
    const unsigned int apart = FI_INTERLEAVED ? V : half, column = FI_INTERLEAVED && turns ? 2 * lane * V : lane * V;
    const unsigned long long fraction = !FI_TABLED && turns ? first_fraction(p.angles, half) : 0;
    const unsigned int bytes = fi_size(FI_INPUT);
    const unsigned long long source =
        part.source.address + (unsigned long long)(token * part.source.token + head * part.source.head + column) * bytes;
    const unsigned long long source_step = (unsigned long long)(aside * part.source.head) * bytes;
    const unsigned int width = turns ? p.rotary_dim : part.move_items * V;
    const unsigned int brought = min(FI_HEADS * aside, part.heads - head) * width * bytes;
    const bool brings = threadIdx.x == 0 && part.source.head == width;
    if (brings && token < FI_AHEAD) fi_prefetch(source, brought);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (is_small) fi_admit_successors();
    packed_vector low[FI_HEADS], high[FI_HEADS];
    int position = 0;
    if (turns) position = ((const int *)p.positions)[token];
#pragma unroll
    for (int h = 0; h < FI_HEADS; h++) {
#pragma unroll
        for (int i = 0; i < 4; i++) low[h].word[i] = high[h].word[i] = 0;
        if (head + h * aside < part.heads) {
            low[h] = load(source + h * source_step);
            if (turns) high[h] = load(source + h * source_step + apart * bytes);
        }
    }
    int slot_block, slot_row;
    if (part.is_stored) {
        slot_block = ((const int *)p.slots)[token];
        slot_row = ((const int *)p.slots)[p.tokens + token];
    }
    packed_vector weight_low, weight_high;
    const bool normalises = FI_NORMALISED && part.weight != 0;
    if (normalises) {
        weight_low = load(part.weight + column * bytes);
        weight_high = load(part.weight + (column + apart) * bytes);
    }
    if (brings && token + FI_AHEAD < p.tokens) fi_prefetch(source + FI_AHEAD * part.source.token * bytes, brought);
    float cosines[V], sines[V];
    if (turns) {
        if constexpr (FI_TABLED) {
            if ((unsigned int)position < p.angles.table_rows) {
                const unsigned long long row = p.angles.table + (unsigned long long)(4 * (position * p.angles.table_stride));
                fi_read<FI_FLOAT32, V>(row, lane * V, cosines);
                fi_read<FI_FLOAT32, V>(row, half + lane * V, sines);
            } else {
#pragma unroll
                for (int i = 0; i < V; i++) cosines[i] = sines[i] = __int_as_float(0x7fffffff);
            }
        } else {
            fill_table<V>(p.angles, half, position, fraction, table);
            __syncthreads();
        }
    }
    // Where the heads go.
    const fi_heads_tensor &to = part.target;
    long long start = head * to.head + column;
    if (part.is_stored) {
        if (!fi_is_slot(slot_block, slot_row, p.blocks, p.block_rows)) return;
        start += (unsigned int)slot_block * part.block + (unsigned int)slot_row * to.token;
    } else {
        start += token * to.token;
    }
    const unsigned long long target = to.address + (unsigned long long)start * bytes;
    const unsigned long long target_step = (unsigned long long)(aside * to.head) * bytes;
    if (!turns) {
#pragma unroll
        for (int h = 0; h < FI_HEADS; h++) {
            if (head + h * aside < part.heads) store(target + h * target_step, low[h]);
        }
        return;
    }
    float scale[FI_HEADS];
    if (normalises) {
        float sum[FI_HEADS];
#pragma unroll
        for (int h = 0; h < FI_HEADS; h++) {
            float x[V];
            sum[h] = 0;
            if (h > 0 && head + h * aside >= part.heads) continue;
            fi_unpack<FI_INPUT, V>(low[h], x);
#pragma unroll
            for (int i = 0; i < V; i++) sum[h] = __fmaf_rn(x[i], x[i], sum[h]);
            fi_unpack<FI_INPUT, V>(high[h], x);
#pragma unroll
            for (int i = 0; i < V; i++) sum[h] = __fmaf_rn(x[i], x[i], sum[h]);
        }
        norm_scales(p, sum, scale);
    }
    if constexpr (!FI_TABLED) {
#pragma unroll
        for (int i = 0; i < V / 2; i++) {
            const float4 two = ((const float4 *)table)[lane + i * (half / V)];
            cosines[2 * i] = two.x;
            sines[2 * i] = two.y;
            cosines[2 * i + 1] = two.z;
            sines[2 * i + 1] = two.w;
        }
    }
    float by_low[V], by_high[V];
    if (normalises) {
        fi_unpack<FI_INPUT, V>(weight_low, by_low);
        fi_unpack<FI_INPUT, V>(weight_high, by_high);
#pragma unroll
        for (int i = 0; i < V; i++) by_low[i] += p.weight_offset, by_high[i] += p.weight_offset;
    }
#pragma unroll
    for (int h = 0; h < FI_HEADS; h++) {
        if (head + h * aside >= part.heads) break;
        float a[V], b[V];
        fi_unpack<FI_INPUT, V>(low[h], a);
        fi_unpack<FI_INPUT, V>(high[h], b);
        if (normalises) {
#pragma unroll
            for (int i = 0; i < V; i++) a[i] = a[i] * scale[h] * by_low[i], b[i] = b[i] * scale[h] * by_high[i];
        }
        turn<V>(FI_INTERLEAVED, cosines, sines, a, b);
        store(target + h * target_step + apart * bytes, fi_pack<FI_INPUT, V>(b));
        store(target + h * target_step, fi_pack<FI_INPUT, V>(a));
    }
}
