// Where everything lies in shared memory of latent attention on Hopper; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"

/// Keys are asked for by the copy engine, or copied by threads that look for them; the portable kernels' places are not used.
constexpr int place_stages = 1;

/// Blocks of a cluster: each has its own rows of an item.
constexpr int cluster = FI_CLUSTER;
static_assert(cluster == 1 || cluster == 2, "a block alone, or two");
static_assert(dim_vo == 512 && FI_LATENT == 64 && keys == 64 && rows == 64 && stages == 2, "registers and memory are shared out for these");

/// Two warpgroups compute; the third brings keys.
constexpr int compute_threads = 256, bringers = 128, all_threads = compute_threads + bringers;

/// Whether threads copy the keys' rows, and do not have the copy engine bring boxes of them: rows of pages that are too small for a box,
/// and 8-bit elements, which are widened on their way.
constexpr bool is_gathered = FI_GATHER || is_narrow;
/// Whether threads widen half of a stage's rows for both blocks of a cluster, and pass them on to the other. Rows that are copied as they are do not
/// gain by it.
constexpr bool is_passed_on = cluster > 1 && is_narrow;
/// Whether a stage's keys are read once for both blocks: so, or by the copy engine, which writes half of the columns to both.
constexpr bool is_shared = is_passed_on || (cluster > 1 && !is_gathered);

/// A stage comes, and is given back, in three parts: the values' columns of either warpgroup, and the rest of the keys.
enum Part : int { left_part, right_part, rest_part, part_count };

/// Byte offsets into shared memory. Rows of tiles are 128 bytes, 64 elements, swizzled; nine such tiles beside each other are a stage
/// of keys, and an item's queries.
struct Shared {
    static constexpr int tile_bytes = 64 * 128, columns = dim_qk / 64, part_columns = dim_vo / 128;
    static constexpr int stage_bytes = columns * tile_bytes;
    static constexpr int stages_at = 0;
    static constexpr int queries = stages_at + stages * stage_bytes;
    /// Weights of one stage: of two, the warpgroup that writes the next ones has multiplied by these, each warp by the rows that it writes.
    static constexpr int weights = queries + columns * rows * 128;
    /// [2, rows]: what a stage's weights are relative to, not scaled.
    static constexpr int references = weights + rows * 128;
    /// [2, rows]: the sum of the weights of each warpgroup's stages.
    static constexpr int sums = references + 2 * rows * 4;
    /// Of a merge: maxima and factors [rows][2], then where the rows go [rows].
    static constexpr int meeting_ends = sums + 2 * rows * 4;
    static constexpr int meeting_targets = meeting_ends + rows * 8;
    static constexpr int size = meeting_targets + rows * 8;
    /// Where parts are merged: in the place of the queries and of the last weights, which nobody needs any more.
    static constexpr int merging = queries, merging_end = references;

    FI_DEVICE int part_at(int part) { return part * part_columns * tile_bytes; }
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");

/// Named barriers: 0 is the whole block's; then of both warpgroups that compute, of each of them, and of those who copy.
constexpr int compute_barrier = 1, group_barrier = 2, bring_barrier = 4;

/// Waits for those that compute, who merge too.
FI_DEVICE void sync_block() { sync_threads(compute_barrier, compute_threads); }
