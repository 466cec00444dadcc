// The parameters of the kernels that work on rows: normalisation, activations, sums, conversion, gathers and reductions.
#ifndef FLASHINFER_ROWS_PARAMS_H
#define FLASHINFER_ROWS_PARAMS_H

/// A family of rows: row r starts at element (r / n) * outer + (r % n) * inner, where n, the number of inner rows, is shared by
/// all the tensors of a launch. Elements of a row lie next to each other.
typedef struct {
    /// 0 where the kernel says that it may be absent.
    unsigned long long address;
    /// Elements; `inner` is unread where there is one inner row.
    long long outer, inner;
} fi_row_tensor;

/// How an elementwise launch covers its rows: blocks of 256 threads, 2^lane_bits of them side by side on a row.
typedef struct {
    long long width;
    unsigned int rows, inner_rows;
    unsigned int lane_bits;
    /// Blocks side by side on a row.
    unsigned int column_blocks;
    /// Whether every tensor allows 16-byte accesses: addresses, strides and width are multiples. Else one element a thread.
    int vectorised;
} fi_row_tiling;

/// How an output of 8 bits is scaled before it is rounded; other outputs are not.
typedef struct {
    /// [1], float32: the scale, or 0: one over it is `factor`.
    unsigned long long scale;
    /// float32, or 0: max(greatest magnitude, 1e-10) / the type's largest is written there, and is the scale of a row, [rows], or of
    /// `group` elements of a row, [rows, width / group].
    unsigned long long row_scales;
    /// Of groups: elements from row to row, and from group to group.
    long long scale_row, scale_group;
    unsigned int group;
    float factor;
    /// A DType.
    int type;
} fi_quantize;

/// output = s * rsqrt(mean(s^2) + epsilon) * (weight_offset + weight), s = input + residual; residual becomes s. Or layer norm,
/// output = (s - mean(s)) * rsqrt(variance(s) + epsilon) * weight + bias.
typedef struct {
    /// [rows, width]; residual may be absent; output may be the input.
    fi_row_tensor input, residual, output;
    /// [width]; the bias is absent where the mean stays.
    unsigned long long weight, bias;
    long long width;
    unsigned int rows, inner_rows;
    float epsilon, weight_offset;
    fi_quantize quantize;
    /// Whether every tensor allows 16-byte accesses.
    int vectorised;
} fi_norm_params;

/// output = activation(gate) * up, or gate alone.
typedef struct {
    /// [rows, width]; output may be gate or up.
    fi_row_tensor gate, up, output;
    /// Rows of scales of their own have a block each instead, whatever the tiling says of lanes and blocks; so have groups of rows that
    /// are not vectorised a warp each.
    fi_row_tiling tiling;
    fi_quantize quantize;
} fi_gated_activation_params;

/// output = alpha * first + beta * second.
typedef struct {
    /// [rows, width]; second may be absent; output may be either.
    fi_row_tensor first, second, output;
    fi_row_tiling tiling;
    float alpha, beta;
} fi_add_params;

/// output = convert(input * scale).
typedef struct {
    /// [rows, width]; output may be the input.
    fi_row_tensor input, output;
    fi_row_tiling tiling;
    /// A DType.
    int output_type;
    float scale;
} fi_convert_params;

/// Byte n of the output is eight flags, nonzero is 1, from the first of a run, or of the segment that the byte belongs to.
typedef struct {
    /// [flags], [bytes], uint8.
    unsigned long long flags, output;
    long long flag_count, byte_count;
    /// [segments + 1], int32: where segments start, in flags and in bytes; 0 for one run.
    unsigned long long flag_starts, byte_starts;
    unsigned int segments;
    int highest_first;
} fi_pack_bits_params;

/// output[r] = table[ids[r]] * scale; a row of an id that is outside of the table becomes NaN.
typedef struct {
    /// [vocabulary, width]; stride in elements.
    unsigned long long table;
    long long table_stride, vocabulary;
    /// [rows], int32.
    unsigned long long ids;
    /// [rows, width]
    fi_row_tensor output;
    fi_row_tiling tiling;
    /// A DType.
    int table_type;
    float scale;
} fi_embedding_params;

/// output = softmax(input / temperature), zeros where the status is not 0.
typedef struct {
    /// [rows, width]; output may be the input.
    fi_row_tensor input, output;
    /// [rows], uint8.
    unsigned long long status;
    /// [rows], float32, or 0: `temperature` for all.
    unsigned long long temperatures;
    long long width;
    unsigned int inner_rows;
    float temperature;
} fi_softmax_params;

/// output[r] = place of the greatest entry of row r, the lowest of several; -1 where the status is not 0.
typedef struct {
    /// [rows, width]
    fi_row_tensor input;
    /// [rows], int32; [rows], uint8.
    unsigned long long output, status;
    long long width;
    unsigned int inner_rows;
    /// A DType.
    int input_type;
} fi_argmax_params;

/// output[r] = ln softmax(logits[r] / temperature)[ids[r]]; NaN where the status is not 0 or the id is not in the row.
typedef struct {
    /// [rows, width]
    fi_row_tensor logits;
    /// [rows], int32; [rows], float32; [rows], uint8.
    unsigned long long ids, output, status;
    /// [rows], float32, or 0: `temperature` for all.
    unsigned long long temperatures;
    long long width;
    unsigned int inner_rows;
    float temperature;
} fi_log_probability_params;

#endif
