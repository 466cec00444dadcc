/// Vectors of FI_W floats for the row kernels: types, loads and stores of every dtype, reductions, compaction.
/// Included once per instruction set, inside its target region, with FI_W set. Not a public header.
/// Written on clang's vector extensions, so one text serves every width; the few intrinsics are where the extensions
/// have no word for an instruction.

#define FI_INLINE static inline __attribute__((always_inline, unused))

#if FI_W == 1
typedef float vf;
typedef int32_t vi;
typedef uint32_t vu;
#else
typedef float vf __attribute__((ext_vector_type(FI_W)));
typedef int32_t vi __attribute__((ext_vector_type(FI_W)));
typedef uint32_t vu __attribute__((ext_vector_type(FI_W)));
typedef uint16_t vu16 __attribute__((ext_vector_type(FI_W)));
typedef uint8_t vu8 __attribute__((ext_vector_type(FI_W)));
typedef int8_t vi8 __attribute__((ext_vector_type(FI_W)));
typedef _Float16 vh __attribute__((ext_vector_type(FI_W)));
typedef double vd __attribute__((ext_vector_type(FI_W / 2)));
#endif

FI_INLINE vf v_set(float x) { return (vf)x; }
FI_INLINE vi v_seti(int32_t x) { return (vi)x; }
FI_INLINE vu v_bits(vf x) { vu r; __builtin_memcpy(&r, &x, sizeof r); return r; }
FI_INLINE vi v_ibits(vf x) { vi r; __builtin_memcpy(&r, &x, sizeof r); return r; }
FI_INLINE vf v_float(vu x) { vf r; __builtin_memcpy(&r, &x, sizeof r); return r; }
FI_INLINE vu v_unsigned(vi x) { vu r; __builtin_memcpy(&r, &x, sizeof r); return r; }

/// a where a > b, else b: one instruction, unlike fmax. A NaN in b wins.
FI_INLINE vf v_max(vf a, vf b) { return a > b ? a : b; }
FI_INLINE vf v_min(vf a, vf b) { return a < b ? a : b; }
FI_INLINE vf v_abs(vf x) { return v_float(v_bits(x) & (vu)0x7fffffffu); }

FI_INLINE vf v_fma(vf a, vf b, vf c) {
#if FI_HAS_FMA
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
}

#if FI_W == 1
FI_INLINE int v_any(vi m) { return m != 0; }
FI_INLINE float v_reduce_add(vf x) { return x; }
FI_INLINE float v_reduce_max(vf x) { return x; }
FI_INLINE float v_reduce_min(vf x) { return x; }
FI_INLINE int32_t v_reduce_max_int(vi x) { return x; }
#else
FI_INLINE int32_t v_reduce_max_int(vi x) { return __builtin_reduce_max(x); }
FI_INLINE int v_any(vi m) { return __builtin_reduce_or(m) != 0; }

typedef float v4f __attribute__((ext_vector_type(4)));
/// Folds the upper half onto the lower until four lanes are left, always in the same order.
#if FI_W == 4
#define FI_FOLD(name, op) v4f name##4 = name
#elif FI_W == 8
#define FI_FOLD(name, op) v4f name##4 = op(name.lo, name.hi)
#else
#define FI_FOLD(name, op) v4f name##4 = op(op(name.lo.lo, name.lo.hi), op(name.hi.lo, name.hi.hi))
#endif
#define FI_ADD(a, b) ((a) + (b))
#define FI_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FI_MIN(a, b) ((a) < (b) ? (a) : (b))
FI_INLINE float v_reduce_add(vf x) {
    FI_FOLD(x, FI_ADD);
    return (x4.x + x4.z) + (x4.y + x4.w);
}
FI_INLINE float v_reduce_max(vf x) {
    FI_FOLD(x, FI_MAX);
    float a = FI_MAX(x4.x, x4.z), b = FI_MAX(x4.y, x4.w);
    return FI_MAX(a, b);
}
FI_INLINE float v_reduce_min(vf x) {
    FI_FOLD(x, FI_MIN);
    float a = FI_MIN(x4.x, x4.z), b = FI_MIN(x4.y, x4.w);
    return FI_MIN(a, b);
}
#endif

/// A float32 sum kept in double lanes: exact enough that its order hardly matters. Two halves, so that each fills a
/// register of its own.
#if FI_W == 1
typedef double vsum;
FI_INLINE vsum v_sum_zero(void) { return 0; }
FI_INLINE vsum v_sum_add(vsum s, vf x) { return s + (double)x; }
FI_INLINE double v_sum_total(vsum s) { return s; }
#else
typedef struct vsum {
    vd lo, hi;
} vsum;
FI_INLINE vsum v_sum_zero(void) {
    const vsum zero = {(vd)0, (vd)0};
    return zero;
}
FI_INLINE vsum v_sum_add(vsum s, vf x) {
    s.lo += __builtin_convertvector(x.lo, vd);
    s.hi += __builtin_convertvector(x.hi, vd);
    return s;
}
FI_INLINE double v_sum_total(vsum s) {
    const vd both = s.lo + s.hi;
    double total = 0;
    for (int i = 0; i < FI_W / 2; i++) total += both[i];
    return total;
}
#endif

