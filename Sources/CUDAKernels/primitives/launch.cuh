// Kernels of a stream that overlap (programmatic dependent launch, compute capability 9.0 and up).
#pragma once

/// Lets the next kernel's blocks start where there is room.
///
/// Called before the wait, it hides all that the next kernel does before its own, but lets tens of launches of few blocks in: they fill the
/// processors with blocks that wait, and blocks of one launch meet on those where a place falls free (six of 64 on one, and twice the time).
/// Called behind the wait, it lets one launch in. So kernels of few blocks call it behind the wait; those that fill the GPU call it first.
static __device__ __forceinline__ void fi_admit_successors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until all that was enqueued before this kernel is done and can be read.
///
/// What comes before it may read only what no kernel writes (plans, which are copied from the host or written by a kernel that is followed
/// by a fill: no kernel starts before a copy or a fill has ended) and past L1, and may bring anything to L2, where writes that come later are seen. At least one block calls it, so that
/// a kernel's end means that all before it have ended.
static __device__ __forceinline__ void fi_await_predecessors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Has a value computed here, before a wait rather than where it is first used: the compiler moves addresses there to save registers, and with
/// them their cold parameters.
static __device__ __forceinline__ void fi_settle(unsigned long long &value) { asm volatile("" : "+l"(value)); }
static __device__ __forceinline__ void fi_settle(float &value) { asm volatile("" : "+f"(value)); }
template <class First, class... Rest>
static __device__ __forceinline__ void fi_settle(First &first, Rest &...rest) { fi_settle(first), fi_settle(rest...); }

/// Brings a line of memory to L2, before or after that wait: it is on its way while the kernels ahead end.
static __device__ __forceinline__ void fi_prefetch(unsigned long long address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

/// The same of `bytes` (a multiple of 16, at a multiple of 16), by one instruction of one thread. Blocks that bring what blocks so far behind
/// them will read keep memory busy while those before compute.
static __device__ __forceinline__ void fi_prefetch(unsigned long long address, unsigned int bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(address), "r"(bytes));
#endif
}

/// The first thing that most kernels do: both. What it hides is the time from one kernel's end to the next one's start.
///
/// A kernel that waits so is launched so that it may start early (`CUDAFunction.startsEarly`); one without it never is, as only this
/// call keeps it from reading what is not written yet.
static __device__ __forceinline__ void fi_follow_predecessors() { fi_await_predecessors(), fi_admit_successors(); }

/// A launch's place among those of one run, which do not read what the others write and may run side by side.
enum LaunchPlace {
    /// It follows all before it and is followed by what comes next.
    place_alone = 0,
    /// The first of several: it lets the next one start once all before it is done, so that the next one need not wait.
    place_first = 1,
    /// One that runs beside those before it, and waits for them at its end: then its own end means that they have ended.
    place_beside = 2,
};

/// The same for a launch at a place.
static __device__ __forceinline__ void fi_follow_predecessors(int place) {
    if (place == place_alone) fi_admit_successors();
    if (place != place_beside) fi_await_predecessors();
    if (place != place_alone) fi_admit_successors();
}

/// The last thing that such a launch does.
static __device__ __forceinline__ void fi_end(int place) {
    if (place == place_beside) fi_await_predecessors();
}
