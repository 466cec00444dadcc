// Softmax of rows, each at its own temperature. One block a row: it reads the row twice and writes it once.
//
// FI_INPUT, FI_OUTPUT: storage types.

#include "fi_rows_params.h"
#include "primitives/distribution.cuh"

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) softmax(const __grid_constant__ fi_softmax_params p) {
    const unsigned int row = blockIdx.x;
    const unsigned long long input = fi_row_address<FI_INPUT>(p.input, row, p.inner_rows);
    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, row, p.inner_rows);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, row);
    const fi_row_scan scan = fi_scan_row<FI_INPUT, FI_THREADS>(input, p.width, scale);
    if (threadIdx.x == 0) ((unsigned char *)p.status)[row] = (unsigned char)scan.status;
    const float factor = scan.status == FI_ROW_OK ? (float)(1.0 / scan.sum) : 0.0f;

    constexpr int V = fi_vector(FI_INPUT, FI_OUTPUT);
    const bool aligned = ((input | output) & 15u) == 0;
    const long long vectors = aligned ? p.width / V : 0;
    for (long long place = threadIdx.x; place < vectors; place += FI_THREADS) {
        float x[V];
        fi_read<FI_INPUT, V>(input, place * V, x);
#pragma unroll
        for (int i = 0; i < V; i++) {
            x[i] = scan.status == FI_ROW_OK ? fi_exp((x[i] - scan.maximum) * scale) * factor : 0.0f;
        }
        fi_write<FI_OUTPUT, V>(output, place * V, x);
    }
    for (long long index = vectors * V + threadIdx.x; index < p.width; index += FI_THREADS) {
        float x[1];
        fi_read<FI_INPUT, 1>(input, index, x);
        x[0] = scan.status == FI_ROW_OK ? fi_exp((x[0] - scan.maximum) * scale) * factor : 0.0f;
        fi_write<FI_OUTPUT, 1>(output, index, x);
    }
}
