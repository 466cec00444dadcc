// Which pages a warp asks for, and what becomes of an item's rows at its end; parts of attention_rings.cuh.
#pragma once
#include "fi_hopper_attention_params.h"
#include "hopper/tensor_copy.cuh"
#include "portable/attention_meeting.cuh"

static_assert(!FI_QUEUE && !FI_RAGGED && !is_narrow && !is_latent && rope == Rope::none && dim_qk == 128 && dim_vo == 128 && row_tiles == 1,
              "boxes have whole rows of both tensors");

/// Which words of an item are what.
enum ItemWord { tile_word = 1, head_word = 2, row_count_word = 4, key_word = 5, key_count_word = 6, first_block_word = 13, item_words = 20 };
static_assert(sizeof(fi_attention_item) == item_words * 4, "items are words");

/// One of a warp's threads: the pages of its warp, of all items of the list, one after the other. They are asked for as far ahead as the ring has
/// slots, whatever item the warp is at.
struct Pages {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    const int lane, warp, part;
    /// Of the ring, and of its barriers.
    const uint32 ring, barriers;
    /// The slot that is asked for next, and the one that is waited for next with its phase.
    int asked = 0, awaited = 0;
    uint32 phase = 0;
    /// The item after the one whose pages are looked up: its number, the end of those, and its words, one a lane.
    int upcoming = 0, rest_end = 0, words = 0;
    /// Of the item whose pages are looked up: its entry of the block table, this warp's next key, the last one's end, and the head.
    int entry = 0, key = 0, end = 0, item_head = 0;
    /// Pages whose blocks have been looked up, a lane each, the next to be asked for in lane 0.
    struct Found { int blocks, count, head, key; };
    Found at_hand{0, 0, 0, 0}, next{0, 0, 0, 0};

    __device__ __forceinline__ Pages(const fi_hopper_attention_params &maps, uint32 rings, uint32 all_barriers, int part)
        : maps(maps), p(maps.attention), lane(threadIdx.x % warp_size), warp(threadIdx.x / warp_size), part(part),
          ring(rings + warp * stages * Shared::slot_bytes), barriers(all_barriers + warp * stages * 8) {}

    /// The first of an item's keys that is this warp's, or one before it in its page.
    __device__ __forceinline__ int first_key(int key) const { return (key & -page_keys) + warp * page_keys; }
    __device__ __forceinline__ Barrier barrier(int slot) const { return {barriers + slot * 8}; }
    __device__ __forceinline__ uint32 page(int slot) const { return ring + slot * Shared::slot_bytes; }
    __device__ __forceinline__ int in_block(int key) const { return divide(key, p.block_size_multiplier, p.block_size_shift); }
    /// The eighth of its block that a page starts with.
    __device__ __forceinline__ int eighth(int key) const { return (key - in_block(key) * static_cast<int>(p.block_size)) / 8; }

    __device__ __forceinline__ void read(int index) {
        const int *from = reinterpret_cast<const int *>(pointer<const fi_attention_item>(p.items) + index);
        if (lane < item_words) words = __ldcg(from + lane);
    }
    /// To the item whose words have been read. Items of other tiles, and of no rows, have no pages here.
    __device__ __forceinline__ void take() {
        const auto word = [&](ItemWord at) { return __shfl_sync(0xffffffff, words, at); };
        key = end = 0;
        if (word(tile_word) != p.tile || word(row_count_word) == 0) return;
        const int first = word(key_word);
        key = first_key(first), end = first + word(key_count_word);
        item_head = word(head_word) + part;
        entry = word(first_block_word) + (has_head_tables ? item_head * p.head_entries : 0);
    }
    /// Looks up what comes next of the item.
    __device__ __forceinline__ void find() {
        next.count = 0;
        if (key >= end) return;
        next = {__ldcg(pointer<const int>(p.block_indices) + entry + in_block(min(key + lane * keys, end - 1))),
                min(warp_size, ceil_div(end - key, keys)), item_head, key};
        key += warp_size * keys;
    }
    /// The same of the next item that has pages for this warp, where this one has no more, or none.
    __device__ __forceinline__ void find_ahead() {
#pragma unroll 1
        while (key >= end && upcoming < rest_end) {
            take();
            if (++upcoming < rest_end) read(upcoming);
        }
        find();
    }
    /// Finds the first pages. All that it reads is the plan's.
    __device__ __forceinline__ void start(int list, int rest_start, int rest_end) {
        read(list);
        upcoming = rest_start, this->rest_end = rest_end;
        take();
        if (upcoming < rest_end) read(upcoming);
        find_ahead();
    }
    /// Has a block's first 64 keys, and their values, brought to L2, without waiting for them: whoever may still write some of them writes there
    /// too. More of them get in the way of what the launch before still reads.
    __device__ __forceinline__ void prefetch() const {
        if (warp >= 64 / page_keys || lane != 0 || next.count == 0) return;
        prefetch_whole_rows(maps.keys, eighth(next.key), next.blocks * maps.keys_apart + next.head);
        prefetch_whole_rows(maps.values, eighth(next.key), next.blocks * maps.values_apart + next.head);
    }
    /// Fills the ring.
    __device__ __forceinline__ void fill() {
#pragma unroll 1
        for (int slot = 0; slot < stages; ++slot) ask_next();
    }
    /// Asks for the next page, if there is one.
    __device__ __forceinline__ void ask_next() {
        const bool moves = at_hand.count == 0;
        if (moves) {
            if (next.count == 0) return;
            at_hand = next;
        }
        if (lane == 0) {
            const int eight = eighth(at_hand.key);
            const Barrier full = barrier(asked);
            full.arrive_expecting(Shared::slot_bytes);
            copy_whole_rows(page(asked), maps.keys, eight, at_hand.blocks * maps.keys_apart + at_hand.head, full, read_once);
            copy_whole_rows(page(asked) + Shared::page_bytes, maps.values, eight, at_hand.blocks * maps.values_apart + at_hand.head, full, read_once);
        }
        at_hand = {__shfl_down_sync(0xffffffff, at_hand.blocks, 1), at_hand.count - 1, at_hand.head, at_hand.key + keys};
        asked = asked + 1 == stages ? 0 : asked + 1;
        if (moves) find_ahead();
    }
    /// Waits for the next page: its keys, and `page_bytes` on its values.
    __device__ __forceinline__ uint32 await() const {
        barrier(awaited).wait(phase);
        return page(awaited);
    }
    /// All lanes have read it: what comes next may take its place.
    __device__ __forceinline__ void leave() {
        ask_next();
        if (++awaited == stages) awaited = 0, phase ^= 1;
    }
};

