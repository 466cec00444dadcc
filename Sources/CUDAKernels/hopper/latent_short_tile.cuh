// Tiles of keys of latent attention of few rows: each warpgroup weighs every other tile of an item, and has half of the columns of the outputs.
#pragma once
#include "hopper/latent_short_bring.cuh"
#include "hopper/wgmma.cuh"

/// Where a thread of those that compute copies its share of an item's queries from: told before what was enqueued earlier is done, as parameters and
/// items take a while to come.
struct QueryCopies {
    const uint16 *nope, *rope;
    uint32 to;
    bool is_there;

    __device__ __forceinline__ QueryCopies(const Block &block, const Item &item) {
        const int chunk = threadIdx.x % 8, row = threadIdx.x / 8 % rows;
        is_there = row < item.row_count;
        const int own = is_there ? row : 0;
        nope = query_row(block.p, item, own), rope = part_of_query(block.p, item, own, nope, dim_vo);
        nope += chunk * 8, rope += chunk * 8;
        to = block.base + Shared::queries + row * 128 + ((chunk ^ row % 8) << 4);
    }
    __device__ __forceinline__ void ask() const {
#pragma unroll
        for (int turn = 0; turn < ceil_div(Shared::columns, 2); ++turn) {
            const int column = turn * 2 + threadIdx.x / 128;
            // Elements of the rest are counted from the key's start.
            if (column < Shared::columns)
                copy_async<16>(to + column * Shared::query_bytes, (column < dim_vo / 64 ? nope : rope) + column * 64, is_there);
        }
    }
};

/// Waits for those, all of them.
FI_DEVICE void await_queries() {
    copy_wait_all();
    fence_async_proxy();
    sync_block();
}

/// Of lanes that have the same columns of products.
FI_DEVICE float column_max(float x) {
#pragma unroll
    for (int by = 4; by < warp_size; by *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, by));
    return x;
}
FI_DEVICE float column_sum(float x) {
#pragma unroll
    for (int by = 4; by < warp_size; by *= 2) x += __shfl_xor_sync(0xffffffff, x, by);
    return x;
}

/// A warpgroup's share of an item: half of the columns of its outputs, and the weights of every other tile of keys, which it hands to the other
/// warpgroup together with what they are relative to.
///
/// Products are turned: scores have a row for each key of a tile, outputs for each of 64 columns, and a column for each of the item's rows, of which
/// a thread has `row_of(n)` and the next, for n of 0 and 1. A row of the item as a row of products, of 64, would leave three quarters of them empty.
struct TileComputer {
    const Block &block;
    const Item &item;
    const int group, tiles;
    const float scale;
    /// Keys before this one are seen by all rows.
    const int masked;
    /// The next tile, and parities that are waited for next: of each warpgroup's weights, and of this one's threads.
    TilePlace &at;
    uint32 &phases;
    /// What weights and outputs are relative to, not scaled; and this thread's share of the sum of its warpgroup's weights.
    float maximum[2][2], sum[2][2];
    float output[half_columns][2][4];

    __device__ __forceinline__ TileComputer(const Block &block, const Item &item, int group, TilePlace &at, uint32 &phases)
        : block(block), item(item), group(group), tiles(tiles_of(item)), scale(score_scales(block.p, item).x),
          masked(min(item.key_end(), last_visible(block.p, item, item.query(block.p, 0)) + 1)), at(at), phases(phases) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int j = 0; j < 2; ++j) maximum[n][j] = negative_infinity(), sum[n][j] = 0;
