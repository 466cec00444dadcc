// How the parts of a tile become one without a way through memory: their blocks are a cluster and read each other's shared memory.
//
// Through memory the last block to arrive waits, one after another, for its own writes, for the counter, for the parts' ends and for
// the parts: some 2.5 us, of the 9 that a decode of 1,024 keys took. Here all blocks of the cluster wait for each other once and then read
// and write a share of the rows each.
#pragma once
#include "portable/attention_finish.cuh"

/// Blocks of this launch's clusters, and this one's place among them. Clusters are 9.0's; elsewhere a block is alone.
FI_DEVICE int cluster_size() {
    int size = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %cluster_nctarank;" : "=r"(size));
#endif
    return size;
}
FI_DEVICE int cluster_rank() {
    int rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}

/// The most blocks that a cluster has.
constexpr int largest_cluster = 16;

/// Whether the item's parts are the first items of the cluster's blocks, in order from the first block on.
FI_DEVICE bool meets_in_cluster(const Item &item) { return item.parts < 0; }

/// [rows]: the base-2 log-sum-exps of this block's part.
FI_DEVICE float *part_ends(char *shared) { return reinterpret_cast<float *>(shared + Shared::meeting_targets); }

#if __CUDA_ARCH__ >= 900
/// Waits for all threads of the cluster's blocks.
FI_DEVICE void wait_for_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// The address of something in another block of the cluster, from its address in this one.
FI_DEVICE uint32 address_in(uint32 here, int rank) {
    uint32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    return there;
}
FI_DEVICE float load_cluster(uint32 from) {
    float v;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(from) : "memory");
    return v;
}
FI_DEVICE float4 load_cluster_four(uint32 from) {
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(from) : "memory");
    return v;
}

/// sums[0] = the sum of all, in the order in which a warp's lanes add by shuffles.
template <int half> FI_DEVICE void add_halves(float (&sums)[largest_cluster]) {
#pragma unroll
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
    if constexpr (half > 1) add_halves<half / 2>(sums);
}

/// Merges a tile's parts, which lie where `finish` has put them: each block of the cluster a share of the rows. For all blocks of the cluster,
/// between two waits for it.
///
/// The same sums in the same order as `merge_if_last` has them, so that the result does not depend on where parts meet.
static __device__ __noinline__ void merge_in_cluster(const fi_attention_params &p, const Item &item, char *shared) {
    const int parts = -item.parts, rank = cluster_rank();
    if (rank >= parts) return;
    const uint32 outputs = shared_address(shared), ends = shared_address(part_ends(shared));
    const int all = item.row_count * row_fours, share = ceil_div(all, parts);
#pragma unroll 1
    for (int id = rank * share + threadIdx.x; id < min(all, (rank + 1) * share); id += threads) {
        const int row = id / row_fours, d = id % row_fours * 4;
        float lses[largest_cluster], sums[largest_cluster];
        float4 x[largest_cluster];
        // All under way at once.
#pragma unroll
        for (int part = 0; part < largest_cluster; ++part) {
            lses[part] = negative_infinity(), x[part] = make_float4(0, 0, 0, 0);
            if (part < parts) {
                lses[part] = load_cluster(address_in(ends + row * 4, part));
                x[part] = load_cluster_four(address_in(outputs + (row * Shared::meeting_stride + d) * 4, part));
            }
        }
        float maximum = negative_infinity();
#pragma unroll
        for (int part = 0; part < largest_cluster; ++part) maximum = fmaxf(maximum, lses[part]);
        const float base = reference(maximum, 1);
        float4 v = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int part = 0; part < largest_cluster; ++part) {
            const float weight = sums[part] = exp2_approximate(lses[part] - base);
            if (part < parts) v.x += x[part].x * weight, v.y += x[part].y * weight, v.z += x[part].z * weight, v.w += x[part].w * weight;
        }
        add_halves<largest_cluster / 2>(sums);
        const RowOutput out = finish_row(p, item, row, end_row(maximum, sums[0]));
        v.x *= out.factor, v.y *= out.factor, v.z *= out.factor, v.w *= out.factor;
        store_output(p, out.target + d, change_output(p, item, row, v), count_of_four(d), p.output_is_aligned && row_fours * 4 == slice_vo);
    }
}
#endif
