// Reductions over the threads of a warp and of a block.
//
// Every thread of the block takes part, and every thread gets the result. The order of the sums is fixed, so a result depends
// on the inputs alone.
#pragma once

struct fi_sum {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};

/// The greater one; the other one where one is NaN.
struct fi_max {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Over groups of `lanes` neighbouring threads, a power of two up to 32.
template <int lanes = 32, class T, class Op>
static __device__ __forceinline__ T fi_warp_reduce(T value, Op op) {
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        value = op(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

/// Several values (a power of two) over groups of `lanes` neighbouring threads, each in the order of `fi_warp_reduce`. A thread gets the result
/// of value `fi_reduced<count, lanes>()`: threads share the values out at once, which takes few more exchanges than one value does.
template <int lanes, int count, class T, class Op>
static __device__ __forceinline__ T fi_warp_reduce(const T (&values)[count], Op op) {
    static_assert(count <= lanes && (count & count - 1) == 0, "a power of two, and a value for every thread at most");
    T left[count];
#pragma unroll
    for (int i = 0; i < count; i++) left[i] = values[i];
#pragma unroll
    for (int half = count / 2, distance = lanes / 2; half > 0; half /= 2, distance /= 2) {
        const bool upper = threadIdx.x & distance;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const T own = upper ? left[i + half] : left[i], other = upper ? left[i] : left[i + half];
            left[i] = op(own, __shfl_xor_sync(0xffffffffu, other, distance));
        }
    }
    return fi_warp_reduce<lanes / count>(left[0], op);
}

template <int count, int lanes>
static __device__ __forceinline__ unsigned int fi_reduced() { return threadIdx.x % lanes / (lanes / count); }

/// What the first of the threads that have value `index` says.
template <int count, int lanes, class T>
static __device__ __forceinline__ T fi_of_reduced(T value, int index) {
    return __shfl_sync(0xffffffffu, value, index * (lanes / count), lanes);
}

/// Over a block of `threads`, a multiple of 32. `slots` is shared memory for one value a warp; the barriers on both sides make
/// it free again when the next reduction begins. Slots that a kernel uses once only need no barrier before.
template <int threads, bool isOnce = false, class T, class Op>
static __device__ __forceinline__ T fi_block_reduce(T value, Op op, T *slots) {
    constexpr int warps = threads / 32;
    value = fi_warp_reduce(value, op);
    if constexpr (warps > 1) {
        if constexpr (!isOnce) __syncthreads();
        if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
        __syncthreads();
        // Every warp reduces the slots by itself, which spares the barrier that sending the result round would need.
        value = slots[threadIdx.x % warps];
        value = fi_warp_reduce<warps>(value, op);
    }
    return value;
}

/// Inclusive running sums over a warp's lanes.
template <class T>
static __device__ __forceinline__ T fi_warp_running_sum(T value) {
    const unsigned int lane = threadIdx.x % 32;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const T before = __shfl_up_sync(0xffffffffu, value, distance);
        if (lane >= distance) value += before;
    }
    return value;
}

/// A call where a block is alone, as kernels that filter have eight of them to compile; what a cluster does between its barriers is slower by it.
#if defined(FI_TEAM) && FI_TEAM == 1
#define FI_RUNNING_INLINE __noinline__
#else
#define FI_RUNNING_INLINE __forceinline__
#endif
/// Inclusive running sums over a block's threads.
template <int threads>
static __device__ FI_RUNNING_INLINE unsigned long long fi_block_running_sum(
    unsigned long long value, unsigned long long *slots
) {
    constexpr int warps = threads / 32;
    const unsigned int lane = threadIdx.x % 32;
    value = fi_warp_running_sum(value);
    __syncthreads();
    if (lane == 31) slots[threadIdx.x / 32] = value;
    __syncthreads();
    const unsigned long long others = lane < warps ? slots[lane] : 0;
    const unsigned long long totals = fi_warp_running_sum(others);
    const unsigned int warp = threadIdx.x / 32;
    const unsigned long long before = __shfl_sync(0xffffffffu, totals, warp == 0 ? 0 : warp - 1);
    return value + (warp == 0 ? 0 : before);
}

/// A sum over a width: the nearest number, by the width's inverse, which is there before the sum is, and one correction. In one place, as
/// kernels that share rows out otherwise promise the same bits.
static __device__ __forceinline__ float fi_mean(float sum, float width, float inverse) {
    const float near = __fmul_rn(sum, inverse), exact = __fmaf_rn(__fmaf_rn(-near, width, sum), inverse, near);
    return fabsf(near) < __int_as_float(0x7f800000) ? exact : near;
}
static __device__ __forceinline__ float fi_mean(float sum, float width) { return fi_mean(sum, width, __frcp_rn(width)); }
