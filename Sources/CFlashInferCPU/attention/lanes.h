/// Vectors of FI_W floats and the lane permutations that the kernels need, as clang vector extensions.
/// Included once by each instruction-set file, inside its target pragma. No include guard on purpose.

typedef float vf __attribute__((vector_size(4 * FI_W)));
typedef int32_t vi __attribute__((vector_size(4 * FI_W)));
typedef uint32_t vu __attribute__((vector_size(4 * FI_W)));
typedef uint16_t vh __attribute__((vector_size(2 * FI_W)));
typedef uint8_t vb __attribute__((vector_size(FI_W)));

#define FI_INLINE static inline __attribute__((always_inline))
#define FI_UNROLL _Pragma("clang loop unroll(full)")

// The two halves of a butterfly at distance S. MERGE keeps lane l of `a` where (l & S) == 0 and of `b` elsewhere, and
// CROSS the partner lanes l ^ S: their sum folds two vectors into one. LOW and HIGH are a step of a transpose.
#if FI_W == 16
#define FI_LANES 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define FI_MERGE1 0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31
#define FI_CROSS1 1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30
#define FI_MERGE2 0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31
#define FI_CROSS2 2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29
#define FI_MERGE4 0, 1, 2, 3, 20, 21, 22, 23, 8, 9, 10, 11, 28, 29, 30, 31
#define FI_CROSS4 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27
#define FI_MERGE8 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31
#define FI_CROSS8 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23
#define FI_LOW1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define FI_HIGH1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define FI_LOW2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define FI_HIGH2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define FI_LOW4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define FI_HIGH4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define FI_LOW8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define FI_HIGH8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#elif FI_W == 8
#define FI_LANES 0, 1, 2, 3, 4, 5, 6, 7
#define FI_MERGE1 0, 9, 2, 11, 4, 13, 6, 15
#define FI_CROSS1 1, 8, 3, 10, 5, 12, 7, 14
#define FI_MERGE2 0, 1, 10, 11, 4, 5, 14, 15
#define FI_CROSS2 2, 3, 8, 9, 6, 7, 12, 13
#define FI_MERGE4 0, 1, 2, 3, 12, 13, 14, 15
#define FI_CROSS4 4, 5, 6, 7, 8, 9, 10, 11
#define FI_LOW1 0, 8, 2, 10, 4, 12, 6, 14
#define FI_HIGH1 1, 9, 3, 11, 5, 13, 7, 15
#define FI_LOW2 0, 1, 8, 9, 4, 5, 12, 13
#define FI_HIGH2 2, 3, 10, 11, 6, 7, 14, 15
#define FI_LOW4 0, 1, 2, 3, 8, 9, 10, 11
#define FI_HIGH4 4, 5, 6, 7, 12, 13, 14, 15
#else
#define FI_LANES 0, 1, 2, 3
#define FI_MERGE1 0, 5, 2, 7
#define FI_CROSS1 1, 4, 3, 6
#define FI_MERGE2 0, 1, 6, 7
#define FI_CROSS2 2, 3, 4, 5
#define FI_LOW1 0, 4, 2, 6
#define FI_HIGH1 1, 5, 3, 7
#define FI_LOW2 0, 1, 4, 5
#define FI_HIGH2 2, 3, 6, 7
#endif

/// Minus zero, which is folded for every x: plus zero would make a -0 a 0, and is an addition.
FI_INLINE vf splat(float x) { return x - (vf){0}; }
FI_INLINE vf loadu(const void *p) { vf v; __builtin_memcpy(&v, p, sizeof v); return v; }
FI_INLINE void storeu(void *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }

/// Lanes of a where the mask is all ones, of b where it is zero.
FI_INLINE vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
FI_INLINE vu choose_bits(vi mask, vu a, vu b) { return ((vu)mask & a) | (~(vu)mask & b); }

#define FI_FOLD(S, a, b) \
    (__builtin_shufflevector(a, b, FI_MERGE##S) + __builtin_shufflevector(a, b, FI_CROSS##S))

/// Lane i of the result is the sum of the lanes of v[i]; v is overwritten. Every lane is summed by the same tree, so a
/// row's score does not depend on its place in the block.
FI_INLINE vf fold_sums(vf v[FI_W]) {
    FI_UNROLL for (int i = 0; i < FI_W / 2; i++) v[i] = FI_FOLD(1, v[2 * i], v[2 * i + 1]);
    FI_UNROLL for (int i = 0; i < FI_W / 4; i++) v[i] = FI_FOLD(2, v[2 * i], v[2 * i + 1]);
#if FI_W >= 8
    FI_UNROLL for (int i = 0; i < FI_W / 8; i++) v[i] = FI_FOLD(4, v[2 * i], v[2 * i + 1]);
#endif
#if FI_W >= 16
    v[0] = FI_FOLD(8, v[0], v[1]);
#endif
    return v[0];
}

#define FI_TRANSPOSE_STEP(S)                                                  \
    FI_UNROLL for (int i = 0; i < FI_W; i++) {                                \
        if (i & S) continue;                                                  \
        const vf a = r[i], b = r[i + S];                                      \
        r[i] = __builtin_shufflevector(a, b, FI_LOW##S);                      \
        r[i + S] = __builtin_shufflevector(a, b, FI_HIGH##S);                 \
    }

FI_INLINE void transpose(vf r[FI_W]) {
    FI_TRANSPOSE_STEP(1)
    FI_TRANSPOSE_STEP(2)
#if FI_W >= 8
    FI_TRANSPOSE_STEP(4)
#endif
#if FI_W >= 16
    FI_TRANSPOSE_STEP(8)
#endif
}
