// Attention over a plan's work items with mma.sync and cp.async: compute capability 8.0 and up.
//
// A block takes a tile of packed query rows (query row × group, so that heads which share keys share loads) against a range of
// keys, staged through shared memory: FlashAttention-2's loop (arXiv 2307.08691) over FlashInfer's work lists (arXiv
// 2501.01005). With warps_n > 1, for few rows, warps share the keys of a stage and meet at the end of the item. Parts of a tile
// whose keys were cut go to the workspace; the last to arrive merges them.
#include "portable/attention_meeting.cuh"
#include "portable/attention_queue.cuh"
#include "primitives/launch.cuh"

/// A queue whose next item is asked for while the item at hand is computed.
struct Queue : ItemQueue {
    /// Of the first thread: the next item's place in the queue.
    int claimed;
    /// Whether the item at hand is computed once more, and the next one is here already.
    bool is_again = false;

    __device__ __forceinline__ Queue(const fi_attention_params &p) : ItemQueue(p) {}
    __device__ __forceinline__ void claim() {
        if (threadIdx.x == 0 && !is_again) claimed = ItemQueue::claim();
    }
    /// Starts to copy what was claimed; of tile -1 where there is no more.
    __device__ __forceinline__ void fetch(const fi_attention_params &p, Item &next) {
        if (threadIdx.x != 0 || is_again) return;
        if (claimed < count) {
            const char *from = pointer<const char>(p.items) + static_cast<int64>(start + claimed) * sizeof(fi_attention_item);
#pragma unroll
            for (int i = 0; i < sizeof(fi_attention_item); i += 16) copy_async<16>(shared_address(&next) + i, from + i, true);
            copy_commit();
        } else {
            next.tile = -1;
        }
    }
    __device__ __forceinline__ void end() {
        if (threadIdx.x == 0) ItemQueue::end();
    }
};

/// Reads an item; for all threads after the next barrier.
FI_DEVICE void read_item(const fi_attention_params &p, int index, Item &item) {
    if (threadIdx.x < sizeof(fi_attention_item) / 16)
        reinterpret_cast<uint4 *>(&item)[threadIdx.x] =
            __ldcg(reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index) + threadIdx.x);
}

/// Reads the part of an item that is one of the blocks' that run its list side by side; for all threads after the next barrier.
FI_DEVICE void read_part(const fi_attention_params &p, int index, int part, Item &item) {
    if (threadIdx.x >= warp_size) return;
    read_item(p, index, item);
    __syncwarp();
    if (threadIdx.x == 0) item.take_part(part);
}

/// Reads something of each line of the parameter: constant memory is cold when a kernel starts, and what is first needed at the kernel's
/// end would be waited for there. By a warp that has nothing else to do.
FI_DEVICE void touch_parameter(const fi_attention_params &p) {
    __shared__ uint32 anything;
    if (threadIdx.x != threads - 1) return;
    const uint32 *words = reinterpret_cast<const uint32 *>(&p);
    uint32 all = 0;
#pragma unroll
    for (int at = 0; at < static_cast<int>(sizeof p); at += 64) all |= words[at / 4];
    store_shared(shared_address(&anything), all);
}

/// Whether a stage's copies start before the products of the one at hand, and the loop over stages starts with turns that only
/// load: reading is all that lists are for, and one copy of the code that loads is half as much to compile.
constexpr bool loads_first = !FI_QUEUE;
/// Whether all stages are asked for at the start of an item that is not its list's first (H200: 65,536 keys beside 63 times 512 in 94.9 instead of
/// 96.3 us). Where all blocks start at once, so much at once has some of them wait: 0.5 us more a launch.
constexpr bool may_fill = loads_first && FirstSources::are_found && stages > 2;
/// The first of those turns; one less where the first stage's copies were found before.
constexpr int first_turn = !loads_first ? 0 : FirstSources::are_found ? 2 - stages : 1 - stages;

