/// Tiles of attention: all that a walk over a request's keys calls, and decode's reads in place. The float32 format, which all levels have.
#include "check.h"

#include <math.h>
#include <string.h>

static fi_dtype dtype_of(fi_attn_type type) {
    static const fi_dtype dtypes[] = {FI_DTYPE_F32, FI_DTYPE_F16, FI_DTYPE_BF16, FI_DTYPE_E4M3, FI_DTYPE_E5M2, FI_DTYPE_I8};
    return dtypes[type];
}

static int up(int count, int to) { return (count + to - 1) / to * to; }

static float *floats(size_t count) {
    float *x = room(count * 4, 4);
    fill_elements(FI_DTYPE_F32, x, count);
    return x;
}

static void *copy_of(const void *x, size_t bytes) {
    void *copy = room(bytes, 4);
    memcpy(copy, x, bytes);
    return copy;
}

/// Rows in memory in any order; nothing follows the one that lies last.
static fi_attn_rows rows_of(int count, int width, fi_attn_type type) {
    const fi_dtype dtype = dtype_of(type);
    const int size = element_bytes(dtype), row = (width + below(3)) * size;
    int64_t *offsets = room((size_t)count * 8, 8);
    uint8_t *base = room((size_t)(row * (count - 1) + width * size), (size_t)size);
    for (int i = 0; i < count; i++) {
        offsets[i] = (int64_t)i * row;
        fill_elements(dtype, base + offsets[i], (size_t)width);
    }
    // Out of order.
    for (int i = count - 1; i > 0; i--) {
        const int j = below(i + 1);
        const int64_t offset = offsets[i];
        offsets[i] = offsets[j], offsets[j] = offset;
    }
    return (fi_attn_rows){base, offsets, count, type};
}

typedef struct tile {
    int rows, columns, width, stride;
    bool has_ranges;
    int32_t *first, *last;
} tile;

static tile any_tile(void) {
    tile t = {.rows = 1 + below(17), .columns = 1 + below(70), .width = 8 * PICK(1, 2, 3, 5, 8, 9, 12, 16), .has_ranges = below(2)};
    t.stride = up(t.columns, 16) + 16 * below(2);
    t.first = room((size_t)t.rows * 4, 4), t.last = room((size_t)t.rows * 4, 4);
    for (int r = 0; r < t.rows; r++) {
        t.first[r] = t.has_ranges ? below(t.columns + 1) : 0;
        t.last[r] = t.has_ranges ? t.first[r] + below(t.columns + 1 - t.first[r]) : t.columns;
    }
    return t;
}

static fi_attn_ranges ranges_of(const tile *t) {
    return t->has_ranges ? (fi_attn_ranges){t->first, t->last} : (fi_attn_ranges){NULL, NULL};
}

/// What rounding makes of a sum of products with elements of a type, in another order: the numbers are what those are multiplied by.
static float sum_error(const float *x, int count, fi_attn_type type) {
    const float largest = type == FI_ATTN_INT8 ? 128 : 60;
    float sum = 0;
    for (int i = 0; i < count; i++) sum += fabsf(x[i]);
    return 1e-6f * largest * sum;
}

