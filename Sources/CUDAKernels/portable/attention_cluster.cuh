// How the parts of a tile become one without a way through memory: their blocks are a cluster and write to each other's shared memory.
//
// Through memory the last block to arrive waits, one after another, for its own writes, for the counter, for the parts' ends and for
// the parts: 4 us of the 9 that a decode of 1,024 keys took. Here each block sends its part, in shares, to the cluster's blocks, and each
// adds up and writes its share.
#pragma once
#include "portable/attention_finish.cuh"

/// Whether blocks of this kernel can be clusters that merge: those of lists.
constexpr bool can_meet = Shared::sent_end > Shared::sent;

/// Blocks of this launch's clusters, and this one's place among them. Clusters are 9.0's; elsewhere a block is alone.
FI_DEVICE int cluster_size() {
    int size = 1;
#if __CUDA_ARCH__ >= 900
    if constexpr (can_meet) asm("mov.u32 %0, %cluster_nctarank;" : "=r"(size));
#endif
    return size;
}
FI_DEVICE int cluster_rank() {
    int rank = 0;
#if __CUDA_ARCH__ >= 900
    if constexpr (can_meet) asm("mov.u32 %0, %cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}

/// The most blocks that a cluster has.
constexpr int largest_cluster = 16;

/// Whether the item's parts are the first items of neighbours in the cluster, in order.
FI_DEVICE bool meets_in_cluster(const Item &item) { return can_meet && item.parts < 0; }

/// The two halves of a wait for all threads of the cluster's blocks.
FI_DEVICE void arrive_at_cluster() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
FI_DEVICE void await_cluster() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

/// How a cluster's blocks share out a tile's rows, four elements at a time.
struct ClusterShares {
    /// Parts, this block's own among them, and the rank of the first part's block.
    int parts, own, first;
    /// Fours of all rows, and of each share.
    int all, share;

    __device__ __forceinline__ ClusterShares(const Item &item)
        : parts(-item.parts), own((item.partial_row - item.merge_row) / item.part_stride()), first(cluster_rank() - own),
          all(item.row_count * row_fours), share(ceil_div(all, parts)) {}

    /// Sends this block's part of four elements, and of their row's end, to who adds them up.
    __device__ __forceinline__ void send(char *shared, int id, float4 v, float lse) const {
#if __CUDA_ARCH__ >= 900
        const int to = id / share, slot = own * share + id - to * share;
        const uint32 here = shared_address(shared) + Shared::sent;
        asm volatile(
            "{\n"
            ".reg .b32 four, end;\n"
            "mapa.shared::cluster.u32 four, %0, %2;\n"
            "mapa.shared::cluster.u32 end, %1, %2;\n"
            "st.shared::cluster.v4.f32 [four], {%3,%4,%5,%6};\n"
            "st.shared::cluster.f32 [end], %7;\n"
            "}\n" ::"r"(here + slot * 16), "r"(here + parts * share * 16 + slot * 4), "r"(first + to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w),
            "f"(lse) : "memory");
#endif
    }
};

/// Adds up this block's share of what all parts' blocks have sent.
///
/// A lane has one part of four elements, and the lanes of all parts of them add by shuffles.
FI_DEVICE void merge_share(const fi_attention_params &p, const Item &item, char *shared) {
    const ClusterShares shares(item);
    const int lanes = shares.parts <= 2 ? 2 : shares.parts <= 4 ? 4 : shares.parts <= 8 ? 8 : 16, part = threadIdx.x % lanes;
    const float4 *fours = reinterpret_cast<const float4 *>(shared + Shared::sent);
    const float *lses = reinterpret_cast<const float *>(fours + shares.parts * shares.share);
#pragma unroll 1
    for (int turn = 0; turn < shares.share; turn += threads / lanes) {
        const int place = turn + threadIdx.x / lanes, id = shares.own * shares.share + place;
        const bool is_there = part < shares.parts && place < shares.share && id < shares.all;
        const int at = part * shares.share + place;
        const float lse = is_there ? lses[at] : negative_infinity();
        float4 v = is_there ? fours[at] : make_float4(0, 0, 0, 0);
        float maximum = lse;
#pragma unroll 1
        for (int step = 1; step < lanes; step *= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, step));
        const float weight = exp2_approximate(lse - reference(maximum, 1));
        float sum = weight;
        v.x *= weight, v.y *= weight, v.z *= weight, v.w *= weight;
#pragma unroll 1
        for (int step = 1; step < lanes; step *= 2) {
            sum += __shfl_xor_sync(0xffffffff, sum, step);
            v.x += __shfl_xor_sync(0xffffffff, v.x, step), v.y += __shfl_xor_sync(0xffffffff, v.y, step);
            v.z += __shfl_xor_sync(0xffffffff, v.z, step), v.w += __shfl_xor_sync(0xffffffff, v.w, step);
        }
        if (is_there && part == 0) leave(p, item, id / row_fours, id % row_fours * 4, v, end_row(maximum, sum));
    }
}
