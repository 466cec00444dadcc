// Which pages a warp asks for, and what becomes of an item's rows at its end; parts of attention_rings.cuh.
#pragma once
#include "fi_hopper_attention_params.h"
#include "hopper/tensor_copy.cuh"
#include "portable/attention_finish.cuh"
#include "primitives/launch.cuh"

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
    /// The same of the next item that has pages for this warp where this one has no more.
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
        find();
    }
    /// Has a block's first 64 keys, and their values, brought to L2, without waiting for them: whoever may still write some of them writes there
    /// too. More of them get in the way of what the launch before still reads.
    __device__ __forceinline__ void prefetch() const {
        if (warp >= 64 / page_keys || lane != 0 || next.count == 0) return;
        prefetch_whole_rows(maps.keys, eighth(next.key), next.blocks * maps.keys_apart + next.head);
        prefetch_whole_rows(maps.values, eighth(next.key), next.blocks * maps.values_apart + next.head);
    }
    /// Asks for a page of block `block`; by one lane.
    __device__ __forceinline__ void ask(int slot, int eight, int key_place, int value_place) const {
        barrier(slot).arrive_expecting(Shared::slot_bytes);
        copy_whole_rows(page(slot), maps.keys, eight, key_place, barrier(slot), read_once);
        copy_whole_rows(page(slot) + Shared::page_bytes, maps.values, eight, value_place, barrier(slot), read_once);
    }
    /// Waits for what was enqueued before this kernel, and fills the ring, a lane a slot: all but the copies was found before.
    __device__ __forceinline__ void fill() {
        const int count = min(next.count, stages), eight = eighth(next.key + lane * keys);
        const int key_place = next.blocks * maps.keys_apart + next.head, value_place = next.blocks * maps.values_apart + next.head;
        fi_await_predecessors();
        if (lane < count) ask(lane, eight, key_place, value_place);
        at_hand = {__shfl_down_sync(0xffffffff, next.blocks, count), next.count - count, next.head, next.key + count * keys};
        asked = count == stages ? 0 : count;
        find_ahead();
#pragma unroll 1
        for (int slot = count; slot < stages; ++slot) ask_next();
    }
    /// Asks for the next page, if there is one.
    __device__ __forceinline__ void ask_next() {
        const bool moves = at_hand.count == 0;
        if (moves) {
            if (next.count == 0) return;
            at_hand = next;
        }
        if (lane == 0)
            ask(asked, eighth(at_hand.key), at_hand.blocks * maps.keys_apart + at_hand.head, at_hand.blocks * maps.values_apart + at_hand.head);
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
///
/// A launch ends with the last parts' merges, and what those wait for is all that keeps memory idle then. So a part's words are flags of their own:
/// where nobody has written they are `absent`, before and after each launch, and the block that was counted last reads them until none is. They
/// need no order, so parts are counted ahead, while the last pages are on their way, and nobody waits until they are written. (A count after
/// them takes 1 us more of 33: a release, which waits for all of the block's writes, the count, and then the reads.) Who was counted has its last
/// pages on their way, and waits for nothing else: those that wait here do so for blocks that run.
struct RowEnds {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    const Item &item;
    char *const shared;

    /// No result has these bits: what is no number is another one.
    static constexpr uint32 absent = 0xffffffff;
    /// Parts whose words are on their way at a time.
    static constexpr int parts_at_once = 8;
    static constexpr int fours = dim_vo / 4;
    static_assert(meeting_rows * fours == threads, "a thread has four elements of a row");

    /// Whether an item is a part that is merged here; of several levels' states, others merge.
    FI_DEVICE bool are_merged(const Item &item) { return item.partial_row >= 0 && item.parts > 0; }
    /// Counts an item's part, of all heads; how many came before. Who counts last leaves the counter as it was.
    FI_DEVICE uint32 count(const fi_attention_params &p, const Item &item) {
        uint32 *arrivals = pointer<uint32>(p.arrivals) + item.merge_row, before;
        asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrivals) : "memory");
        return before;
    }

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
    /// Rows from `first` on leave, a thread with four elements of one. `counted`: parts that were counted before this one, in shared memory.
    __device__ __forceinline__ void leave(int first, const uint32 &counted) const {
        const int row = first + threadIdx.x / fours, d = threadIdx.x % fours * 4;
        const bool is_part = are_merged(item), is_last = is_part && counted == item.parts - 1;
        if (is_last && threadIdx.x == 0 && first == 0) pointer<uint32>(p.arrivals)[item.merge_row] = 0;
        if (row >= item.row_count) return;
        const int at = threadIdx.x / fours;
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
        if (!is_part) {
            // A state of several.
            if (d == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
            store_partial(p, static_cast<int64>(partial) * dim_vo + d, v, 4);
        } else if (is_last) {
            merge(row, d, v, end.lse);
        } else {
            store_words(output_words(partial, d), make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z), __float_as_uint(v.w)));
            *lse_word(partial, d) = __float_as_uint(end.lse);
        }
    }