static void check_tile(const fi_attention_kernels *own, const fi_attention_kernels *other, const char *level) {
    const tile t = any_tile();
    const fi_attn_type type = (fi_attn_type)below(6), query_type = (fi_attn_type)below(3);
    begin_case(level, "tile", "type %d, queries %d, %d rows, %d columns, width %d%s", type, query_type, t.rows, t.columns, t.width,
               t.has_ranges ? ", ranges" : "");
    const int q_stride = up(t.width, 32), padded = up(t.columns, 16), output_stride = up(t.width, 16);
    const fi_attn_rows queries = rows_of(t.rows, t.width, query_type);
    const fi_attn_rows keys = rows_of(t.columns, t.width, type), values = rows_of(t.columns, t.width, type);
    float *q = NULL, *scores[2], *weights[2], *output[2], *top[2], *sum[2];
    const float *first_output = floats((size_t)(t.rows * output_stride));
    // The softmax of a tile after others: some rows have seen keys.
    const float *first_top = floats((size_t)t.rows), *first_sum = floats((size_t)t.rows);
    for (int r = 0; r < t.rows; r++) {
        const bool is_new = r % 3 == 0;
        ((float *)first_top)[r] = is_new ? -INFINITY : first_top[r], ((float *)first_sum)[r] = is_new ? 0 : fabsf(first_sum[r]) + 1;
    }
    for (int side = 0; side < 2; side++) {
        const fi_attn_format *format = &(side == 0 ? own : other)->f32;
        q = room((size_t)(t.rows * q_stride) * 4, 4);
        format->gather(q, q_stride, queries, t.width);
        for (int r = 0; r < t.rows; r++)
            for (int c = t.width; c < q_stride; c++)
                if (q[r * q_stride + c] != 0) fail("row %d of the queries is not padded with zeros", r);
        float *key_panels = room((size_t)(padded * up(t.width, 16)) * 4, 64);
        scores[side] = room((size_t)(t.rows * t.stride) * 4, 4), weights[side] = room((size_t)(t.rows * t.stride) * 4, 4);
        format->pack_keys(key_panels, keys, t.width);
        format->scores(scores[side], t.stride, q, q_stride, key_panels, t.rows, t.columns, t.width, ranges_of(&t));
        output[side] = copy_of(first_output, (size_t)(t.rows * output_stride) * 4);
        top[side] = copy_of(first_top, (size_t)t.rows * 4), sum[side] = copy_of(first_sum, (size_t)t.rows * 4);
    }
    for (int r = 0; r < t.rows; r++)
        expect_near("scores", scores[0] + r * t.stride + t.first[r], scores[1] + r * t.stride + t.first[r],
                    (size_t)(t.last[r] - t.first[r]), 0, sum_error(q + r * q_stride, t.width, type));
    // From here on of the same scores, so that their rounding is not counted again; some are no numbers, or hidden.
    for (int i = below(8); i < t.rows; i += 8) scores[1][i * t.stride + below(t.columns)] = below(2) ? NAN : -INFINITY;
    memcpy(scores[0], scores[1], (size_t)(t.rows * t.stride) * 4);
    for (int side = 0; side < 2; side++) {
        const fi_attn_format *format = &(side == 0 ? own : other)->f32;
        const bool is_in_place = t.rows % 2 == 0;
        fi_attn_softmax step = {.scores = scores[side], .stride = t.stride, .weights = is_in_place ? scores[side] : weights[side],
                                .weight_stride = t.stride, .rows = t.rows, .columns = t.columns, .ranges = ranges_of(&t), .scale = 0.25f,
                                .row_max = top[side], .row_sum = sum[side], .output = output[side], .output_stride = output_stride,
                                .width = t.width};
        if (t.rows % 5 == 0) format->weigh(&step);
        else format->softmax(&step);
        float *value_panels = room((size_t)(padded * up(t.width, 16)) * 4, 64);
        format->pack_values(value_panels, values, t.width);
        format->values(output[side], output_stride, step.weights, t.stride, value_panels, t.rows, t.columns, t.width, ranges_of(&t));
        weights[side] = step.weights;
    }
    expect_near("greatest scores", top[0], top[1], (size_t)t.rows, 1e-6f, 1e-6f);
    expect_near("sums", sum[0], sum[1], (size_t)t.rows, 1e-5f, 1e-5f);
    for (int r = 0; r < t.rows; r++) {
        expect_near("weights", weights[0] + r * t.stride, weights[1] + r * t.stride, (size_t)padded, 1e-5f, 1e-6f);
        for (int c = 0; c < padded; c++)
            if ((c < t.first[r] || c >= t.last[r]) && weights[0][r * t.stride + c] != 0) fail("weight [%d, %d] is outside its range", r, c);
        // What the outputs held counts, too: as much as a few keys.
        expect_near("outputs", output[0] + r * output_stride, output[1] + r * output_stride, (size_t)t.width, 1e-5f,
                    1e-4f + sum_error(weights[1] + r * t.stride, t.columns, type));
    }
    leave_rooms();
}