/// How an item's rows end: the warps' states become one, and it goes to the output, or is one part of several.
struct RowEnds {
    const fi_attention_params &p;
    const Item &item;
    char *const shared;

    static constexpr int fours = dim_vo / 4;
    static_assert(meeting_rows * fours == threads, "a thread has four elements of a row");

    /// The states of eight rows meet in shared memory.
    template <int half> __device__ __forceinline__ void meet(const State &state, float scale) const {
        const int lane = threadIdx.x % warp_size, row = lane / 4, at = threadIdx.x / warp_size * meeting_rows + row;
        const float sum = quad_sum(state.sum[0][half]);
        if (half * meeting_rows + row < item.row_count) {
            if (lane % 4 == 0)
                reinterpret_cast<float2 *>(shared + Shared::meeting_ends)[at] = make_float2(state.maximum[0][half] * scale, sum);
            float *to = reinterpret_cast<float *>(shared + Shared::meeting) + at * Shared::meeting_stride + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < value_tiles; ++n)
                *reinterpret_cast<float2 *>(to + n * 8) = make_float2(state.output[0][n][2 * half], state.output[0][n][2 * half + 1]);
        }
        __syncthreads();
    }
    /// Rows from `first` on leave, a thread with four elements of one.
    __device__ __forceinline__ void leave(int first) const {
        const int at = threadIdx.x / fours, row = first + at, d = threadIdx.x % fours * 4;
        if (row >= item.row_count) return;
        float maximum = negative_infinity(), sum = 0;
        float2 of_warp[warps];
        float4 x[warps], v = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < warps; ++w) {
            of_warp[w] = reinterpret_cast<const float2 *>(shared + Shared::meeting_ends)[w * meeting_rows + at];
            x[w] = *reinterpret_cast<const float4 *>(reinterpret_cast<const float *>(shared + Shared::meeting)
                                                     + (w * meeting_rows + at) * Shared::meeting_stride + d);
        }
#pragma unroll
        for (int w = 0; w < warps; ++w) maximum = fmaxf(maximum, of_warp[w].x);
#pragma unroll
        for (int w = 0; w < warps; ++w) {
            const float weight = of_warp[w].x == negative_infinity() ? 0 : exp2_approximate(of_warp[w].x - maximum);
            sum += of_warp[w].y * weight;
            v.x += x[w].x * weight, v.y += x[w].y * weight, v.z += x[w].z * weight, v.w += x[w].w * weight;
        }
        const RowEnd end = end_row(maximum, sum);
        if (item.partial_row < 0) {
            leave_four(p, item, row, d, v, finish_row_here(p, item, row, end));
            return;
        }
        v.x *= end.factor, v.y *= end.factor, v.z *= end.factor, v.w *= end.factor;
        const int partial = item.partial_row + row;
        if (d == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
        store_partial(p, static_cast<int64>(partial) * dim_vo + d, v, 4);
    }
};
