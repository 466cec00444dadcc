/* The small operations on rows. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_ROWS_H
#define FLASHINFER_SWIFT_ROWS_H

#include "cache.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Rows ---------------------------------------------------------------------------------------------------------------- */

/* out = in / sqrt(mean(in^2) + eps) * (weight_offset + weight); rows, floating; weight [width] contiguous, floating; out may be
 * in. weight_offset is 0, or 1 for Gemma. Accumulates in float32. */
fi_status fi_rmsnorm(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *weight, const fi_tensor *out, float eps,
    float weight_offset);

/* residual += in, then out = the norm of the (unrounded) sum; out may be in. All rows of one shape, floating. */
fi_status fi_fused_add_rmsnorm(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *residual, const fi_tensor *weight,
    const fi_tensor *out, float eps, float weight_offset);

/* How an output of 8 bits (float8 e4m3fn, float8 e5m2, int8) is scaled: a stored number stands for number * scale, and is what
 * value * (1 / scale) is nearest to, in float32, ties to even, saturating. NaN stays NaN, but is 0 in int8. One of four ways: */
typedef struct fi_quantize_options {
    uint64_t struct_size;
    /* 1. One scale, above 0; 0: 1. */
    float scale;
    int32_t reserved; /* 0 */
    /* 2. float32 [1] on the call's device, above 0: read when the operation runs, so nothing waits and a captured graph reads it at
     *    each replay. On a GPU its number is not checked. */
    const fi_tensor *scale_tensor;
    /* 3. float32 [rows], contiguous, on the call's device, written: each row's greatest magnitude, at least 1e-10, divided by the
     *    type's (448, 57344, 127). Of a row with a NaN the scale is NaN. */
    const fi_tensor *row_scales;
    /* 4. float32 [rows, width / group_size], any strides (scales by columns: [1, rows] or more), on the call's device, written: the
     *    same of each group_size neighbouring elements of a row. */
    const fi_tensor *group_scales;
    int32_t group_size; /* 32, 64 or 128, a divisor of the width; with group_scales only */
    int32_t reserved_too; /* 0 */
} fi_quantize_options;

/* fi_rmsnorm with an output of 8 bits, rounded once: out rows of in's shape, memory of their own. `quantize` NULL: scale 1. */
fi_status fi_rmsnorm_quantize(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *weight, const fi_tensor *out, float eps,
    float weight_offset, const fi_quantize_options *quantize);

/* fi_fused_add_rmsnorm with an output of 8 bits: residual += in, then out = the norm of the (unrounded) sum, quantised. */
fi_status fi_fused_add_rmsnorm_quantize(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *residual, const fi_tensor *weight,
    const fi_tensor *out, float eps, float weight_offset, const fi_quantize_options *quantize);

/* Layer norm: s = in (+ residual, which becomes s), out = (s - mean(s)) / sqrt(variance(s) + eps) * weight + bias. Rows, floating;
 * weight and bias [width] contiguous, floating, of one type; residual NULL: none. out may be in; where it is of 8 bits it has memory
 * of its own and is scaled as `quantize` says (NULL: scale 1), which is NULL for others. Accumulates in float32. */
fi_status fi_layernorm(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *residual, const fi_tensor *weight,
    const fi_tensor *bias, const fi_tensor *out, float eps, const fi_quantize_options *quantize);

/* out = in in 8 bits: rows of one shape, in floating, out memory of its own. `quantize` NULL: scale 1. */
fi_status fi_quantize(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *out, const fi_quantize_options *quantize);

/* The function of a gate. */
enum {
    FI_ACTIVATION_SILU = 0,
    FI_ACTIVATION_GELU = 1,     /* exact, by erf */
    FI_ACTIVATION_GELU_TANH = 2 /* the tanh form */
};

/* out = activation(in[..., :width]) * in[..., width:]; in rows [..., 2 * width], out rows [..., width], floating. */
fi_status fi_act_and_mul(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *in, const fi_tensor *out);

/* out = activation(gate) * up, three rows of one shape; out may be either. */
fi_status fi_gated_activation(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *gate, const fi_tensor *up,
    const fi_tensor *out);

/* fi_act_and_mul and fi_gated_activation with an output of 8 bits: the float32 product is rounded once. out has memory of its own;
 * `quantize` NULL: scale 1. */