/// A block of tokens with all their heads, and the one after it, which is prefetched.
static fi_attn_stream stream_of(int count, int heads, int width, fi_attn_type type) {
    const int size = element_bytes(dtype_of(type));
    const fi_attn_rows rows = rows_of(count, heads * width, type), next = rows_of(1 + below(9), heads * width, type);
    return (fi_attn_stream){.base = rows.base, .offsets = rows.offsets, .head_stride = width * size, .count = count, .heads = heads,
                            .type = type, .next_count = below(2) ? next.count : 0, .next_base = next.base, .next_offsets = next.offsets,
                            .next_head_stride = width * size, .next_bytes = width * size};
}

static void check_stream(const fi_attention_kernels *own, const fi_attention_kernels *other, const char *level) {
    const int heads = 1 + below(4), rows = 1 + below(9), count = 1 + below(40), width = 8 * PICK(1, 2, 3, 5, 8, 9, 12, 16);
    const fi_attn_type type = (fi_attn_type)below(6);
    begin_case(level, "stream", "type %d, %d heads of %d, %d rows, %d keys", type, heads, width, rows, count);
    const int q_stride = up(width, 32), output_stride = up(width, 16), stride = up(count, 16), all = heads * rows;
    float *q = room((size_t)(all * q_stride) * 4, 4);
    memset(q, 0, (size_t)(all * q_stride) * 4);
    for (int r = 0; r < all; r++) fill_elements(FI_DTYPE_F32, q + r * q_stride, (size_t)width);
    const fi_attn_stream keys = stream_of(count, heads, width, type), values = stream_of(count, heads, width, type);
    const float *weights = floats((size_t)(all * stride)), *first = floats((size_t)(all * output_stride));
    float *scores[2], *output[2];
    for (int side = 0; side < 2; side++) {
        const fi_attn_format *format = &(side == 0 ? own : other)->f32;
        scores[side] = room((size_t)(all * stride) * 4, 4);
        output[side] = copy_of(first, (size_t)(all * output_stride) * 4);
        format->stream_scores(scores[side], stride, q, q_stride, rows, &keys, width);
        format->stream_values(output[side], output_stride, weights, stride, rows, &values, width);
    }
    for (int r = 0; r < all; r++) {
        expect_near("scores", scores[0] + r * stride, scores[1] + r * stride, (size_t)count, 0, sum_error(q + r * q_stride, width, type));
        expect_near("outputs", output[0] + r * output_stride, output[1] + r * output_stride, (size_t)width, 1e-5f,
                    1e-4f + sum_error(weights + r * stride, count, type));
    }
    leave_rooms();
}

static void check_transform(const fi_attention_kernels *own, const fi_attention_kernels *other, const char *level) {
    const tile t = any_tile();
    const bool has_mask = below(2), is_packed = below(2), has_slopes = below(2);
    const float cap = below(2) ? 5 : 0;
    begin_case(level, "transform", "%d rows, %d columns, cap %g%s%s%s", t.rows, t.columns, (double)cap, has_slopes ? ", slopes" : "",
               has_mask ? ", mask" : "", has_mask && is_packed ? " packed" : "");
    const float *scores = floats((size_t)(t.rows * t.stride)), *slopes = floats((size_t)t.rows);
    int32_t *distance = room((size_t)t.rows * 4, 4);
    int64_t *start = room((size_t)t.rows * 8, 8);
    const int offset = below(9), elements = offset + t.rows * t.columns;
    const size_t bytes = (size_t)(is_packed ? (elements + 7) / 8 : elements);
    uint8_t *mask = room(bytes, 1);
    for (size_t i = 0; i < bytes; i++) mask[i] = is_packed ? (uint8_t)next_bits() : (uint8_t)(below(2) ? next_bits() : 0);
    for (int r = 0; r < t.rows; r++) distance[r] = below(4000) - 2000, start[r] = offset + r * t.columns;
    float *changed[2];
    for (int side = 0; side < 2; side++) {
        changed[side] = copy_of(scores, (size_t)(t.rows * t.stride) * 4);
        const fi_attn_transform step = {.scores = changed[side], .stride = t.stride, .rows = t.rows, .columns = t.columns, .scale = 0.7f,
                                        .cap = cap, .slopes = has_slopes ? slopes : NULL, .distance = distance,
                                        .mask = has_mask ? mask : NULL, .mask_start = start, .mask_is_packed = is_packed};
        (side == 0 ? own : other)->transform(&step);
    }
    for (int r = 0; r < t.rows; r++)
        expect_near("logits", changed[0] + r * t.stride, changed[1] + r * t.stride, (size_t)t.columns, 1e-5f, 1e-5f);
    leave_rooms();
}

