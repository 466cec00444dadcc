// Normalisation of aligned rows like norm.cuh, a block a row, of which each thread holds FI_CHUNKS vectors, one as a rule.
//
// What takes long where there are few rows is what one thread does after the wait for the kernels ahead: so parameters are read and addresses
// computed before it, all loads are on their way at once, and what was added is stored before sums are exchanged.
//
// FI_INPUT, FI_RESIDUAL, FI_WEIGHT, FI_OUTPUT: storage types. FI_HAS_RESIDUAL: whether there is one. FI_CENTRED: whether it is layer norm.

#include "fi_rows_params.h"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) norm_row(const __grid_constant__ fi_norm_params p) {
    constexpr int V = fi_vector(FI_INPUT, FI_RESIDUAL, FI_WEIGHT, FI_OUTPUT), step = FI_THREADS * V;
    __shared__ float totals[FI_THREADS / 32], squares[FI_THREADS / 32];
    const unsigned int column = threadIdx.x * V, width = (unsigned int)p.width;
    const auto address = [&](unsigned long long start, int type) { return start + column * fi_size(type); };
    unsigned long long input = address(fi_row_address<FI_INPUT>(p.input, blockIdx.x, 1), FI_INPUT);
    unsigned long long residual =
        FI_HAS_RESIDUAL ? address(fi_row_address<FI_RESIDUAL>(p.residual, blockIdx.x, 1), FI_RESIDUAL) : 0;
    unsigned long long output = address(fi_row_address<FI_OUTPUT>(p.output, blockIdx.x, 1), FI_OUTPUT);
    unsigned long long weight = address(p.weight, FI_WEIGHT), bias = FI_CENTRED ? address(p.bias, FI_WEIGHT) : 0;
    float count = (float)(int)width, inverse = __frcp_rn(count), epsilon = p.epsilon, offset = p.weight_offset;
    bool inside[FI_CHUNKS];
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        inside[c] = column + c * step < width;
        // A line of memory for each eighth thread.
        if (!inside[c] || threadIdx.x % 8 != 0) continue;
        fi_prefetch(input + c * step * fi_size(FI_INPUT));
        if (FI_HAS_RESIDUAL) fi_prefetch(residual + c * step * fi_size(FI_RESIDUAL));
    }
    fi_settle(input, residual, output, weight, bias, count, inverse, epsilon, offset);
    fi_await_predecessors();
    fi_admit_successors();
    fi_packed<FI_INPUT, V> x[FI_CHUNKS];
    fi_packed<FI_RESIDUAL, V> added[FI_CHUNKS];
    fi_packed<FI_WEIGHT, V> w[FI_CHUNKS], b[FI_CHUNKS];
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
#pragma unroll
        for (int i = 0; i < fi_packed<FI_INPUT, V>::words; i++) x[c].word[i] = 0;
#pragma unroll
        for (int i = 0; i < fi_packed<FI_RESIDUAL, V>::words; i++) added[c].word[i] = 0;
        if (!inside[c]) continue;
        x[c] = fi_load_global<FI_INPUT, V>(input + c * step * fi_size(FI_INPUT));
        if (FI_HAS_RESIDUAL) added[c] = fi_load_global<FI_RESIDUAL, V>(residual + c * step * fi_size(FI_RESIDUAL));
    }
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        if (!inside[c]) continue;
        w[c] = fi_load_global<FI_WEIGHT, V>(weight + c * step * fi_size(FI_WEIGHT));
        if (FI_CENTRED) b[c] = fi_load_global<FI_WEIGHT, V>(bias + c * step * fi_size(FI_WEIGHT));
    }
    float y[FI_CHUNKS][V], mean = 0, sum = 0;
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        fi_unpack<FI_INPUT, V>(x[c], y[c]);
        if constexpr (FI_HAS_RESIDUAL) {
            float z[V];
            fi_unpack<FI_RESIDUAL, V>(added[c], z);
#pragma unroll
            for (int i = 0; i < V; i++) y[c][i] += z[i];
        }
    }
    // Behind all loads: the compiler may move none of them over a store.
    if constexpr (FI_HAS_RESIDUAL) {
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            if (!inside[c]) continue;
            fi_store_global<FI_RESIDUAL, V>(residual + c * step * fi_size(FI_RESIDUAL), fi_pack<FI_RESIDUAL, V>(y[c]));
        }
    }
    if constexpr (FI_CENTRED) {
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < V; i++) sum += y[c][i];
        }
        mean = fi_mean(fi_block_reduce<FI_THREADS, true>(sum, fi_sum(), totals), count, inverse);
        sum = 0;
    }
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        // Zeros that stand for nothing are at no distance from 0 but from the mean.
        if (FI_CENTRED && !inside[c]) continue;
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float distance = FI_CENTRED ? y[c][i] - mean : y[c][i];
            sum = __fmaf_rn(distance, distance, sum);
        }
    }
    const float scale =
        1.0f / sqrtf(fi_mean(fi_block_reduce<FI_THREADS, true>(sum, fi_sum(), squares), count, inverse) + epsilon);
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        if (!inside[c]) continue;
        float by[V], last[V];
        fi_unpack<FI_WEIGHT, V>(w[c], by);
        if (FI_CENTRED) fi_unpack<FI_WEIGHT, V>(b[c], last);
#pragma unroll
        for (int i = 0; i < V; i++) {
            y[c][i] = FI_CENTRED ? __fmaf_rn((y[c][i] - mean) * scale, by[i], last[i]) : y[c][i] * scale * (by[i] + offset);
        }
        fi_store_global<FI_OUTPUT, V>(output + c * step * fi_size(FI_OUTPUT), fi_pack<FI_OUTPUT, V>(y[c]));
    }
}
