// The natural logarithm of one token's probability in each row, which is read once, by one block or by a cluster of them.
//
// FI_LOGITS: storage type. FI_TEAM: see primitives/team.cuh.

#include "fi_rows_params.h"
#include "primitives/distribution.cuh"
#include "primitives/launch.cuh"
#include "primitives/team.cuh"

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    log_probability(const __grid_constant__ fi_log_probability_params p) {
    fi_follow_predecessors();
    __shared__ fi_row_scan scans;
    const unsigned int row = fi_team_row();
    const unsigned long long logits = fi_row_address<FI_LOGITS>(p.logits, row, p.inner_rows);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, row);
    const fi_team_part part = fi_part_of_row((unsigned int)p.width);
    fi_row_scan scan = fi_scan_row<FI_LOGITS, FI_THREADS>(
        logits + (unsigned long long)part.first * fi_size(FI_LOGITS), part.count, scale);
    if (FI_TEAM > 1) {
        if (threadIdx.x == 0) scans = scan;
        fi_team_sync();
        if (threadIdx.x == 0 && fi_team_rank() == 0) {
#pragma unroll 1
            for (unsigned int rank = 1; rank < FI_TEAM; rank++) scan.join(*fi_team_at(&scans, rank), scale);
        }
        // No block leaves while another may read its shared memory.
        fi_team_sync();
    }
    if (threadIdx.x != 0 || fi_team_rank() != 0) return;
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
