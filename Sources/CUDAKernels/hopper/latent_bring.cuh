// What the roles of Hopper's latent attention share, and how keys are asked for.
#pragma once
#include "fi_hopper_attention_params.h"
#include "portable/attention_finish.cuh"
#include "hopper/tensor_copy.cuh"

/// The block's barriers.
struct Barriers {
    uint64 item_full[item_slots];
    /// A stage's bytes have come; all who read it are done, in both blocks of a cluster.
    uint64 full[stages], empty[stages];
    /// The same of 8-bit keys that are to be widened: those who read are those who widen, and they fill the block's own stages.
    uint64 raw_full[raw_stages], raw_empty[raw_stages];
    uint64 weights_full[2], weights_empty[2];
    uint64 ends_full, ends_empty;
};
FI_DEVICE Barrier barrier(const uint64 &word) { return {shared_address(&word)}; }

/// A place in a ring: which, and the parity of its turn.
template <int count> struct Ring {
    int at = 0;
    uint32 phase = 0;
    __device__ __forceinline__ void next() {
        if (++at == count) at = 0, phase ^= 1;
    }
};
using StageRing = Ring<stages>;
using RawRing = Ring<raw_stages>;
/// What is asked for.
using AskedRing = Ring<is_narrow ? raw_stages : stages>;

/// What the warp that asks for keys has come to, in memory: its registers are the outputs'.
struct Asking {
    /// Stages asked for so far; of the item that is asked for, the next one, and how many there are.
    int asked, tile, tiles;
    /// The item that is asked for, as a number of this block's, and where the table has the next one.
    int turn, next, end;
    /// Where the ring is.
    AskedRing ring;
};

struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    Item (&items)[item_slots];
    Asking &asking;

    __device__ __forceinline__ uint32 stage(const StageRing &ring) const { return base + Shared::stages_at + ring.at * Shared::stage_bytes; }
    __device__ __forceinline__ void await(const StageRing &ring) const { barrier(barriers.full[ring.at]).wait(ring.phase); }
    /// Gives a warp's part of a stage back, to all who bring to it.
    __device__ __forceinline__ void give_back(const StageRing &ring) const { free_for_all(barriers.empty[ring.at], !is_narrow); }
    __device__ __forceinline__ void give_back_raw(const RawRing &ring) const { free_for_all(barriers.raw_empty[ring.at], true); }
    __device__ __forceinline__ void free_for_all(const uint64 &empty, bool is_shared) const {
        const int lane = threadIdx.x % warp_size;
        __syncwarp();
        if (cluster == 1 || !is_shared) {
            if (lane == 0) barrier(empty).arrive();
        } else {
            if (lane < cluster) barrier(empty).arrive_at(lane);
        }
    }
    /// Item number `turn` of this block; of tile -1 where there is no more.
    __device__ __forceinline__ const Item &await_item(uint32 turn) const {
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        return items[turn % item_slots];
    }
};

FI_DEVICE int tiles_of(const Item &item) { return ceil_div(item.key_count, keys); }

/// Reads item number `turn` of this block's list: the first is where the list's number says, the rest are where the table says.
FI_DEVICE void fetch_item(const Block &block, int turn) {
    const fi_attention_params &p = block.p;
    Asking &asking = block.asking;
    Item &item = block.items[turn % item_slots];
    int index = blockIdx.x / cluster;
    if (turn == 0) {
        const int *rest = pointer<const int>(p.item_indptr) + index;
        asking.next = rest[0], asking.end = rest[1];
    } else {
        index = asking.next < asking.end ? asking.next++ : -1;
    }
    if (index >= 0) {
        const auto *from = reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index);
#pragma unroll 1
        for (int i = 0; i < sizeof(fi_attention_item) / 16; ++i) reinterpret_cast<uint4 *>(&item)[i] = from[i];
        item.take_part(blockIdx.x % cluster);
    } else {
        item.tile = -1;
    }
    barrier(block.barriers.item_full[turn % item_slots]).arrive();
}

/// The pages of the next boxes, one a lane: looked up once for many stages, as a look takes longer than half of a stage's products.
struct Pages {
    int own = 0;
};