fi_status fi_act_and_mul_quantize(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *in, const fi_tensor *out,
    const fi_quantize_options *quantize);
fi_status fi_gated_activation_quantize(
    fi_device *device, void *stream, int32_t activation, const fi_tensor *gate, const fi_tensor *up,
    const fi_tensor *out, const fi_quantize_options *quantize);

/* Rotary position embedding of q [tokens, heads, dim] and k [tokens, kv_heads, dim] (NULL: q only), floating, last stride 1;
 * positions [tokens] int32, contiguous, 0 or more. q_out and k_out NULL: in place. `options` NULL: defaults. The first use of
 * options with a head dimension copies a table to a GPU and so cannot be in a capture. */
fi_status fi_rope(
    fi_device *device, void *stream, const fi_tensor *q, const fi_tensor *k, const fi_tensor *positions,
    const fi_tensor *q_out, const fi_tensor *k_out, const fi_rope_options *options);

/* Rotary position embedding of heads whose turning ("rope") and other ("nope") elements are tensors of their own, all converted to
 * another type, and keys and values stored: one pass. Numbers stay in float32 from the turn to the store. */
typedef struct fi_split_rope_args {
    uint64_t struct_size;
    const fi_tensor *q_rope;     /* [tokens, heads, rope_dim], floating; all inputs have its type */
    const fi_tensor *q_nope;     /* [tokens, heads, nope_dim], or NULL */
    const fi_tensor *k_rope;     /* [tokens, kv_heads, rope_dim], or [tokens, rope_dim] of one head */
    const fi_tensor *k_nope;     /* [tokens, kv_heads, k_nope_dim], or [tokens, k_nope_dim] of one head, or NULL */
    const fi_tensor *v;          /* [tokens, kv_heads, v_dim] where there is a v_cache of values; else NULL */
    const fi_tensor *q_rope_out; /* the shapes of q_rope and q_nope, both of one cache type; float8 and int8 saturate */
    const fi_tensor *q_nope_out;
    const fi_tensor *k_rope_out; /* where there is no `append`: the shapes of k_rope and k_nope, of one cache type; else NULL */
    const fi_tensor *k_nope_out;
    float q_factor;              /* multiplies queries before they are rounded; 0: 1 */
    float kv_factor;             /* multiplies keys and values before they are rounded; 0: 1 */
    const fi_tensor *positions;  /* [tokens] int32, contiguous, 0 or more */
    const fi_rope_options *rope; /* of all rope_dim elements, without norm weights; NULL: defaults */
    /* Where keys and values are stored, with k and v NULL and its scales not looked at. k_cache has heads of rope_dim + k_nope_dim
     * elements, those that turn first, v_cache of v_dim. Or, of rank 3, k_cache [pages, page_size, k_nope_dim] and v_cache
     * [pages, page_size, rope_dim] of latent attention (ckv and kpe). NULL: to k_rope_out and k_nope_out. */
    const fi_append_args *append;
} fi_split_rope_args;

fi_status fi_split_rope(fi_device *device, void *stream, const fi_split_rope_args *args);

/* positions[indptr[b] + i] = offsets[b] + i: indptr [batch + 1], offsets [batch] int32, host or device; positions [indptr[batch]]
 * int32, written on host or device. */
fi_status fi_rope_positions(
    fi_device *device, void *stream, const fi_tensor *indptr, const fi_tensor *offsets, const fi_tensor *positions);

/* out = alpha * a + beta * b, floating rows of one shape; b NULL: out = alpha * a. out may be a or b. */
fi_status fi_add(
    fi_device *device, void *stream, const fi_tensor *a, const fi_tensor *b, const fi_tensor *out, float alpha,
    float beta);

/* out = round(in * scale), to nearest, ties to even: rows of any cache types, one shape. Quantises with scale = 1 / s, reads back
 * with s. float8 and int8 saturate; NaN becomes 0 in int8. scale 0 is zeros, not a default. */
fi_status fi_convert(fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *out, float scale);

/* out[i] = table[ids[i]] * scale: table [vocabulary, width] of a cache type, ids [tokens] int32, out [tokens, width] floating. An
 * id outside the table is an error on the CPU and a row of NaN on a GPU. */
fi_status fi_embedding(
    fi_device *device, void *stream, const fi_tensor *table, const fi_tensor *ids, const fi_tensor *out, float scale);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_ROWS_H */
