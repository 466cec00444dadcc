// Samples one token from each row of logits or probabilities by temperature, top-k, top-p and min-p, without sorting.
//
// FI_INPUT, FI_FORM, FI_TEAM: see filter.cuh.

#include "fi_sample_params.h"
#include "primitives/filter.cuh"
#include "primitives/philox.cuh"

static __device__ __forceinline__ int sample_token(
    const fi_sample_params &p, const fi_sampling_row &own, unsigned int own_key, fi_filter_shared &shared,
    unsigned int &turn
) {
    fi_filtered_row &row = shared.row;
    const bool has_top_k = own.top_k > 0 && own.top_k < row.width;
    bool is_ambiguous = false;
    unsigned int ties = 0;
    if (has_top_k) ties = fi_find_kth(own.top_k, own_key, shared, turn, &is_ambiguous);
    fi_draw_rule rule = {0, is_ambiguous};
    int place = -1;
    // Two rounds, of one copy of the code: of several equal to the k-th, the lowest places are in; then the draw.
#pragma unroll 1
    for (int round = is_ambiguous ? 0 : 1; round < 2; round++) {
        if (round == 1) {
            rule.counts_ties = false;
            rule.threshold = fi_weight_threshold(own.top_p, own.min_p, p.joint != 0, has_top_k, shared, turn);
        }
        place = fi_first_reaching(
            shared, turn, [&](float x, unsigned int at) { return rule.amount(row, x, at); },
            [&](unsigned long long total) {
                return round == 0 ? (unsigned long long)ties : fi_share(fi_uniform(own.seed, own.step), total);
            });
        if (round == 0) {
            if (threadIdx.x == 0) row.last = (unsigned int)place;
            __syncthreads();
        }
    }
    return place;
}

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    sample(const __grid_constant__ fi_sample_params p) {
    __shared__ fi_filter_shared shared;
    FI_HELD_ROW(held);
    const unsigned int row = fi_team_row();
    const fi_sampling_row &own = ((const fi_sampling_row *)p.rows)[row];
    unsigned int turn = 0, own_key;
    const unsigned long long top = fi_begin_row(
        fi_row_address<FI_INPUT>(p.input, row, 1), p.width, p.low_bits, held, shared, turn, &own_key);
    const bool is_greedy = own.temperature == 0.0f;
    const int status = fi_top_status(top, is_greedy);
    int token = status == FI_ROW_OK ? (int)fi_top_place(top) : -1;
    if (!is_greedy && status == FI_ROW_OK) {
        fi_set_scale(top, fi_temperature_scale(own.temperature), shared);
        token = sample_token(p, own, own_key, shared, turn);
    }
    if (threadIdx.x == 0 && fi_team_rank() == 0) {
        ((int *)p.tokens)[row] = token;
        ((unsigned char *)p.status)[row] = (unsigned char)status;
    }
    // No block leaves while another may read its shared memory.
    fi_team_sync();
}
