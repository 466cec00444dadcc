// Keys and values of pages too small for the copy engine's boxes: three warps look each row up and copy it.
//
// A lane looks rows up a stage ahead, once for keys and values, and hands them to the eight lanes that copy a row's 128 bytes. Reading ids where they
// were needed, and one after another, took eight times as long as a stage's products. Stages arrive when their copies have come, and nobody waits for
// that but who reads them: a warp that announced them behind a fence waited for all that it had asked for since.
#pragma once
#include "hopper/attention_bring.cuh"

/// Threads that copy.
constexpr int gatherers = 96;

/// One of them.
struct Gatherer {
    static constexpr int warps = gatherers / warp_size;
    /// Warps take turns at four rows each; a lane looks up some of its warp's.
    static constexpr int fours = keys / 4, turns = ceil_div(fours, warps), looks = ceil_div(turns * 4, warp_size);
    /// Rows of the whole cache, counted page after page.
    using Rows = uint32[looks];

    const Block &block;
    const int warp, lane;
    Ring key_ring;
    ValueRing value_ring;

    __device__ __forceinline__ Gatherer(const Block &block, int thread) : block(block), warp(thread / warp_size), lane(thread % warp_size) {}

    /// The key of a stage that this lane looks up: of its warp's turn `look * 8 + lane / 4`.
    __device__ __forceinline__ int looked_up(const Span &span, int tile, int look) const {
        const int row = ((look * 8 + lane / 4) * warps + warp) * 4 + lane % 4;
        return span.key(tile * keys + min(row, keys - 1));
    }

    /// A stage's rows, `there` of them, of `dim` elements, from where `rows` says past `head`; zeros for what is not there.
    template <int dim, int padded, class AnyRing>
    __device__ __forceinline__ void copy_stage(const fi_kv_tensor &tensor, uint64 head, const Rows &rows, int there, uint32 to, AnyRing &ring,
                                               const uint64 *full, const uint64 *empty) {
        const fi_attention_params &p = block.p;
        const int own = warp * 4 + lane / 8, chunk = lane % 8;
        uint64 places[looks];
#pragma unroll
        for (int look = 0; look < looks; ++look) {
            const int64 id = divide(rows[look], p.block_size_multiplier, p.block_size_shift), row = rows[look] - id * p.block_size;
            places[look] = head + (id * tensor.block + row * tensor.token) * 2;
        }
        barrier(empty[ring.stage]).wait(ring.phase ^ 1);
        to += ring.stage * keys * padded * 2 + own * 128 + ((chunk ^ own % 8) << 4);
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
            if ((turn + 1) * warps > fours && turn * warps + warp >= fours) break;
            constexpr int rows_apart = warps * 4;
            // Turns of three warps have the two halves of a swizzle's rows by turns.
            constexpr int half = rows_apart % 8 == 4 ? 64 : 0;
            const char *from = pointer<const char>(__shfl_sync(0xffffffff, places[turn / 8], turn % 8 * 4 + lane / 8) + chunk * 16);
            const uint32 at = (to ^ turn % 2 * half) + turn * rows_apart * 128;
#pragma unroll
            for (int column = 0; column < padded / 64; ++column)
                copy_async<16>(at + column * keys * 128, from + column * 128,
                               turn * rows_apart < there - own && (padded == dim || column * 64 + chunk * 8 < dim));
        }
        barrier(full[ring.stage]).arrive_after_copies();
        ring.next();
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const fi_attention_params &p = block.p;
        const Barriers &barriers = block.barriers;
        const KeyFinder finder{p, item};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        Rows key_rows, value_rows;
        int ids[looks];
        const auto ask = [&](int tile) {
#pragma unroll
            for (int look = 0; look < looks; ++look) ids[look] = finder.block(looked_up(span, tile, look));
        };
        const auto find_rows = [&](Rows &rows, int tile) {
#pragma unroll
            for (int look = 0; look < looks; ++look) rows[look] = ids[look] * p.block_size + finder.row(looked_up(span, tile, look));
            if (tile + 1 < tiles) ask(tile + 1);
        };
        const auto copy_values = [&](int tile) {
            copy_stage<slice_vo, padded_vo>(p.values, item.values_address(p), value_rows, span.count - tile * keys,
                                            block.base + Shared::value_stages, value_ring, barriers.values_full, barriers.values_empty);
        };
        ask(0);
#pragma unroll 1
        for (int tile = 0; tile <= tiles; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (warp == 0 && lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
            if (tile < tiles) {
                find_rows(key_rows, tile);
                copy_stage<dim_qk, padded_qk>(p.keys, item.keys_address(p), key_rows, span.count - tile * keys,
                                              block.base + Shared::key_stages, key_ring, barriers.keys_full, barriers.keys_empty);
            }
            if (tile > 0) copy_values(tile - 1);
#pragma unroll
            for (int look = 0; look < looks; ++look) value_rows[look] = key_rows[look];
        }
    }

    /// Item after item.
    __device__ __forceinline__ void gather() {
        for (uint32 turn = 0;; ++turn) {
            const Item &item = block.items[turn % item_slots];
            barrier(block.barriers.item_full[turn % item_slots]).wait(turn / item_slots);
            if (item.tile < 0) return;
            gather_item(item);
        }
    }
};
