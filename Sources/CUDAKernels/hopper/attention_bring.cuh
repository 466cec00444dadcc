// What the roles of Hopper's attention kernel share, and the warp that asks the copy engine for keys and values.
#pragma once
#include "fi_hopper_attention_params.h"
#include "portable/attention_finish.cuh"
#include "portable/attention_queue.cuh"
#include "hopper/tensor_copy.cuh"

constexpr int groups = warps / 4, all_threads = threads + 128 + (is_mixed ? 128 : 0);
/// Threads that bring queries, and widen 8-bit elements.
constexpr int bringers = 96;

/// How a stage's rows lie: in tiles of eight rows of 128 bytes, swizzled, of which `columns` are beside each other.
///
/// The copy engine's time goes by boxes as much as by what is in them, so of blocks' rows, where they are whole tiles, it brings all columns in
/// one box. Eight rows then lie after eight, with all their columns, and not column after column.
template <int dim> struct StageTiles {
    static constexpr int columns = ceil_div(dim, 64), bytes = keys * columns * 128;
    static constexpr bool is_wide = !FI_RAGGED && !is_narrow && !gathers_rows && dim % 64 == 0 && columns > 1;
    static constexpr int next_column = is_wide ? 1024 : keys * 128, next_eight = is_wide ? columns * 1024 : 1024;
};
using KeyTiles = StageTiles<dim_qk>;
using ValueTiles = StageTiles<slice_vo>;

/// How far the first block of a cluster may be ahead of what the other knows of its claims: by the items of a ring's stages, each of which has
/// one or more, the one at hand, the next one, and what is claimed.
constexpr int index_slots = 8;
static_assert(stages + 3 <= index_slots, "no index is overwritten before it is read");

/// What the two blocks of a cluster go through for their items: so many stages, of which the one with fewer keys leaves the last out; and the
/// number of keys that they bring each other, from their first on, or -1 where each brings its own.
struct Passage { int tiles, shared; };

/// What a block of a cluster knows of both.
struct ClusterState {
    Passage passages[item_slots];
    /// The places of the next items, from the first block.
    int indices[index_slots];
    /// The other block's item.
    __align__(16) Item beside;
};

/// The block's barriers.
struct Barriers {
    uint64 item_full[item_slots], queries_full[query_parts][item_slots], item_empty[item_slots];
    /// The next item is wanted.
    uint64 claim;
    /// The only queries, or a group's, are done with.
    uint64 queries_empty[query_parts];
    uint64 keys_full[stages], keys_empty[stages], values_full[stages_of_values], values_empty[stages_of_values];
    /// The first of a cluster has said which items come next.
    uint64 index_full[cluster > 1 ? index_slots : 1];
    /// 8-bit keys and values on their way to be widened.
    uint64 raw_full[raw_stages], raw_empty[raw_stages];
};
FI_DEVICE Barrier barrier(const uint64 &word) { return {shared_address(&word)}; }

/// Waits for a stage that a product reads. Copies of threads arrive by themselves, with nobody behind them who could order them with the tensor cores:
/// who reads them does.
FI_DEVICE void await_stage(const uint64 &full, uint32 phase) {
    barrier(full).wait(phase);
    if constexpr (gathers_rows) fence_async_proxy();
}

/// A place in a ring of stages: which stage, and the parity of its turn.
template <int count> struct RingOf {
    int stage = 0;
    uint32 phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == count) stage = 0, phase ^= 1;
    }
};
using Ring = RingOf<stages>;
using ValueRing = RingOf<stages_of_values>;
using RawRing = RingOf<raw_stages>;

/// The keys that an item's stages hold: its own, from the start of the box that the first lies in.
struct Span : Hole {
    int first, count, lead;

    __device__ __forceinline__ Span(const Item &item, int box_rows) : Hole(item, item.key - in_box(item, box_rows)) {
        lead = in_box(item, box_rows);
        first = item.key - lead;
        count = item.key_count == 0 ? 0 : item.key_count + lead - jump;
        if (before == 0) lead = 0;
    }
    /// One, of nothing, where there is no key.
    __device__ __forceinline__ int tiles() const { return max(ceil_div(count, keys), 1); }
    /// The key that is number `at` of those in stages.
    __device__ __forceinline__ int key(int at) const { return first + at + skipped(at); }
    /// Boxes of ragged keys start where an item does, and rows that threads copy are in none.
    FI_DEVICE int in_box(const Item &item, int box_rows) { return FI_RAGGED || gathers_rows ? 0 : item.key & (box_rows - 1); }
};

