// The parameter of the attention kernels.
#ifndef FLASHINFER_ATTENTION_PARAMS_H
#define FLASHINFER_ATTENTION_PARAMS_H

/// A tensor of keys or values: element d of head h at row t of block b lies at b * block + t * token + h * head + d.
typedef struct {
    unsigned long long address;
    /// Strides in elements.
    long long block, token, head;
} fi_kv_tensor;

/// A work item of the plan with what its request says of it, so that a block reads one thing, and at once.
typedef struct {
    /// `head` is the first of `heads`, which are those that lists are run for side by side, or 1.
    int request, tile, head;
    /// Packed query rows, and keys.
    int row, row_count, key, key_count;
    /// The item's first row of the workspace, or -1; its merge's parts, and their first row of the workspace. 0 parts: the states of several
    /// levels, which are merged later.
    int partial_row, parts, merge_row;
    /// The request's first query row in the batch, its query rows, its keys, and its first entry of the block table.
    int first_query, query_count, key_total, first_block;
    int heads;
    /// The first block itself where the request has one only, as in ragged tensors; keys of the whole sequence where keys have the positions
    /// of their blocks' places in it; else -1.
    int only_block;
    /// What a variant's analysis found: keys in the middle that no row sees, and keys that causality and window alone decide on.
    int hole, hole_count, full, full_count;
} fi_attention_item;

/// The items of a queue of some row tiles for all heads, in sections of heads.
typedef struct {
    /// [lists + row_tiles * heads] of fi_attention_item, of which the first get tile -1.
    unsigned long long items;
    /// [row_tiles] of fi_attention_item, for any head.
    unsigned long long tiles;
    unsigned int lists, row_tiles, heads;
    /// Heads of a section but for the last, which starts with head `last_section`, and the one before, which may have fewer.
    unsigned int section_heads, last_section;
    unsigned int unused;
} fi_expand_params;

/// A tensor that a variant's expressions read: [rows, columns] of 32-bit elements.
typedef struct {
    unsigned long long address;
    int rows, columns;
} fi_variant_tensor;

/// One launch of attention over a plan's items.
typedef struct {
    /// [queries, query_heads, head_dim_qk]; strides in elements.
    unsigned long long queries;
    long long query_token, query_head;
    /// The rest of latent attention's queries, [queries, query_heads, head_dim_qk - head_dim_vo], and what their products are multiplied
    /// by: `queries` has head_dim_vo elements then, `keys` are the values too, and `values` the rest of the keys.
    unsigned long long rope_queries;
    long long rope_query_token, rope_query_head;
    float rope_scale;
    /// [queries, query_heads, head_dim_vo]; strides in elements.
    unsigned long long output;
    long long output_token, output_head;
    /// [queries, query_heads], float32, base 2; 0 where not wanted. Strides in elements.
    unsigned long long lse;
    long long lse_token, lse_head;

    fi_kv_tensor keys, values;

    /// [items] of fi_attention_item: first the first item of each list (of tile -1 where a list has none), then the other items of
    /// the lists, then the queues; [lists + 1]: where each list's other items are.
    unsigned long long items, item_indptr;
    /// [tiles + 1]: where the queue of each of the plan's tiles starts in the items: for captured launches, whose plan changes.
    /// Others have 0 here, and the queue's items are the `queue_count` from `queue_start` on.
    unsigned long long queue_indptr;
    int queue_start, queue_count;
    /// [tiles, slices, 2], uint32: items taken beyond each block's first, and blocks that have ended; zero before and after each
    /// launch.
    unsigned long long queue_cursors;
    /// [partial rows, slices], uint32, at each merge's first row (of each head): how many of its parts have arrived; zero before
    /// and after each launch.
    unsigned long long arrivals;
    /// Of a batch of several levels: the number of lists, segments * kv_heads; [segments + 1], packed rows of the batch; [lists + 1],
    /// where each list of states starts; and the states, rows of the workspace. See StateLists.
    unsigned long long list_count, segment_indptr, list_indptr, states;
    /// [blocks]; the places of the same blocks in their sequences, or 0.
    unsigned long long block_indices, block_places;
    /// [partial rows, head_dim_vo] and [partial rows], float32.
    unsigned long long partial_output, partial_lse;

    /// Mask bytes or bits, and [requests + 1] int64: where each request's start, in bytes.
    unsigned long long mask, mask_indptr;
    /// [query_heads], float32, or 0.
    unsigned long long alibi_slopes, sinks;
    /// [query_heads], float32, or 0: on top of the scales below.
    unsigned long long query_scales;
    /// [kv_heads], float32, or 0: the same.
    unsigned long long key_scales, value_scales;
    /// [rotary_dim / 2, 2], float32: turns (not radians) a position, high part and low part.
    unsigned long long rope_turns;

    /// Keys of a block, and the multiplier and shift by which a key is divided by it.
    unsigned int block_size, block_size_multiplier, block_size_shift;
    /// Query heads of a key/value head, and the same for dividing by it.
    unsigned int group, group_multiplier, group_shift;
    /// Entries of the block table from one head's to the next one's, where heads have tables of their own.
    int head_entries;
    /// Which of the plan's tiles this launch runs, and how many workers have lists.
    int tile;
    /// Its place among the launches of the run: see primitives/launch.cuh.
    int place;
    /// How many blocks run a list side by side, each a head of its items, or some rows of latent attention's.
    unsigned int list_heads;
    int query_heads, kv_heads;
    /// Query rows of the batch; columns of a block-sparse matrix.
    int query_count;
    long long column_count;
    int is_causal;
    /// Whether all rows of the queries, and of the output, start at multiples of 16 bytes.
    int query_is_aligned, output_is_aligned;
    /// Window to the left; negative for none.
    long long window_left;
    /// Scale of the scores, natural, the queries' and the keys' scales included.
    float score_scale;
    /// 1 / cap and cap, where there is a cap.
    float inverse_cap, cap;
    /// Multiplies the output: value scale.
    float value_scale;
    int rotary_dim;
    /// The variant's parameters, in the order in which its hooks first use them.
    fi_variant_tensor variant[16];
} fi_attention_params;

#endif
