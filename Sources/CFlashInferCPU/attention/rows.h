/// Rows in and out: gather, pack into panels, store, merge and rotate. float32.

FI_INLINE void gather_as(float *dst, int64_t stride, const fi_attn_rows *rows, int width, fi_attn_type type) {
    for (int i = 0; i < rows->count; i++) {
        const uint8_t *src = row_at(rows, i);
        int c = 0;
        for (; c < width; c += FI_W) storeu(dst + i * stride + c, load_row(src, c, width, type));
        for (; c < stride; c++) dst[i * stride + c] = 0;
    }
}

static void gather_f32(void *dst, int64_t stride, fi_attn_rows rows, int32_t width) {
    FI_FOR_ALL_TYPES(rows.type, gather_as(dst, stride, &rows, width, type))
}

/// [panel of FI_W keys][dim][key]
FI_INLINE void pack_keys_as(float *panels, const fi_attn_rows *keys, int width, fi_attn_type type) {
    for (int k0 = 0; k0 < ((keys->count + 15) & ~15); k0 += FI_W) {
        float *panel = panels + (int64_t)k0 * width;
        for (int c = 0; c < width; c += FI_W) {
            vf r[FI_W];
            if (k0 + FI_W <= keys->count) {
                FI_UNROLL for (int i = 0; i < FI_W; i++) r[i] = load_row(row_at(keys, k0 + i), c, width, type);
            } else {
                FI_UNROLL for (int i = 0; i < FI_W; i++)
                    r[i] = k0 + i < keys->count ? load_row(row_at(keys, k0 + i), c, width, type) : (vf){0};
            }
            transpose(r);
            FI_UNROLL for (int i = 0; i < FI_W; i++) if (c + i < width) storeu(panel + (int64_t)(c + i) * FI_W, r[i]);
        }
    }
}

static void pack_keys_f32(void *panels, fi_attn_rows keys, int32_t width) {
    FI_FOR_ALL_TYPES(keys.type, pack_keys_as(panels, &keys, width, type))
}

/// [panel of FI_W dims][key][dim]; the panels are `count` rounded up to 16 keys long.
FI_INLINE void pack_values_as(float *panels, const fi_attn_rows *values, int width, fi_attn_type type) {
    const int64_t panel = (int64_t)((values->count + 15) & ~15) * FI_W;
    for (int j = 0; j < values->count; j++) {
        const uint8_t *src = row_at(values, j);
        for (int c = 0, p = 0; c < width; c += FI_W, p++)
            storeu(panels + p * panel + (int64_t)j * FI_W, load_row(src, c, width, type));
    }
    for (int64_t j = (int64_t)values->count * FI_W; j < panel; j += FI_W)
        for (int c = 0, p = 0; c < width; c += FI_W, p++) storeu(panels + p * panel + j, (vf){0});
}

static void pack_values_f32(void *panels, fi_attn_rows values, int32_t width) {
    FI_FOR_ALL_TYPES(values.type, pack_values_as(panels, &values, width, type))
}

FI_INLINE void store_as(uint8_t *dst, vf x, fi_attn_type type) {
    if (type == FI_ATTN_F32) storeu(dst, x);
    else if (type == FI_ATTN_F16) store_f16(dst, x);
    else store_bf16(dst, x);
}

FI_INLINE void store_type(uint8_t *base, const int64_t *offsets, const float *x, int64_t stride, const float *scale,
                          int rows, int width, fi_attn_type type) {
    const int size = element_size(type);
    for (int r = 0; r < rows; r++) {
        uint8_t *dst = base + offsets[r];
        const float *src = x + r * stride;
        const vf f = splat(scale[r]);
        int c = 0;
        for (; c + FI_W <= width; c += FI_W) store_as(dst + c * size, loadu(src + c) * f, type);
        if (c < width) {
            float in[FI_W] = {0};
            uint8_t part[FI_W * 4];
            __builtin_memcpy(in, src + c, (uint64_t)(width - c) * 4);
            store_as(part, loadu(in) * f, type);
            __builtin_memcpy(dst + c * size, part, (uint64_t)((width - c) * size));
        }
    }
}

static void store_rows(void *base, const int64_t *offsets, fi_attn_type kind, const float *x, int64_t stride,
                       const float *scale, int32_t rows, int32_t width) {
    FI_FOR_WIDE_TYPES(kind, store_type(base, offsets, x, stride, scale, rows, width, type))
}

static void accumulate(float *dst, const float *src, float weight, int32_t width) {
    const vf w = splat(weight);
    int c = 0;
    for (; c + FI_W <= width; c += FI_W) storeu(dst + c, vfma(loadu(src + c), w, loadu(dst + c)));
    for (; c < width; c++) dst[c] = __builtin_fmaf(src[c], weight, dst[c]);
}

static void rotate(float *x, int64_t stride, const float *const *cosine, const float *const *sine, int32_t rows,
                   int32_t rotary, bool interleaved) {
    const int half = rotary / 2;
    for (int r = 0; r < rows; r++) {
        float *row = x + r * stride;
        const float *c = cosine[r], *s = sine[r];
        if (interleaved) {
            for (int i = 0; i < half; i++) {
                const float a = row[2 * i], b = row[2 * i + 1];
                row[2 * i] = a * c[i] - b * s[i];
                row[2 * i + 1] = b * c[i] + a * s[i];
            }
        } else {
            for (int i = 0; i < half; i++) {
                const float a = row[i], b = row[i + half];
                row[i] = a * c[i] - b * s[i];
                row[i + half] = b * c[i] + a * s[i];
            }
        }
    }
}
