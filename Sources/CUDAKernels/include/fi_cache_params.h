// The parameters of the kernels that write a cache.
#ifndef FLASHINFER_CACHE_PARAMS_H
#define FLASHINFER_CACHE_PARAMS_H

/// One half, keys or values, of an append: element d of head h of token t goes to block b, row r of the cache.
typedef struct {
    /// [tokens, heads, width]; strides in elements.
    unsigned long long source;
    long long source_token, source_head;
    /// Element offset b * block + r * token + h * head.
    unsigned long long cache;
    long long block, token, head;
    /// [heads], float32, or 0: on top of `scale`.
    unsigned long long scales;
    float scale;
    /// Threads that a head takes.
    unsigned int lanes;
    unsigned int width;
} fi_append_half;

/// cache[slot(t)] = convert(source[t] / scale).
typedef struct {
    /// Keys, and values or the same again with no heads.
    fi_append_half half[2];
    /// [2, tokens], int32: blocks (negative: not stored), then rows.
    unsigned long long slots;
    /// Slots outside of these are not stored. A ragged cache has a `block_rows` of 0: block + row is below `blocks`.
    long long blocks, block_rows;
    unsigned int tokens;
    unsigned int heads[2];
    /// Blocks of threads that a token takes, and tokens side by side in a block.
    unsigned int token_blocks, sides;
    /// A DType.
    int cache_type;
    int vectorised;
} fi_append_params;

/// Pages of keys or of values as runs of contiguous bytes.
typedef struct {
    unsigned long long address;
    /// Bytes between pages, tokens and heads.
    long long page, token, head;
    /// Tokens and heads of a page, and pieces of a run.
    unsigned int tokens, heads, pieces;
} fi_page_tensor;

/// Copies whole pages, each chain of dependent moves in its order.
typedef struct {
    fi_page_tensor keys, values;
    /// [moves, 2], int32: source and destination page; -1 is the spare page.
    unsigned long long moves;
    /// [chains + 1], int32: where each chain's moves start.
    unsigned long long chains;
    /// Blocks of threads that a chain takes.
    unsigned int chain_blocks;
    /// Bytes of a piece: 16, 4, 2 or 1.
    unsigned int piece_bytes;
} fi_copy_pages_params;

#endif
