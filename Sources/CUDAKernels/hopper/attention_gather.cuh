// Keys and values of pages too small for the copy engine's boxes: three warps look each row up and copy it.
//
// A lane looks rows up a stage ahead, once for keys and values, and hands them to the eight lanes that copy a row's 128 bytes. Copies of
// three stages are under way, the next item's among them: reading ids where they were needed, and one after another, took eight times as
// long as a stage's products.
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

    static_assert(looks <= 2, "a lane's places are chosen by one comparison");

    /// A place in the ring of keys' stages, or of values'.
    struct Place {
        int stage = 0;
        uint32 phase = 0;
    };

    const Block &block;
    const int warp, lane;
    /// The barriers of the stages whose copies are under way, the older first; 0 where there is none.
    uint32 unannounced[2] = {};
    /// Where the next stage goes, keys and values by turns, and where the one after it.
    Place place, other_place;

    __device__ __forceinline__ Gatherer(const Block &block, int thread) : block(block), warp(thread / warp_size), lane(thread % warp_size) {}

    /// Announces the oldest stage where at most `pending` younger ones are under way.
    template <int pending> __device__ __forceinline__ void announce(uint32 &full) {
        if (full == 0) return;
        copy_wait<pending>();
        fence_async_proxy();
        Barrier{full}.arrive();
        full = 0;
    }
    __device__ __forceinline__ void announce_all() {
        announce<1>(unannounced[0]);
        announce<0>(unannounced[1]);
    }

    /// The key of a stage that this lane looks up: of its warp's turn `look * 8 + lane / 4`.
    __device__ __forceinline__ int looked_up(const Span &span, int tile, int look) const {
        const int row = ((look * 8 + lane / 4) * warps + warp) * 4 + lane % 4;
        return span.key(tile * keys + min(row, keys - 1));
    }

    /// A stage's rows of keys or of values, `there` of them, from where `rows` says; zeros for what is not there. One text for both, as two are a
    /// twentieth of what the kernel takes to compile.
    __device__ __forceinline__ void copy_stage(const Item &item, bool is_values, const Rows &rows, int there, Place &place) {
        const fi_attention_params &p = block.p;
        const Barriers &barriers = block.barriers;
        constexpr int most_columns = Shared::key_columns > Shared::value_columns ? Shared::key_columns : Shared::value_columns;
        const int own = warp * 4 + lane / 8, chunk = lane % 8, dim = is_values ? slice_vo : dim_qk;
        const uint64 head = is_values ? item.values_address(p) : item.keys_address(p);
        const int64 next_block = is_values ? p.values.block : p.keys.block, next_token = is_values ? p.values.token : p.keys.token;
        uint64 places[looks];
#pragma unroll
        for (int look = 0; look < looks; ++look) {
            const int64 id = divide(rows[look], p.block_size_multiplier, p.block_size_shift), row = rows[look] - id * p.block_size;
            places[look] = head + (id * next_block + row * next_token) * 2;
        }
        Barrier{shared_address(is_values ? barriers.values_empty : barriers.keys_empty) + place.stage * 8}.wait(place.phase ^ 1);
        const uint32 to = block.base + (is_values ? Shared::value_stages + place.stage * Shared::value_bytes : Shared::key_stages + place.stage * Shared::key_bytes)
                          + own * 128 + ((chunk ^ own % 8) << 4);
#pragma unroll 1
        for (int turn = 0; turn * warps + warp < fours; ++turn) {
            constexpr int rows_apart = warps * 4;
            // Turns of three warps have the two halves of a swizzle's rows by turns.
            constexpr int half = rows_apart % 8 == 4 ? 64 : 0;
            const char *from = pointer<const char>(__shfl_sync(0xffffffff, turn < 8 ? places[0] : places[looks - 1], turn % 8 * 4 + lane / 8) + chunk * 16);
            const uint32 at = (to ^ turn % 2 * half) + turn * rows_apart * 128;
#pragma unroll
            for (int column = 0; column < most_columns; ++column)
                if (Shared::key_columns == Shared::value_columns || column * 64 < dim)
                    copy_async<16>(at + column * keys * 128, from + column * 128,
                                   turn * rows_apart < there - own && ((dim_qk % 64 == 0 && slice_vo % 64 == 0) || column * 64 + chunk * 8 < dim));
        }
        copy_commit();
        announce<2>(unannounced[0]);
        unannounced[0] = unannounced[1];
        unannounced[1] = shared_address(is_values ? barriers.values_full : barriers.keys_full) + place.stage * 8;
        if (++place.stage == (is_values ? stages_of_values : stages)) place.stage = 0, place.phase ^= 1;
    }

    __device__ __forceinline__ void gather_item(const Item &item) {
        const fi_attention_params &p = block.p;
        const Barriers &barriers = block.barriers;
        const KeyFinder finder{p, item};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        Rows rows, rows_before;
        int ids[looks], rows_of_pages[looks];
        // The first turn only asks for the first stage's ids.
#pragma unroll 1
        for (int tile = -1; tile <= tiles; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (warp == 0 && lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
#pragma unroll
            for (int look = 0; look < looks; ++look) {
                rows[look] = ids[look] * p.block_size + rows_of_pages[look];
                const int key = looked_up(span, min(tile + 1, tiles - 1), look);
                ids[look] = finder.block(key), rows_of_pages[look] = finder.row(key);
            }
            // Keys, and the values of the stage before.
#pragma unroll 1
            for (int of = 0; of < 2; ++of) {
                if (of == 0 ? static_cast<uint32>(tile) < static_cast<uint32>(tiles) : tile > 0) {
                    Rows those;
#pragma unroll
                    for (int look = 0; look < looks; ++look) those[look] = of == 0 ? rows[look] : rows_before[look];
                    copy_stage(item, of == 1, those, span.count - (tile - of) * keys, place);
                }
                const Place other = other_place;
                other_place = place, place = other;
            }
#pragma unroll
            for (int look = 0; look < looks; ++look) rows_before[look] = rows[look];
        }
        // What few copies are under way is not left waiting for an item that may be claimed late, or for one that ends first.
        if (tiles < 4) announce_all();
    }

    /// Item after item.
    __device__ __forceinline__ void gather() {
        for (uint32 turn = 0;; ++turn) {
            const Item &item = block.items[turn % item_slots];
            barrier(block.barriers.item_full[turn % item_slots]).wait(turn / item_slots);
            if (item.tile < 0) break;
            gather_item(item);
        }
        announce_all();
    }
};
