// The natural logarithm of one token's probability in each row. One block a row, which reads it once.
//
// FI_LOGITS: storage type.

#include "fi_rows_params.h"
#include "primitives/distribution.cuh"

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    log_probability(const __grid_constant__ fi_log_probability_params p) {
    const unsigned int row = blockIdx.x;
    const unsigned long long logits = fi_row_address<FI_LOGITS>(p.logits, row, p.inner_rows);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, row);
    const fi_row_scan scan = fi_scan_row<FI_LOGITS, FI_THREADS>(logits, (unsigned int)p.width, scale);
    if (threadIdx.x != 0) return;
    ((unsigned char *)p.status)[row] = (unsigned char)scan.status;
    const int id = ((const int *)p.ids)[row];
    float result = __int_as_float(0x7fc00000);
    if (scan.status == FI_ROW_OK && id >= 0 && id < p.width) {
        float x[1];
        fi_read<FI_LOGITS, 1>(logits, id, x);
        // Both terms are at most 0, so no digits cancel; the difference alone may exceed float32.
        result = (float)(((double)x[0] - (double)scan.maximum) * (double)scale - log(scan.sum));
    }
    ((float *)p.output)[row] = result;
}
