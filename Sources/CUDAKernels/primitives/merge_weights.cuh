// What states of attention weigh in a merge: one arithmetic for all kernels that merge, as a merge of ranks' states by exchange has the bits of one
// on a device, and bits depend neither on where tensors lie nor on how wide heads are.
//
// Up to FI_MERGED_AT_ONCE states have one order of sums, which is that of `fi_merge_total`; of more, kernels have orders of their own.
#pragma once

/// 2^x, weights below 2^-126 being 0.
static __device__ __forceinline__ float fi_merge_weight(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// 1 / x, the nearest number, of sums of weights: they are at least 1.
static __device__ __forceinline__ float fi_merge_inverse(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return __fmaf_rn(y, __fmaf_rn(-x, y, 1.0f), y);
}

/// The logarithm to base 2 of a sum of weights.
static __device__ __forceinline__ float fi_merge_logarithm(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// The sum of up to `most` weights, the rest being 0, in the order in which a warp's lanes add theirs up by exchanges of halves.
template <int most>
static __device__ __forceinline__ float fi_merge_total(const float (&weights)[most]) {
    float sums[most];
#pragma unroll
    for (int i = 0; i < most; i++) sums[i] = weights[i];
#pragma unroll
    for (int distance = most / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int i = 0; i < distance; i++) sums[i] += sums[i + distance];
    }
    return sums[0];
}
