// What the four lanes that share a row of products do together.
#pragma once
#include "primitives/types.cuh"

/// Words w[0 ... 3] of the four lanes of a quad, transposed: lane q gets w[q] of all, in the order of the lanes.
FI_DEVICE void transpose_quad(uint32 (&w)[4]) {
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int step = 1; step <= 2; step *= 2) {
        const bool is_upper = (quad & step) != 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j & step) continue;
            const uint32 kept = is_upper ? w[j | step] : w[j];
            const uint32 got = __shfl_xor_sync(0xffffffff, is_upper ? w[j] : w[j | step], step);
            w[j] = is_upper ? got : kept;
            w[j | step] = is_upper ? kept : got;
        }
    }
}
