// Biases, penalties and grammar masks on rows of logits, in place: a block takes a part of a row, counts there how often each token
// occurred, and reads and writes only the logits that change.

#include "fi_sample_params.h"
#include "primitives/dispatch.cuh"
#include "primitives/launch.cuh"
#include "primitives/rows.cuh"

/// Columns of a block.
#define FI_PART 4096
/// In a count: the token is in the prompt.
#define FI_IN_PROMPT 0x80000000u

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    adjust_logits(const __grid_constant__ fi_adjust_logits_params p) {
    fi_follow_predecessors();
    __shared__ unsigned int counts[FI_PART];
    /// The number, from 1 on, of the last bias of a token.
    __shared__ unsigned int biases[FI_PART];
    const unsigned int row = blockIdx.x / p.parts;
    const unsigned int first = (blockIdx.x - row * p.parts) * FI_PART;
    const unsigned int count = p.width - first < FI_PART ? p.width - first : FI_PART;
    const fi_logit_adjustment &own = ((const fi_logit_adjustment *)p.rows)[row];
    for (unsigned int i = threadIdx.x; i < FI_PART; i += FI_THREADS) {
        counts[i] = 0;
        biases[i] = 0;
    }
    __syncthreads();
    // Ids outside of the part, and with them those outside of the row, are passed over.
    const auto visit = [&](unsigned long long ids, unsigned int begin, unsigned int end, auto &&take) {
        for (unsigned int i = begin + threadIdx.x; i < end; i += FI_THREADS) {
            const unsigned int column = (unsigned int)((const int *)ids)[i] - first;
            if (column < count) take(column, i);
        }
    };
    visit(p.tokens, own.prompt_begin, own.prompt_end, [&](unsigned int column, unsigned int) {
        atomicOr(&counts[column], FI_IN_PROMPT);
    });
    visit(p.tokens, own.output_begin, own.output_end, [&](unsigned int column, unsigned int) {
        atomicAdd(&counts[column], 1u);
    });
    visit(p.bias_tokens, own.bias_begin, own.bias_end, [&](unsigned int column, unsigned int i) {
        atomicMax(&biases[column], i + 1);
    });
    __syncthreads();
    const unsigned int *mask = (const unsigned int *)p.mask + (long long)row * p.mask_stride;
    fi_with_compute_type(p.type, [&](auto type) {
        constexpr int TYPE = decltype(type)::value;
        const unsigned long long logits = fi_row_address<TYPE>(p.logits, row, 1);
        for (unsigned int column = threadIdx.x; column < count; column += FI_THREADS) {
            const unsigned int place = first + column;
            const bool allowed = p.mask == 0 || (mask[place / 32] >> (place % 32) & 1) != 0;
            const unsigned int seen = counts[column], bias = biases[column];
            if (allowed && seen == 0 && bias == 0) continue;
            float x[1] = {__int_as_float((int)0xff800000)};
            if (allowed) {
                fi_read<TYPE, 1>(logits, place, x);
                if (bias != 0) x[0] = __fadd_rn(x[0], ((const float *)p.bias_values)[bias - 1]);
                if (seen != 0) x[0] = x[0] > 0 ? __fdiv_rn(x[0], own.repetition) : __fmul_rn(x[0], own.repetition);
                const unsigned int drawn = seen & ~FI_IN_PROMPT;
                if (drawn != 0) {
                    x[0] = __fsub_rn(x[0], __fmul_rn(own.frequency, (float)drawn));
                    x[0] = __fsub_rn(x[0], own.presence);
                }
            }
            fi_write<TYPE, 1>(logits, place, x);
        }
    });
}
