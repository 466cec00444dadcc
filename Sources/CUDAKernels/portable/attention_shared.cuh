// Where everything lies in shared memory; a part of attention_tile.cuh.
#pragma once

/// Where keys lie is found for this many stages at a time.
constexpr int place_stages = 4;
static_assert(stages < place_stages, "places are found before they are needed");

/// Queries that take the place of other numbers in registers are Hopper's.
constexpr bool holds_queries = false;

/// Byte offsets into shared memory.
struct Shared {
    // Stages start at multiples of 128 bytes, as `Rows::advance` needs.
    static constexpr int queries = 0;
    static constexpr int key_stages = queries + rows * QueryRows::stride;
    static constexpr int value_stages = is_latent ? key_stages : key_stages + stages * keys * KeyRows::stride;
    static constexpr int turned_keys = value_stages + stages * keys * ValueRows::stride;
    /// [2] of Places.
    static constexpr int places = turned_keys + (rope == Rope::none ? 0 : keys * TurnedRows::stride);
    static constexpr int places_end = places + (FI_RAGGED ? 0 : 2 * place_stages * keys * 16);
    /// At the end of an item the warps' states meet where all of that was: outputs [warps_n][rows][padded_vo + 4], then maxima
    /// and sums [warps_n][rows][2], then where the rows go [rows].
    static constexpr int meeting_stride = padded_vo + 4;
    static constexpr int meeting_ends = warps_n * rows * meeting_stride * 4;
    static constexpr int meeting_targets = meeting_ends + warps_n * rows * 8;
    static constexpr int meeting_end = meeting_targets + rows * 8;
    static constexpr int size = places_end > meeting_end ? places_end : meeting_end;
};
static_assert(Shared::size == FI_SHARED_BYTES, "the launch asks for as much shared memory as the kernel uses");

/// Waits for all of the block.
FI_DEVICE void sync_block() { __syncthreads(); }
