// Kernels of a stream that overlap (programmatic dependent launch, compute capability 9.0 and up).
#pragma once

/// The first thing that a kernel does: lets the next kernel's blocks start where there is room, and waits until all that was enqueued
/// before this one is done and can be read. What it hides is the time from one kernel's end to the next one's start.
///
/// A kernel with this call in its file is launched so that it may start early (`CUDAFunction.startsEarly`); one without it never is, as
/// only this call keeps it from reading what is not written yet. Every block calls it, so that a kernel's end means that all before it have ended.
static __device__ __forceinline__ void fi_follow_predecessors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