/// Whether warps wait for copies and for memory, not for each other stage by stage: eight of one block do so for a twelfth of the time
/// (H200, D 256: 337 and 362 TFLOP/s); where two blocks of four share a processor, it costs more than it saves.
constexpr bool has_stage_barriers = FI_QUEUE && warps > 4 && rope == Rope::none && !is_latent;

/// Which stages have come, and which have been left by all warps. Every stage that is loaded is waited for, and left, in turn.
struct StageBarriers {
    uint32 address;
    /// A bit for each stage: the phase that is waited for next.
    uint32 full = 0, empty = (1 << stages) - 1;

    /// For all threads.
    __device__ __forceinline__ StageBarriers() {
        if constexpr (!has_stage_barriers) return;
        __shared__ __align__(8) uint64 memory[2 * stages];
        address = shared_address(memory);
        if (threadIdx.x == 0) {
#pragma unroll
            for (int stage = 0; stage < stages; ++stage) of_copies(stage).init(threads), of_warps(stage).init(threads);
        }
        __syncthreads();
    }
    __device__ __forceinline__ CopyBarrier of_copies(int stage) const { return {address + 8 * stage}; }
    __device__ __forceinline__ CopyBarrier of_warps(int stage) const { return {address + 8 * (stages + stage)}; }
    /// Waits for the copies of all threads.
    __device__ __forceinline__ void await(int stage) {
        of_copies(stage).wait(full >> stage);
        full ^= 1 << stage;
    }
    /// Waits until a stage may be written.
    __device__ __forceinline__ void await_empty(int stage) {
        of_warps(stage).wait(empty >> stage);
        empty ^= 1 << stage;
    }
    /// The thread has read what it needed.
    __device__ __forceinline__ void leave(int stage) const { of_warps(stage).arrive(); }
};

/// Whether an item's outputs leave while the next one's first copies are under way: where no other block computes meanwhile (H200, D 256:
/// 357 and 369 TFLOP/s). They leave through the last stage's memory then, of the keys' the first warps', and of the values' the others';
/// padding there is written once, and would be overwritten.
constexpr int staged_bytes = warp_rows * Rows<padded_vo, 2>::stride;
constexpr int staged_in_keys = keys * KeyRows::stride / staged_bytes, staged_in_values = keys * ValueRows::stride / staged_bytes;
constexpr bool starts_early = has_stage_barriers && can_finish_alone && staged_in_keys + staged_in_values >= warps && dim_qk % 16 == 0;

/// Where a warp's outputs are on their way: where its queries were, which no other warp reads, or in the last stage.
FI_DEVICE uint32 staged_outputs(int warp) {
    if (!starts_early) return Shared::queries + warp * warp_rows * QueryRows::stride;
    return warp < staged_in_keys ? Shared::key_stages + (stages - 1) * keys * KeyRows::stride + warp * staged_bytes
                                 : Shared::value_stages + (stages - 1) * keys * ValueRows::stride + (warp - staged_in_keys) * staged_bytes;
}

/// A block at work on an item.
struct Block {
    const fi_attention_params &p;
    char *shared;
    uint32 base;
    Places *places;
    int warp_n, warp_row;

    __device__ __forceinline__ Block(const fi_attention_params &p, char *shared)
        : p(p), shared(shared), base(shared_address(shared)), places(reinterpret_cast<Places *>(shared + Shared::places)),
          warp_n(threadIdx.x / warp_size % warps_n), warp_row(threadIdx.x / warp_size / warps_n * warp_rows) {}

