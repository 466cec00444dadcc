// Latent attention of up to 16 rows, as requests with one query have them whose heads are shared out among processors: reading keys is all there is
// to do, and of the 64 rows of latent.cuh's products three in four would be empty.
//
// So keys are the left operands, 64 of them, and 16 rows of queries the columns of products: scores = keys · queries, outputs = values · weights, both
// turned. Queries take 18 KiB then, outputs 32 registers of a thread, and products a quarter of the time and less of the power. Two warpgroups have half
// of the outputs' columns each, and weigh tiles of keys by turns, as in latent.cuh. A tile's memory is given back within 2,000 cycles of its
// coming, and what is left of memory is on its way: two tiles and a half.
#define FI_HOPPER 1
#define FI_HOPPER_LATENT 1
#include "hopper/latent_short_finish.cuh"

extern "C" __global__ void __launch_bounds__(all_threads, 1) fi_hopper_latent_short(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[item_slots + 1];
    __shared__ Barriers barriers;
    const Block block{{maps, maps.attention, shared_address(shared), barriers, items}};
    // What is read first is the plan's: each role waits for what was enqueued earlier when it has that.
    fi_admit_successors();
    const int warp = threadIdx.x / warp_size;
    ItemReader<Block> reader;
    if (warp == compute_threads / warp_size) {
        prefetch_map(maps.keys), prefetch_map(maps.values);
        reader.read(block, 0);
        reader.keep_first(block);
    }
    if (threadIdx.x == 0) {
        barriers.init_items();
        for (int group = 0; group < 2; ++group) barrier(barriers.weights[group]).init(128), barrier(barriers.groups[group]).init(128);
        // A piece is read last by one warpgroup.
        for (int slot = 0; slot < half_slots; ++slot) {
            barrier(barriers.half_full[slot]).init(1);
            barrier(barriers.half_empty[slot]).init(4);
        }
        for (int slot = 0; slot < rest_slots; ++slot) {
            barrier(barriers.rest_full[slot]).init(1);
            barrier(barriers.rest_empty[slot]).init(4);
        }
        publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x < compute_threads) {
        const QueryCopies queries(block, block.await_item(0));
        fi_await_predecessors();
        compute_items(block, shared, queries);
    } else if (warp == compute_threads / warp_size) {
        bring_pieces(block, reader);
    } else {
        touch_parameter(block.p);
        prefetch_queries(block, threadIdx.x - compute_threads - warp_size);
        prefetch_keys(block, threadIdx.x - compute_threads - warp_size);
    }
}
