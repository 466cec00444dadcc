/* Logits and sampling. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_LOGITS_H
#define FLASHINFER_SWIFT_LOGITS_H

#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Logits and sampling ------------------------------------------------------------------------------------------------- */

/* What became of a row, one byte each in `status` tensors: uint8 [rows], contiguous. Where a status tensor may be NULL, the
 * statuses are not kept. */
enum {
    FI_ROW_STATUS_OK = 0,
    FI_ROW_STATUS_NAN = 1,      /* the row holds a NaN */
    FI_ROW_STATUS_EMPTY = 2,    /* every logit is -inf, or every probability 0 */
    FI_ROW_STATUS_INFINITE = 3, /* the row holds +inf, so its distribution is undefined */
    FI_ROW_STATUS_NEGATIVE = 4  /* the row of probabilities holds a negative number */
};

/* out = softmax(in / temperature), rows of one shape, floating; out may be in. temperatures: float32 [1] or [rows], host or
 * device, above 0; NULL: 1. A row without a distribution becomes zeros. status may be NULL. */
fi_status fi_softmax(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *temperatures, const fi_tensor *out,
    const fi_tensor *status);

/* The place of the greatest entry of each row (the lowest of equal ones): in rows floating, out int32 [rows]. A row with a NaN or
 * of -inf alone gives -1. status may be NULL. */
fi_status fi_argmax(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *out, const fi_tensor *status);

/* out[r] = ln softmax(in[r] / temperature)[ids[r]]: in rows floating, ids int32 [rows], out float32 [rows]; temperatures as for
 * fi_softmax; status may be NULL. */
fi_status fi_log_probability(
    fi_device *device, void *stream, const fi_tensor *in, const fi_tensor *ids, const fi_tensor *temperatures,
    const fi_tensor *out, const fi_tensor *status);

/* How a row is sampled. Not a struct of options: its size is fixed, so that arrays of it can be passed. */
typedef struct fi_sampling_parameters {
    float temperature; /* divides the logits; 0: the greatest logit */
    int32_t top_k;     /* tokens kept, of equal logits the lowest ids; 0: all */
    float top_p;       /* tokens kept whose strictly likelier ones have less than this mass; 0: the likeliest, 1: all */
    float min_p;       /* least probability relative to the greatest; 0: all */
    uint64_t seed;     /* of the request */
    uint64_t step;     /* which draw of the request: another number for each token it samples */
} fi_sampling_parameters;

/* Of what top_p is a share. */
enum {
    FI_TOP_K_FIRST = 0, /* of what top-k left */
    FI_JOINT = 1        /* of the whole distribution */
};

/* One token for each row of logits [rows, vocabulary], floating, last stride 1; tokens int32 [rows]. A draw depends on the row's
 * logits, parameters, seed and step alone, not on its place or its neighbours.
 *   parameters       host memory, copied
 *   parameter_count  the number of rows, or 1 for all alike: then row r draws with seed + r * 0x9E3779B97F4A7C15 (mod 2^64)
 * A row with a NaN, of -inf alone, or (temperature above 0) with +inf gives -1. status may be NULL. Not in a capture. */
fi_status fi_sample(
    fi_device *device, void *stream, const fi_tensor *logits, const fi_sampling_parameters *parameters,
    int64_t parameter_count, int32_t filter_order, const fi_tensor *tokens, const fi_tensor *status);

/* The same from probabilities [rows, vocabulary], float32, that need not sum to 1; temperatures are 1, or 0 for the greatest. A row
 * with a NaN or a negative number, of zeros alone, or with +inf gives -1. */
fi_status fi_sample_probabilities(
    fi_device *device, void *stream, const fi_tensor *probabilities, const fi_sampling_parameters *parameters,
    int64_t parameter_count, int32_t filter_order, const fi_tensor *tokens, const fi_tensor *status);

/* What a row's numbers are. */
enum {
    FI_LOGITS = 0,
    FI_PROBABILITIES = 1
};

/* out = in where the filters keep it; other logits become -inf; other probabilities 0, and the rest sum to 1. in [rows, vocabulary],
 * floating (form FI_PROBABILITIES: float32); out of its type and shape, may be in; parameters as for fi_sample, seeds and steps not
 * read, temperatures above 0. A row without a distribution becomes zeros, or as logits stays. status may be NULL. Not in a capture. */
fi_status fi_filter(
    fi_device *device, void *stream, const fi_tensor *in, int32_t form, const fi_sampling_parameters *parameters,
    int64_t parameter_count, int32_t filter_order, const fi_tensor *out, const fi_tensor *status);

/* fi_sample, fi_sample_probabilities and fi_filter with parameters in the device's memory, which a captured graph reads at each replay:
 *   parameters  uint8 [rows, sizeof(fi_sampling_parameters)], contiguous, at a multiple of 8 bytes: an array of the struct's bytes, one
 *               for each row
 * They are not checked: a row whose parameters are out of range draws some token of the row, or gives -1. In a capture `status` must not
 * be NULL. */
