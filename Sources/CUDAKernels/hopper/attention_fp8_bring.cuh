// Queries, keys and values of e4m3 into shared memory: keys as they are, values transposed on the way, as products of 8 bits take
// rows of what is multiplied over only.
#pragma once
#include "hopper/attention_queries.cuh"

/// Registers of a thread that brings; those that compute get the rest of the processor's.
constexpr int bringer_registers = FI_BRINGER_REGISTERS;

/// The warp that takes items and asks for their keys and values: it is done with an item stages before all others.
FI_DEVICE void bring_stages(const Block &block) {
    const fi_attention_params &p = block.p;
    const Barriers &barriers = block.barriers;
    const int lane = threadIdx.x % warp_size;
    const BoxShare share(block.maps.box_rows);
    Ring key_ring;
    RawRing raw_ring;
    for (uint32 turn = 0;; ++turn) {
        fetch_item(block, turn);
        const Item &item = block.items[turn % 2];
        barrier(barriers.item_full[turn % 2]).wait(turn / 2);
        if (item.tile < 0) return;
        const KeyFinder finder{p, item};
        const Span span(item, block.maps.box_rows);
        const int tiles = span.tiles();
        Boxes before;
        // Keys are wanted a stage before the values beside them, but where values are given back first, they are asked for beside their keys.
        constexpr int delay = turns_in_place ? 0 : 1;
        for (int tile = 0; tile < tiles + delay; ++tile) {
            // As late as hides it: what is claimed early waits for this block while others have nothing left.
            if (lane == 0 && tile == max(tiles - 4, 0)) barrier(barriers.claim).arrive();
            Boxes boxes;
            if (tile < tiles) {
                boxes.find(share, item, finder, span, tile);
                barrier(barriers.keys_empty[key_ring.stage]).wait(key_ring.phase ^ 1);
                boxes.copy(share, block.maps.keys, block.base + Shared::key_stages + key_ring.stage * Shared::key_bytes, Shared::key_columns,
                           Shared::key_width, Shared::key_width, 0, item.head, barrier(barriers.keys_full[key_ring.stage]));
                key_ring.next();
            }
            if (tile >= delay) {
                barrier(turns_in_place ? barriers.values_empty[raw_ring.stage] : barriers.raw_empty[raw_ring.stage]).wait(raw_ring.phase ^ 1);
                (delay ? before : boxes).copy(share, block.maps.values, block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes,
                                              Shared::value_columns, Shared::value_width, Shared::value_width, 0, item.head,
                                              barrier(barriers.raw_full[raw_ring.stage]));
                raw_ring.next();
            }
            before = boxes;
        }
    }
}

/// One of the threads that transpose values.
///
/// A transposed load of 8 × 8 pairs of bytes gives a lane, of keys 2q and 2q + 1 (q = lane % 4), elements 2p and 2p + 1
/// (p = lane / 4). Two such of keys 0 to 15 become, by two byte permutations, a word of four keys for either element: 2q, 2q + 1,
/// 8 + 2q and 8 + 2q + 1. That is the order in which a lane of the product before has its sums, so the weights need no more than
/// being rounded, and stores of matrices write the words as rows of keys.
struct Transposer {
    const Block &block;
    int thread;
    ValueRing value_ring;
    RawRing raw_ring;

    /// Zeros in the rows before `first` and from `end` on, which are not the item's: a weight of 0 does not stop what is there if it
    /// is no number.
    __device__ __forceinline__ void clear(uint32 raw, int first, int end) const {
        constexpr int chunks = Shared::value_width / 16;
        // Those who read what was here before have passed the barrier of the stage by one lane a warp; this says so for all lanes.
        sync_threads(bringers_barrier, bringers);
#pragma unroll 1
        for (int id = thread; id < keys * chunks * Shared::value_columns; id += bringers) {
            const int row = id / chunks % keys;
            if (row < first || row >= end) store_shared(raw + id * 16, make_uint4(0, 0, 0, 0));
        }
        sync_threads(bringers_barrier, bringers);
    }

