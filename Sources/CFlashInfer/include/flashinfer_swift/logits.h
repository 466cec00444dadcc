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
    FI_ROW_STATUS_NAN = 1,     /* the row holds a NaN */
    FI_ROW_STATUS_EMPTY = 2,   /* every entry is -inf */
    FI_ROW_STATUS_INFINITE = 3 /* the row holds +inf, so its distribution is undefined */
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
    float top_p;       /* tokens kept whose strictly likelier ones have less than this mass; above 0, 1: all */
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

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_LOGITS_H */