#pragma unroll
            for (int m = 0; m < half_columns; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) output[m][n][i] = 0;
        }
    }

    FI_DEVICE int lane() { return threadIdx.x % warp_size; }
    FI_DEVICE int warp() { return threadIdx.x % 128 / warp_size; }
    FI_DEVICE int row_of(int n) { return n * 8 + lane() % 4 * 2; }
    /// The place, in a table of rows for each warp of both warpgroups, of a warp's row.
    __device__ __forceinline__ uint32 of_warp(int table, int group, int warp, int row) const {
        return block.base + table + ((group * 4 + warp) * rows + row) * 4;
    }
    __device__ __forceinline__ uint32 weights(int group) const { return block.base + Shared::weights + group * Shared::weight_bytes; }
    __device__ __forceinline__ uint32 reference_at(int group, int n) const {
        return block.base + Shared::references + (group * rows + row_of(n)) * 4;
    }
    /// Waits for all of this warpgroup. Not by a named barrier: racecheck loses its way where several are waited at.
    __device__ __forceinline__ void sync_group() const {
        const Barrier all = barrier(block.barriers.groups[group]);
        all.arrive();
        all.wait(phases >> 2);
        phases ^= 1 << 2;
    }
    /// Where this lane's row of a matrix goes when 16 by 16 elements, of which it has a pair of each quarter, are stored turned: the row, and which
    /// of two chunks of eight columns.
    FI_DEVICE int turned_row() { return lane() / 16 * 8 + lane() % 8; }
    FI_DEVICE int turned_chunk() { return lane() / 8 % 2; }
    /// A warp's share of a piece.
    FI_DEVICE void give_back(const uint64 &empty) {
        __syncwarp();
        if (lane() == 0) barrier(empty).arrive();
    }
    /// Where a half of the tile lies.
    __device__ __forceinline__ int slot_of(int half) const { return (at.half.slot + half) % half_slots; }

    /// Scores of a tile.
    __device__ __forceinline__ void score(float (&s)[2][4]) const {
        // Two sums by turns: a product of so few columns need not wait for the one before.
        float odd[2][4];
        const uint64 queries = operand(block.base + Shared::queries);
        const auto multiply = [&](uint64 piece, int column, int step, bool adds) {
            const uint64 a = advance_operand(piece, step / 4 * Shared::tile_bytes + step % 4 * 32);
            const uint64 b = advance_operand(queries, (column + step / 4) * Shared::query_bytes + step % 4 * 32);
            if (step % 2 == 0) wgmma<half_type>(s, a, b, adds);
            else wgmma<half_type>(odd, a, b, adds);
        };
        RingPlace<half_slots> place = at.half;
#pragma unroll
        for (int half = 0; half < halves; ++half) {
            // Of another tile, maybe, that this warpgroup did not wait for: before it has come and gone, a parity would be an older one's.
            barrier(block.barriers.half_empty[place.slot]).wait(place.round ^ 1);
            barrier(block.barriers.half_full[place.slot]).wait(place.round);
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < half_columns * 4; ++step)
                multiply(operand(block.half(place.slot)), half * half_columns, step, half > 0 || step > 1);
            place.advance(1);
        }
        barrier(block.barriers.rest_full[at.rest.slot]).wait(at.rest.round);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; ++step) multiply(operand(block.rest(at.rest.slot)), halves * half_columns, step, true);
        wgmma_commit();
        wgmma_wait<0>();
        give_back(block.barriers.rest_empty[at.rest.slot]);
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[n][i] += odd[n][i];
    }

    /// Hides the keys that rows do not see, of a tile from key `first_key` on.
    __device__ __forceinline__ void hide(float (&s)[2][4], int first_key) const {
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int query = item.query(block.p, max(min(row_of(n) + j, item.row_count - 1), 0));
                const int last = min(last_visible(block.p, item, query), item.key_end() - 1) - first_key - warp() * 16 - lane() / 4;
                if (last < 0) s[n][j] = negative_infinity();
                if (last < 8) s[n][j + 2] = negative_infinity();
            }
    }
    /// References of rows `row_of(n)` and the next become `to`, and what was relative to them follows.
    __device__ __forceinline__ void move_references(int n, float2 to) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float next = j == 0 ? to.x : to.y, factor = exp2_approximate(maximum[n][j] * scale - reference(next, scale));
            maximum[n][j] = next;
            sum[n][j] *= factor;
