/// Operations on rows: normalisation, rotary embedding, gated activations, sums, conversions, gathers and scatters.
#include "check.h"

#include <math.h>
#include <string.h>

static fi_dtype narrow_type(void) { return (fi_dtype)PICK(FI_DTYPE_E4M3, FI_DTYPE_E5M2, FI_DTYPE_I8); }
static int any_width(void) { return PICK(1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 40, 63, 64, 100, 128, 200, 257); }

/// Elements from the first of rows to the last of them.
static size_t extent(int rows, int inner, int64_t outer_stride, int64_t inner_stride, int width) {
    const int last = rows - 1;
    return (size_t)(last / inner * outer_stride + (inner > 1 ? inner - 1 : 0) * inner_stride + width);
}

typedef struct tensor {
    fi_rows rows;
    size_t count;
} tensor;

/// `rows` rows of `width` elements, `inner` of which are side by side.
static tensor any_tensor(fi_dtype dtype, int rows, int inner, int width) {
    tensor t = {.rows = {.dtype = dtype, .inner_stride = width + below(3)}};
    t.rows.outer_stride = inner > 1 ? inner * t.rows.inner_stride + below(3) : width + below(4);
    t.count = extent(rows, inner, t.rows.outer_stride, t.rows.inner_stride, width);
    t.rows.data = room(t.count * (size_t)element_bytes(dtype), (size_t)element_bytes(dtype));
    fill_elements(dtype, t.rows.data, t.count);
    return t;
}

static tensor copy_of(tensor t) {
    const size_t size = (size_t)element_bytes(t.rows.dtype);
    void *data = room(t.count * size, size);
    memcpy(data, t.rows.data, t.count * size);
    t.rows.data = data;
    return t;
}

static void expect_tensors(const char *what, const tensor *t, float relative, float absolute) {
    expect_neighbours(what, t[0].rows.dtype, t[0].rows.data, t[1].rows.data, t[0].count, relative, absolute);
}

static void *vector_of(fi_dtype dtype, int count) {
    void *x = room((size_t)(count * element_bytes(dtype)), (size_t)element_bytes(dtype));
    fill_elements(dtype, x, (size_t)count);
    return x;
}

/// How an output of 8 bits is scaled: by a factor, or by a scale for each row, or each group of a row. Writes each side's scales into memory of its own.
static void choose_scales(fi_quantize *quantize, int rows, int width, float **scales) {
    const int how = below(3);
    int group = 0;
    if (how == 2)
        for (group = 1 + below(width); width % group != 0;) group--;
    const int groups = group > 0 ? width / group : 1;
    for (int side = 0; side < 2; side++) {
        scales[side] = how == 0 ? NULL : room((size_t)(rows * groups) * 4, 4);
        if (how > 0) memset(scales[side], 0, (size_t)(rows * groups) * 4);
        quantize[side] = (fi_quantize){.factor = 3.5f, .row_scales = scales[side], .group = group, .scale_row = groups, .scale_group = 1};
    }
}

static int scale_count(const fi_quantize *quantize, int rows) { return quantize->row_scales ? rows * (int)quantize->scale_row : 0; }

static void check_norm(const sides *s) {
    const bool is_layer = below(2), has_residual = below(2), is_quantized = below(3) == 0;
    const int rows = 1 + below(7), width = any_width();
    const fi_dtype type = compute_type(), weight_type = below(2) ? type : compute_type(), out_type = is_quantized ? narrow_type() : compute_type();
    begin_case(s->level, is_layer ? "layer norm" : "RMS norm", "%d rows of %d, types %d %d %d%s", rows, width, type, weight_type, out_type,
               has_residual ? ", residual" : "");
    const tensor x = any_tensor(type, rows, 1, width), residual = any_tensor(compute_type(), rows, 1, width), out = any_tensor(out_type, rows, 1, width);
    const void *weight = vector_of(weight_type, width), *bias = vector_of(weight_type, width);
    fi_quantize quantize[2];
    float *scales[2];
    choose_scales(quantize, rows, width, scales);
    tensor outs[2], residuals[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out), residuals[side] = copy_of(residual);
        fi_layer_norm_args args = {.norm = {.x = x.rows, .residual = residuals[side].rows, .out = outs[side].rows, .weight = weight,
                                            .weight_dtype = weight_type, .inner = 1, .width = width, .epsilon = 1e-5f,
                                            .weight_offset = is_layer ? 0 : 1, .quantize = quantize[side]}, .bias = bias};
        if (!has_residual) args.norm.residual.data = NULL;
        if (is_layer) s->kernels[side]->layer_norm(&args, 0, rows);
        else s->kernels[side]->rms_norm(&args.norm, 0, rows);
    }
    expect_tensors("sums", residuals, 1e-6f, 1e-6f);
    expect_tensors("rows", outs, 2e-5f, 2e-5f);
    if (is_quantized) expect_near("scales", scales[0], scales[1], (size_t)scale_count(quantize, rows), 2e-5f, 1e-7f);
    leave_rooms();
}

