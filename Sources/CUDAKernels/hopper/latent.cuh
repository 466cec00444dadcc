// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) with absorbed projections, on Hopper: all heads share one key of 576
// elements, whose first 512 are the value.
//
// Outputs of 64 rows fill half of a processor's registers, so a block has 64 rows, and two warpgroups have 256 columns each of their
// outputs. Each computes the scores of every other stage of 64 keys, weighs them, and hands the weights to the other, as both multiply all
// weights: while one weighs, the other's products are under way (the schedule that FlashMLA's authors call seesaw). Weights are relative to
// a reference of each row that is handed on with them, stage by stage. A third warpgroup brings keys.
//
// With more than 64 heads two blocks of a cluster have 64 rows each of an item, and every key is read once for both: each block asks for
// half of the columns of a stage, which the copy engine writes to both.
#define FI_HOPPER 1
#define FI_HOPPER_LATENT 1
#include "hopper/latent_gather.cuh"
#include "hopper/latent_outputs.cuh"
#include "primitives/launch.cuh"

#if FI_CLUSTER > 1
#define FI_LATENT_CLUSTER __attribute__((cluster_dims(FI_CLUSTER, 1, 1)))
#else
#define FI_LATENT_CLUSTER
#endif

extern "C" __global__ void FI_LATENT_CLUSTER __launch_bounds__(all_threads, 1)
    fi_hopper_latent_attention(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[item_slots + 1];
    __shared__ Barriers barriers;
    const Block block{{maps, maps.attention, shared_address(shared), barriers, items}};
    // What is read first is the plan's: each role waits for what was enqueued earlier when it has that.
    fi_admit_successors();
    const int warp = threadIdx.x / warp_size;
    ItemReader<Block> reader;
    if (warp == compute_threads / warp_size) {
        if constexpr (!is_gathered) prefetch_map(maps.keys), prefetch_map(maps.values);
        reader.read(block, 0);
        reader.keep_first(block);
    }
    if (threadIdx.x == 0) {
        barriers.init_items();
        for (int stage = 0; stage < stages; ++stage) {
            for (int part = 0; part < part_count; ++part) {
                // The copy engine, or all who copy; the one warpgroup that reads last, of both blocks where both are brought to. A warp's
                // one lane would do, but racecheck would not see the order where threads write.
                constexpr int group_warps = 128 / warp_size;
                barrier(barriers.full[stage][part]).init(is_gathered ? bringers + is_passed_on : 1);
                barrier(barriers.empty[stage][part]).init(is_gathered ? 128 + is_passed_on * group_warps : group_warps * cluster);
            }
            // All who write, as above; named barriers do not keep the order.
            barrier(barriers.weights[stage]).init(128);
        }
        publish_barriers();
    }
    if constexpr (cluster > 1) sync_cluster();
    else __syncthreads();
    if (threadIdx.x < compute_threads) {
        grow_registers<is_narrow ? 216 : is_gathered ? 224 : 232>();
        fi_await_predecessors();
        compute_items(block, shared);
    } else {
        shrink_registers<is_narrow ? 72 : is_gathered ? 56 : 40>();
        if constexpr (is_narrow) gather_keys<Widener>(block, reader);
        else if constexpr (is_gathered) gather_keys<Gatherer>(block, reader);
        else if (warp == compute_threads / warp_size) bring_boxes(block, reader);
        else touch_parameter(block.p), prefetch_keys(block, threadIdx.x - compute_threads - warp_size);
    }
    if constexpr (cluster > 1) {
        // The other block may still write here, or arrive at barriers.
        __syncwarp();
        sync_cluster();
    }
}
