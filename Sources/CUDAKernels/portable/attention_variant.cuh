// What the expressions of an attention variant are compiled with in a kernel: where a score is, and the variant's text.
#pragma once
#include "portable/attention_load.cuh"
#include "portable/variant_terms.cuh"

#ifdef FI_VARIANT

/// Where a row's scores are; the key and its position come with each.
struct VariantSite {
    int request, head, kv_head, query_index, query_position, query_length, key_length;

    __device__ __forceinline__ VariantSite(const fi_attention_params &p, const Item &item, int query, int head)
        : request(item.request), head(head), kv_head(item.head), query_index(query), query_position(item.position(p, query)),
          query_length(item.query_count), key_length(item.sequence_length()) {}
};

/// Where a key's values are; the position comes with each.
struct VariantKeySite {
    int request, kv_head, query_length, key_length;

    __device__ __forceinline__ VariantKeySite(const Item &item)
        : request(item.request), kv_head(item.head), query_length(item.query_count), key_length(item.sequence_length()) {}
};

/// The queries, heads and keys of a warp's part of a stage, for what is known of all of them.
struct VariantBlock {
    int request, kv_head, first_head, last_head, first_index, last_index, first_position, last_position, first_key, last_key,
        query_length, key_length;

    __device__ __forceinline__ VariantBlock(const fi_attention_params &p, const Item &item, int warp_row, int first_key)
        : request(item.request), kv_head(item.head), first_head(item.head * static_cast<int>(p.group)),
          last_head(first_head + static_cast<int>(p.group) - 1), first_index(item.query(p, min(warp_row, item.row_count - 1))),
          last_index(item.query(p, min(warp_row + warp_rows, item.row_count) - 1)), first_position(item.position(p, first_index)),
          last_position(item.position(p, last_index)), first_key(first_key), last_key(first_key + warp_keys - 1),
          query_length(item.query_count), key_length(item.sequence_length()) {}
};

// Its rows and keys, which are sites with what depends on them alone, its functions, whether weights are the softmax's (normalises), whether
// outputs are changed at the end (changes_output), whether rows have a sink of their own (computes_sink) and what they are divided by changes
// (changes_sum), what becomes of values (value_hook), whether it hides keys (hides_keys), and by ranges of them alone
// (hides_by_words: variant_bits then has a stage's), and whether elements of tensors are read for each key (reads_keys).
#include FI_VARIANT

#else

constexpr bool normalises = true, changes_output = false, computes_sink = false, changes_sum = false, hides_keys = false;
constexpr ValueHook value_hook = ValueHook::none;

struct VariantRow {
    __device__ __forceinline__ VariantRow(const fi_attention_params &, const Item &, int, int) {}
};
struct VariantKey {
    __device__ __forceinline__ VariantKey(const fi_attention_params &, const Item &, int) {}
};
FI_DEVICE float variant_sink(const fi_attention_params &, const VariantRow &) { return 0; }
FI_DEVICE float variant_sum(const fi_attention_params &, const VariantRow &, float sum) { return sum; }
FI_DEVICE float variant_value(const fi_attention_params &, const VariantKey &, float value, int) { return value; }
FI_DEVICE float variant_output(const fi_attention_params &, const VariantRow &, float output) { return output; }

#endif
