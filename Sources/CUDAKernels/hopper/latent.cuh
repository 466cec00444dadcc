// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) with absorbed projections, on Hopper: all heads share one key of 576
// elements, whose first 512 are the value.
//
// Outputs of 64 rows fill half of a processor's registers, and reading all left operands from shared memory would fill its bandwidth. So a
// block has three warpgroups with roles: one holds the queries of 64 rows, most of them in registers, computes scores and weights them;
// two have 256 columns of the outputs each and multiply the weights, which pass through shared memory, with the stage that the scores
// were computed from. Stages of 32 keys are read once for both products; one of the outputs' warps asks for the next ones.
//
// With more than 64 heads two blocks of a cluster have 64 rows each of an item, and every key is read once for both: each block asks for
// half of the columns of a stage, which the copy engine writes to both.
#define FI_HOPPER 1
#define FI_HOPPER_LATENT 1
#include "hopper/latent_outputs.cuh"
#include "hopper/latent_scores.cuh"
#include "primitives/launch.cuh"

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

#if FI_CLUSTER > 1
#define FI_LATENT_CLUSTER __attribute__((cluster_dims(FI_CLUSTER, 1, 1)))
#else
#define FI_LATENT_CLUSTER
#endif

extern "C" __global__ void FI_LATENT_CLUSTER __launch_bounds__(all_threads, 1)
    fi_hopper_latent_attention(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    __shared__ __align__(16) Item items[item_slots];
    __shared__ Barriers barriers;
    __shared__ Asking asking;
    const Block block{maps, maps.attention, shared_address(shared), barriers, items, asking};
    constexpr int score_warps = score_threads / warp_size, output_warps = output_threads / warp_size;
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < item_slots; ++slot) barrier(barriers.item_full[slot]).init(1);
        // All who write or read arrive at these. A warp's one lane would do, but racecheck would not see the order; and named barriers do
        // not keep it: a thread that waited has read what was there before a store that came before another's `bar.arrive`.
        for (int slot = 0; slot < 2; ++slot) {
            barrier(barriers.weights_full[slot]).init(score_threads);
            barrier(barriers.weights_empty[slot]).init(output_threads);
        }
        for (int stage = 0; stage < stages; ++stage) {
            // The copy engine, or all who widen; all who read, of both blocks where both are brought to.
            barrier(barriers.full[stage]).init(is_narrow ? output_warps : 1);
            barrier(barriers.empty[stage]).init((score_warps + output_warps) * (is_narrow ? 1 : cluster));
        }
        for (int stage = 0; stage < raw_stages; ++stage) {
            barrier(barriers.raw_full[stage]).init(1);
            barrier(barriers.raw_empty[stage]).init(output_warps * cluster);
        }
        barrier(barriers.ends_full).init(score_threads);
        barrier(barriers.ends_empty).init(output_threads);
        publish_barriers();
        asking = Asking{0, 0, 0, -1, 0, 0, {}};
    }
    fi_follow_predecessors();
    if constexpr (cluster > 1) sync_cluster();
    else __syncthreads();
    if (threadIdx.x < score_threads) {
        grow_registers<184>();
        compute_scores(block);
    } else {
        shrink_registers<160>();
        compute_outputs(block, shared);
    }
    if constexpr (cluster > 1) {
        // The other block may still write here, or arrive at barriers.
        __syncwarp();
        sync_cluster();
    }
}