/// Asks for the keys of a stage, a warp. Where a box has all of a stage's rows, one lane asks for all of its columns at once, or half of
/// them; else a lane has one of the boxes' places among its rows, and every so many of its columns.
FI_DEVICE void ask_for_stage(const Block &block, const Item &item, int tile, const AskedRing &ring, uint32 parity, Pages &pages) {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    const KeyFinder finder{block.p, item};
    const int box_rows = block.maps.box_rows, rows_shift = 31 - __clz(box_rows), places_shift = 5 - rows_shift;
    static_assert(keys == 32 && warp_size == 32, "shifts");
    const int first = item.key + tile * keys, in_look = tile & box_rows - 1;
    if (in_look == 0) pages.own = finder.block(first + (lane << rows_shift));
    const int place = lane & (1 << places_shift) - 1, own_row = place << rows_shift;
    const int page = __shfl_sync(0xffffffff, pages.own, (in_look << places_shift) + place), row = finder.row(first + own_row);
    // Rows of boxes that hold keys.
    const int used = (min(item.key_end() - first, keys) + box_rows - 1) & -box_rows;
    // Columns of a box: 128 bytes, or 256 elements of 8 bits; and the rest.
    constexpr int elements = is_narrow ? 256 : 64, row_bytes = elements * element_bytes, whole = dim_vo / elements;
    const uint64 *full_words = is_narrow ? block.barriers.raw_full : block.barriers.full;
    const uint64 *empty_words = is_narrow ? block.barriers.raw_empty : block.barriers.empty;
    barrier(empty_words[ring.at]).wait(ring.phase ^ 1);
    const Barrier full = barrier(full_words[ring.at]);
    const uint32 to = block.base + (is_narrow ? Shared::raw + ring.at * Shared::raw_bytes : Shared::stages_at + ring.at * Shared::stage_bytes);
    const uint32 rank = blockIdx.x % cluster;
    if (box_rows == keys) {
        if (lane == 0) {
            full.arrive_expecting(keys * dim_qk * element_bytes);
            if constexpr (cluster == 1) {
                copy_box(to, block.maps.keys, 0, row, 0, page, full);
                copy_box(to + whole * keys * row_bytes, block.maps.values, 0, row, 0, page, full);
            } else {
                // The other block brings the other half; the rest is brought by turns.
                copy_box_to(3, to + rank * (whole / 2 * keys * row_bytes), block.maps.keys, 0, row, rank * (whole / 2), page, full);
                if (((parity ^ rank) & 1) == 0) copy_box_to(3, to + whole * keys * row_bytes, block.maps.values, 0, row, 0, page, full);
            }
        }
        __syncwarp();
        return;
    }
    if (lane == 0) full.arrive_expecting(used * dim_qk * element_bytes);
    __syncwarp();
    if (own_row < used) {
#pragma unroll 1
        for (int column = lane >> places_shift; column <= whole; column += warp_size >> places_shift) {
            const bool is_rest = column == whole;
            const fi_tensor_map &map = is_rest ? block.maps.values : block.maps.keys;
            const uint32 there = to + column * (keys * row_bytes) + own_row * (is_rest ? FI_LATENT * element_bytes : row_bytes);
            if constexpr (cluster == 1) {
                copy_box(there, map, 0, row, is_rest ? 0 : column, page, full);
            } else if (((column ^ parity ^ rank) & 1) == 0) {
                // The other block brings the others: of an odd number of columns each has one more by turns.
                copy_box_to(3, there, map, 0, row, is_rest ? 0 : column, page, full);
            }
        }
    }
    __syncwarp();
}

/// Asks for keys, of this item or later ones, as far as there is memory for them: `done` stages have been multiplied (8-bit ones: widened),
/// and the item at hand is number `turn`. For one warp of those that have the outputs, which knows best when a stage is free.
FI_DEVICE void ask_ahead(const Block &block, int done, int turn, Pages &pages) {
    Asking &asking = block.asking;
    // The other warps may still be at the stage before the last.
    constexpr int ahead = is_narrow ? raw_stages : stages - 1;
    while (asking.asked < done + ahead && asking.turn <= turn + 2) {
        if (asking.tile < asking.tiles) {
            const AskedRing ring = asking.ring;
            const int tile = asking.tile, asked = asking.asked;
            ask_for_stage(block, block.items[asking.turn % item_slots], tile, ring, asked, pages);
            if (threadIdx.x % warp_size == 0) {
                asking.tile = tile + 1;
                asking.asked = asked + 1;
                asking.ring.next();
            }
        } else {
            const int next = asking.turn + 1;
            // Nothing more, or an item whose place is not free yet.
            if ((next > 0 && block.items[asking.turn % item_slots].tile < 0) || next > turn + 2) return;
            __syncwarp();
            if (threadIdx.x % warp_size == 0) {
                fetch_item(block, next);
                const Item &item = block.items[next % item_slots];
                asking.turn = next;
                asking.tile = 0;
                asking.tiles = item.tile < 0 ? 0 : tiles_of(item);
            }
        }
        __syncwarp();
    }
}
