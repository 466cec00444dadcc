// The place of the greatest entry of each row. One block a row.

#include "fi_rows_params.h"
#include "primitives/argmax.cuh"
#include "primitives/dispatch.cuh"

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) argmax(const __grid_constant__ fi_argmax_params p) {
    fi_with_compute_type(p.input_type, [&](auto type) {
        constexpr int INPUT = decltype(type)::value;
        int status;
        const int place =
            fi_argmax_row<INPUT, FI_THREADS>(fi_row_address<INPUT>(p.input, blockIdx.x, p.inner_rows), p.width, &status);
        if (threadIdx.x == 0) {
            ((int *)p.output)[blockIdx.x] = place;
            ((unsigned char *)p.status)[blockIdx.x] = (unsigned char)status;
        }
    });
}
