// Copies from global to shared memory that run beside the program (cp.async), and plain accesses by shared-memory address.
#pragma once
#include "primitives/types.cuh"

/// A pointer into shared memory as the 32-bit address that PTX takes.
FI_DEVICE uint32 shared_address(const void *p) { return static_cast<uint32>(__cvta_generic_to_shared(p)); }

/// Copies `bytes` (16, 8 or 4) beside the program, or writes zeros where not `valid`; both addresses are multiples of `bytes`.
template <int bytes> FI_DEVICE void copy_async(uint32 to, const void *from, bool valid) {
    const int size = valid ? bytes : 0;
    if constexpr (bytes == 16) {
        // Past L1: keys and values are read once by a block.
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(size) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(bytes), "r"(size) : "memory");
    }
}

/// The same of 16 bytes that are read once: L2 gives them up before anything else, such as page tables, partial results and translations of
/// addresses. From 10.0 on it was never timed. FI_PLAIN_COPIES: without the policy, of which ptxas 13.0 may make an instruction that no GPU has where
/// a part of the address is the same for all lanes; the host looks for those, and compiles again.
FI_DEVICE void copy_async_once(uint32 to, const void *from, bool valid) {
#if __CUDA_ARCH__ < 1000 && !defined(FI_PLAIN_COPIES)
    uint64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0), "l"(policy) : "memory");
#else
    copy_async<16>(to, from, valid);
#endif
}

/// Ends a group of copies.
FI_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the `pending` newest groups of this thread are under way.
template <int pending> FI_DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

/// Waits for all copies of this thread, of groups or not.
FI_DEVICE void copy_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// A barrier in shared memory (mbarrier, 8 bytes) at which copies arrive too: who waits for some waits for no more than those.
struct CopyBarrier {
    uint32 address;

    __device__ __forceinline__ void init(int arrivals) const {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
    }
    __device__ __forceinline__ void arrive() const {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
    }
    /// Arrives when this thread's copies have come.
    __device__ __forceinline__ void arrive_after_copies() const {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address) : "memory");
    }
    /// Waits for phase `phase`, of which the parity counts.
    __device__ __forceinline__ void wait(uint32 phase) const {
#if __CUDA_ARCH__ >= 900
#define FI_TRY_WAIT "mbarrier.try_wait.parity.shared::cta.b64"
#else
#define FI_TRY_WAIT "mbarrier.test_wait.parity.shared::cta.b64"
#endif
        asm volatile(
            "{\n"
            ".reg .pred passed;\n"
            "again:\n" FI_TRY_WAIT " passed, [%0], %1;\n"
            "@!passed bra again;\n"
            "}\n" ::"r"(address), "r"(phase & 1) : "memory");
#undef FI_TRY_WAIT
    }
};

FI_DEVICE void store_shared(uint32 to, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
FI_DEVICE void store_shared(uint32 to, uint2 v) {
    asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(to), "r"(v.x), "r"(v.y) : "memory");
}
FI_DEVICE void store_shared(uint32 to, uint32 v) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory"); }
FI_DEVICE void store_shared(uint32 to, uint16 v) { asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(v) : "memory"); }
FI_DEVICE void store_shared_byte(uint32 to, uint32 v) { asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(v) : "memory"); }
FI_DEVICE uint16 load_shared16(uint32 from) {
    uint16 v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(from) : "memory");
    return v;
}
FI_DEVICE uint32 load_shared8(uint32 from) {
    uint32 v;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
}
FI_DEVICE float load_shared_float(uint32 from) {
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(from) : "memory");
    return v;
}
FI_DEVICE float2 load_shared_float2(uint32 from) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(from) : "memory");
    return v;
}
FI_DEVICE uint4 load_shared128(uint32 from) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(from) : "memory");
    return v;
}

/// Adds, and returns what was there: everything before is visible to whoever sees the sum, and the other way round.
FI_DEVICE uint32 add_acquire_release(uint32 *to, uint32 v) {
    uint32 old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(to), "r"(v) : "memory");
    return old;
}

/// Reads what others add to so: what they wrote before is visible then.
FI_DEVICE uint32 load_acquire(const uint32 *from) {
    uint32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
    return v;
}

/// Puts `v` where `expected` was; what was there. Acquires and releases.
FI_DEVICE uint32 compare_and_swap(uint32 *to, uint32 expected, uint32 v) {
    uint32 old;
    asm volatile("atom.cas.acq_rel.gpu.global.b32 %0, [%1], %2, %3;" : "=r"(old) : "l"(to), "r"(expected), "r"(v) : "memory");
    return old;
}
