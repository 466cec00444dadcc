// Where everything lies in shared memory of latent attention on Hopper; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"

/// Keys are asked for by the copy engine; the portable kernels' places are not used.
constexpr int place_stages = 1;

/// Blocks of a cluster: each has its own rows of an item, and brings its share of the keys to both.
constexpr int cluster = FI_CLUSTER;
static_assert(cluster == 1 || cluster == 2, "a block alone, or two");
static_assert(dim_vo == 512 && FI_LATENT == 64 && keys == 32 && rows == 64, "registers and memory are shared out for these");

/// Those that compute scores, one warpgroup, and those that have the outputs, two, each 256 columns.
constexpr int score_threads = 128, output_threads = 256, all_threads = score_threads + output_threads;

/// Tiles of 64 elements of the queries that are held in registers; the rest are read from memory.
constexpr int held_tiles = FI_HELD_TILES, stored_tiles = dim_qk / 64 - held_tiles;

/// Stages of 8-bit keys on their way to be widened.
constexpr int raw_stages = is_narrow ? FI_RAW_STAGES : 1;

/// Items that may be known at a time: the one at hand, the one before, which some may still end, and those whose keys are asked for.
constexpr int item_slots = 4;

/// Byte offsets into shared memory. Rows of tiles are 128 bytes, 64 elements, swizzled; nine such tiles beside each other are a stage of
/// keys.
struct Shared {
    static constexpr int columns = dim_qk / 64, value_columns = dim_vo / 64;
    static constexpr int stage_bytes = keys * columns * 128;
    static constexpr int stages_at = 0;
    /// 8-bit keys as the cache has them: two boxes' columns of 256 elements, and the rest.
    static constexpr int raw_bytes = is_narrow ? keys * dim_qk : 0;
    static constexpr int raw = stages_at + stages * stage_bytes;
    /// Tiles of the queries.
    static constexpr int queries = raw + raw_stages * raw_bytes;
    /// [rows, 64]: weights of two stages side by side.
    static constexpr int weights = queries + stored_tiles * rows * 128;
    /// [rows] of RowEnd: how an item's rows end.
    static constexpr int ends = weights + rows * 128;
    /// [2, rows]: what the outputs are multiplied by before a stage's weights are added.
    static constexpr int factors = ends + rows * 8;
    /// Of a merge: maxima and factors [rows][2], then where the rows go [rows].
    static constexpr int meeting_ends = factors + 2 * rows * 4;
    static constexpr int meeting_targets = meeting_ends + rows * 8;
    static constexpr int size = meeting_targets + rows * 8;
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");

/// Named barriers: 0 is the whole block's.
constexpr int outputs_barrier = 1, scores_barrier = 2, group_barrier = 3;

/// Waits for those that merge.
FI_DEVICE void sync_block() { sync_threads(outputs_barrier, output_threads); }
