// Where everything lies in shared memory where each warp has a ring of pages of its own; a part of attention_tile.cuh.
#pragma once
#include "hopper/barrier.cuh"

/// Keys are found by the warps that ask for them; the portable kernels' places are not used.
constexpr int place_stages = 1;

/// Queries that take the place of other numbers in registers are not these.
constexpr bool holds_queries = false;

/// What a warp computes on at a time, and asks for: 16 keys of one block, and their values.
constexpr int page_keys = 16;
static_assert(keys == warps * page_keys && warps_m == 1 && rows == 16, "each warp has a page of a stage, and all rows");

/// Rows whose states meet at a time: what rings leave of the memory has no room for more.
constexpr int meeting_rows = 8;

/// Byte offsets into shared memory.
struct Shared {
    static constexpr int page_bytes = page_keys * KeyRows::stride, slot_bytes = 2 * page_bytes;
    /// [warps][stages] of keys and values.
    static constexpr int rings = 0;
    /// Where states meet later: they are in registers then. Outputs [warps][meeting_rows][meeting_stride], then maxima and sums
    /// [warps][meeting_rows][2].
    static constexpr int queries = rings + warps * stages * slot_bytes, meeting = queries;
    static constexpr int meeting_stride = padded_vo + 4;
    static constexpr int meeting_ends = meeting + warps * meeting_rows * meeting_stride * 4;
    static constexpr int size = meeting_ends + warps * meeting_rows * 8;
    /// Of merges that these kernels have not.
    static constexpr int meeting_targets = meeting_ends;
    static_assert(rows * QueryRows::stride <= meeting_ends - meeting, "queries lie where states meet");
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");

/// Waits for all of the block.
FI_DEVICE void sync_block() { __syncthreads(); }
