// Where everything lies in shared memory where queries, keys and values are e4m3, on Hopper; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"
#include "hopper/wgmma_e4m3.cuh"

static_assert(narrow == Narrow::e4m3 && has_narrow_queries, "all three are of one type");

// Names of the kernels of 16 bits.
constexpr int place_stages = 1;
constexpr bool gathers_rows = false, holds_queries = false, goes_by_sums = true;
constexpr int cluster = 1;

/// Whose queries there is room for: the item's at hand, and the next's.
constexpr int query_slots = 2, query_parts = 1, item_slots = 2;
/// Stages of values that are on their way to be transposed: those that they are multiplied from, or others.
constexpr int raw_stages = turns_in_place ? stages_of_values : FI_RAW_STAGES;

/// Whether three warpgroups compute, whose registers have room for outputs of 128 elements and scores of 96 keys.
constexpr bool is_threefold = warps == 12, leaves_out_stages = is_threefold;

/// How long rows of so many bytes are in their tiles, which lie beside each other.
constexpr int row_width(int bytes) { return bytes % 128 == 0 ? 128 : bytes % 64 == 0 ? 64 : 32; }
/// Queries and keys: rows of elements; values as they come; and values transposed: rows of keys.
using KeyColumn = SwizzledRows<row_width(padded_qk)>;
using ValueColumn = SwizzledRows<row_width(padded_vo)>;
using TurnedColumn = SwizzledRows<row_width(keys)>;

/// Byte offsets into shared memory. Tiles are columns of swizzled rows beside each other.
struct Shared {
    static constexpr int key_width = row_width(padded_qk), value_width = row_width(padded_vo), turned_width = row_width(keys);
    static constexpr int key_columns = padded_qk / key_width, value_columns = padded_vo / value_width;
    /// An item's queries: each warpgroup's 64 rows lie together.
    static constexpr int query_bytes = rows * padded_qk, key_bytes = keys * padded_qk, value_bytes = keys * padded_vo;
    static constexpr int queries = 0;
    static constexpr int key_stages = queries + query_slots * query_bytes;
    static constexpr int value_stages = key_stages + stages * key_bytes;
    static constexpr int raw_bytes = value_bytes;
    static constexpr int raw = turns_in_place ? value_stages : value_stages + stages_of_values * value_bytes;
    /// Outputs of earlier keys, where there is room [value_tiles][threads] of four sums; local memory has them elsewhere.
    static constexpr int kept_bytes = padded_vo <= 128 && !is_threefold ? rows * padded_vo * 4 : 0;
    static constexpr int kept = raw + raw_stages * raw_bytes;
    /// Of a merge: maxima and factors [rows][2], then where the rows go [rows].
    static constexpr int meeting_ends = kept + kept_bytes;
    static constexpr int meeting_targets = meeting_ends + rows * 8;
    static constexpr int size = meeting_targets + rows * 8;
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");
static_assert(dim_qk % 16 == 0 && slice_vo % 16 == 0 && slice_vo == dim_vo, "rows are copied in chunks of 16 bytes, and leave in them");
static_assert(keys % 32 == 0, "rows of turned values are as long as a swizzle is wide");

/// Named barriers: 0 is the whole block's.
constexpr int consumers_barrier = 1, turn_barrier = 2, group_barrier = 2 + warps / 4, bringers_barrier = group_barrier + warps / 4;

/// Waits for all that compute.
FI_DEVICE void sync_block() { sync_threads(consumers_barrier, threads); }
