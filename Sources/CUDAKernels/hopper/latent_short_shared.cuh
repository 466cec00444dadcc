// Where everything lies in shared memory of latent attention of few rows on Hopper; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"

/// Keys are asked for by the copy engine; the portable kernels' places are not used.
constexpr int place_stages = 1;

/// A block has an item to itself.
constexpr int cluster = 1;
static_assert(FI_CLUSTER == 1 && dim_vo == 512 && FI_LATENT == 64 && keys == 64 && rows == 16, "registers and memory are shared out for these");

/// Two warpgroups compute; the third brings keys.
constexpr int compute_threads = 256, bringers = 128, all_threads = compute_threads + bringers;
constexpr bool is_gathered = false;
static_assert(!FI_GATHER && !is_narrow, "the copy engine brings keys");

/// Keys come in pieces, each in a ring of its kind: the values' columns, left and right, and the rest of the keys.
constexpr int halves = 2, half_columns = dim_vo / 64 / halves, half_slots = 5, rest_slots = 4;

/// Byte offsets into shared memory. Rows of tiles are 128 bytes, 64 elements, swizzled; such tiles lie beside each other.
struct Shared {
    static constexpr int tile_bytes = keys * 128, half_bytes = half_columns * tile_bytes, columns = dim_qk / 64;
    static constexpr int halves_at = 0, rests_at = halves_at + half_slots * half_bytes;
    static constexpr int query_bytes = rows * 128, queries = rests_at + rest_slots * tile_bytes;
    /// [2]: a tile's weights, rows of 64 keys, by the warpgroup that weighs it; [2, rows]: what they are relative to, not scaled.
    static constexpr int weight_bytes = rows * 128, weights = queries + columns * query_bytes, references = weights + 2 * weight_bytes;
    /// [2, 4, rows]: of each warp, maxima, and sums of weights.
    static constexpr int maxima = references + 2 * rows * 4, sums = maxima + 8 * rows * 4;
    /// [2]: outputs of 16 bits on their way, in the place of the queries.
    static constexpr int staged = queries, staged_bytes = rows * dim_vo / 2 * 2;
    /// [2, 4]: whether some score of a warp's rises.
    static constexpr int rises = sums + 8 * rows * 4;
    /// Of a merge: maxima and factors [rows][2], then where the rows go [rows].
    static constexpr int meeting_ends = rises + 8 * 4, meeting_targets = meeting_ends + rows * 8;
    static constexpr int size = meeting_targets + rows * 8;
    /// Where parts are merged: in the place of keys, which are not asked for meanwhile.
    static constexpr int merging = halves_at, merging_end = rests_at;
};
static_assert(2 * Shared::staged_bytes <= Shared::columns * Shared::query_bytes, "outputs are shorter than queries");
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");

/// Named barriers: 0 is the whole block's; then of both warpgroups that compute.
constexpr int compute_barrier = 1;

/// Waits for those that compute, who merge too.
FI_DEVICE void sync_block() { sync_threads(compute_barrier, compute_threads); }
