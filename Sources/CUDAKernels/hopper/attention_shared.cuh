// Where everything lies in shared memory, on Hopper; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"

/// Where keys lie is asked for by the copy engine's warp; the portable kernels' places are not used.
constexpr int place_stages = 1;

/// Whether those that compute hold their queries in registers, and how many steps of 16 elements.
constexpr bool holds_queries = padded_qk / 4 <= FI_QUERY_REGISTERS;
constexpr int held_steps = holds_queries ? padded_qk / 16 : 1;

/// Whether three warpgroups compute, of outputs of 64 elements, whose registers have room for it: with weights by sums too, but with the queries
/// in memory.
constexpr bool is_threefold = warps == 12;
static_assert(!is_threefold || !holds_queries, "three groups have no registers for queries");
constexpr bool goes_by_sums = holds_queries || is_threefold;

/// A list's keys and values, in its warps' stages: 16 keys of each.
constexpr int list_warps = 4, list_keys = 16, list_stages = 2;

/// Whose queries there is room for: the item's at hand and the next's, or one's alone, which gives them back after its last scores, or
/// when they are in registers. Beside values of 128 elements, keys of 192 have longer stages in the place of the next item's queries.
constexpr int query_slots = padded_qk <= (padded_vo <= 128 ? 128 : 192) && !is_narrow && !holds_queries && !is_mixed ? 2 : 1;

/// Whether a group leaves out an item's last stages where a causal mask hides them from all of its rows, and takes no more of its last one's keys than
/// whole sixteens of those that it sees: three groups, or two whose stages have fewer keys than they have rows, as of 256 elements. There it is 6 % of
/// all products of 1,024 keys, and the first group ends while the second multiplies.
constexpr bool leaves_out_stages = is_threefold || (!goes_by_sums && !is_mixed && warps == 8 && FI_KEYS < 128 && !has_columns);

/// Whether an item's queries are each group's own to give back and to wait for: where they stay in memory until the last scores, the groups, which take
/// turns, are done with them half a stage apart. Of one part, they are all groups'.
constexpr int query_parts = query_slots == 1 && warps == 8 && !goes_by_sums && !is_mixed && !is_narrow ? 2 : 1;

static_assert(!is_threefold || query_slots == 2, "three groups give items' queries back with the item only");

/// Items that are known ahead: with two, keys of short ones were asked for late (H200, 1,024 keys, causal: 3 % of the time). Where there are two
/// items' queries, an item's place says whose are done with.
constexpr int item_slots = query_slots == 1 ? 4 : 2;

/// Whether threads copy keys and values: rows of blocks so small that boxes of them are more than the copy engine keeps up with.
constexpr bool gathers_rows = FI_GATHER == 1;
static_assert(!gathers_rows || !is_narrow, "rows are copied by threads, or widened by them");

/// Blocks that take items side by side and bring each other the keys and values that both read: 1, or a cluster of 2.
#ifndef FI_CLUSTER
#define FI_CLUSTER 1
#endif
constexpr int cluster = FI_CLUSTER;
static_assert(cluster == 1 || (cluster == 2 && !is_narrow && !gathers_rows), "the copy engine brings what two blocks share");

/// Stages of 8-bit keys and values that are on their way.
constexpr int raw_stages = is_narrow ? FI_RAW_STAGES : 1;

/// Byte offsets into shared memory. Rows of tiles are 128 bytes, 64 elements, swizzled; wider heads are several such tiles.
struct Shared {
    static constexpr int key_columns = padded_qk / 64, value_columns = padded_vo / 64;
    /// An item's queries: each warpgroup's 64 rows lie together.
    static constexpr int query_bytes = rows * key_columns * 128;
    static constexpr int key_bytes = keys * key_columns * 128, value_bytes = keys * value_columns * 128;
    static constexpr int queries = 0;
    static constexpr int key_stages = queries + query_slots * query_bytes;
    static constexpr int value_stages = key_stages + stages * key_bytes;
    /// Rows of 8-bit elements as the cache has them.
    static constexpr int raw_bytes = is_narrow ? keys * (dim_qk > slice_vo ? dim_qk : slice_vo) : 0;
    static constexpr int raw = value_stages + stages_of_values * value_bytes;
    static constexpr int list_stage_bytes = list_keys * (padded_qk + padded_vo) * 2;
    static constexpr int lists = raw + raw_stages * raw_bytes;
    /// Of a merge: maxima and factors [rows][2], then where the rows go [rows].
    static constexpr int meeting_ends = lists + (is_mixed ? list_warps * list_stages * list_stage_bytes : 0);
    static constexpr int meeting_targets = meeting_ends + rows * 8;
    static constexpr int size = meeting_targets + rows * 8;
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");
static_assert(dim_qk % (16 / element_bytes) == 0 && slice_vo % 16 == 0, "rows are copied in chunks of 16 bytes, and leave in them");

/// Named barriers: 0 is the whole block's.
constexpr int consumers_barrier = 1, turn_barrier = 2, group_barrier = 2 + warps / 4, lists_barrier = 2 + warps / 2;

/// Waits for all that compute.
FI_DEVICE void sync_block() { sync_threads(consumers_barrier, threads); }
