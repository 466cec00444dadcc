// The place of the greatest entry of each row. One block a row.

#include "fi_rows_params.h"
#include "primitives/argmax.cuh"
#include "primitives/dispatch.cuh"

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) argmax(const __grid_constant__ fi_argmax_params p) {
    fi_with_compute_type(p.input_type, [&](auto type) {
        constexpr int INPUT = decltype(type)::value;
        const unsigned long long input = fi_row_address<INPUT>(p.input, blockIdx.x, p.inner_rows);
        bool has_nan;
        const fi_candidate best = fi_greatest<INPUT, FI_THREADS>(input, (unsigned int)p.width, &has_nan);
        if (threadIdx.x != 0) return;
        const int status = fi_greedy_status(best.value, has_nan);
        ((int *)p.output)[blockIdx.x] = status == FI_ROW_OK ? (int)best.place : -1;
        ((unsigned char *)p.status)[blockIdx.x] = (unsigned char)status;
    });
}
