// What the expressions of an attention variant are made of: operations that C++ leaves undefined, and what they read.
#pragma once
#include "fi_attention_params.h"
#include "primitives/types.cuh"

/// What becomes of values: nothing, a factor of each key's own, or something else of each element.
enum class ValueHook { none, factor, element };

constexpr float log2_e = 1.4426950408889634f;

/// tanh by exponentials: absolute error about 1e-7, where the approximate instruction's is 5e-4.
FI_DEVICE float tanh_by_exp(float x) { return 1 - __fdividef(2, exp2f(x * (2 * log2_e)) + 1); }

// What a row sees of a stage of up to 128 keys, as a thread's bits of a word: bit 2n + i for key 8n + 2 quad + i, of its first key on.

/// The lowest `count` bits, of up to 32.
FI_DEVICE uint32 low_bits(int count) {
    uint32 above;
    asm("shl.b32 %0, 1, %1;" : "=r"(above) : "r"(count));
    return above - 1;
}
/// How many of a thread's keys of a stage there are before key `end` of it.
FI_DEVICE int own_keys(int end, int quad) {
    const int there = max(end - 2 * quad, 0);
    return there / 8 * 2 + min(there % 8, 2);
}

#ifdef FI_VARIANT

/// The keys up to `last`, or from `first` on.
FI_DEVICE uint32 bits_until(int64 last, int first_key, int quad) {
    return low_bits(own_keys(static_cast<int>(max(min(last - first_key, 127ll), -1ll)) + 1, quad));
}
FI_DEVICE uint32 bits_from(int64 first, int first_key, int quad) {
    return ~low_bits(own_keys(static_cast<int>(max(min(first - first_key, 128ll), 0ll)), quad));
}

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
template <class Site> FI_DEVICE bool variant_mask(const fi_attention_params &p, const Site &at, int key, bool is_packed) {
    const uint8 *mask = pointer<const uint8>(p.mask) + pointer<const int64>(p.mask_indptr)[at.request];
    const int64 element = static_cast<int64>(at.query_index) * at.key_length + max(min(key, at.key_length - 1), 0);
    return is_packed ? (mask[element / 8] >> (element % 8) & 1) != 0 : mask[element] != 0;
}

#endif