/// Keys of an item's stages up to the last that some row of a warpgroup sees: under a causal mask the first group sees fewer than the last, and one
/// without rows has one, of nothing. Where groups leave nothing out each has all; for all lanes of a warp.
FI_DEVICE int keys_of_group(const Span &span, const fi_attention_params &p, const Item &item, int group) {
    int count = span.count;
    if constexpr (leaves_out_stages) {
        const int last_row = min(group * 64 + 64, item.row_count) - 1;
        const int last = last_row < group * 64 ? 0 : last_visible(p, item, item.query(p, last_row)) - span.first;
        if (span.jump == 0 && last < count) count = max(last, 0) + 1;
        // So that the compiler knows it to be the same for all lanes, else all products wait for each other.
        count = __shfl_sync(0xffffffff, count, 0);
    }
    return count;
}
/// Stages of as many keys.
FI_DEVICE int tiles_of_group(const Span &span, const fi_attention_params &p, const Item &item, int group) {
    return leaves_out_stages ? max(ceil_div(keys_of_group(span, p, item, group), keys), 1) : span.tiles();
}

struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    uint32 base;
    Barriers &barriers;
    Item (&items)[item_slots];
    /// Of clusters only.
    ClusterState &state;

    __device__ __forceinline__ uint32 rank() const { return blockIdx.x % cluster; }
    /// A warp gives its share of a stage back to all who bring it.
    __device__ __forceinline__ void give_back(const uint64 &empty) const {
        const int lane = threadIdx.x % warp_size;
        __syncwarp();
        if constexpr (cluster == 1) {
            if (lane == 0) barrier(empty).arrive();
        } else {
            if (lane < cluster) barrier(empty).arrive_at(lane);
        }
    }
    /// Stages that the other block's item of this turn has beyond this one's.
    __device__ __forceinline__ int stages_after(uint32 turn, int tiles) const { return cluster == 1 ? 0 : state.passages[turn % item_slots].tiles - tiles; }
};

/// Whom a block asks for: itself alone, both blocks of its cluster, or, as the other block does, nobody.
enum class Sharing { none, gives, takes };

/// What the copy engine's warp brings for an item: of a cluster whose blocks share keys, the longer item's.
struct BroughtSpan : Span {
    int all_tiles;
    bool is_shared = false;

    __device__ __forceinline__ BroughtSpan(const Block &block, const Item &item, uint32 turn) : Span(item, block.maps.box_rows) {
        all_tiles = tiles();
        if constexpr (cluster > 1) {
            const Passage passage = block.state.passages[turn % item_slots];
            all_tiles = passage.tiles;
            is_shared = passage.shared >= 0;
            if (is_shared) count = passage.shared;
        }
    }
    /// One block asks for all keys that both read, and the other for all values: with half of each stage from either, a stage would come when
    /// both are there (H200: 2,107 to 1,889 in FLOP/s of a kernel that only brings, 4,096 keys, and 1,292 without sharing).
    __device__ __forceinline__ Sharing sharing(const Block &block, uint32 giver) const {
        return !is_shared ? Sharing::none : block.rank() == giver ? Sharing::gives : Sharing::takes;
    }
};

/// Who asks for which box of a stage: a lane has one place among its rows, and every so many of the columns beside each other.
/// Found once, as divisions for every stage took longer than the stage's products.
struct BoxShare {
    /// Rows of a box: a power of two, or all of a stage's.
    int rows;
    /// The first row of this lane's box, its first column, and from which to which: bytes of one register, of which there are few.
    uint32 packed;

    __device__ __forceinline__ BoxShare(int box_rows) : rows(box_rows) {
        const int lane = threadIdx.x % warp_size;
        if constexpr ((keys & keys - 1) == 0) {
            // By shifts: divisions are 70 instructions.
            const int shift = __clz(rows) - __clz(keys), count = 1 << shift;
            packed = (lane & count - 1) * rows | (lane >> shift) << 16 | (warp_size >> shift) << 24;
        } else {
            const int count = keys / rows, step = warp_size / count;
            packed = lane % count * rows | (lane / count < step ? lane / count : 255) << 16 | step << 24;
        }
    }
    __device__ __forceinline__ int first_row() const { return packed & 0xffff; }
    __device__ __forceinline__ int column() const { return packed >> 16 & 255; }
    __device__ __forceinline__ int column_step() const { return packed >> 24; }
    /// Rows of the boxes that hold the first `count` rows of a stage.
    __device__ __forceinline__ int rounded(int count) const { return rows == keys ? (count > 0 ? keys : 0) : (count + rows - 1) & -rows; }
};

/// Where the boxes of a stage lie: a lane knows its own; `used` rows are in boxes that hold keys.
struct Boxes {
    int used = 0, row = 0, page = 0;

