// Normalisation of rows like norm.cuh, bit for bit, for many aligned rows: a block has FI_ROWS rows at once, which share the weights and, a few
// threads each, what is computed of a row's sum.
//
// FI_INPUT, FI_WEIGHT, FI_OUTPUT: storage types; FI_OUTPUT may be FI_BYTES. FI_CHUNKS: vectors of a row that a thread holds.
// FI_CENTRED: whether it is layer norm. FI_SCALES: of bytes, 0 a scale that is given, 1 of rows, 2 of groups of FI_LARGEST_GROUP.

#define FI_GLOBAL_ONLY

#include "fi_rows_params.h"
#include "portable/quantize.cuh"
#include "primitives/dispatch.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

#define FI_WARPS (FI_THREADS / 32)
/// A block of many rows brings the rows of the block so many behind it to the second cache. Those about their mean take longer with it.
#define FI_AHEAD (FI_ROWS > 1 && !FI_CENTRED ? 512u : 0u)
#define FI_V fi_vector(FI_INPUT, FI_WEIGHT, FI_OUTPUT == FI_BYTES ? FI_FLOAT32 : FI_OUTPUT)

/// Each row's value over the block: a thread has that of row `fi_reduced<FI_ROWS, 32>()`.
template <class T, class Op>
static __device__ __forceinline__ T reduce_rows(const T (&values)[FI_ROWS], Op op, T *slots) {
    static_assert(FI_ROWS * FI_WARPS <= 32, "a slot for every lane");
    const unsigned int lane = threadIdx.x % 32;
    const T value = fi_warp_reduce<32>(values, op);
    if (lane % (32 / FI_ROWS) == 0) slots[fi_reduced<FI_ROWS, 32>() * FI_WARPS + threadIdx.x / 32] = value;
    __syncthreads();
    // A row's slots are read by the lanes that have the row, more than once where they are fewer.
    return fi_warp_reduce<FI_WARPS>(slots[fi_reduced<FI_ROWS, 32>() * FI_WARPS + lane % FI_WARPS], op);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) norm_many(const __grid_constant__ fi_norm_params p) {
    if (FI_ROWS > 1) fi_admit_successors();
    constexpr int V = FI_V, step = FI_THREADS * V;
    __shared__ float squares[32], totals[32];
    __shared__ unsigned int magnitudes[32];
    const unsigned int first = blockIdx.x * FI_ROWS, left = p.rows - first;
    const unsigned int column = threadIdx.x * V, width = (unsigned int)p.width;
    const unsigned long long input = fi_row_address<FI_INPUT>(p.input, first, 1) + column * fi_size(FI_INPUT);
    const unsigned long long input_row = (unsigned long long)(p.input.outer * fi_size(FI_INPUT));
    const auto bring = [&](unsigned int from) {
        if (threadIdx.x != 0) return;
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) {
            if (from + r < left) fi_prefetch(input + (from + r) * input_row, width * fi_size(FI_INPUT));
        }
    };
    // Of few rows all are on their way while the kernels ahead end.
    if (FI_ROWS == 1 || blockIdx.x < FI_AHEAD) bring(0);
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (FI_ROWS == 1) fi_admit_successors();
    fi_packed<FI_INPUT, V> x[FI_ROWS][FI_CHUNKS];
    fi_packed<FI_WEIGHT, V> w[FI_CHUNKS];
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            if ((r == 0 || r < left) && column + c * step < width) {
                x[r][c] = fi_load<FI_INPUT, V>(input + r * input_row, c * step);
            } else {
#pragma unroll
                for (int i = 0; i < fi_packed<FI_INPUT, V>::words; i++) x[r][c].word[i] = 0;
            }
        }
    }
    if constexpr (FI_AHEAD != 0) bring(FI_AHEAD * FI_ROWS);
    if constexpr (!FI_CENTRED) {
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            if (column + c * step < width) w[c] = fi_load<FI_WEIGHT, V>(p.weight, column + c * step);
        }
    }
    float sum[FI_ROWS], mean[FI_ROWS], scale[FI_ROWS];
    if constexpr (FI_CENTRED) {
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) {
            sum[r] = 0;
#pragma unroll
            for (int c = 0; c < FI_CHUNKS; c++) {
                float y[V];
                fi_unpack<FI_INPUT, V>(x[r][c], y);
#pragma unroll
                for (int i = 0; i < V; i++) sum[r] += y[i];
            }
        }
        const float own = fi_mean(reduce_rows(sum, fi_sum(), totals), (float)(int)p.width);
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) mean[r] = fi_of_reduced<FI_ROWS, 32>(own, r);
    }
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) {
        sum[r] = 0;
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            // Zeros that stand for nothing are at no distance from 0 but from the mean.
            if (FI_CENTRED && column + c * step >= width) continue;
            float y[V];
            fi_unpack<FI_INPUT, V>(x[r][c], y);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float distance = FI_CENTRED ? y[i] - mean[r] : y[i];
                sum[r] = __fmaf_rn(distance, distance, sum[r]);
            }
        }
    }
    const float own_scale = 1.0f / sqrtf(fi_mean(reduce_rows(sum, fi_sum(), squares), (float)(int)p.width) + p.epsilon);