static void check_gated(const sides *s) {
    const int rows = 1 + below(7), width = any_width(), activation = below(3);
    const bool is_quantized = below(3) == 0;
    const fi_dtype gate_type = compute_type(), up_type = compute_type(), out_type = is_quantized ? narrow_type() : compute_type();
    begin_case(s->level, "gated activation", "%d, %d rows of %d, types %d %d %d", activation, rows, width, gate_type, up_type, out_type);
    const tensor gate = any_tensor(gate_type, rows, 1, width), up = any_tensor(up_type, rows, 1, width), out = any_tensor(out_type, rows, 1, width);
    fi_quantize quantize[2];
    float *scales[2];
    choose_scales(quantize, rows, width, scales);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        const fi_gated_args args = {.gate = gate.rows, .up = up.rows, .out = outs[side].rows, .inner = 1, .width = width,
                                    .activation = (fi_activation)activation, .quantize = quantize[side]};
        s->kernels[side]->gated(&args, 0, rows);
    }
    expect_tensors("rows", outs, 2e-5f, 1e-6f);
    if (is_quantized) expect_near("scales", scales[0], scales[1], (size_t)scale_count(quantize, rows), 2e-5f, 1e-7f);
    leave_rooms();
}

static void check_rotary(const sides *s) {
    const int tokens = 1 + below(6), heads = 1 + below(4), head_dim = PICK(8, 16, 40, 64, 128), rotary = 2 * (1 + below(head_dim / 2));
    const fi_dtype type = compute_type(), out_type = below(3) == 0 ? narrow_type() : compute_type();
    const bool interleaved = below(2), has_norm = below(3) == 0, has_rows = below(2), has_slots = below(2);
    begin_case(s->level, "rotary embedding", "%d tokens, %d heads of %d, %d turn%s, types %d %d%s", tokens, heads, head_dim, rotary,
               interleaved ? ", interleaved" : "", type, out_type, has_norm ? ", normalised" : "");
    const tensor x = any_tensor(type, tokens * heads, heads, head_dim), out = any_tensor(out_type, tokens * heads, heads, head_dim);
    const float *cos_sin = vector_of(FI_DTYPE_F32, tokens * rotary), *scale = below(2) ? vector_of(FI_DTYPE_F32, heads) : NULL;
    int32_t *at = room((size_t)tokens * 4, 4);
    int64_t *slots = room((size_t)tokens * 8, 8);
    for (int t = 0; t < tokens; t++)
        at[t] = below(tokens), slots[t] = below(4) == 0 ? -1 : (tokens - 1 - t) * out.rows.outer_stride;
    const void *weight = vector_of(FI_DTYPE_F32, head_dim);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        const fi_rope_args args = {.x = x.rows, .out = outs[side].rows, .slots = has_slots ? slots : NULL, .scale = scale, .cos_sin = cos_sin,
                                   .rows = has_rows ? at : NULL, .row_stride = rotary, .heads = heads, .head_dim = head_dim,
                                   .rotary_dim = rotary, .interleaved = interleaved,
                                   .norm = {.weight = has_norm ? weight : NULL, .weight_dtype = FI_DTYPE_F32, .epsilon = 1e-6f}};
        s->kernels[side]->rope(&args, 0, tokens);
    }
    expect_tensors("rows", outs, 2e-5f, 2e-5f);
    leave_rooms();
}

static void check_sums(const sides *s) {
    const int rows = 1 + below(7), width = any_width();
    const fi_dtype a_type = compute_type(), b_type = compute_type(), out_type = compute_type();
    const bool has_b = below(2);
    begin_case(s->level, "sum", "%d rows of %d, types %d %d %d%s", rows, width, a_type, b_type, out_type, has_b ? "" : ", of one");
    const tensor a = any_tensor(a_type, rows, 1, width), b = any_tensor(b_type, rows, 1, width), out = any_tensor(out_type, rows, 1, width);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        fi_add_args args = {.a = a.rows, .b = b.rows, .out = outs[side].rows, .inner = 1, .width = width, .alpha = 0.5f, .beta = -2};
        if (!has_b) args.b.data = NULL;
        s->kernels[side]->add(&args, 0, rows);
    }
    expect_tensors("rows", outs, 1e-5f, 1e-6f);
    leave_rooms();
}

