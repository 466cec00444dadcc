// Attention over a plan's work items with mma.sync and cp.async: compute capability 8.0 and up.
//
// A block takes a tile of packed query rows (query row × group, so that heads which share keys share loads) against a range of
// keys, staged through shared memory: FlashAttention-2's loop (arXiv 2307.08691) over FlashInfer's work lists (arXiv
// 2501.01005). With warps_n > 1, for few rows, warps share the keys of a stage and meet at the end of the item. Parts of a tile
// whose keys were cut go to the workspace; the last to arrive merges them.
#include "portable/attention_finish.cuh"

FI_DEVICE void run_item(const fi_attention_params &p, int index, int head, char *shared) {
    // Aligned for loads of 16 bytes.
    __shared__ __align__(16) Item item;
    // The item before may still be read from.
    __syncthreads();
    if (threadIdx.x < sizeof(fi_attention_item) / 16)
        reinterpret_cast<uint4 *>(&item)[threadIdx.x] =
            reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index)[threadIdx.x];
    __syncthreads();
    if (item.tile != p.tile) return;
    if (head != 0) {
        // This block's head of the item's; states of one item lie head after head.
        __syncthreads();
        if (threadIdx.x == 0) {
            item.head += head;
            item.partial_row += item.partial_row < 0 ? 0 : head * item.row_count;
            item.merge_row += head * item.row_count;
        }
        __syncthreads();
    }
    const uint32 base = shared_address(shared);
    Places *places = reinterpret_cast<Places *>(shared + Shared::places);
    const int warp = threadIdx.x / warp_size, warp_n = warp % warps_n, warp_row = warp / warps_n * warp_rows;
    const KeyFinder finder{p, item};
    const int tiles = ceil_div(item.key_count, keys);

    // Everything that is needed first is asked for at once: where the first keys lie, the queries, and then the keys.
    PlaceFinder places_ahead;
    if constexpr (!FI_RAGGED) places_ahead.find(finder, item.key);
    load_queries(p, item, base + Shared::queries);
    // Where the warps met there may be something in the padding.
    clear_padding<KeyRows, dim_qk>(base + Shared::key_stages, stages * keys);
    clear_padding<ValueRows, slice_vo>(base + Shared::value_stages, stages * keys);
    if constexpr (rope != Rope::none) clear_padding<TurnedRows, dim_qk>(base + Shared::turned_keys, keys);
    if constexpr (!FI_RAGGED) {
        places_ahead.note(finder, item.key, places[0]);
        __syncthreads();
    }
    const auto load = [&](int stage, int tile) {
        load_stage(p, item, places, base + Shared::key_stages + stage * keys * KeyRows::stride,
                   base + Shared::value_stages + stage * keys * ValueRows::stride, tile);
    };
#pragma unroll
    for (int stage = 0; stage < stages - 1; ++stage) load(stage, stage);

    const CommonlyVisible common(p, item, warp_row);
    float scale = p.score_scale;
    if (p.key_scales != 0) scale *= pointer<const float>(p.key_scales)[item.head];
    if constexpr (logits != Logits::capped) scale *= log2_e;
    // What the softmax multiplies scores by, where nothing has done so before.
    const float softmax_scale = logits == Logits::plain ? scale : 1;
    State state;
    state.clear();

    copy_wait<stages - 2>();
    __syncthreads();
    if constexpr (rope != Rope::none) {
        turn_queries(p, item, base + Shared::queries);
        __syncthreads();
    }
    Queries queries(base + Shared::queries, warp_row);
    queries.keep();
    int stage = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        // The stage at hand has arrived for all threads, and all have left the one before, which is loaded next.
        load(stage == 0 ? stages - 1 : stage - 1, tile + stages - 1);
        // Where the keys of the next stages lie: asked for now, noted after the products.
        const bool finds_places = !FI_RAGGED && tile % place_stages == 0;
        const int next_places = (tile + place_stages) * keys;
        if (finds_places) places_ahead.find(finder, item.key + next_places);

        const int first_key = item.key + tile * keys;
        uint32 key_stage = base + Shared::key_stages + stage * keys * KeyRows::stride;
        if constexpr (rope != Rope::none) {
            turn_keys(p, item, finder, first_key, key_stage, base + Shared::turned_keys);
            __syncthreads();
            key_stage = base + Shared::turned_keys;
        }
        float s[row_tiles][key_tiles][4];
        multiply_keys(s, queries, key_stage, warp_n * warp_keys);
        finish_scores(s, p, item, finder, common, warp_row, first_key + warp_n * warp_keys, scale);
        multiply_values(state, s, softmax_scale, base + Shared::value_stages + stage * keys * ValueRows::stride, warp_n * warp_keys);

        if (finds_places) places_ahead.note(finder, item.key + next_places, places[(tile / place_stages + 1) % 2]);
        stage = stage + 1 == stages ? 0 : stage + 1;
        copy_wait<stages - 2>();
        __syncthreads();
    }
    if constexpr (can_finish_alone) {
        if (item.partial_row < 0 && p.output_is_aligned) {
            finish_alone(p, item, state, base + Shared::queries, warp_row, softmax_scale);
            return;
        }
    }
    copy_wait<0>();
    finish(p, item, state, shared, softmax_scale);
    if (item.partial_row >= 0) merge_if_last(p, item, shared);
}

extern "C" __global__ void __launch_bounds__(threads, FI_MIN_BLOCKS) fi_attention(const __grid_constant__ fi_attention_params p) {
    extern __shared__ __align__(128) char shared[];
    if constexpr (FI_QUEUE) {
        int index = p.queue_start + blockIdx.x;
        if (p.queue_indptr != 0) {
            const int *queue = pointer<const int>(p.queue_indptr) + p.tile;
            index = queue[0] + blockIdx.x;
            if (index >= queue[1]) return;
        }
        run_item(p, index, 0, shared);
    } else {
        // A list's first item is where its number says, so that it is asked for at once; the rest are where the table says.
        const int list = blockIdx.x / p.list_heads, head = blockIdx.x % p.list_heads;
        run_item(p, list, head, shared);
        const int *rest = pointer<const int>(p.item_indptr) + list;
        for (int index = rest[0]; index < rest[1]; ++index) run_item(p, index, head, shared);
    }
}
