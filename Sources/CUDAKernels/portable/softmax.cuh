// Softmax of rows, each at its own temperature. A cluster of blocks holds its row, reads it once and writes it once; one block alone
// reads it twice.
//
// FI_INPUT, FI_OUTPUT: storage types. FI_TEAM: see primitives/team.cuh.

#include "fi_rows_params.h"
#include "primitives/argmax.cuh"
#include "primitives/held.cuh"
#include "primitives/launch.cuh"

#if FI_TEAM > 1

/// The block's entries to memory, times `factor`. They lie at `held`, whose entries from `head` on are aligned.
static __device__ __forceinline__ void write_held(
    const float *held, unsigned int head, unsigned int count, unsigned long long output, float factor
) {
    const unsigned long long body = output + (unsigned long long)head * fi_size(FI_OUTPUT);
    const bool aligned = body % (4 * fi_size(FI_OUTPUT)) == 0 && head <= count;
    const unsigned int groups = aligned ? (count - head) / 4 : 0;
#pragma unroll 4
    for (unsigned int group = threadIdx.x; group < groups; group += FI_THREADS) {
        const float4 x = ((const float4 *)(held + head))[group];
        const float y[4] = {x.x * factor, x.y * factor, x.z * factor, x.w * factor};
        fi_write<FI_OUTPUT, 4>(body, 4ll * group, y);
    }
    const unsigned int before = aligned ? head : 0;
    for (unsigned int index = threadIdx.x; index < count - 4 * groups; index += FI_THREADS) {
        const unsigned int at = index < before ? index : index + 4 * groups;
        const float y[1] = {held[at] * factor};
        fi_write<FI_OUTPUT, 1>(output, at, y);
    }
}

/// Replaces what is held by what it weighs, and sums that.
static __device__ __forceinline__ double weigh_held(
    float *held, unsigned int head, unsigned int count, float maximum, float scale
) {
    double sum = 0;
    const auto weigh = [&](float &x) {
        x = fi_exp((x - maximum) * scale);
        return (double)x;
    };
    if (head > count) head = count;
    const unsigned int groups = (count - head) / 4;
#pragma unroll 2
    for (unsigned int group = threadIdx.x; group < groups; group += FI_THREADS) {
        float4 x = ((const float4 *)(held + head))[group];
        sum += (weigh(x.x) + weigh(x.y)) + (weigh(x.z) + weigh(x.w));
        ((float4 *)(held + head))[group] = x;
    }
    // Up to three entries on either side.
    if (threadIdx.x < count - 4 * groups) sum += weigh(held[threadIdx.x < head ? threadIdx.x : threadIdx.x + 4 * groups]);
    return sum;
}

static __device__ __forceinline__ void softmax_of_team(const fi_softmax_params &p, float *memory) {
    __shared__ fi_team_numbers numbers;
    __shared__ unsigned long long slots[FI_THREADS / 32];
    __shared__ double sums[FI_THREADS / 32];
    const unsigned int row = fi_team_row();
    fi_team_start();
    const fi_team_part part = fi_part_of_row((unsigned int)p.width);
    const unsigned long long input =
        fi_row_address<FI_INPUT>(p.input, row, p.inner_rows) + (unsigned long long)part.first * fi_size(FI_INPUT);
    const unsigned long long output =
        fi_row_address<FI_OUTPUT>(p.output, row, p.inner_rows) + (unsigned long long)part.first * fi_size(FI_OUTPUT);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, row);
    float maximum = -fi_infinity();
    bool is_nan = false;
    float *const held = fi_hold<FI_INPUT>(input, part.count, memory, [&](float x, unsigned int) {
        is_nan |= x != x;
        maximum = fmaxf(maximum, x);
    });
    const unsigned int head = (4 - (unsigned int)(held - memory) % 4) % 4;
    fi_team_started();
    unsigned int turn = 0;
    const unsigned long long top = numbers.greatest(
        fi_block_reduce<FI_THREADS, true>(
            is_nan ? FI_TOP_NAN : (unsigned long long)fi_order_key(maximum) << 32, fi_top_max(), slots),
        turn);
    maximum = fi_top_value(top);
    const int status = fi_scan_status(maximum, top == FI_TOP_NAN);
    float factor = 0;
    double sum = 0;
    if (status == FI_ROW_OK) sum = weigh_held(held, head, part.count, maximum, scale);
    sum = numbers.total(fi_block_reduce<FI_THREADS, true>(sum, fi_sum(), sums), turn);
    if (status == FI_ROW_OK) {
        factor = (float)(1.0 / sum);
        write_held(held, head, part.count, output, factor);
    } else {
        const float zero[1] = {0.0f};
        for (unsigned int index = threadIdx.x; index < part.count; index += FI_THREADS) fi_write<FI_OUTPUT, 1>(output, index, zero);
    }
    if (threadIdx.x == 0 && fi_team_rank() == 0) ((unsigned char *)p.status)[row] = (unsigned char)status;
}

#else

static __device__ __forceinline__ void softmax_of_block(const fi_softmax_params &p) {
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

#endif

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    softmax(const __grid_constant__ fi_softmax_params p) {
    fi_follow_predecessors();
#if FI_TEAM > 1
    extern __shared__ __align__(16) float memory[];
    softmax_of_team(p, memory);
#else
    softmax_of_block(p);
#endif
}
