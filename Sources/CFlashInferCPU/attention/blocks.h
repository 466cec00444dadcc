/// The register-blocked product that both matrix steps use: c[rows][panels of FI_W] (+)= a[rows][steps] . b.
///
/// FI_STEP(a, b, c): one step, where a step of `a` is one 32-bit element (a float32, or a bfloat16 pair) broadcast and
/// a step of `b` one vector. FI_NAME(x): names in this format.
///
/// Cost per step of a 6x4 block: 4 loads + 6 broadcasts against 24 multiply-adds, so two loads a cycle suffice.

FI_INLINE void FI_NAME(block)(float *c, int64_t stride, const uint8_t *a, int64_t a_stride, const uint8_t *b,
                              int64_t panel, int steps, bool adds, const int rows, const int panels) {
    vf acc[FI_ROWS][FI_PANELS];
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < panels; n++) acc[r][n] = adds ? loadu(c + r * stride + n * FI_W) : (vf){0};
    for (int k = 0; k < steps; k++) {
        vf column[FI_PANELS];
        FI_UNROLL for (int n = 0; n < panels; n++) column[n] = loadu(b + n * panel + (int64_t)k * (FI_W * 4));
        FI_UNROLL for (int r = 0; r < rows; r++) {
            float x;
            __builtin_memcpy(&x, a + r * a_stride + (int64_t)k * 4, 4);
            const vf broadcast = splat(x);
            FI_UNROLL for (int n = 0; n < panels; n++) acc[r][n] = FI_STEP(broadcast, column[n], acc[r][n]);
        }
    }
    FI_UNROLL for (int r = 0; r < rows; r++)
        FI_UNROLL for (int n = 0; n < panels; n++) storeu(c + r * stride + n * FI_W, acc[r][n]);
}

typedef struct {
    float *c;
    int64_t stride;
    const uint8_t *a;
    int64_t a_stride;  // bytes
    const uint8_t *b;
    int64_t panel;     // bytes
    int steps;
} FI_NAME(product);

#define FI_BLOCK_OF(ROWS, PANELS, ADDS) \
    FI_NAME(block)(p->c, p->stride, p->a, p->a_stride, p->b, p->panel, p->steps, ADDS, ROWS, PANELS)
#if FI_PANELS == 4
#define FI_BLOCK_ROWS(ROWS, ADDS)                    \
    switch (panels) {                                \
    case 4: FI_BLOCK_OF(ROWS, 4, ADDS); break;       \
    case 3: FI_BLOCK_OF(ROWS, 3, ADDS); break;       \
    case 2: FI_BLOCK_OF(ROWS, 2, ADDS); break;       \
    default: FI_BLOCK_OF(ROWS, 1, ADDS); break;      \
    }
#else
#define FI_BLOCK_ROWS(ROWS, ADDS)                    \
    if (panels == 2) { FI_BLOCK_OF(ROWS, 2, ADDS); } \
    else { FI_BLOCK_OF(ROWS, 1, ADDS); }
#endif
#define FI_BLOCK_SWITCH(ADDS)                        \
    switch (rows) {                                  \
    case 6: FI_BLOCK_ROWS(6, ADDS); break;           \
    case 5: FI_BLOCK_ROWS(5, ADDS); break;           \
    case 4: FI_BLOCK_ROWS(4, ADDS); break;           \
    case 3: FI_BLOCK_ROWS(3, ADDS); break;           \
    case 2: FI_BLOCK_ROWS(2, ADDS); break;           \
    default: FI_BLOCK_ROWS(1, ADDS); break;          \
    }

static void FI_NAME(multiply)(const FI_NAME(product) *p, int rows, int panels) { FI_BLOCK_SWITCH(false) }
static void FI_NAME(multiply_add)(const FI_NAME(product) *p, int rows, int panels) { FI_BLOCK_SWITCH(true) }

/// Rows of the next block: six, or the rest in two equal blocks so that none is too thin to hide latency.
FI_INLINE int FI_NAME(block_rows)(int left) {
    return left >= 2 * FI_ROWS || left == FI_ROWS ? FI_ROWS : left < FI_ROWS ? left : (left + 1) / 2;
}

/// The union of the rows' ranges.
FI_INLINE void FI_NAME(span)(fi_attn_ranges ranges, int row, int rows, int columns, int *first, int *last) {
    *first = 0, *last = columns;
    if (!ranges.first) return;
    *first = columns, *last = 0;
    for (int r = row; r < row + rows; r++) {
        if (ranges.first[r] >= ranges.last[r]) continue;
        if (ranges.first[r] < *first) *first = ranges.first[r];
        if (ranges.last[r] > *last) *last = ranges.last[r];
    }
}

static void FI_NAME(scores)(float *s, int64_t stride, const void *q, int64_t q_stride, const void *panels, int32_t rows,
                            int32_t columns, int32_t width, fi_attn_ranges ranges) {
    const int steps = width / FI_STEP_ELEMENTS, all = (columns + FI_W - 1) / FI_W;
    FI_NAME(product) p = {.stride = stride, .a_stride = q_stride * FI_ELEMENT, .panel = (int64_t)steps * FI_W * 4,
                          .steps = steps};
    // A group of key panels stays in L1 while every row block passes over it.
    for (int group = 0; group < all; group += FI_PANELS) {
        for (int row = 0, n; row < rows; row += n) {
            n = FI_NAME(block_rows)(rows - row);
            int first, last;
            FI_NAME(span)(ranges, row, n, columns, &first, &last);
            if (first >= last) continue;
            int from = first / FI_W, to = (last + FI_W - 1) / FI_W;
            from = from > group ? from : group;
            to = to < group + FI_PANELS ? to : group + FI_PANELS;
            if (from >= to) continue;
            p.c = s + row * stride + from * FI_W;
            p.a = (const uint8_t *)q + row * p.a_stride;
            p.b = (const uint8_t *)panels + from * p.panel;
            FI_NAME(multiply)(&p, n, to - from);
        }
    }
}

static void FI_NAME(values)(float *o, int64_t stride, const void *weights, int64_t p_stride, const void *panels,
                            int32_t rows, int32_t columns, int32_t width, fi_attn_ranges ranges) {
    const int all = (width + FI_W - 1) / FI_W;
    FI_NAME(product) p = {.stride = stride, .a_stride = p_stride * FI_ELEMENT,
                          .panel = (int64_t)((columns + 15) & ~15) / FI_STEP_ELEMENTS * FI_W * 4};
    for (int group = 0; group < all; group += FI_PANELS) {
        const int count = all - group < FI_PANELS ? all - group : FI_PANELS;
        for (int row = 0, n; row < rows; row += n) {
            n = FI_NAME(block_rows)(rows - row);
            int first, last;
            FI_NAME(span)(ranges, row, n, columns, &first, &last);
            if (first >= last) continue;
            const int from = first / FI_STEP_ELEMENTS, to = (last + FI_STEP_ELEMENTS - 1) / FI_STEP_ELEMENTS;
            p.steps = to - from;
            p.c = o + row * stride + group * FI_W;
            p.a = (const uint8_t *)weights + row * p.a_stride + (int64_t)from * 4;
            p.b = (const uint8_t *)panels + group * p.panel + (int64_t)from * (FI_W * 4);
            FI_NAME(multiply_add)(&p, n, count);
        }
    }
}

#undef FI_BLOCK_OF
#undef FI_BLOCK_ROWS
#undef FI_BLOCK_SWITCH