    __device__ __forceinline__ void transpose(uint32 raw, uint32 to) const {
        // A warp takes 16 elements of all keys at a time, 32 keys with a load; several loads before the first store.
        constexpr int blocks = keys / 32, batch = blocks % 2 != 0 ? blocks : bringer_registers >= 40 && blocks % 4 == 0 ? 4 : 2;
        const int thread = anew(this->thread), lane = thread % warp_size;
        // Even elements of one half of the lanes go with odd ones of the other, so that eight rows lie in different banks.
        const uint32 even = lane < 16 ? 0x6420 : 0x7531, odd = even ^ (0x6420 ^ 0x7531);
        const int element = 2 * (lane % 8) + ((lane / 4 ^ lane / 8) & 1);
#pragma unroll 1
        for (int d = thread / warp_size * 16; d < padded_vo; d += bringers / warp_size * 16) {
            const uint32 from = raw + d / Shared::value_width * (keys * Shared::value_width)
                                + ValueColumn::offset(lane, d % Shared::value_width / 16);
            const uint32 first_to = to + TurnedColumn::offset(d + element, lane / 16);
#pragma unroll
            for (int first = 0; first < blocks; first += batch) {
                uint32 r[batch][4];
#pragma unroll
                for (int i = 0; i < batch; ++i) load_matrices_transposed(r[i], from + (first + i) * 32 * Shared::value_width);
#pragma unroll
                for (int i = 0; i < batch; ++i) {
                    const int key = (first + i) * 32;
                    const uint32 words[4] = {__byte_perm(r[i][0], r[i][1], even), __byte_perm(r[i][0], r[i][1], odd),
                                             __byte_perm(r[i][2], r[i][3], even), __byte_perm(r[i][2], r[i][3], odd)};
                    // The chunks' numbers have no bit in common, so the swizzle leaves them two steps of XOR.
                    store_matrices(words, (first_to ^ key % Shared::turned_width)
                                              + key / Shared::turned_width * (padded_vo * Shared::turned_width));
                }
            }
        }
    }

    /// The same where values lie: in squares of 128 keys by 128 elements, blocks of 16 by 16 change places with those across the diagonal.
    ///
    /// All steps are written out for each warp, so that an address is a lane's own with an XOR of 16 times the block of elements, under the swizzle,
    /// and 2,048 times the block of keys more. With addresses found in a loop, a stage took longer than its products (H200: 2,700 cycles).
    __device__ __forceinline__ void transpose_in_place(uint32 at) const {
        const uint32 thread = anew(this->thread), lane = thread % warp_size, half = lane / 16 * 0x810;
        const uint32 element = lane % 8 * 2 | ((lane / 4 ^ lane / 8) & 1);
#pragma unroll 1
        for (int square = 0; square < Shared::value_columns; ++square, at += 128 * 128) {
            const uint32 from = at + (ValueColumn::offset(lane % 16, 0) ^ half), to = at + (TurnedColumn::offset(element, 0) ^ half);
            if (thread < warp_size) transpose_share<0>(from, to, lane);
            else if (thread < 2 * warp_size) transpose_share<1>(from, to, lane);
            else transpose_share<2>(from, to, lane);
        }
    }