    /// Starts to load stage `tile` of an item.
    __device__ __forceinline__ void load(Sources &sources, StageBarriers &barriers, const Stages &those, int stage, int tile) const {
        // Past the last tile an empty group keeps the count; or zeros are written, as a branch keeps the addresses from being computed
        // beside the products, which those of rows that threads do not divide evenly have no registers for.
        constexpr bool writes_zeros = FI_QUEUE && !has_stage_barriers && KeyCopies::is_even && ValueCopies::is_even;
        if (writes_zeros || tile * keys < those.count()) {
            if constexpr (has_stage_barriers) barriers.await_empty(stage);
            load_stage(p, sources, those, places, base + Shared::key_stages + stage * keys * KeyRows::stride,
                       base + Shared::value_stages + stage * keys * ValueRows::stride, tile);
            if constexpr (has_stage_barriers) barriers.of_copies(stage).arrive_after_copies();
        }
        copy_commit();
    }

    /// Finds where the first keys lie. All that it reads is the plan's.
    __device__ __forceinline__ void find_first(const Item &item) const {
        if constexpr (!FI_RAGGED) {
            const KeyFinder finder{p, item};
            const Stages those(item);
            PlaceFinder first;
            first.find(finder, those, 0);
            first.note(finder, those, 0, places[0]);
            __syncthreads();
        }
    }
    /// Asks for everything else that is needed first, at once: the queries, and the keys.
    __device__ __forceinline__ void begin(const Item &item, uint64 own_query, Sources &sources, StageBarriers &barriers) const {
        load_queries(p, item, base + Shared::queries, own_query);
        // Where the warps met there may be something in the padding.
        clear_padding<KeyRows, dim_qk>(base + Shared::key_stages, stages * keys);
        if constexpr (!is_latent) clear_padding<ValueRows, slice_vo>(base + Shared::value_stages, stages * keys);
        if constexpr (rope != Rope::none) clear_padding<TurnedRows, dim_qk>(base + Shared::turned_keys, keys);
        const Stages those(item);
        if constexpr (FirstSources::are_found) copy_commit();
        sources.start(p, item, those);
        if constexpr (!loads_first) {
#pragma unroll 1
            for (int stage = 0; stage < stages - 1; ++stage) load(sources, barriers, those, stage, stage);
        }
    }
    /// Waits for what `begin` asked for, while all other stages are on their way, or all but one; for all threads.
    __device__ __forceinline__ void await_first(const Item &item, Queries &queries, bool fills) const {
        if (fills) copy_wait<stages - 1>();
        else copy_wait<stages - 2>();
        __syncthreads();
        if constexpr (rope != Rope::none) {
            turn_queries(p, item, base + Shared::queries);
            __syncthreads();
        }
        queries.keep(warp_row);
    }

