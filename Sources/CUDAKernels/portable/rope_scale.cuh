// What heads that are normalised are multiplied by.
#pragma once

#include "fi_rope_parts_params.h"
#include "primitives/reduce.cuh"

/// What a head is multiplied by, besides its weights, by the sum of its squares.
static __device__ __forceinline__ float norm_scale(const fi_rope_parts_params &p, float sum) {
    return 1.0f / sqrtf(fi_mean(sum, (float)p.norm_width, p.norm_inverse) + p.epsilon);
}

/// The same of each token's head, by its threads' sums: all threads of the warp take part.
template <int count>
static __device__ __forceinline__ void norm_scales(const fi_rope_parts_params &p, const float (&sums)[count], float (&scales)[count]) {
    // Eight threads of sixteen elements are usual.
    if (p.norm_lanes == 8) {
        const float own = norm_scale(p, fi_warp_reduce<8>(sums, fi_sum()));
#pragma unroll
        for (int t = 0; t < count; t++) scales[t] = count == 1 ? own : fi_of_reduced<count, 8>(own, t);
        return;
    }
#pragma unroll
    for (int t = 0; t < count; t++) {
        float sum = sums[t];
        for (unsigned int distance = p.norm_lanes / 2; distance > 0; distance /= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        }
        scales[t] = norm_scale(p, sum);
    }
}