static void check_casts(const sides *s) {
    const int rows = 1 + below(7), width = any_width();
    const fi_dtype type = (fi_dtype)below(6), out_type = (fi_dtype)below(6);
    begin_case(s->level, "conversion", "%d rows of %d, types %d %d", rows, width, type, out_type);
    const tensor x = any_tensor(type, rows, 1, width), out = any_tensor(out_type, rows, 1, width);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        const fi_convert_args args = {.x = x.rows, .out = outs[side].rows, .inner = 1, .width = width, .scale = 1.75f};
        s->kernels[side]->convert(&args, 0, rows);
    }
    expect_same("rows", outs[0].rows.data, outs[1].rows.data, out.count * (size_t)element_bytes(out_type));
    leave_rooms();
}

static void check_quantisation(const sides *s) {
    const int rows = 1 + below(7), width = any_width();
    const fi_dtype type = compute_type(), out_type = narrow_type();
    begin_case(s->level, "quantisation", "%d rows of %d, types %d %d", rows, width, type, out_type);
    const tensor x = any_tensor(type, rows, 1, width), out = any_tensor(out_type, rows, 1, width);
    fi_quantize quantize[2];
    float *scales[2];
    choose_scales(quantize, rows, width, scales);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        const fi_quantize_args args = {.x = x.rows, .out = outs[side].rows, .inner = 1, .width = width, .quantize = quantize[side]};
        s->kernels[side]->quantize(&args, 0, rows);
    }
    expect_tensors("rows", outs, 0, 0);
    expect_near("scales", scales[0], scales[1], (size_t)scale_count(quantize, rows), 1e-6f, 0);
    leave_rooms();
}

static void check_embedding(const sides *s) {
    const int rows = 1 + below(7), width = any_width(), vocabulary = 1 + below(9);
    const fi_dtype type = (fi_dtype)below(6), out_type = compute_type();
    begin_case(s->level, "embedding", "%d rows of %d, types %d %d", rows, width, type, out_type);
    const int stride = width + below(3);
    const void *table = vector_of(type, stride * (vocabulary - 1) + width);
    int32_t *ids = room((size_t)rows * 4, 4);
    for (int r = 0; r < rows; r++) ids[r] = below(vocabulary);
    const tensor out = any_tensor(out_type, rows, 1, width);
    tensor outs[2];
    for (int side = 0; side < 2; side++) {
        outs[side] = copy_of(out);
        const fi_embedding_args args = {.table = table, .table_stride = stride, .table_dtype = type, .ids = ids, .out = outs[side].rows,
                                        .width = width, .scale = 0.75f};
        s->kernels[side]->embedding(&args, 0, rows);
    }
    expect_same("rows", outs[0].rows.data, outs[1].rows.data, out.count * (size_t)element_bytes(out_type));
    leave_rooms();
}

static void check_scatter(const sides *s) {
    const int tokens = 1 + below(7), heads = 1 + below(4), width = any_width();
    const fi_dtype type = compute_type(), out_type = (fi_dtype)below(6);
    begin_case(s->level, "scatter", "%d tokens, %d heads of %d, types %d %d", tokens, heads, width, type, out_type);
    const tensor x = any_tensor(type, tokens * heads, heads, width), cache = any_tensor(out_type, tokens * heads, heads, width);
    const float *scale = below(2) ? vector_of(FI_DTYPE_F32, heads) : NULL;
    const int64_t scale_stride = below(2);
    int64_t *slots = room((size_t)tokens * 8, 8);
    for (int t = 0; t < tokens; t++) slots[t] = below(4) == 0 ? -1 : (tokens - 1 - t) * cache.rows.outer_stride;
    const int64_t head_stride = heads > 1 ? cache.rows.inner_stride : 0;
    tensor caches[2];
    for (int side = 0; side < 2; side++) {
        caches[side] = copy_of(cache);
        const fi_scatter_args args = {.x = x.rows, .destination = caches[side].rows.data, .destination_dtype = out_type, .slots = slots,
                                      .head_stride = head_stride, .scale = scale, .scale_stride = scale_stride, .heads = heads, .width = width};
        s->kernels[side]->scatter(&args, 0, tokens);
    }
    expect_same("cache", caches[0].rows.data, caches[1].rows.data, cache.count * (size_t)element_bytes(out_type));
    leave_rooms();
}

void check_rows(fi_isa isa, const char *level) {
    const sides s = {{fi_ops_table(isa), fi_ops_table(FI_ISA_SCALAR)}, level};
    for (int i = 0; i < 300; i++) {
        check_norm(&s);
        check_gated(&s);
        check_rotary(&s);
        check_sums(&s);
        check_casts(&s);
        check_quantisation(&s);
        check_embedding(&s);
        check_scatter(&s);
    }
}