    /// Two blocks, of keys 16 i and elements 16 j, and i + 1 and j ^ 1: a load, with one for each half of the lanes; i is even.
    struct Blocks { int i, j; };
    /// A warp's loads of a square. Twelve pairs of two are each stored where the other was, and eight where they were.
    template <int warp> static constexpr int loads = warp < 2 ? 11 : 10;
    static constexpr Blocks blocks(int warp, int place) {
        const int pair = warp * 4 + place / 2, alone = warp * 3 + place - 8;
        if (place >= 8) return {alone / 2 * 2, alone};
        constexpr int firsts[6] = {0, 0, 0, 2, 2, 4}, seconds[6] = {2, 4, 6, 4, 6, 6};
        const int first = firsts[pair / 2], second = seconds[pair / 2], odd = pair % 2;
        return place % 2 == 0 ? Blocks{first, second + odd} : Blocks{second, first + odd};
    }
    template <int warp> FI_DEVICE void transpose_share(uint32 from, uint32 to, uint32 lane) {
        // So many loads are under way beside the one that is stored.
        constexpr int ahead = 2;
        const uint32 even = lane < 16 ? 0x6420 : 0x7531, odd = even ^ (0x6420 ^ 0x7531);
        // Of j that are odd, the halves of the lanes have rows the other way round.
        const uint32 to_odd = anew(to + (lane < 16 ? 2048 : -2048));
        uint32 r[ahead + 1][4];
#pragma unroll
        for (int n = 0; n < loads<warp> + ahead; ++n) {
            if (n < loads<warp>) {
                const Blocks b = blocks(warp, n);
                load_matrices_transposed(r[n % (ahead + 1)], (from ^ b.j << 4) + b.i * 2048);
            }
            if (n >= ahead) {
                const Blocks b = blocks(warp, n - ahead);
                const uint32(&x)[4] = r[(n - ahead) % (ahead + 1)];
                const uint32 words[4] = {__byte_perm(x[0], x[1], even), __byte_perm(x[0], x[1], odd), __byte_perm(x[2], x[3], even),
                                         __byte_perm(x[2], x[3], odd)};
                store_matrices(words, ((b.j % 2 == 0 ? to : to_odd) ^ b.i << 4) + b.j / 2 * 2 * 2048);
            }
        }
    }

    __device__ __forceinline__ void transpose_item(const Span &span) {
        const Barriers &barriers = block.barriers;
        const int tiles = span.tiles();
#pragma unroll 1
        for (int tile = 0; tile < tiles; ++tile) {
            const uint32 raw = block.base + Shared::raw + raw_ring.stage * Shared::raw_bytes;
            barrier(barriers.raw_full[raw_ring.stage]).wait(raw_ring.phase);
            const int first = tile == 0 ? span.lead : 0, end = span.count - tile * keys;
            if (first > 0 || end < keys) clear(raw, first, end);
            if constexpr (turns_in_place) {
                transpose_in_place(raw);
            } else {
                barrier(barriers.values_empty[value_ring.stage]).wait(value_ring.phase ^ 1);
                transpose(raw, block.base + Shared::value_stages + value_ring.stage * Shared::value_bytes);
            }
            fence_async_proxy();
            barrier(barriers.values_full[value_ring.stage]).arrive();
            if constexpr (!turns_in_place) {
                __syncwarp();
                if (thread % warp_size == 0) barrier(barriers.raw_empty[raw_ring.stage]).arrive();
            }
            raw_ring.next();
            value_ring.next();
        }
    }
};

/// The warps that copy queries and transpose values.
FI_DEVICE void bring_queries(const Block &block, int thread) {
    const fi_attention_params &p = block.p;
    Transposer transposer{block, thread};
    for (uint32 turn = 0;; ++turn) {
        const int slot = turn % 2;
        const Item &item = block.items[slot];
        barrier(block.barriers.item_full[slot]).wait(turn / 2);
        if (item.tile < 0) return;
        const uint32 to = block.base + Shared::queries + slot * Shared::query_bytes;
        copy_queries<1>(p, item, anew(thread), [&](int row, int chunk) {
            return to + row / 64 * (64 * padded_qk) + chunk * 16 / Shared::key_width * (64 * Shared::key_width)
                   + KeyColumn::offset(row % 64, chunk * 16 % Shared::key_width / 16);
        });
        barrier(block.barriers.queries_full[0][slot]).arrive();
        transposer.transpose_item(Span(item, block.maps.box_rows));
    }
}