#pragma unroll
            for (int m = 0; m < half_columns; ++m) output[m][n][j] *= factor, output[m][n][j + 2] *= factor;
        }
    }
    /// References follow the maxima of all warps' keys; for all of the warpgroup.
    __device__ __forceinline__ void raise(const float (&s)[2][4]) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const float top[2] = {column_max(fmaxf(s[n][0], s[n][2])), column_max(fmaxf(s[n][1], s[n][3]))};
            if (lane() < 4)
                store_shared(of_warp(Shared::maxima, group, warp(), row_of(n)), make_uint2(__float_as_uint(top[0]), __float_as_uint(top[1])));
        }
        sync_group();
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float2 next = make_float2(maximum[n][0], maximum[n][1]);
#pragma unroll
            for (int other = 0; other < 4; ++other) {
                const float2 x = load_shared_float2(of_warp(Shared::maxima, group, other, row_of(n)));
                next = make_float2(fmaxf(next.x, x.x), fmaxf(next.y, x.y));
            }
            move_references(n, next);
        }
    }
    /// Zeros in the values behind the last of `count` keys: a weight of 0 does not stop what is there if it is no number.
    __device__ __forceinline__ void clear_rows(int count) const {
#pragma unroll 1
        for (int id = count * 8 + threadIdx.x % 128; id < keys * 8; id += 128)
#pragma unroll
            for (int column = 0; column < halves * half_columns; ++column)
                store_shared(block.half(slot_of(column / half_columns)) + column % half_columns * Shared::tile_bytes + id * 16,
                             make_uint4(0, 0, 0, 0));
    }
    /// Weights of a tile from its scores, as right operands, to both warpgroups.
    __device__ __forceinline__ void weigh(float (&s)[2][4], int first_key) {
        if (first_key + keys > masked) hide(s, first_key);
        const uint32 table = block.base + Shared::rises + group * 16;
        bool rises = false;
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) rises |= (s[n][i] - maximum[n][i % 2]) * scale > tolerated_rise;
        rises = __any_sync(0xffffffff, rises);
        if (lane() == 0) store_shared(table + warp() * 4, static_cast<uint32>(rises));
        // Behind this all warps' products have ended, of these scores and with the weights before.
        sync_group();
        const uint4 all = load_shared128(table);
        if ((all.x | all.y | all.z | all.w) != 0) raise(s);
        uint32 packed[4];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float offset = -reference(maximum[n][j], scale);
                s[n][j] = exp2_approximate(fmaf(s[n][j], scale, offset)), s[n][j + 2] = exp2_approximate(fmaf(s[n][j + 2], scale, offset));
                sum[n][j] += s[n][j] + s[n][j + 2];
            }
            packed[2 * n] = pack<half_type>(s[n][0], s[n][1]), packed[2 * n + 1] = pack<half_type>(s[n][2], s[n][3]);
            if (warp() == 0 && lane() < 4)
                store_shared(reference_at(group, n), make_uint2(__float_as_uint(maximum[n][0]), __float_as_uint(maximum[n][1])));
        }
        store_matrices_transposed(packed, weights(group) + turned_row() * 128 + ((warp() * 2 + turned_chunk() ^ turned_row() % 8) << 4));
        const int there = item.key_end() - first_key;
        if (there < keys) clear_rows(there);
        fence_async_proxy();
        barrier(block.barriers.weights[group]).arrive();
    }
    /// Waits for a tile's weights, by warpgroup `of`.
    __device__ __forceinline__ void await_weights(int of) {
        barrier(block.barriers.weights[of]).wait(phases >> of);
        phases ^= 1 << of;
    }
    /// Takes over what the other warpgroup's weights are relative to.
    __device__ __forceinline__ void follow_other() {
        const int other = group ^ 1;
        await_weights(other);
        float2 next[2];
        bool moves = false;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            next[n] = load_shared_float2(reference_at(other, n));
            moves |= next[n].x != maximum[n][0] || next[n].y != maximum[n][1];
        }
        if (__any_sync(0xffffffff, moves)) move_references(0, next[0]), move_references(1, next[1]);
    }
    /// outputs += values · weights, of the tile that warpgroup `of` has weighed; then the next tile is at hand.
    __device__ __forceinline__ void multiply(int of) {
        const int slot = slot_of(group);
        const uint64 a = operand(block.half(slot)), b = operand(weights(of));
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < keys / 16; ++step)
#pragma unroll
            for (int m = 0; m < half_columns; ++m)
                wgmma_turned<half_type>(output[m], advance_operand(a, m * Shared::tile_bytes + step * 16 * 128), advance_operand(b, step * 32), true);
        wgmma_commit();
        wgmma_wait<0>();
        give_back(block.barriers.half_empty[slot]);
        at.advance();
    }

    __device__ __forceinline__ void run_all() {
#pragma unroll 1
        for (int tile = group; tile <= tiles; tile += 2) {
            // The tile before is the other's. With its text twice, ahead of a loop or in it, the assembler waits for each product.
            if (tile > 0) follow_other(), multiply(group ^ 1);
            if (tile == tiles) break;
            float s[2][4];
            score(s);
            weigh(s, item.key + tile * keys);
            await_weights(group);
            multiply(group);
        }
    }
};
