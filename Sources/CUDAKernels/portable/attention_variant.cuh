// What the expressions of an attention variant are compiled with: where a score is, and operations that C++ leaves undefined.
#pragma once
#include "portable/attention_load.cuh"

/// What becomes of values: nothing, a factor of each key's own, or something else of each element.
enum class ValueHook { none, factor, element };

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

// Whole numbers wrap.
FI_DEVICE int wrap_add(int a, int b) { return static_cast<int>(static_cast<uint32>(a) + static_cast<uint32>(b)); }
FI_DEVICE int wrap_sub(int a, int b) { return static_cast<int>(static_cast<uint32>(a) - static_cast<uint32>(b)); }
FI_DEVICE int wrap_mul(int a, int b) { return static_cast<int>(static_cast<uint32>(a) * static_cast<uint32>(b)); }
FI_DEVICE int wrap_abs(int a) { return a < 0 ? wrap_sub(0, a) : a; }
/// Towards zero; 0 where the divisor is 0.
FI_DEVICE int quotient(int a, int b) { return b == 0 ? 0 : b == -1 ? wrap_sub(0, a) : a / b; }
/// With the sign of a; a where the divisor is 0.
FI_DEVICE int remainder(int a, int b) { return wrap_sub(a, wrap_mul(quotient(a, b), b)); }
FI_DEVICE int shift_left(int a, int b) { return static_cast<int>(static_cast<uint32>(a) << (b & 31)); }
FI_DEVICE int shift_right(int a, int b) { return a >> (b & 31); }
FI_DEVICE float sigmoid(float x) { return __fdividef(1, 1 + exp2f(-log2_e * x)); }

/// An angle without its whole turns; good to a part in 10^7 of a turn for angles up to thousands.
FI_DEVICE float part_of_turn(float x) {
    const float turns = rintf(x * 0.159154943f);
    return fmaf(turns, -0.00193530718f, fmaf(turns, -6.28125f, x));
}
// The library's own keep a table in local memory for huge angles.
FI_DEVICE float variant_sin(float x) { return __sinf(part_of_turn(x)); }
FI_DEVICE float variant_cos(float x) { return __cosf(part_of_turn(x)); }

/// An element of a tensor [rows, columns]; indices outside read the nearest.
template <class T> FI_DEVICE T variant_element(const fi_variant_tensor &t, int row, int column) {
    row = max(min(row, t.rows - 1), 0), column = max(min(column, t.columns - 1), 0);
    // The row first, which most loads have in common.
    return (pointer<const T>(t.address) + static_cast<int64>(row) * t.columns)[column];
}

/// The run's own mask.
FI_DEVICE bool variant_mask(const fi_attention_params &p, const VariantSite &at, int key, bool is_packed) {
    const uint8 *mask = pointer<const uint8>(p.mask) + pointer<const int64>(p.mask_indptr)[at.request];
    const int64 element = static_cast<int64>(at.query_index) * at.key_length + max(min(key, at.key_length - 1), 0);
    return is_packed ? (mask[element / 8] >> (element % 8) & 1) != 0 : mask[element] != 0;
}

// Its rows and keys, which are sites with what depends on them alone, its functions, whether weights are the softmax's (normalises), whether
// outputs are changed at the end (changes_output), whether rows have a sink of their own (computes_sink) and what they are divided by changes
// (changes_sum), what becomes of values (value_hook), and whether elements of tensors are read for each key (reads_keys).
#include FI_VARIANT

#else

constexpr bool normalises = true, changes_output = false, computes_sink = false, changes_sum = false;
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