    __device__ __forceinline__ void find(const BoxShare &share, const Item &item, const KeyFinder &finder, const Span &span, int tile) {
        const int there = min(span.count - tile * keys, keys);
        used = share.rounded(cluster > 1 ? max(there, 0) : there);
        if (share.first_row() >= used) return;
        const int key = span.key(tile * keys) + share.first_row();
        if constexpr (FI_RAGGED) {
            row = item.only_block + key;
        } else {
            // A box that is asked for has a key, perhaps only of the other block's item.
            page = cluster > 1 ? __ldcg(item.blocks(finder.p) + finder.in_block(key)) : finder.block(key);
            row = finder.row(key);
        }
    }
    /// Asks for `columns` boxes beside each other: of `elements` elements and `row_bytes` bytes to a row.
    __device__ __forceinline__ void copy(const BoxShare &share, const fi_tensor_map &map, uint32 to, int columns, int elements, int row_bytes,
                                         int first, int head, Barrier full, Sharing sharing = Sharing::none) const {
        if (threadIdx.x % warp_size == 0) full.arrive_expecting(used * columns * row_bytes);
        __syncwarp();
        if (share.first_row() >= used || sharing == Sharing::takes) return;
#pragma unroll 1
        for (int column = share.column(); column < columns; column += share.column_step()) {
            const uint32 there = to + (column * keys + share.first_row()) * row_bytes;
            if (cluster == 1 || sharing == Sharing::none) copy_box(there, map, first + column * elements, head, row, page, full);
            else copy_box_to(3, there, map, first + column * elements, head, row, page, full);
        }
    }
    /// Asks for a box of whole rows from each block, whose heads' places are `apart` from the next one's.
    template <class Tiles>
    __device__ __forceinline__ void copy_wide(const BoxShare &share, const fi_tensor_map &map, uint32 to, int first, int head, int apart,
                                              Barrier full, Sharing sharing) const {
        if (threadIdx.x % warp_size == 0) full.arrive_expecting(used / 8 * Tiles::next_eight);
        __syncwarp();
        if (share.first_row() >= used || share.column() != 0 || sharing == Sharing::takes) return;
        const uint32 there = to + share.first_row() / 8 * Tiles::next_eight;
        if (cluster == 1 || sharing == Sharing::none) copy_wide_box(there, map, first / 64, row / 8, page * apart + head, full);
        else copy_wide_box_to(3, there, map, first / 64, row / 8, page * apart + head, full);
    }
};

/// The warp that asks for keys and values.
FI_DEVICE void bring_keys(const Block &block) {
    const fi_attention_params &p = block.p;
    const Barriers &barriers = block.barriers;
    const int lane = threadIdx.x % warp_size;
    const BoxShare share(block.maps.box_rows);
    Ring key_ring;
    ValueRing value_ring;
    RawRing raw_ring;
    for (uint32 turn = 0;; ++turn) {
        const Item &item = block.items[turn % item_slots];
        barrier(barriers.item_full[turn % item_slots]).wait(turn / item_slots);
        if (item.tile < 0) return;
        const KeyFinder finder{p, item};
        const BroughtSpan span(block, item, turn);
        const int tiles = span.all_tiles, head = item.head;
        const auto bring = [&](auto tiles, const fi_tensor_map &map, uint32 to, int dim, int first, int apart, const Boxes &boxes, auto &ring,
                               const uint64 *full, const uint64 *empty, Sharing sharing) {
            using Tiles = decltype(tiles);
            if constexpr (is_narrow) {
                barrier(barriers.raw_empty[raw_ring.stage]).wait(raw_ring.phase ^ 1);
                boxes.copy(share, map, block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes, 1, dim, dim, first, head,
                           barrier(barriers.raw_full[raw_ring.stage]));
                raw_ring.next();
            } else {
                barrier(empty[ring.stage]).wait(ring.phase ^ 1);
                const Barrier arrived = barrier(full[ring.stage]);
                to += ring.stage * Tiles::bytes;
                if constexpr (Tiles::is_wide) boxes.copy_wide<Tiles>(share, map, to, first, head, apart, arrived, sharing);
                else boxes.copy(share, map, to, Tiles::columns, 64, 128, first, head, arrived, sharing);
                ring.next();
            }
        };
        Boxes before, ahead;
        // Where one group computes, the ids of a stage's pages are asked for while the values before are waited for.
        constexpr bool looks_ahead = groups == 1;
        if (looks_ahead && tiles > 0) ahead.find(share, item, finder, span, 0);
        // Keys are wanted a stage before the values beside them, and are done with a stage before.
        for (int tile = 0; tile <= tiles; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
            Boxes boxes;
            if (tile < tiles) {
                if constexpr (looks_ahead) boxes = ahead;
                else boxes.find(share, item, finder, span, tile);
                bring(KeyTiles(), block.maps.keys, block.base + Shared::key_stages, dim_qk, 0, block.maps.keys_apart, boxes, key_ring,
                      barriers.keys_full, barriers.keys_empty, span.sharing(block, 0));
            }
            if (looks_ahead && tile + 1 < tiles) ahead.find(share, item, finder, span, tile + 1);
            if (tile > 0)
                bring(ValueTiles(), block.maps.values, block.base + Shared::value_stages, slice_vo, blockIdx.y * slice_vo,
                      block.maps.values_apart, before, value_ring, barriers.values_full, barriers.values_empty, span.sharing(block, 1));
            before = boxes;
        }
    }
}