private:
    /// Four elements of a part's row, and its end for those.
    __device__ __forceinline__ uint32 *output_words(int partial, int d) const {
        return pointer<uint32>(maps.part_outputs) + static_cast<int64>(partial) * dim_vo + d;
    }
    __device__ __forceinline__ uint32 *lse_word(int partial, int d) const {
        return pointer<uint32>(maps.part_ends) + static_cast<int64>(partial) * fours + d / 4;
    }
    FI_DEVICE void store_words(uint32 *to, uint4 v) {
        asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
    }
    FI_DEVICE uint4 read_words(const uint32 *from) {
        uint4 v;
        asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from) : "memory");
        return v;
    }
    FI_DEVICE uint32 read_word(const uint32 *from) {
        uint32 v;
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
        return v;
    }

    /// Adds the parts of four elements of a row, of which this block's is `own`, in the order of their keys, so that the result does not depend on
    /// who came last.
    __device__ __forceinline__ void merge(int row, int d, float4 own, float own_lse) const {
        const int parts = item.parts, stride = item.part_stride();
        float maximum = negative_infinity(), sum = 0;
        float4 v = make_float4(0, 0, 0, 0);
#pragma unroll 1
        for (int first = 0; first < parts; first += parts_at_once) {
            const int from = item.merge_row + first * stride;
            uint4 x[parts_at_once];
            uint32 lse[parts_at_once];
            bool is_other[parts_at_once], are_there;
#pragma unroll
            for (int i = 0; i < parts_at_once; ++i) is_other[i] = first + i < parts && from + i * stride != item.partial_row;
            do {
                are_there = true;
#pragma unroll
                for (int i = 0; i < parts_at_once; ++i) {
                    const bool is_own = from + i * stride == item.partial_row;
                    lse[i] = is_own ? __float_as_uint(own_lse) : __float_as_uint(negative_infinity());
                    x[i] = is_own ? make_uint4(__float_as_uint(own.x), __float_as_uint(own.y), __float_as_uint(own.z), __float_as_uint(own.w))
                                  : make_uint4(0, 0, 0, 0);
                    if (is_other[i]) lse[i] = read_word(lse_word(from + i * stride + row, d)), x[i] = read_words(output_words(from + i * stride + row, d));
                }
#pragma unroll
                for (int i = 0; i < parts_at_once; ++i)
                    are_there &= !is_other[i] || (lse[i] != absent && x[i].x != absent && x[i].y != absent && x[i].z != absent && x[i].w != absent);
            } while (!are_there);
#pragma unroll
            for (int i = 0; i < parts_at_once; ++i)
                if (is_other[i]) {
                    *lse_word(from + i * stride + row, d) = absent;
                    store_words(output_words(from + i * stride + row, d), make_uint4(absent, absent, absent, absent));
                }
            float next = maximum;
#pragma unroll
            for (int i = 0; i < parts_at_once; ++i) next = fmaxf(next, __uint_as_float(lse[i]));
            const float base = reference(next, 1), factor = exp2_approximate(maximum - base);
            maximum = next;
            sum *= factor;
            v.x *= factor, v.y *= factor, v.z *= factor, v.w *= factor;
#pragma unroll
            for (int i = 0; i < parts_at_once; ++i) {
                const float weight = exp2_approximate(__uint_as_float(lse[i]) - base);
                sum += weight;
                v.x += __uint_as_float(x[i].x) * weight, v.y += __uint_as_float(x[i].y) * weight;
                v.z += __uint_as_float(x[i].z) * weight, v.w += __uint_as_float(x[i].w) * weight;
            }
        }
        leave_four(p, item, row, d, v, finish_row_here(p, item, row, end_row(maximum, sum)));
    }
};
