// The parameter of rotary embedding of several tensors' heads, each to a tensor or to a cache.
#ifndef FLASHINFER_ROPE_PARTS_PARAMS_H
#define FLASHINFER_ROPE_PARTS_PARAMS_H

#include "fi_rope_params.h"

/// Turning and other elements of queries and of keys, and values.
enum { FI_ROPE_PARTS = 5 };

/// Heads of one tensor: which of their elements turn, and where they go.
typedef struct {
    /// [tokens, heads, ...]
    fi_heads_tensor source;
    /// Where head h of token t goes: to t * token + h * head, or to b * block + r * token + h * head of a cache.
    fi_heads_tensor target;
    long long block;
    /// [heads], float32, or 0: `factor` is then one over scale * scales[h].
    unsigned long long scales;
    /// Multiplies an element before it is rounded.
    float factor, scale;
    /// 0 where there is no such part.
    unsigned int heads;
    /// Vectors of a head (or single pairs and elements): those that turn, then those that move.
    unsigned int turn_items, move_items;
    /// The first element that moves.
    unsigned int move_start;
    /// Threads of a head: its items, or a power of two where heads are normalised.
    unsigned int lanes;
    fi_division by_lanes;
    /// The part's first one of the blocks that FI_TOKENS tokens take; of a part that is not there, after all of them.
    unsigned int first_block;
    /// A DType.
    int type;
    /// Whether the target is a cache.
    int is_stored;
    /// [head_dim], of `weight_type`, or 0: heads are not normalised.
    unsigned long long weight;
} fi_rope_part;

/// Turns, or moves, the heads of all parts. Numbers stay in float32 from the turn to the store.
typedef struct {
    /// Those that turn come first.
    fi_rope_part parts[FI_ROPE_PARTS];
    fi_rope_angles angles;
    /// [tokens], int32.
    unsigned long long positions;
    /// [2, tokens], int32: blocks (negative: not stored), then rows.
    unsigned long long slots;
    /// Slots outside of these are not stored. A ragged cache has a `block_rows` of 0: block + row is below `blocks`.
    long long blocks, block_rows;
    unsigned int tokens, rotary_dim;
    /// Blocks that FI_TOKENS tokens take; no block has threads of two parts.
    unsigned int token_blocks;
    fi_division by_token_blocks;
    /// Of normalised heads: elements, the nearest number to one over them, and threads of a head.
    unsigned int norm_width;
    float norm_inverse;
    unsigned int norm_lanes;
    float epsilon, weight_offset;
    /// A DType.
    int weight_type;
    int interleaved;
    /// Whether every tensor allows a vector's accesses and the table holds all pairs. Else one pair or element an item.
    int vectorised;
} fi_rope_parts_params;

#endif
