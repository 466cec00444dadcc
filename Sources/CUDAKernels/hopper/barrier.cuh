// Barriers in shared memory (mbarrier), barriers of some of a block's warps (bar), and what else roles of a block need.
#pragma once
#include "primitives/types.cuh"

/// A barrier that is passed when its arrivals, and the bytes that were announced to it, have all come. 8 bytes.
struct Barrier {
    uint32 address;

    __device__ __forceinline__ void init(int arrivals) const {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
    }
    __device__ __forceinline__ void arrive() const {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
    }
    /// One lane of the warp arrives.
    __device__ __forceinline__ void arrive_once() const {
        asm volatile(
            "{\n"
            ".reg .pred is_chosen;\n"
            "elect.sync _|is_chosen, 0xffffffff;\n"
            "@is_chosen mbarrier.arrive.shared::cta.b64 _, [%0];\n"
            "}\n" ::"r"(address) : "memory");
    }
    /// Arrives, and announces bytes that the copy engine will bring.
    __device__ __forceinline__ void arrive_expecting(int bytes) const {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
    }
    /// Arrives at the barrier in the same place of another block of the cluster, and says nothing of what was written: for who has read.
    /// With a release for the cluster, it would wait for all of the thread's writes.
    __device__ __forceinline__ void arrive_at(uint32 rank) const {
        asm volatile(
            "{\n"
            ".reg .b32 remote;\n"
            "mapa.shared::cluster.u32 remote, %0, %1;\n"
            "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
            "}\n" ::"r"(address), "r"(rank) : "memory");
    }
    /// The same for who has written: who waits with `wait_in_cluster` sees it.
    __device__ __forceinline__ void arrive_releasing_at(uint32 rank) const {
        asm volatile(
            "{\n"
            ".reg .b32 remote;\n"
            "mapa.shared::cluster.u32 remote, %0, %1;\n"
            "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n"
            "}\n" ::"r"(address), "r"(rank) : "memory");
    }
    /// Arrives when this thread's copies (cp.async) have come: who waits orders them with what the tensor cores read, by a fence.
    __device__ __forceinline__ void arrive_after_copies() const {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address) : "memory");
    }
    /// Waits for what another block of the cluster has written.
    __device__ __forceinline__ void wait_in_cluster(uint32 phase) const {
        asm volatile(
            "{\n"
            ".reg .pred passed;\n"
            "again:\n"
            "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 passed, [%0], %1;\n"
            "@!passed bra again;\n"
            "}\n" ::"r"(address), "r"(phase & 1) : "memory");
    }
    /// Waits for phase `phase`, of which the parity counts.
    __device__ __forceinline__ void wait(uint32 phase) const {
        asm volatile(
            "{\n"
            ".reg .pred passed;\n"
            "again:\n"
            "mbarrier.try_wait.parity.shared::cta.b64 passed, [%0], %1;\n"
            "@!passed bra again;\n"
            "}\n" ::"r"(address), "r"(phase & 1) : "memory");
    }
    /// The same for who has time: it asks again after a while. Warps that have nothing else to do ask some hundred times for an item otherwise, which
    /// takes power from those that compute: up to 1 % of the time.
    __device__ __forceinline__ void wait_asleep(uint32 phase) const {
        asm volatile(
            "{\n"
            ".reg .pred passed;\n"
            "again:\n"
            "mbarrier.try_wait.parity.shared::cta.b64 passed, [%0], %1;\n"
            "@passed bra end;\n"
            "nanosleep.u32 200;\n"
            "bra again;\n"
            "end:\n"
            "}\n" ::"r"(address), "r"(phase & 1) : "memory");
    }
};

/// Writes to the same place of another block of the cluster.
FI_DEVICE void store_shared_at(uint32 rank, uint32 address, uint32 value) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "st.shared::cluster.u32 [remote], %2;\n"
        "}\n" ::"r"(address), "r"(rank), "r"(value) : "memory");
}

/// Waits for all threads of the cluster's blocks.
FI_DEVICE void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Makes initialised barriers visible to the copy engine.
FI_DEVICE void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Orders this thread's plain accesses to shared memory with later ones of the copy engine and the tensor cores.
FI_DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Waits at barrier `id` for `count` threads, those that only arrive included.
FI_DEVICE void sync_threads(int id, int count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }
FI_DEVICE void arrive_threads(int id, int count) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory"); }

/// Gives registers back, or takes some: all warps of a warpgroup.
template <int count> FI_DEVICE void shrink_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count)); }
template <int count> FI_DEVICE void grow_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count)); }
