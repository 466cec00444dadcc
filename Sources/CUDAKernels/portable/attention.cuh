// Attention over a plan's work items with mma.sync and cp.async: compute capability 8.0 and up.
//
// A block takes a tile of packed query rows (query row × group, so that heads which share keys share loads) against a range of
// keys, staged through shared memory: FlashAttention-2's loop (arXiv 2307.08691) over FlashInfer's work lists (arXiv
// 2501.01005). With warps_n > 1, for few rows, warps share the keys of a stage and meet at the end of the item. Parts of a tile
// whose keys were cut go to the workspace; the last to arrive merges them.
#include "portable/attention_finish.cuh"

static_assert(keys <= threads, "every key of a stage has a thread that finds it");

FI_DEVICE void run_item(const fi_attention_params &p, int index, char *shared) {
    __shared__ Item item;
    // The item before may still be read from.
    __syncthreads();
    if (threadIdx.x == 0) item.load(p, index);
    __syncthreads();
    if (item.work.tile != p.tile) return;
    const uint32 base = shared_address(shared);
    Places *places = reinterpret_cast<Places *>(shared + Shared::places);
    const int warp = threadIdx.x / warp_size, warp_n = warp % warps_n, warp_row = warp / warps_n * warp_rows;
    const KeyFinder finder{p, item};
    const int tiles = ceil_div(item.work.key_count, keys);

    // Where the warps met there may be something in the padding.
    clear_padding<KeyRows, dim_qk>(base + Shared::key_stages, stages * keys);
    clear_padding<ValueRows, slice_vo>(base + Shared::value_stages, stages * keys);
    if constexpr (rope != Rope::none) clear_padding<TurnedRows, dim_qk>(base + Shared::turned_keys, keys);
    if (threadIdx.x < keys) {
#pragma unroll
        for (int stage = 0; stage < stages; ++stage) {
            const int key = item.work.key + stage * keys + threadIdx.x;
            finder.place(places[stage], threadIdx.x, key, finder.block(key));
        }
    }
    load_queries(p, item, base + Shared::queries);
    __syncthreads();
    const auto load = [&](int stage, int tile) {
        load_stage(item, places[stage], base + Shared::key_stages + stage * keys * KeyRows::stride,
                   base + Shared::value_stages + stage * keys * ValueRows::stride, item.work.key + tile * keys);
    };
#pragma unroll
    for (int stage = 0; stage < stages - 1; ++stage) load(stage, stage);
    if constexpr (rope != Rope::none) {
        turn_queries(p, item, base + Shared::queries);
        __syncthreads();
    }

    const Queries queries(base + Shared::queries, warp_row);
    const CommonlyVisible common(p, item, warp_row);
    float scale = p.score_scale;
    if (p.key_scales != 0) scale *= pointer<const float>(p.key_scales)[item.work.head];
    if constexpr (logits != Logits::capped) scale *= log2_e;
    // What the softmax multiplies scores by, where nothing has done so before.
    const float softmax_scale = logits == Logits::plain ? scale : 1;
    State state;
    state.clear();

    int stage = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        copy_wait<stages - 2>();
        // The stage has arrived for all threads, and all have left the one before, which is loaded next.
        __syncthreads();
        load(stage == 0 ? stages - 1 : stage - 1, tile + stages - 1);
        // Where the keys lie that are copied next: asked for now, noted after the products.
        const int next_block = threadIdx.x < keys ? finder.block(item.work.key + (tile + stages) * keys + threadIdx.x) : 0;

        const int first_key = item.work.key + tile * keys;
        uint32 key_stage = base + Shared::key_stages + stage * keys * KeyRows::stride;
        if constexpr (rope != Rope::none) {
            turn_keys(p, item, finder, first_key, key_stage, base + Shared::turned_keys);
            __syncthreads();
            key_stage = base + Shared::turned_keys;
        }
        float s[row_tiles][key_tiles][4];
        multiply_keys(s, queries, key_stage, warp_n * warp_keys);
        finish_scores(s, p, item, finder, common, warp_row, first_key + warp_n * warp_keys, scale);
        softmax(state, s, softmax_scale);
        multiply_values(state, s, base + Shared::value_stages + stage * keys * ValueRows::stride, warp_n * warp_keys);

        // The place of this stage is free: its copies were issued stages - 1 tiles ago.
        if (threadIdx.x < keys)
            finder.place(places[stage], threadIdx.x, item.work.key + (tile + stages) * keys + threadIdx.x, next_block);
        stage = stage + 1 == stages ? 0 : stage + 1;
    }
    copy_wait<0>();

    finish(p, item, state, shared, softmax_scale);
    if (item.work.merge >= 0) merge_if_last(p, item, shared);
}

extern "C" __global__ void __launch_bounds__(threads, FI_MIN_BLOCKS) fi_attention(const __grid_constant__ fi_attention_params p) {
    extern __shared__ __align__(128) char shared[];
    if constexpr (FI_QUEUE) {
        const int *queue = pointer<const int>(p.queue_indptr) + p.tile;
        const int index = queue[0] + blockIdx.x;
        if (index < queue[1]) run_item(p, index, shared);
    } else {
        const int *list = pointer<const int>(p.item_indptr) + blockIdx.x;
        for (int index = list[0]; index < list[1]; ++index) run_item(p, index, shared);
    }
}