static void check_ends(const fi_attention_kernels *own, const fi_attention_kernels *other, const char *level) {
    const int rows = 1 + below(9), width = 1 + below(140), stride = width + below(5);
    const fi_attn_type type = (fi_attn_type)below(3);
    begin_case(level, "ends", "type %d, %d rows of %d", type, rows, width);
    const float *x = floats((size_t)(stride * (rows - 1) + width)), *scale = floats((size_t)rows), *source = floats((size_t)width);
    // Each row has a place, and nothing is written between them.
    const fi_attn_rows places = rows_of(rows, width, type);
    uint8_t *stored[2];
    float *merged[2];
    for (int side = 0; side < 2; side++) {
        const fi_attention_kernels *kernels = side == 0 ? own : other;
        const size_t row_bytes = (size_t)(width * element_bytes(dtype_of(type)));
        int64_t end = 0;
        for (int r = 0; r < rows; r++) end = places.offsets[r] > end ? places.offsets[r] : end;
        stored[side] = room((size_t)end + row_bytes, 4);
        memset(stored[side], 0x5A, (size_t)end + row_bytes);
        kernels->store(stored[side], places.offsets, type, x, stride, scale, rows, width);
        if (side == 1) expect_same("stored rows", stored[0], stored[1], (size_t)end + row_bytes);
        merged[side] = copy_of(x, (size_t)width * 4);
        kernels->accumulate(merged[side], source, 0.375f, width);
    }
    expect_near("merged row", merged[0], merged[1], (size_t)width, 1e-6f, 1e-6f);
    leave_rooms();
}

static void check_rotation(const fi_attention_kernels *own, const fi_attention_kernels *other, const char *level) {
    const int rows = 1 + below(6), rotary = 2 * (1 + below(64)), stride = rotary + below(7);
    const bool interleaved = below(2);
    begin_case(level, "rotation", "%d rows, %d elements%s", rows, rotary, interleaved ? ", interleaved" : "");
    const size_t count = (size_t)(stride * (rows - 1) + rotary);
    const float *x = floats(count), *cosine[6], *sine[6];
    for (int r = 0; r < rows; r++) cosine[r] = floats((size_t)rotary / 2), sine[r] = floats((size_t)rotary / 2);
    float *turned[2];
    for (int side = 0; side < 2; side++) {
        turned[side] = copy_of(x, count * 4);
        (side == 0 ? own : other)->rotate(turned[side], stride, cosine, sine, rows, rotary, interleaved);
    }
    expect_near("turned rows", turned[0], turned[1], count, 1e-5f, 1e-4f);
    leave_rooms();
}

void check_attention(fi_isa isa, const char *level) {
    const fi_attention_kernels *own = fi_attention_table(isa), *other = fi_attention_table(FI_ISA_SCALAR);
    for (int i = 0; i < 400; i++) {
        check_tile(own, other, level);
        check_stream(own, other, level);
        check_transform(own, other, level);
        check_ends(own, other, level);
        check_rotation(own, other, level);
    }
}
