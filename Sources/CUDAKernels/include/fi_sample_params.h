// The parameters of sampling and of what filters rows.
#ifndef FLASHINFER_SAMPLE_PARAMS_H
#define FLASHINFER_SAMPLE_PARAMS_H

#include "fi_rows_params.h"

/// How one row is sampled or filtered: as `fi_sampling_parameters` of the C library, which may lie in the device's memory.
typedef struct {
    /// 0: greedy. Of probabilities, any other number is 1.
    float temperature;
    /// 0: off.
    unsigned int top_k;
    /// 1: off, 0: off.
    float top_p, min_p;
    unsigned long long seed, step;
} fi_sampling_row;

/// Bytes of shared memory of a block that lists what top-p may keep, all dynamic: the host gives them, and the kernels check that they are
/// enough. Two such blocks fit on a processor.
#define FI_LIST_BYTES 115200

/// One token a row.
typedef struct {
    /// [rows, width]: logits or probabilities.
    fi_row_tensor input;
    /// [rows] of fi_sampling_row.
    unsigned long long rows;
    /// [rows], int32; [rows], uint8.
    unsigned long long tokens, status;
    unsigned int width;
    /// Masses are integers: a weight of 1 is 2^(23 + low_bits), and the sum of a row's stays below 2^62.
    int low_bits;
    /// Top-p is a share of the whole distribution rather than of what top-k left.
    int joint;
} fi_sample_params;

/// output = input where it is kept; else -inf for logits, 0 for probabilities, the rest of which sum to 1.
typedef struct {
    /// [rows, width]; output may be the input.
    fi_row_tensor input, output;
    /// [rows] of fi_sampling_row, whose seeds and steps are not read.
    unsigned long long rows;
    /// [rows], uint8.
    unsigned long long status;
    unsigned int width;
    int low_bits, joint;
} fi_filter_params;

/// The k greatest entries of each row, greatest first where `sorted`, else by place.
typedef struct {
    /// [rows, width]
    fi_row_tensor input;
    /// [rows, k], of the input's type or (logarithms) float32; int32.
    fi_row_tensor values, places;
    /// [rows], uint8, or 0. Written with logarithms only.
    unsigned long long status;
    /// [rows], float32, or 0: `temperature` for all.
    unsigned long long temperatures;
    float temperature;
    unsigned int width, k;
    int low_bits, sorted;
} fi_top_k_params;

/// The pages of the greatest scores of each row, by place.
typedef struct {
    /// [requests, heads, width]
    fi_row_tensor scores;
    /// [requests], int32.
    unsigned long long lengths;
    /// [table_rows, width or more], int32, and the row of it that each request has, [requests], int32, or 0 for its own; or no table, and
    /// [requests], int32: what is added to each place.
    unsigned long long table, requests, offsets;
    long long table_stride;
    /// [requests, heads, k], int32; the second may be absent.
    fi_row_tensor pages, positions;
    unsigned int heads;
    unsigned int width, k, recent, table_rows;
    int takes_highest;
} fi_select_pages_params;

/// What is added to a row's logits. Ranges are of elements of the launch's lists.
typedef struct {
    float repetition, presence, frequency;
    unsigned int prompt_begin, prompt_end, output_begin, output_end, bias_begin, bias_end;
} fi_logit_adjustment;

/// logits, in place: + bias; then / or * repetition where positive or not, - frequency * count, - presence; -inf where the mask's bit is 0.
typedef struct {
    /// [rows, width]
    fi_row_tensor logits;
    /// [rows] of fi_logit_adjustment.
    unsigned long long rows;
    /// [..], int32; [..], int32; [..], float32; [rows, ceil(width / 32)], 32 bits each, or 0.
    unsigned long long tokens, bias_tokens, bias_values, mask;
    /// Words from one row's mask to the next.
    long long mask_stride;
    unsigned int width;
    /// Blocks of a row.
    unsigned int parts;
    /// A DType.
    int type;
} fi_adjust_logits_params;

/// The random numbers of one request's step.
typedef struct {
    unsigned long long seed, step;
} fi_draw;

/// Which drafted tokens stand, and one token after them.
typedef struct {
    /// [requests, nodes, width], float32; draft may be absent, and has one node fewer in a chain.
    fi_row_tensor target, draft;
    /// [requests] of fi_draw.
    unsigned long long draws;
    /// [requests, nodes], int32, from node 0 on; of a chain from node 1 on, [requests, nodes - 1].
    unsigned long long tokens;
    /// [requests, nodes], int32, -1 for none; or 0: a chain.
    unsigned long long first_child, next_sibling;
    /// [requests, nodes], int32, -1 past what is emitted; the second may be 0.
    unsigned long long output, output_nodes;
    /// [requests], int32; the first may be 0.
    unsigned long long accepted, emitted;
    /// [requests], uint8.
    unsigned long long status;
    unsigned int nodes, width;
    int low_bits;
} fi_verify_drafts_params;

#endif