    /// All of an item's keys into `state`; meanwhile the next item is claimed and fetched, if there is a queue. Ends with all
    /// memory free and all copies, the next item's too, arrived. False where weights by sums left the range in which they are exact.
    __device__ __forceinline__ bool compute(const Item &item, Sources &sources, StageBarriers &barriers, State &state, Queue *queue,
                                            Item *next, bool fills = false) const {
        if constexpr (!may_fill) fills = false;
        const KeyFinder finder{p, item};
        const Stages those(item);
        const int tiles = ceil_div(those.count(), keys);
        CommonlyVisible common;
        float2 scale;
        PlaceFinder ahead;
        Queries queries(base + Shared::queries, warp_row);
        // While the first copies are under way.
        const auto prepare = [&] {
            common = CommonlyVisible(p, item, warp_row);
            scale = score_scales(p, item);
            state.clear();
            await_first(item, queries, fills);
        };
        if constexpr (first_turn == 0) prepare();
        // 0, but not for the assembler: what it knows to be the same for all lanes it has in uniform registers, and makes of copies with a cache
        // policy to addresses with one of those an instruction that is illegal (ptxas 13.0; seen with two stages).
        int stage = FI_QUEUE ? 0 : item.tile - p.tile;
#pragma unroll 1
        for (int tile = first_turn - fills; tile < tiles; ++tile) {
            // The stage at hand has arrived for all threads, and all have left the one before, which is loaded next; or will have.
            if (FI_QUEUE && stages == 2) stage = tile & 1;
            const int next_stage = stage == 0 ? stages - 1 : stage - 1;
            if constexpr (loads_first) {
                // Where all stages were filled at the start, there is room for the next when one has been left.
                const int next_tile = tile + stages - 1 + (tile < 0 && fills);
                if (!fills || tile != 0) load(sources, barriers, those, tile < 0 ? next_tile : next_stage, next_tile);
                if (tile < 0) {
                    if (tile == -1) prepare();
                    continue;
                }
            }
            if constexpr (has_stage_barriers) barriers.await(stage);
            // Where the keys of the next stages lie: asked for now, noted after the products.
            const int next_places = (tile + place_stages) * keys;
            const bool finds_places = !FI_RAGGED && tile % place_stages == 0 && (FI_QUEUE || next_places < those.count());
            if (finds_places) ahead.find(finder, those, next_places);

            const int first_key = those.key(tile * keys);
            uint32 key_stage = base + Shared::key_stages + stage * keys * KeyRows::stride;
            if constexpr (rope != Rope::none) {
                turn_keys(p, item, finder, first_key, key_stage, base + Shared::turned_keys);
                __syncthreads();
                key_stage = base + Shared::turned_keys;
            }
            float s[row_tiles][key_tiles][4];
            multiply_keys(s, p, queries, key_stage, warp_n * warp_keys);
            // After the products: addresses are computed while the tensor cores end.
            if constexpr (!loads_first) load(sources, barriers, those, next_stage, tile + stages - 1);
            finish_scores(s, p, item, finder, common, warp_row, first_key + warp_n * warp_keys, scale.y);
            multiply_values(state, s, scale.x, base + Shared::value_stages + stage * keys * ValueRows::stride, warp_n * warp_keys,
                            ValueKeys{p, item, finder, first_key + warp_n * warp_keys}, weighs_by_sums && !queue->is_again);

            if (finds_places) ahead.note(finder, those, next_places, places[(tile / place_stages + 1) % 2]);
            if constexpr (FI_QUEUE) {
                // As late as hides it: what is claimed early waits for this block while others have nothing left.
                if (tile == max(tiles - 4, 0)) queue->claim();
                if (tile == max(tiles - 2, 1)) queue->fetch(p, *next);
            }
            if constexpr (has_stage_barriers) {
                barriers.leave(stage);
            } else {
                copy_wait<stages - 2>();
                __syncthreads();
            }
            stage = stage + 1 == stages ? 0 : stage + 1;
        }
        if constexpr (FI_QUEUE) {
            if (tiles < 2) {
                if (tiles == 0) queue->claim();
                queue->fetch(p, *next);
            }
        }
        copy_wait<0>();
        if constexpr (weighs_by_sums) return !__syncthreads_or(state.by_sums && state.is_unsafe());
        __syncthreads();
        return true;
    }

    /// Whether an item's warps end it each on its own, in memory of their own.
    __device__ __forceinline__ bool ends_alone(const Item &item) const {
        return can_finish_alone && item.partial_row < 0 && p.output_is_aligned;
    }
    /// Writes an item's result, or its part of one, merging the parts if it is the last; needs all of the memory if it does not end alone.
    __device__ __forceinline__ void end(const Item &item, State &state) const {
        const float scale = score_scales(p, item).x;
        if constexpr (can_finish_alone) {
            if (ends_alone(item)) {
                finish_alone(p, item, state, base + staged_outputs(threadIdx.x / warp_size / warps_n), warp_row,
                             LaneRow(p, item, state, warp_row, scale));
                return;
            }
        }
        meet(item, state, shared, scale);
        part(p, item, shared);
        if (item.partial_row >= 0) merge_if_last(p, item, shared);
    }
};

