// The parameter of rotary embedding.
#ifndef FLASHINFER_ROPE_PARAMS_H
#define FLASHINFER_ROPE_PARAMS_H

#include "fi_division.h"

/// Pairs whose cosines and sines a block keeps. Longer heads are not vectorised: each thread computes its own.
enum { FI_ROPE_TABLE_PAIRS = 512 };

/// [tokens, heads, head_dim]; strides in elements, 1 within a head.
typedef struct {
    unsigned long long address;
    long long token, head;
} fi_heads_tensor;

/// By how much each pair turns at a position: computed, or looked up.
typedef struct {
    /// [rotary_dim / 2], 64-bit fractions of a turn by which a pair turns from one position to the next.
    unsigned long long turns;
    /// [table_rows, rotary_dim], float32, or 0: the cosines of each position, then the sines, instead. Elements from row to row.
    unsigned long long table;
    long long table_stride;
    /// Positions from here on give NaN.
    unsigned int table_rows;
} fi_rope_angles;

/// Turns pair i of each head by position * turns[i] full turns.
typedef struct {
    /// An output may be its input.
    fi_heads_tensor queries, query_output;
    /// Absent where key_heads is 0.
    fi_heads_tensor keys, key_output;
    /// [tokens], int32.
    unsigned long long positions;
    fi_rope_angles angles;
    unsigned int query_heads, key_heads;
    unsigned int head_dim, rotary_dim;
    /// Threads that a head takes: those that turn pairs, then those that copy the rest.
    unsigned int turn_lanes, copy_lanes;
    /// Blocks that a token takes.
    unsigned int token_blocks;
    /// By the threads of a head, and by token_blocks.
    fi_division by_lanes, by_token_blocks;
    int interleaved;
    /// Whether every tensor allows 16-byte accesses and the table holds all pairs. Else one pair or element a thread.
    int vectorised;
} fi_rope_params;

#endif