/// Every lane's index.
FI_INLINE vi v_iota(void) {
    vi r;
    int32_t lanes[FI_W];
    for (int i = 0; i < FI_W; i++) lanes[i] = i;
    __builtin_memcpy(&r, lanes, sizeof r);
    return r;
}

FI_INLINE vi v_load_int(const int32_t *p) { vi r; __builtin_memcpy(&r, p, sizeof r); return r; }
FI_INLINE vf v_load_float(const float *p) { vf r; __builtin_memcpy(&r, p, sizeof r); return r; }
FI_INLINE void v_store_float(float *p, vf x) { __builtin_memcpy(p, &x, sizeof x); }
FI_INLINE void v_store_int(int32_t *p, vi x) { __builtin_memcpy(p, &x, sizeof x); }

/// Writes the lanes of x (and of index) that are set in m to the front of out (and places), and returns how many.
/// May write FI_W elements whatever the count.
#if FI_W == 16
FI_INLINE int64_t v_compress(float *out, vf x, vi m) {
    const __mmask16 k = _mm512_movepi32_mask((__m512i)m);
    _mm512_storeu_ps(out, _mm512_maskz_compress_ps(k, (__m512)x));
    return __builtin_popcount(k);
}
FI_INLINE int64_t v_compress_int(int32_t *out, vi x, vi m) {
    const __mmask16 k = _mm512_movepi32_mask((__m512i)m);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(k, (__m512i)x));
    return __builtin_popcount(k);
}
#elif FI_W == 1
FI_INLINE int64_t v_compress(float *out, vf x, vi m) { *out = x; return m != 0; }
FI_INLINE int64_t v_compress_int(int32_t *out, vi x, vi m) { *out = x; return m != 0; }
#else
/// Four lanes at a time: byte shuffles that move the lanes of a 4-bit mask to the front.
#define FI_LANE(i) 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3
#define FI_LANES(a, b, c, d) {FI_LANE(a), FI_LANE(b), FI_LANE(c), FI_LANE(d)}
static const uint8_t compress_shuffles[16][16] __attribute__((aligned(16))) = {
    FI_LANES(0, 1, 2, 3), FI_LANES(0, 1, 2, 3), FI_LANES(1, 0, 2, 3), FI_LANES(0, 1, 2, 3),
    FI_LANES(2, 0, 1, 3), FI_LANES(0, 2, 1, 3), FI_LANES(1, 2, 0, 3), FI_LANES(0, 1, 2, 3),
    FI_LANES(3, 0, 1, 2), FI_LANES(0, 3, 1, 2), FI_LANES(1, 3, 0, 2), FI_LANES(0, 1, 3, 2),
    FI_LANES(2, 3, 0, 1), FI_LANES(0, 2, 3, 1), FI_LANES(1, 2, 3, 0), FI_LANES(0, 1, 2, 3),
};
typedef int32_t v4i __attribute__((ext_vector_type(4)));

FI_INLINE int64_t compress_four(int32_t *out, v4i x, v4i m) {
#if defined(__x86_64__)
    const int bits = _mm_movemask_ps((__m128)m);
    _mm_storeu_si128(
        (__m128i *)out, _mm_shuffle_epi8((__m128i)x, _mm_load_si128((const __m128i *)compress_shuffles[bits])));
#else
    const v4i weights = {1, 2, 4, 8};
    const int bits = __builtin_reduce_add(m & weights);
    vst1q_u8((uint8_t *)out, vqtbl1q_u8((uint8x16_t)x, vld1q_u8(compress_shuffles[bits])));
#endif
    return __builtin_popcount((unsigned)bits);
}
FI_INLINE int64_t v_compress_int(int32_t *out, vi x, vi m) {
#if FI_W == 4
    return compress_four(out, x, m);
#else
    const int64_t n = compress_four(out, x.lo, m.lo);
    return n + compress_four(out + n, x.hi, m.hi);
#endif
}
FI_INLINE int64_t v_compress(float *out, vf x, vi m) { return v_compress_int((int32_t *)out, v_ibits(x), m); }
#endif

/// Runs the statements for whole vectors (n = FI_W, a constant) and once more for the n < FI_W elements left at i.
#define FI_FOR_VECTORS(width, ...)                                                  \
    do {                                                                            \
        int64_t i = 0;                                                              \
        for (; i + FI_W <= (width); i += FI_W) { enum { n = FI_W }; __VA_ARGS__ }   \
        if (FI_W > 1 && i < (width)) { const int n = (int)((width) - i); __VA_ARGS__ } \
    } while (0)