FI_DEVICE void run_queue(const Block &block, Item (&items)[2]) {
    Queue queue(block.p);
    StageBarriers barriers;
    if (blockIdx.x < queue.count) {
        Sources sources;
        const auto begin = [&](const Item &item) {
            block.find_first(item);
            block.begin(item, own_query(block.p, item), sources, barriers);
        };
        read_item(block.p, queue.start + blockIdx.x, items[0]);
        if constexpr (starts_early) {
            __syncthreads();
            begin(items[0]);
            for (int now = 0; items[now].tile >= 0;) {
                State state;
                const bool is_done = block.compute(items[now], sources, barriers, state, &queue, &items[1 - now]);
                const bool leaves_room = !is_done || block.ends_alone(items[now]);
                const int next = is_done ? 1 - now : now;
                // In either order, but one copy of the text.
#pragma unroll 1
                for (int step = 0; step < 2; ++step) {
                    if (leaves_room != (step == 0)) {
                        if (is_done) block.end(items[now], state);
                    } else if (items[next].tile >= 0) {
                        // What left has left its memory.
                        if (step == 1) __syncthreads();
                        begin(items[next]);
                    }
                }
                queue.is_again = !is_done;
                now = next;
            }
        } else {
            for (int now = 0;; now = 1 - now) {
                // The item before has left its memory, and this one is here.
                __syncthreads();
                if (items[now].tile < 0) break;
                State state;
                queue.is_again = false;
                while (true) {
                    begin(items[now]);
                    if (block.compute(items[now], sources, barriers, state, &queue, &items[1 - now])) break;
                    queue.is_again = true;
                }
                block.end(items[now], state);
            }
        }
    }
    queue.end();
}

/// A list's first item is where its number says, so that it is asked for at once; the rest are where the table says.
///
/// All that is read of the first item before its queries is the plan's: it is read before what was enqueued earlier is done.
FI_DEVICE void run_list(const Block &block, Item &item) {
    const fi_attention_params &p = block.p;
    const int list = blockIdx.x / p.list_heads, head = blockIdx.x % p.list_heads;
    const int *rest = pointer<const int>(p.item_indptr) + list;
    const int rest_start = __ldcg(rest), rest_end = __ldcg(rest + 1);
    touch_parameter(p);
    bool is_first = true;
    StageBarriers barriers;
    for (int index = list;;) {
        read_part(p, index, head, item);
        __syncthreads();
        const bool is_own = item.tile == p.tile && item.row_count > 0;
        uint64 query = 0;
        FirstSources first;
        if (is_own) {
            block.find_first(item);
            query = own_query(p, item);
            if (is_first) prefetch_first(p, item, block.places[0]);
            first.find(block.places[0]);
        }
        // Blocks with nothing to do make room at once.
        if (is_first && (is_own || rest_start < rest_end || blockIdx.x + blockIdx.y == 0)) {
            fi_await_predecessors();
            if (p.place == place_first) fi_admit_successors();
        }
        if (is_own) {
            State state;
            Sources sources;
            first.copy(block.base + Shared::key_stages, block.base + Shared::value_stages, item);
            block.begin(item, query, sources, barriers);
            block.compute(item, sources, barriers, state, nullptr, nullptr, !is_first);
            meet(item, state, block.shared, score_scales(p, item).x);
            part(p, item, block.shared);
            if (item.partial_row >= 0) merge_part_if_last(p, item, block.shared);
        }
        index = is_first ? rest_start : index + 1;
        is_first = false;
        if (index >= rest_end) return;
        // The item before may still be read from.
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(threads, FI_MIN_BLOCKS) fi_attention(const __grid_constant__ fi_attention_params p) {
    extern __shared__ __align__(128) char shared[];
    // Aligned for copies of 16 bytes.
    __shared__ __align__(16) Item items[2];
    const Block block(p, shared);
    if constexpr (FI_QUEUE) {
        fi_follow_predecessors(p.place);
        run_queue(block, items);
        fi_end(p.place);
    } else {
        if (p.place != place_first) fi_admit_successors();
        run_list(block, items[0]);
    }
}