#pragma unroll
    for (int r = 0; r < FI_ROWS; r++) scale[r] = fi_of_reduced<FI_ROWS, 32>(own_scale, r);

    const unsigned long long output = fi_row_address<FI_OUTPUT>(p.output, first, 1) + column * fi_size(FI_OUTPUT);
    const unsigned long long output_row = (unsigned long long)(p.output.outer * fi_size(FI_OUTPUT));
    float factor = 1.0f;
    if constexpr (FI_OUTPUT == FI_BYTES && FI_SCALES == 0) factor = fi_factor(p.quantize);
    const auto store = [&](int r, int c, float (&y)[V], float factor) {
        if ((r > 0 && r >= left) || column + c * step >= width) return;
        if constexpr (FI_OUTPUT == FI_BYTES) {
            fi_write_bytes<V>(p.quantize.type, output + r * output_row, c * step, y, factor);
        } else {
            fi_write<FI_OUTPUT, V>(output + r * output_row, c * step, y);
        }
    };
    // Of rows with scales of their own, all results are held until those are known. One branch by the type serves them all: one for each of
    // them was a tenth of all instructions.
    constexpr bool is_held = FI_OUTPUT == FI_BYTES && FI_SCALES != 0;
    constexpr int count = FI_ROWS * FI_CHUNKS;
    float held[is_held ? FI_ROWS : 1][is_held ? FI_CHUNKS : 1][V];
    const auto store_held = [&](const float (&factors)[count]) {
        const auto store_as = [&](auto type) {
#pragma unroll
            for (int i = 0; i < count; i++) {
                const int r = i / FI_CHUNKS, c = i % FI_CHUNKS;
                float(&y)[V] = held[r][c];
#pragma unroll
                for (int k = 0; k < V; k++) y[k] = __fmul_rn(y[k], factors[i]);
                const auto packed = fi_pack<decltype(type)::value, V>(y);
                if ((r == 0 || r < left) && column + c * step < width) {
                    fi_store<decltype(type)::value, V>(output + r * output_row, c * step, packed);
                }
            }
        };
        if (p.quantize.type == FI_E4M3) {
            store_as(fi_type<FI_E4M3>());
        } else if (p.quantize.type == FI_INT8) {
            store_as(fi_type<FI_INT8>());
        } else {
            store_as(fi_type<FI_E5M2>());
        }
    };
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        float by[V], bias[V];
        if constexpr (FI_CENTRED) {
            fi_packed<FI_WEIGHT, V> added;
            if (column + c * step < width) {
                w[c] = fi_load<FI_WEIGHT, V>(p.weight, column + c * step);
                added = fi_load<FI_WEIGHT, V>(p.bias, column + c * step);
            }
            fi_unpack<FI_WEIGHT, V>(added, bias);
        }
        fi_unpack<FI_WEIGHT, V>(w[c], by);
        if constexpr (!FI_CENTRED) {
#pragma unroll
            for (int i = 0; i < V; i++) by[i] += p.weight_offset;
        }
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) {
            float(&y)[V] = held[is_held ? r : 0][is_held ? c : 0];
            fi_unpack<FI_INPUT, V>(x[r][c], y);
#pragma unroll
            for (int i = 0; i < V; i++) {
                y[i] = FI_CENTRED ? __fmaf_rn((y[i] - mean[r]) * scale[r], by[i], bias[i]) : y[i] * scale[r] * by[i];
            }
            if constexpr (!is_held) store(r, c, y, factor);
        }
    }
    if constexpr (is_held && FI_SCALES == 1) {
        unsigned int greatest[FI_ROWS];
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) {
            greatest[r] = 0;
#pragma unroll
            for (int c = 0; c < FI_CHUNKS; c++) {
                if (column + c * step < width) greatest[r] = fi_magnitude<V>(held[r][c], greatest[r]);
            }
        }
        const float own = fi_row_scale(p.quantize, reduce_rows(greatest, fi_magnitude_max(), magnitudes));
        const unsigned int row = fi_reduced<FI_ROWS, 32>();
        if (threadIdx.x < 32 && threadIdx.x % (32 / FI_ROWS) == 0 && row < left) {
            ((float *)p.quantize.row_scales)[first + row] = own;
        }
        const float inverse = __frcp_rn(own);
        float factors[count];
#pragma unroll
        for (int r = 0; r < FI_ROWS; r++) {
            const float factor = fi_of_reduced<FI_ROWS, 32>(inverse, r);
#pragma unroll
            for (int c = 0; c < FI_CHUNKS; c++) factors[r * FI_CHUNKS + c] = factor;
        }
        store_held(factors);
    }
    if constexpr (is_held && FI_SCALES == 2) {
        // A group's threads are neighbours.
        constexpr int lanes = FI_LARGEST_GROUP / V;
        unsigned int greatest[count];
#pragma unroll
        for (int i = 0; i < count; i++) greatest[i] = fi_magnitude<V>(held[i / FI_CHUNKS][i % FI_CHUNKS], 0);
        const float own = fi_row_scale(p.quantize, fi_warp_reduce<lanes>(greatest, fi_magnitude_max()));
        const unsigned int which = fi_reduced<count, lanes>(), row = which / FI_CHUNKS, place = column + which % FI_CHUNKS * step;
        if (threadIdx.x % (lanes / count) == 0 && row < left && place < width) {
            const long long at = (first + row) * p.quantize.scale_row + place / FI_LARGEST_GROUP * p.quantize.scale_group;
            ((float *)p.quantize.row_scales)[at] = own;
        }
        const float inverse = __frcp_rn(own);
        float factors[count];
#pragma unroll
        for (int i = 0; i < count; i++) factors[i] = fi_of_reduced<count, lanes>(inverse, i);
        store_held(factors);
    }
}
