// Keeps what top-k, top-p and min-p keep of each row: other logits become -inf, other probabilities 0 and the rest sum to 1.
//
// FI_INPUT, FI_FORM, FI_TEAM: see primitives/filter.cuh.

#include "fi_sample_params.h"
#include "primitives/filter.cuh"

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    filter(const __grid_constant__ fi_filter_params p) {
    __shared__ fi_filter_shared shared;
    FI_HELD_ROW(held);
    const unsigned int place = fi_team_row();
    const fi_sampling_row &own = ((const fi_sampling_row *)p.rows)[place];
    unsigned int turn = 0, own_key;
    const unsigned long long top = fi_begin_row(
        fi_row_address<FI_INPUT>(p.input, place, 1), p.width, p.low_bits, held, shared, turn, &own_key);
    const int status = fi_top_status(top, false);
    fi_filtered_row &row = shared.row;
    float threshold = 0, factor = 0;
    if (status == FI_ROW_OK) {
        fi_set_scale(top, fi_temperature_scale(own.temperature), shared);
        const bool has_top_k = own.top_k > 0 && own.top_k < row.width;
        if (has_top_k) fi_keep_top_k(own.top_k, own_key, shared, turn);
        if (FI_FORM == 1 || own.top_p < 1.0f || own.min_p > 0.0f) {
            threshold = fi_weight_threshold(own.top_p, own.min_p, p.joint != 0, has_top_k, shared, turn);
        }
        if (FI_FORM == 1) {
            const fi_draw_rule rule = {threshold, false};
            unsigned long long sum = 0, before;
            row.each([&](float x, unsigned int at, bool valid) {
                if (valid) sum += rule.amount(row, x, at);
            });
            sum = fi_block_reduce<FI_THREADS>(sum, fi_sum(), shared.slots);
            sum = shared.numbers.sum(sum, turn, &before);
            factor = (float)(1.0 / row.weight_of_mass(sum));
        }
    }
    // The row itself once more: what is held may be weights.
    const unsigned long long output = fi_row_address<FI_INPUT>(p.output, place, 1);
    const bool is_ok = status == FI_ROW_OK;
#pragma unroll 4
    for (unsigned int index = threadIdx.x; index < row.count; index += FI_THREADS) {
        const unsigned int at = row.first + index;
        float x[1];
        fi_read<FI_INPUT, 1>(row.address, index, x);
        const float weight = is_ok && (FI_FORM == 1 || threshold > 0.0f) ? row.weight(x[0]) : 0.0f;
        const bool kept = is_ok && row.keeps(x[0], at) && weight >= threshold;
        if (FI_FORM == 1) {
            x[0] = kept ? weight * factor : 0.0f;
        } else if (is_ok && !kept) {
            x[0] = -fi_infinity();
        }
        fi_write<FI_INPUT, 1>(output, at, x);
    }
    if (threadIdx.x == 0 && fi_team_rank() == 0) ((unsigned char *)p.status)[place] = (unsigned char)status;
    fi_team_sync();
}
