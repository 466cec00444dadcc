/// Elements of every stored type to and from vectors of float32. All 8-bit and 16-bit conversions to float32 are exact.
/// Needs lanes.h and, from the instruction-set file, load_f16 and store_f16.

#define FI_LOG2E 1.44269504088896340736f
#define FI_INFINITY __builtin_inff()

FI_INLINE vf load_bf16(const uint8_t *p) {
    vh h;
    __builtin_memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

FI_INLINE void store_bf16(uint8_t *p, vf x) {
    const vu bits = (vu)x;
    const vu rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const vu quiet = (bits >> 16) | 0x40;  // rounding could carry a NaN's payload into infinity
    const vh h = __builtin_convertvector(choose_bits(x == x, rounded, quiet), vh);
    __builtin_memcpy(p, &h, sizeof h);
}

/// E4M3 has bias 7, float32 127: placing exponent and mantissa and multiplying by 2^120 is exact, subnormals included.
FI_INLINE vf load_e4m3(const uint8_t *p) {
    vb b;
    __builtin_memcpy(&b, p, sizeof b);
    const vu x = __builtin_convertvector(b, vu), magnitude = x & 0x7F;
    const vf value = (vf)(magnitude << 20) * 0x1p120f;
    const vu bits = choose_bits(magnitude == 0x7F, (vu){0} + 0x7FC00000u, (vu)value);
    return (vf)(bits | ((x & 0x80) << 24));
}

/// E5M2 has bias 15: as above by 2^112, and the top exponent means infinity or NaN.
FI_INLINE vf load_e5m2(const uint8_t *p) {
    vb b;
    __builtin_memcpy(&b, p, sizeof b);
    const vu x = __builtin_convertvector(b, vu), magnitude = x & 0x7F;
    const vf value = (vf)(magnitude << 21) * 0x1p112f;
    const vu bits = choose_bits(magnitude >= 0x7C, 0x7F800000u | (magnitude << 21), (vu)value);
    return (vf)(bits | ((x & 0x80) << 24));
}

FI_INLINE vf load_int8(const uint8_t *p) {
    typedef int8_t vc __attribute__((vector_size(FI_W)));
    vc b;
    __builtin_memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, vf);
}

FI_INLINE int element_size(fi_attn_type type) {
    return type == FI_ATTN_F32 ? 4 : type == FI_ATTN_F16 || type == FI_ATTN_BF16 ? 2 : 1;
}

/// FI_W elements; `type` is a constant where this is inlined.
FI_INLINE vf load_as(const uint8_t *p, fi_attn_type type) {
    switch (type) {
    case FI_ATTN_F32: return loadu(p);
    case FI_ATTN_F16: return load_f16(p);
    case FI_ATTN_BF16: return load_bf16(p);
    case FI_ATTN_E4M3: return load_e4m3(p);
    case FI_ATTN_E5M2: return load_e5m2(p);
    case FI_ATTN_INT8: return load_int8(p);
    }
    return (vf){0};
}

/// Elements [i, min(i + FI_W, width)) of a row, zeros after; `width` is a multiple of 8.
FI_INLINE vf load_row(const uint8_t *row, int i, int width, fi_attn_type type) {
    (void)width;
    const int size = element_size(type);
#if FI_W > 8
    if (i + FI_W > width) {
        uint8_t part[FI_W * 4] = {0};
        __builtin_memcpy(part, row + (int64_t)i * size, (uint64_t)(8 * size));
        return load_as(part, type);
    }
#endif
    return load_as(row + (int64_t)i * size, type);
}

/// Runs STATEMENT once with `type` a constant, for each type in the list of cases.
#define FI_CASE(TYPE, STATEMENT) \
    case TYPE: {                 \
        const fi_attn_type type = TYPE; \
        STATEMENT;               \
        break;                   \
    }
#define FI_FOR_WIDE_TYPES(TYPE, STATEMENT)   \
    switch (TYPE) {                          \
        FI_CASE(FI_ATTN_F32, STATEMENT)      \
        FI_CASE(FI_ATTN_F16, STATEMENT)      \
        FI_CASE(FI_ATTN_BF16, STATEMENT)     \
    default: break;                          \
    }
#define FI_FOR_ALL_TYPES(TYPE, STATEMENT)    \
    switch (TYPE) {                          \
        FI_CASE(FI_ATTN_F32, STATEMENT)      \
        FI_CASE(FI_ATTN_F16, STATEMENT)      \
        FI_CASE(FI_ATTN_BF16, STATEMENT)     \
        FI_CASE(FI_ATTN_E4M3, STATEMENT)     \
        FI_CASE(FI_ATTN_E5M2, STATEMENT)     \
        FI_CASE(FI_ATTN_INT8, STATEMENT)     \
    }

FI_INLINE const uint8_t *row_at(const fi_attn_rows *rows, int i) {
    return (const uint8_t *)rows->base + rows->offsets[i];
}

/// Prefetches the next block of a stream, one head of one token a call, in memory order where heads are contiguous.
typedef struct {
    const fi_attn_stream *stream;
    int token, head;
} prefetcher;

FI_INLINE void prefetch_slice(prefetcher *p) {
    const fi_attn_stream *s = p->stream;
    if (p->token >= s->next_count) return;
    const char *at = (const char *)s->next_base + s->next_offsets[p->token] + p->head * s->next_head_stride;
    for (int b = 0; b < s->next_bytes; b += 64) __builtin_prefetch(at + b, 0, 3);
    if (++p->head == s->heads) p->head = 0, p->token++;
}

FI_INLINE const uint8_t *token_at(const fi_attn_stream *s, int head, int token) {
    return (const uint8_t *)s->base + s->offsets[token] + head * s->head_stride;
}
