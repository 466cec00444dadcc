// Rotary position embedding of queries and keys on their way to the tensor cores (RoFormer, arXiv 2104.09864).
#pragma once
#include "portable/attention_load.cuh"

/// Turns pair (a, b) by `position` steps of its frequency.
///
/// Frequencies are turns, not radians, in two floats: the whole turns drop out exactly, so that far positions are as precise
/// as near ones.
FI_DEVICE void turn(float &a, float &b, int position, float2 turns) {
    const float x = static_cast<float>(position);
    const float high = x * turns.x;
    const float low = fmaf(x, turns.x, -high) + x * turns.y;
    float sine, cosine;
    sincospif(2 * ((high - rintf(high)) + low), &sine, &cosine);
    const float c = a * cosine - b * sine;
    b = b * cosine + a * sine;
    a = c;
}

/// Which element is the first, and which the second, of pair `i`.
FI_DEVICE int first_of_pair(int i) { return rope == Rope::interleaved ? 2 * i : i; }
FI_DEVICE int second_of_pair(int i, int pairs) { return rope == Rope::interleaved ? 2 * i + 1 : i + pairs; }

template <class Layout> FI_DEVICE uint32 half_address(uint32 base, int row, int d) {
    return base + Layout::offset(row, d / 8) + d % 8 * 2;
}

/// Turns the tile's queries where they lie.
FI_DEVICE void turn_queries(const fi_attention_params &p, const Item &item, uint32 queries) {
    const int pairs = p.rotary_dim / 2;
    const float2 *turns = pointer<const float2>(p.rope_turns);
    for (int id = threadIdx.x; id < item.row_count * pairs; id += threads) {
        const int row = id / pairs, i = id % pairs;
        const uint32 at = half_address<QueryRows>(queries, row, first_of_pair(i));
        const uint32 other = half_address<QueryRows>(queries, row, second_of_pair(i, pairs));
        float a = unpack<half_type>(load_shared16(at)), b = unpack<half_type>(load_shared16(other));
        turn(a, b, item.position(p, item.query(p, row)), turns[i]);
        const uint32 both = pack<half_type>(a, b);
        store_shared(at, static_cast<uint16>(both));
        store_shared(other, static_cast<uint16>(both >> 16));
    }
}

/// Element `d` of a key of a stage, whatever its type.
FI_DEVICE float key_element(uint32 stage, int row, int d) {
    if constexpr (!is_narrow) return unpack<half_type>(load_shared16(half_address<KeyRows>(stage, row, d)));
    const uint32 x = load_shared8(stage + KeyRows::offset(row, d / 16) + d % 16);
    uint32 even, odd;
    widen<half_type, narrow>(x, even, odd);
    return unpack<half_type>(static_cast<uint16>(even));
}

/// Turns a stage's keys, widened, into `turned`.
FI_DEVICE void turn_keys(const fi_attention_params &p, const Item &item, const KeyFinder &finder, int first_key, uint32 stage,
                         uint32 turned) {
    const int pairs = p.rotary_dim / 2, rest = dim_qk - p.rotary_dim, work = pairs + rest;
    const float2 *turns = pointer<const float2>(p.rope_turns);
    for (int id = threadIdx.x; id < keys * work; id += threads) {
        const int row = id / work, i = id % work, key = first_key + row;
        if (i >= pairs) {
            const int d = p.rotary_dim + i - pairs;
            store_shared(half_address<TurnedRows>(turned, row, d), static_cast<uint16>(pack<half_type>(key_element(stage, row, d), 0)));
            continue;
        }
        const int d = first_of_pair(i), e = second_of_pair(i, pairs);
        float a = key_element(stage, row, d), b = key_element(stage, row, e);
        if (key < item.key_end()) turn(a, b, has_columns ? finder.column(key) : key, turns[i]);
        const uint32 both = pack<half_type>(a, b);
        store_shared(half_address<TurnedRows>(turned, row, d), static_cast<uint16>(both));
        store_shared(half_address<TurnedRows>(turned, row, e), static_cast<uint16>(both >> 16));
    }
}