fi_status fi_sample_packed(
    fi_device *device, void *stream, const fi_tensor *in, int32_t form, const fi_tensor *parameters, int32_t filter_order,
    const fi_tensor *tokens, const fi_tensor *status);
fi_status fi_filter_packed(
    fi_device *device, void *stream, const fi_tensor *in, int32_t form, const fi_tensor *parameters, int32_t filter_order,
    const fi_tensor *out, const fi_tensor *status);

/* The k greatest entries of each row of in [rows, width], floating, with their places: values [rows, k] of its type, places int32
 * [rows, k]. Of equal entries the lowest places; a NaN before all numbers. sorted 1: the greatest first; 0: by place. */
fi_status fi_top_k(
    fi_device *device, void *stream, const fi_tensor *in, int32_t sorted, const fi_tensor *values, const fi_tensor *places);

/* The same of ln softmax(logits / temperature): values float32, the greatest first. A row without a distribution gives NaN and -1.
 * status may be NULL. */
fi_status fi_top_log_probabilities(
    fi_device *device, void *stream, const fi_tensor *logits, float temperature, const fi_tensor *values,
    const fi_tensor *tokens, const fi_tensor *status);

/* What changes a row's logits. Not a struct of options: its size is fixed. Ranges, end not included, are of elements of `history` and of
 * the biases. */
typedef struct fi_logit_changes {
    float repetition; /* divides positive and multiplies other logits of tokens that occurred; above 0, 1: none */
    float presence;   /* subtracted where a token is in the output */
    float frequency;  /* subtracted as often as a token is in the output */
    int32_t prompt_begin;
    int32_t prompt_end;
    int32_t output_begin;
    int32_t output_end;
    int32_t bias_begin;
    int32_t bias_end;
} fi_logit_changes;

/* Biases, penalties and a grammar's mask on logits [rows, vocabulary], floating, in place: + bias; repetition; - frequency * count
 * - presence; -inf where the mask's bit is 0.
 *   changes      [rows], host memory, copied
 *   history      int32 [..]: tokens of prompts and outputs; or NULL
 *   bias_tokens  int32 [..] and biases float32 [..]; or NULL. Of several of one token the last counts.
 *   mask         int32 [rows, ceil(vocabulary / 32)]: bit i % 32 of word i / 32, from the lowest, is 1 where token i is allowed; or NULL
 * Ids outside of the vocabulary are passed over. Not in a capture. */
fi_status fi_adjust_logits(
    fi_device *device, void *stream, const fi_tensor *logits, const fi_logit_changes *changes, int64_t change_count,
    const fi_tensor *history, const fi_tensor *bias_tokens, const fi_tensor *biases, const fi_tensor *mask);

/* The random numbers of one request. */
typedef struct fi_request_draw {
    uint64_t seed;
    uint64_t step; /* another number for each call */
} fi_request_draw;

/* Speculative sampling: which drafted tokens stand, and one token after them, so that what is emitted has the target's distribution.
 * Node 0 of a request is the last token of its text; target[r][n] is the distribution after node n.
 *   target        float32 [requests, nodes, vocabulary], at most 256 nodes
 *   draft         float32 [requests, nodes, vocabulary] (a chain: nodes - 1), from which a node's children were drawn; NULL: they were
 *                 not drawn
 *   tokens        int32 [requests, nodes], column 0 not read; a chain: [requests, nodes - 1], from node 1 on
 *   first_child, next_sibling  int32 [requests, nodes], -1 for none; both NULL: a chain, node n + 1 is the child of node n
 *   draws         [requests], host memory, copied
 *   output        int32 [requests, nodes]: the tokens emitted, the drawn one last, then -1
 *   output_nodes  int32 [requests, nodes]: the nodes that stand, then -1; may be NULL
 *   accepted      int32 [requests]: of a chain, tokens that stand if each is looked at alone; may be NULL
 *   emitted       int32 [requests]: drafted tokens emitted
 *   status        may be NULL
 * Not in a capture. */
fi_status fi_verify_drafts(
    fi_device *device, void *stream, const fi_tensor *target, const fi_tensor *draft, const fi_tensor *tokens,
    const fi_tensor *first_child, const fi_tensor *next_sibling, const fi_request_draw *draws, int64_t draw_count,
    const fi_tensor *output, const fi_tensor *output_nodes, const fi_tensor *accepted, const fi_tensor *emitted,
    const fi_tensor *status);

/* The same with draws in the device's memory, which a captured graph reads at each replay: uint8 [requests,
 * sizeof(fi_request_draw)], contiguous, at a multiple of 8 bytes. In a capture `status` must not be NULL. */
fi_status fi_verify_drafts_packed(
    fi_device *device, void *stream, const fi_tensor *target, const fi_tensor *draft, const fi_tensor *tokens,
    const fi_tensor *first_child, const fi_tensor *next_sibling, const fi_tensor *draws, const fi_tensor *output,
    const fi_tensor *output_nodes, const fi_tensor *accepted, const fi_tensor *emitted, const fi_tensor *status);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_LOGITS_H */
