/// Operations on rows of logits and probabilities: softmax, the greatest entries, draws, filters and verification of drafts.
#include "check.h"

#include <math.h>
#include <string.h>

static int any_width(void) { return PICK(1, 2, 3, 7, 15, 16, 17, 40, 63, 100, 257, 1000, 3000); }

/// Rows of logits, some with entries that have no share, or that are no numbers.
static fi_rows logits_of(fi_dtype dtype, int rows, int width) {
    const size_t size = (size_t)element_bytes(dtype);
    const int64_t stride = width + below(3);
    const size_t count = (size_t)(stride * (rows - 1) + width);
    uint8_t *data = room(count * size, size);
    const fi_convert_kernels *convert = fi_convert_table(FI_ISA_SCALAR);
    for (int r = 0; r < rows; r++) {
        const int kind = below(8);
        for (int c = 0; c < width; c++) {
            float x = spread() * 3;
            if (kind == 0 && below(3) == 0) x = -INFINITY;
            if (kind == 1) x = -INFINITY;
            if (kind == 2 && c == width / 2) x = NAN;
            if (kind == 3 && c == width / 3) x = INFINITY;
            // Equal ones.
            if (kind == 4) x = (float)below(3);
            uint8_t *at = data + ((size_t)r * (size_t)stride + (size_t)c) * size;
            if (dtype == FI_DTYPE_F32) memcpy(at, &x, 4);
            else if (dtype == FI_DTYPE_F16) convert->f16_from_f32(&x, 1, (uint16_t *)at);
            else convert->bf16_from_f32(&x, 1, (uint16_t *)at);
        }
    }
    return (fi_rows){data, stride, 0, dtype};
}

/// Rows of probabilities in eighths of powers of two, whose sums no order of adding changes: draws are then the same however they are added.
static float *exact_probabilities(int rows, int width) {
    float *p = room((size_t)(rows * width) * 4, 4);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < width; c++) p[r * width + c] = below(3) == 0 ? 0 : (float)(1 + below(64)) / 4096;
    return p;
}

static void check_shares(const sides *s) {
    const int rows = 1 + below(5), width = any_width();
    const fi_dtype type = compute_type(), out_type = compute_type();
    begin_case(s->level, "softmax and logarithms", "%d rows of %d, types %d %d", rows, width, type, out_type);
    const fi_rows x = logits_of(type, rows, width);
    float *scale = room((size_t)rows * 4, 4);
    int32_t *ids = room((size_t)rows * 4, 4);
    for (int r = 0; r < rows; r++) scale[r] = 0.1f + fabsf(even()), ids[r] = below(width);
    const size_t count = (size_t)(rows * width), size = (size_t)element_bytes(out_type);
    void *out[2];
    float *logarithms[2];
    uint8_t *status[2], *logarithm_status[2];
    int32_t *greatest[2];
    for (int side = 0; side < 2; side++) {
        out[side] = room(count * size, size), status[side] = room((size_t)rows, 1), logarithm_status[side] = room((size_t)rows, 1);
        logarithms[side] = room((size_t)rows * 4, 4), greatest[side] = room((size_t)rows * 4, 4);
        const fi_softmax_args args = {.x = x, .out = {out[side], width, 0, out_type}, .scale = scale, .status = status[side], .inner = 1, .width = width};
        s->kernels[side]->softmax(&args, 0, rows);
        const fi_logprob_args of_ids = {.x = x, .ids = ids, .scale = scale, .out = logarithms[side], .status = logarithm_status[side], .inner = 1, .width = width};
        s->kernels[side]->logprob(&of_ids, 0, rows);
    }
    expect_same("status", status[0], status[1], (size_t)rows);
    expect_neighbours("probabilities", out_type, out[0], out[1], count, 1e-5f, 1e-9f);
    expect_same("status of logarithms", logarithm_status[0], logarithm_status[1], (size_t)rows);
    expect_near("logarithms", logarithms[0], logarithms[1], (size_t)rows, 1e-5f, 2e-6f);
    for (int side = 0; side < 2; side++) {
        const fi_argmax_args args = {.x = x, .out = greatest[side], .status = status[side], .inner = 1, .width = width};
        s->kernels[side]->argmax(&args, 0, rows);
    }
    expect_same("greatest", greatest[0], greatest[1], (size_t)rows * 4);
    expect_same("status of the greatest", status[0], status[1], (size_t)rows);
    leave_rooms();
}

static void check_top_k(const sides *s) {
    const int rows = 1 + below(5), width = any_width(), k = 1 + below(width < 300 ? width : 300);
    const fi_dtype type = compute_type();
    const bool has_logarithms = below(2), sorted = below(2);
    begin_case(s->level, "top-k", "%d of %d, %d rows, type %d%s%s", k, width, rows, type, sorted ? ", sorted" : "", has_logarithms ? ", logarithms" : "");
    const fi_rows x = logits_of(type, rows, width);
    const fi_dtype value_type = has_logarithms ? FI_DTYPE_F32 : type;
    const size_t count = (size_t)(rows * k), size = (size_t)element_bytes(value_type);
    void *values[2];
    int32_t *places[2];
    uint8_t *status[2];
    for (int side = 0; side < 2; side++) {
        values[side] = room(count * size, size), places[side] = room(count * 4, 4), status[side] = room((size_t)rows, 1);
        const fi_top_k_args args = {.x = x, .values = {values[side], k, 0, value_type}, .places = places[side], .place_stride = k, .width = width,
                                    .k = k, .sorted = sorted, .scale = has_logarithms ? 0.8f : 0, .status = has_logarithms ? status[side] : NULL,
                                    .scratch = room(fi_top_k_scratch_size(width), 64)};
        s->kernels[side]->top_k(&args, 0, rows);
    }
    expect_same("places", places[0], places[1], count * 4);
    expect_neighbours("values", value_type, values[0], values[1], count, 1e-5f, 2e-6f);
    if (has_logarithms) expect_same("status", status[0], status[1], (size_t)rows);
    leave_rooms();
}

