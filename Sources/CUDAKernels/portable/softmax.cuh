// Softmax of rows, each at its own temperature. A cluster of blocks holds its row, reads it once and writes it once; one block alone
// reads it twice.
//
// FI_INPUT, FI_OUTPUT: storage types. FI_TEAM: see primitives/team.cuh.

#define FI_FORM 0
#include "fi_rows_params.h"
#include "primitives/launch.cuh"
#include "primitives/row_part.cuh"

#if FI_TEAM > 1

static __device__ __forceinline__ void softmax_of_team(const fi_softmax_params &p) {
    __shared__ fi_team_numbers numbers;
    __shared__ unsigned int tops[FI_WARPS];
    __shared__ double sums[FI_WARPS];
    const unsigned int row = fi_team_row();
    fi_team_start();
    const fi_row_part part = fi_take_part(fi_row_address<FI_INPUT>(p.input, row, p.inner_rows), (unsigned int)p.width);
    fi_bring(part);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, row);
    const fi_raw_groups entries = {part};
    float maximum = fi_neutral();
    fi_wait_brought();
    fi_each_group<4>(part, entries, [&](float4 x, unsigned int) { fi_raise(maximum, x); });
    fi_team_started();
    unsigned int turn = 0, top = __reduce_max_sync(0xffffffffu, fi_order_key(maximum));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    top = (unsigned int)numbers.greatest(__reduce_max_sync(0xffffffffu, tops[threadIdx.x % FI_WARPS]), turn);
    maximum = fi_order_value(top);
    const int status = fi_scan_status(maximum, top == fi_order_key(__int_as_float(0x7fc00000)));
    const bool is_ok = status == FI_ROW_OK;
    double sum = 0;
    if (is_ok) {
        fi_each_group<2>(part, entries, [&](float4 x, unsigned int group) {
            const auto weigh = [&](float &x) { x = fi_exp((x - maximum) * scale); };
            weigh(x.x), weigh(x.y), weigh(x.z), weigh(x.w);
            ((float4 *)fi_held)[group] = x;
            // Four of them in float32, as few numbers become 64 bits in a cycle: what is lost is 2^-24 of four, and evens out.
            sum += (double)((x.x + x.y) + (x.z + x.w));
        });
    }
    sum = numbers.total(fi_block_reduce<FI_THREADS, true>(sum, fi_sum(), sums), turn);
    const float factor = is_ok ? (float)(1.0 / sum) : 0.0f;
    const unsigned long long output = fi_output_of<FI_OUTPUT>(part, fi_row_address<FI_OUTPUT>(p.output, row, p.inner_rows));
    fi_each_group<4>(part, entries, [&](float4 x, unsigned int group) {
        // What is not a distribution is 0 everywhere, NaN and infinities too.
        const auto share = [&](float x) { return is_ok ? x * factor : 0.0f; };
        fi_write_group<FI_OUTPUT>(part, output, group, make_float4(share(x.x), share(x.y), share(x.z), share(x.w)));
    });
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
    softmax_of_team(p);
#else
    softmax_of_block(p);
#endif
}
