// The parameter of rotary embedding with an append to a cache.
#ifndef FLASHINFER_ROPE_APPEND_PARAMS_H
#define FLASHINFER_ROPE_APPEND_PARAMS_H

#include "fi_rope_params.h"

/// Keys or values of a cache: element d of head h of token t goes to block b, row r.
typedef struct {
    /// Element offset b * block + r * token + h * head.
    unsigned long long address;
    long long block, token, head;
    /// [heads], float32, or 0: on top of `scale`, which a stored number is multiplied by to give the key or value.
    unsigned long long scales;
    float scale;
} fi_cache_target;

/// Turns queries and keys as fi_rope_params does, and stores keys and values as fi_append_params does.
typedef struct {
    /// The output may be the queries.
    fi_heads_tensor queries, query_output, keys, values;
    fi_cache_target key_cache, value_cache;
    /// [tokens], int32.
    unsigned long long positions;
    /// [rotary_dim / 2], 64-bit fractions of a turn.
    unsigned long long turns;
    /// [2, tokens], int32: blocks (negative: not stored), then rows.
    unsigned long long slots;
    /// Slots outside of these are not stored. A ragged cache has a `block_rows` of 0: block + row is below `blocks`.
    long long blocks, block_rows;
    unsigned int tokens, query_heads, kv_heads, rotary_dim;
    /// Threads that a head takes: those that turn pairs, then those that copy the rest; those of a value.
    unsigned int turn_lanes, query_copy_lanes, key_copy_lanes, value_lanes;
    /// Blocks that a token takes.
    unsigned int token_blocks;
    /// Multiplies a query before it is rounded.
    float query_factor;
    /// DTypes.
    int query_type, cache_type;
    int interleaved;
    /// Whether every tensor allows a vector's accesses and the table holds all pairs. Else one pair or element a thread.
    int vectorised;
} fi_rope_append_params;

#endif