static fi_sample_row any_rule(int width) {
    fi_sample_row row = {.uniform = ((double)(next_bits() >> 12) + 1) * 0x1p-52, .temperature = PICK(1, 1, 2, 0) * 0.5f,
                         .top_p = below(2) ? 1 : 0.2f + 0.7f * fabsf(even()), .min_p = below(3) ? 0 : 0.3f * fabsf(even()),
                         .top_k = below(2) ? 0 : 1 + below(width)};
    return row;
}

static void check_draws(const sides *s) {
    const bool are_probabilities = below(2);
    const int rows = 1 + below(5), width = any_width();
    const fi_dtype type = are_probabilities ? FI_DTYPE_F32 : compute_type();
    begin_case(s->level, "draws and filters", "%d rows of %d%s, type %d", rows, width, are_probabilities ? " probabilities" : "", type);
    const fi_rows x = are_probabilities ? (fi_rows){exact_probabilities(rows, width), width, 0, FI_DTYPE_F32} : logits_of(type, rows, width);
    fi_sample_row *rules = room((size_t)rows * sizeof *rules, 8);
    for (int r = 0; r < rows; r++) {
        rules[r] = any_rule(width);
        // Entries at a bound go by rounding: of logits, which have no exact sums, nothing but the count bounds.
        if (!are_probabilities) rules[r].top_p = 1, rules[r].min_p = 0;
    }
    const bool joint = below(2);
    const size_t count = (size_t)(rows * width), size = (size_t)element_bytes(type);
    int32_t *drawn[2];
    uint8_t *status[2], *filter_status[2];
    void *kept[2];
    for (int side = 0; side < 2; side++) {
        drawn[side] = room((size_t)rows * 4, 4), status[side] = room((size_t)rows, 1), filter_status[side] = room((size_t)rows, 1);
        kept[side] = room(count * size, size);
        void *scratch = room(fi_sample_scratch_size(width), 64);
        const fi_sample_args draw = {.x = x, .rows = rules, .out = drawn[side], .status = status[side], .width = width, .joint = joint,
                                     .are_probabilities = are_probabilities, .scratch = scratch};
        s->kernels[side]->sample(&draw, 0, rows);
        const fi_filter_args filter = {.x = x, .out = {kept[side], width, 0, type}, .rows = rules, .status = filter_status[side], .width = width,
                                       .joint = joint, .are_probabilities = are_probabilities, .scratch = scratch};
        s->kernels[side]->filter(&filter, 0, rows);
    }
    expect_same("status", status[0], status[1], (size_t)rows);
    expect_same("drawn", drawn[0], drawn[1], (size_t)rows * 4);
    expect_same("status of filters", filter_status[0], filter_status[1], (size_t)rows);
    expect_neighbours("kept", type, kept[0], kept[1], count, 1e-6f, 0);
    leave_rooms();
}

static void check_drafts(const sides *s) {
    const int requests = 1 + below(3), nodes = 2 + below(6), width = PICK(2, 3, 17, 100, 257);
    begin_case(s->level, "drafts", "%d requests, chains of %d, width %d", requests, nodes, width);
    // Of a chain: target [requests, nodes, width], draft one node fewer.
    const float *target = exact_probabilities(requests * nodes, width), *draft = exact_probabilities(requests * (nodes - 1), width);
    int32_t *tokens = room((size_t)(requests * (nodes - 1)) * 4, 4);
    double *uniforms = room((size_t)(requests * nodes) * 8, 8);
    for (int i = 0; i < requests * (nodes - 1); i++) tokens[i] = below(width);
    for (int i = 0; i < requests * nodes; i++) uniforms[i] = ((double)(next_bits() >> 12) + 1) * 0x1p-52;
    int32_t *output[2], *accepted[2], *emitted[2];
    uint8_t *status[2];
    for (int side = 0; side < 2; side++) {
        output[side] = room((size_t)(requests * nodes) * 4, 4), accepted[side] = room((size_t)requests * 4, 4);
        emitted[side] = room((size_t)requests * 4, 4), status[side] = room((size_t)requests, 1);
        const fi_verify_args args = {.target = target, .target_request = nodes * width, .target_node = width, .draft = draft,
                                     .draft_request = (nodes - 1) * width, .draft_node = width, .tokens = tokens, .uniforms = uniforms,
                                     .output = output[side], .accepted = accepted[side], .emitted = emitted[side], .status = status[side],
                                     .nodes = nodes, .width = width, .scratch = room(fi_sample_scratch_size(width), 64)};
        s->kernels[side]->verify(&args, 0, requests);
    }
    expect_same("status", status[0], status[1], (size_t)requests);
    expect_same("tokens", output[0], output[1], (size_t)(requests * nodes) * 4);
    expect_same("accepted", accepted[0], accepted[1], (size_t)requests * 4);
    expect_same("emitted", emitted[0], emitted[1], (size_t)requests * 4);
    leave_rooms();
}

void check_sampling(fi_isa isa, const char *level) {
    const sides s = {{fi_ops_table(isa), fi_ops_table(FI_ISA_SCALAR)}, level};
    for (int i = 0; i < 250; i++) {
        check_shares(&s);
        check_top_k(&s);
        check_draws(&s);
        check_drafts(&s);
    }
}
