// Samples one token from each row of logits or probabilities by temperature, top-k, top-p and min-p, without sorting.
//
// FI_INPUT, FI_FORM, FI_TEAM: see primitives/row_part.cuh.

#define FI_DRAWS
#define FI_PAST_L1
#define FI_POWERS (FI_FORM == 0)
#include "fi_sample_params.h"
#include "primitives/launch.cuh"
#include "primitives/nucleus.cuh"
#include "primitives/philox.cuh"
#include "primitives/top_listed.cuh"

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    sample(const __grid_constant__ fi_sample_params p) {
#if FI_LISTS
    {
        // What each warp reads first is on its way while the parameters are read.
        const unsigned int run = (p.width / 4 + 4 * FI_THREADS - 1) / (4 * FI_THREADS) * 128;
        const unsigned int first = 4 * (threadIdx.x / 32 * run + threadIdx.x % 32 * 8);
        if (first < p.width) fi_prefetch(fi_row_address<FI_INPUT>(p.input, fi_team_row(), 1) + (unsigned long long)fi_size(FI_INPUT) * first);
    }
#endif
    fi_follow_predecessors();
    FI_FILTER_SHARED(shared);
    const unsigned int index = fi_team_row();
    const fi_sampling_row own = ((const fi_sampling_row *)p.rows)[index];
    const bool is_greedy = own.temperature == 0.0f;
    const bool has_top_k = own.top_k > 0 && own.top_k < p.width;
    const bool is_few = has_top_k && own.top_k <= FI_FEW && !is_greedy;
    const bool has_top_p = own.top_p < 1.0f, is_joint = p.joint != 0 && has_top_k && has_top_p;
    // A block alone draws from a list where it can: up to FI_MANY of the greatest, or what min-p keeps.
    const bool is_min_p = !FI_HELD && !has_top_k && !has_top_p && own.min_p > 0.0f && !is_greedy;
    const bool is_sent = is_few || is_min_p || (!FI_HELD && has_top_k && own.top_k <= FI_MANY && !is_greedy);
    // What is summed as it comes: all, unless another filter says what counts.
    const bool is_plain = !has_top_k && !has_top_p && !is_greedy && own.min_p == 0.0f;
    const bool samples = !has_top_k && has_top_p && !is_greedy;
    bool sums = is_plain || samples || (FI_FORM == 1 && is_joint);
    fi_row row;
    const float scale = fi_temperature_scale(own.temperature);
#if FI_FORM == 0
    row.powers.set_scale(scale);
    // What is held is summed once for top-p, when its weights are known and kept.
    const bool has_powers = (sums || is_joint) && scale >= 0x1p-64f && scale <= 0x1p64f && !is_greedy;
    sums = has_powers && (is_plain || !FI_HELD);
#endif
    unsigned int turn = 0, own_key, count = 0;
    // By one warp, whose run is the shortest.
    if (threadIdx.x >= FI_THREADS - 32) shared.uniform = fi_uniform(own.seed, own.step);
    unsigned int top = fi_begin_row(
        row, fi_row_address<FI_INPUT>(p.input, index, 1), p.width, p.low_bits, sums, samples && sums,
        {is_sent && has_top_k ? own.top_k : 0, is_min_p ? own.min_p : 0.0f, scale}, shared, &own_key);
    if (is_sent) count = fi_send_few(row, own_key, top, own.top_k, shared);
    const unsigned long long *const counts = shared.numbers.exchange((unsigned long long)top << 32 | count, turn);
    const fi_sent sent = fi_read_sent(counts);
    top = sent.top;
    const int status = fi_top_status(top, is_greedy);
    const auto write = [&](int token) {
        ((int *)p.tokens)[index] = token;
        ((unsigned char *)p.status)[index] = (unsigned char)status;
    };
    const bool is_first = threadIdx.x == 0 && fi_team_rank() == 0;
    if (status != FI_ROW_OK) {
        if (is_first) write(-1);
        return;
    }
    if (is_greedy) {
        const int place = (int)fi_place_of_top(row, top, shared, turn);
        if (is_first) write(place);
        return;
    }
    fi_set_scale(row, top, scale);
#if FI_FORM == 0 && FI_HELD
    if (has_powers && !sums) fi_take_powers(row);
#endif
    unsigned long long whole = 0;
    fi_row_sum sum;
    bool is_summed = fi_first_sum(row, sums, shared, &sum);
    // Once, or with top-k twice: before it, for what is a share of the whole, and of what it has left.
#pragma unroll 1
    for (bool has_kept = !has_top_k && !is_min_p;; has_kept = true) {
        if (!is_summed && (has_kept || is_joint)) {
            const float least = has_kept && !has_top_p ? fi_least_weight(row, own.min_p) : 0.0f;
            sum = fi_sum_all(row, least, has_kept, has_kept && has_top_p, shared, turn);
        }
        if (has_kept) break;
        is_summed = false;
        if (is_joint) whole = sum.total;
        if (is_sent && sent.fits && (is_few || is_min_p || sent.count >= own.top_k)) {
            if (fi_team_rank() != 0) return;
            count = fi_select_few(counts, sent.count, is_min_p ? sent.count : own.top_k, shared);
            if (is_few) {
                const fi_few few = fi_finish_few(row, count, own.top_p, own.min_p, whole, shared.uniform, shared);
                if (few.place >= 0) write(few.place);
                return;
            }
#if !FI_HELD
            int place;
            if (fi_draw_listed(row, count, own.top_p, own.min_p, whole, shared.uniform, shared, turn, &place)) {
                if (is_first) write(place);
                return;
            }
#endif
        }
        if (is_min_p) continue;
        fi_keep_top_k(row, own.top_k, own_key, top, is_few && sent.is_tied, shared, turn);
        fi_drop(row);
    }
    const float threshold = fi_keep_weights(row, own.top_p, own.min_p, whole, shared, turn, &sum);
    const unsigned long long target = fi_share(shared.uniform, sum.total);
    fi_target at;
#if FI_FORM == 0
    const bool has_target =
        row.is_powers && is_plain ? fi_has_power_target(row, sum, target, shared, &at) : fi_has_target(row.part, sum, target, shared, &at);
    if (!has_target) return;
#else
    if (!fi_has_target(row.part, sum, target, shared, &at)) return;
#endif
    const float unit = row.low_unit();
    fi_walk_run(
        row.part, fi_drawn_groups{row}, at, shared,
        [&](float weight, unsigned int) {
            return (unsigned long long)__float2ll_rn((weight >= threshold ? weight : 0.0f) * unit);
        },
        write);
}
