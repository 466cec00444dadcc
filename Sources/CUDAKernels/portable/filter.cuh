// Keeps what top-k, top-p and min-p keep of each row: other logits become -inf, other probabilities 0 and the rest sum to 1.
//
// FI_INPUT, FI_FORM, FI_TEAM: see primitives/row_part.cuh.

#define FI_POWERS (FI_FORM == 0)
#define FI_LIST_MASKS 1
#include "fi_sample_params.h"
#include "primitives/launch.cuh"
#include "primitives/nucleus.cuh"
#include "primitives/top_few.cuh"

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    filter(const __grid_constant__ fi_filter_params p) {
    fi_follow_predecessors();
    FI_FILTER_SHARED(shared);
    const unsigned int index = fi_team_row();
    const fi_sampling_row own = ((const fi_sampling_row *)p.rows)[index];
    const bool has_top_k = own.top_k > 0 && own.top_k < p.width;
    const bool is_few = has_top_k && own.top_k <= FI_FEW;
    const bool is_joint = p.joint != 0 && has_top_k && own.top_p < 1.0f;
    // What top-k alone keeps of logits needs no weights.
    const bool has_top_p = own.top_p < 1.0f, weighs = FI_FORM == 1 || has_top_p || own.min_p > 0.0f;
    const bool samples = !has_top_k && has_top_p;
    bool sums = FI_FORM == 0 ? samples || is_joint : has_top_k ? is_joint : has_top_p || own.min_p == 0.0f;
    fi_row row;
    const float scale = fi_temperature_scale(own.temperature);
#if FI_FORM == 0
    row.powers.set_scale(scale);
    const bool has_powers = sums && scale >= 0x1p-64f && scale <= 0x1p64f;
    sums = has_powers && !FI_HELD;
#endif
    unsigned int turn = 0, own_key, count = 0, top = 0;
    const unsigned long long input = fi_row_address<FI_INPUT>(p.input, index, 1);
    const unsigned long long output_row = fi_row_address<FI_INPUT>(p.output, index, 1);
    // Of few, all is written as dropped while they are looked for, and those that are kept in the end, by the row's first block. A row that
    // is not held must stay, as it may have to be read again. Where the bound is the greatest of a held part, ties are likely, and all is
    // written in the end.
    const bool is_early = is_few && (FI_HELD || input != output_row);
    const auto rest = [&](unsigned int, unsigned int first) {
        if (!is_early || (FI_HELD && row.bound == top)) return;
        const float4 dropped = make_float4(fi_neutral(), fi_neutral(), fi_neutral(), fi_neutral());
#pragma unroll 1
        for (unsigned int group = first; group < first + 128 && group < row.part.end; group += 32) {
            fi_write_group<FI_INPUT>(row.part, fi_output_of<FI_INPUT>(row.part, output_row), group, dropped);
        }
    };
    top = fi_begin_row(
        row, input, p.width, p.low_bits, sums, samples && sums, {is_few ? own.top_k : 0, 0, 1}, shared, &own_key, rest);
    if (is_few) count = fi_send_few(row, own_key, top, own.top_k, shared, rest);
    const unsigned long long *const counts = shared.numbers.exchange((unsigned long long)top << 32 | count, turn);
    const fi_sent sent = fi_read_sent(counts);
    top = sent.top;
    const int status = fi_top_status(top, false);
    const bool is_ok = status == FI_ROW_OK;
    float threshold = 0, factor = 0;
    // All blocks know the same.
    bool is_written = is_early;
#pragma unroll
    for (unsigned int rank = 0; rank < FI_TEAM; rank++) is_written &= !FI_HELD || ((unsigned int)counts[rank] & FI_FEW_TIED) == 0;
    if (is_ok) {
        fi_set_scale(row, top, scale);
#if FI_FORM == 0 && FI_HELD
        if (has_powers) fi_take_powers(row);
#endif
        unsigned long long whole = 0;
        fi_row_sum sum = {0, 0, 0};
        bool is_summed = fi_first_sum(row, sums, shared, &sum), is_found = false;
        // As in the sampler: once, or with top-k twice.
#pragma unroll 1
        for (bool has_kept = !has_top_k;; has_kept = true) {
            if (!is_summed && (has_kept ? weighs : is_joint)) {
                const float least = has_kept && !has_top_p ? fi_least_weight(row, own.min_p) : 0.0f;
                sum = fi_sum_all(row, least, has_kept, has_kept && has_top_p, shared, turn);
            }
            if (has_kept) break;
            is_summed = false;
            if (is_joint) whole = sum.total;
            if (is_few && sent.fits) {
                if (is_written && fi_team_rank() != 0) return;
                if (fi_team_rank() == 0) {
                    count = fi_select_few(counts, sent.count, own.top_k, shared);
                    const fi_few few = fi_finish_few(row, count, own.top_p, own.min_p, whole, 0, shared);
                    if (is_written) {
                        // By the first warp, which has the threshold. Nobody writes these entries any more.
                        factor = (float)(1.0 / row.weight_of_mass(few.total));
                        for (unsigned int i = threadIdx.x; threadIdx.x < 32 && i < count; i += 32) {
                            const unsigned long long entry = shared.entries[i];
                            const float x = fi_order_value((unsigned int)(entry >> 32));
                            const float weight = weighs ? row.few_weight(x) : 0.0f;
                            const float kept[1] = {FI_FORM == 1 ? weight * factor : x};
                            if (!weighs || weight >= few.threshold) fi_write<FI_INPUT, 1>(output_row, fi_place_of(entry), kept);
                        }
                        if (threadIdx.x == 0) ((unsigned char *)p.status)[index] = (unsigned char)status;
                        return;
                    }
                    const fi_verdict verdict = {few.total, 0, few.threshold, few.kth, few.last, 0};
                    if (threadIdx.x < FI_TEAM) *fi_team_at(&shared.verdict, threadIdx.x) = verdict;
                }
                fi_team_sync();
                row.kth = shared.verdict.kth;
                row.last = shared.verdict.last;
                if (weighs) threshold = shared.verdict.threshold;
                sum.total = shared.verdict.total;
                is_found = true;
                break;
            }
            fi_keep_top_k(row, own.top_k, own_key, top, is_few && sent.is_tied, shared, turn);
            fi_drop(row);
        }
        if (weighs && !is_found) threshold = fi_keep_weights(row, own.top_p, own.min_p, whole, shared, turn, &sum);
        factor = (float)(1.0 / row.weight_of_mass(sum.total));
    }
    const unsigned long long output = fi_output_of<FI_INPUT>(row.part, output_row);
    const float dropped = is_ok && FI_FORM == 0 ? -fi_infinity() : 0.0f;
#if FI_LISTS
    // All that top-p keeps is listed: it is written from there, and the row not read again.
    if (is_ok && row.listed_from < fi_infinity() && row.part.run() <= 128 * FI_NOTED_STEPS) {
#pragma unroll 1
        for (unsigned int i = 0; i < row.listed; i++) {
            float *const entry = shared.list + fi_slot_of(threadIdx.x, i);
            const float weight = row.weight(*entry);
            *entry = weight >= threshold ? (FI_FORM == 1 ? weight * factor : *entry) : dropped;
        }
        const float *next = shared.list + fi_slot_of(threadIdx.x, 0);
        const int step = threadIdx.x < FI_PAIRS ? FI_PAIRS : -FI_PAIRS;
        unsigned int noted = 0;
#pragma unroll 1
        for (unsigned int start = row.part.begin; start < row.part.end; start += 128, noted++) {
            const unsigned int mask = shared.masks[noted][threadIdx.x];
#pragma unroll
            for (unsigned int i = 0; i < 4; i++) {
                float entries[4];
#pragma unroll
                for (unsigned int j = 0; j < 4; j++) {
                    entries[j] = dropped;
                    if ((mask & 1u << (4 * i + j)) != 0) {
                        entries[j] = *next;
                        next += step;
                    }
                }
                const unsigned int group = start + 32 * i + threadIdx.x % 32;
                const float4 x = make_float4(entries[0], entries[1], entries[2], entries[3]);
                if (group < row.part.end) fi_write_group<FI_INPUT>(row.part, output, group, x);
            }
        }
        if (threadIdx.x == 0) ((unsigned char *)p.status)[index] = (unsigned char)status;
        return;
    }
#endif
    // Comparing floats is quicker than comparing keys; keys from that of -inf on are of floats.
    const bool has_kth = row.kth >= fi_order_key(-fi_infinity());
    const float kth = fi_order_value(row.kth);
    const bool compares = FI_FORM == 1 || threshold > 0.0f;
#pragma unroll 4
    for (unsigned int group = row.part.begin + threadIdx.x % 32; group < row.part.end; group += 32) {
        // Logits as they are, once more; what is held may be weights.
        float4 x = FI_FORM == 0 && row.is_weighed ? fi_read_group(row.part, group) : fi_raw_groups{row.part}(group);
        float entries[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool is_top =
                !has_kth || entries[i] > kth || (entries[i] == kth && row.part.place(4 * group + i) <= row.last);
            const float weight = compares ? row.weight(entries[i]) : 0.0f;
            const bool kept = is_ok && is_top && weight >= threshold;
            if (FI_FORM == 1) {
                entries[i] = kept ? weight * factor : 0.0f;
            } else if (is_ok && !kept) {
                entries[i] = -fi_infinity();
            }
        }
        fi_write_group<FI_INPUT>(row.part, output, group, make_float4(entries[0], entries[1], entries[2], entries[3]));
    }
    if (threadIdx.x == 0 && fi_team_rank() == 0) ((unsigned char *)p.status)[index] = (unsigned char)status;
}
