/// Conversions between float32 vectors and the storage dtypes, round to nearest even. Follows fi_ops_vec.h.

/// e4m3 or e5m2 from float32: saturating, NaN kept. `mantissa` is 3 or 2.
/// Normal results round in the integer domain; subnormal ones by adding a power of two whose unit in the last place is
/// the subnormal step, so that the float addition does the rounding.
FI_INLINE vu v_to_fp8(vf x, int mantissa) {
    const int bias = mantissa == 3 ? 7 : 15;
    const float largest = mantissa == 3 ? 448.0f : 57344.0f;
    const vu sign = (v_bits(x) >> 24) & (vu)0x80u;
    const vi is_nan = x != x;
    const vf magnitude = v_min(v_abs(x), v_set(largest));  // the NaN lanes are replaced below
    const vu bits = v_bits(magnitude);
    const int shift = 23 - mantissa;
    const vu rounded = bits + (vu)((1u << (shift - 1)) - 1) + ((bits >> shift) & (vu)1u);
    const vu normal = (rounded >> shift) - (vu)((uint32_t)(127 - bias) << mantissa);
    // The step below 2^(1 - bias) is 2^(1 - bias - mantissa); 2^23 of them is the magic number.
    const float magic = mantissa == 3 ? 0x1p14f : 0x1p7f;
    const vf sum = magnitude + v_set(magic);
    const vu subnormal = v_bits(sum) - v_bits(v_set(magic));
    const vi small = magnitude < v_set(mantissa == 3 ? 0x1p-6f : 0x1p-14f);
    const vu finite = small ? subnormal : normal;
    return sign | (is_nan ? (vu)0x7fu : finite);
}

/// float32 from e4m3: the exponent is rebased by a multiplication, which also makes the subnormals right.
FI_INLINE vf v_from_e4m3(vu b) {
    const vu magnitude = b & (vu)0x7fu;
    const vf value = v_float(magnitude << 20) * v_set(0x1p120f);
    const vu is_nan = (vu)0x7fc00000u;
    const vu bits = magnitude == (vu)0x7fu ? is_nan : v_bits(value);
    return v_float(bits | ((b & (vu)0x80u) << 24));
}

/// float32 from e5m2: the same, infinity and NaN apart.
FI_INLINE vf v_from_e5m2(vu b) {
    const vu magnitude = b & (vu)0x7fu;
    const vf value = v_float(magnitude << 21) * v_set(0x1p112f);
    const vu special = magnitude == (vu)0x7cu ? (vu)0x7f800000u : (vu)0x7fc00000u;
    const vu bits = magnitude >= (vu)0x7cu ? special : v_bits(value);
    return v_float(bits | ((b & (vu)0x80u) << 24));
}

/// The nearest integer in [-128, 127]; 0 for NaN.
FI_INLINE vi v_to_i8(vf x) {
    const vf kept = x == x ? x : v_set(0.0f);
    const vf clamped = v_min(v_max(kept, v_set(-128.0f)), v_set(127.0f));
    const vf magic = v_set(0x1.8p23f);
    const vf sum = clamped + magic;  // the addition rounds to nearest even
    return v_ibits(sum) - v_ibits(magic);
}

/// bfloat16 bits from float32; a NaN stays a (quiet) NaN.
FI_INLINE vu v_to_bf16(vf x) {
    const vu bits = v_bits(x);
    const vu rounded = (bits + (vu)0x7fffu + ((bits >> 16) & (vu)1u)) >> 16;
    return x != x ? ((bits >> 16) | (vu)0x40u) : rounded;
}

#if FI_W == 1
/// binary16 bits from float32, with the same two roundings as fp8.
FI_INLINE uint16_t f16_from_float(float x) {
    const uint32_t sign = (v_bits(x) >> 16) & 0x8000u;
    if (x != x) return (uint16_t)(sign | 0x7e00u | ((v_bits(x) >> 13) & 0x1ffu));
    const float magnitude = v_abs(x);
    const uint32_t bits = v_bits(magnitude);
    if (magnitude >= 65520.0f) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x1p-14f) {
        const float sum = magnitude + 0.5f;  // the subnormal step 2^-24 is the unit in the last place of 0.5
        return (uint16_t)(sign | (v_bits(sum) - v_bits(0.5f)));
    }
    const uint32_t rounded = bits + 0xfffu + ((bits >> 13) & 1u);
    return (uint16_t)(sign | ((rounded >> 13) - (112u << 10)));
}
FI_INLINE float f16_to_float(uint16_t h) {
    const uint32_t magnitude = h & 0x7fffu, sign = (uint32_t)(h & 0x8000u) << 16;
    if (magnitude >= 0x7c00u) return v_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13) | (magnitude > 0x7c00u ? 0x400000u : 0));
    const float value = v_float(magnitude << 13) * 0x1p112f;
    return v_float(v_bits(value) | sign);
}
#endif

FI_INLINE int64_t dtype_size(fi_dtype t) { return t == FI_DTYPE_F32 ? 4 : t <= FI_DTYPE_BF16 ? 2 : 1; }

/// FI_W elements from p.
FI_INLINE vf v_load_whole(const void *p, fi_dtype t) {
#if FI_W == 1
    switch (t) {
    case FI_DTYPE_F32: return *(const float *)p;
    case FI_DTYPE_F16: return f16_to_float(*(const uint16_t *)p);
    case FI_DTYPE_BF16: return v_float((uint32_t)*(const uint16_t *)p << 16);
    case FI_DTYPE_E4M3: return v_from_e4m3(*(const uint8_t *)p);
    case FI_DTYPE_E5M2: return v_from_e5m2(*(const uint8_t *)p);
    case FI_DTYPE_I8: return (float)*(const int8_t *)p;
    }
#else
    switch (t) {
    case FI_DTYPE_F32: return v_load_float((const float *)p);
    case FI_DTYPE_F16: { vh h; __builtin_memcpy(&h, p, sizeof h); return __builtin_convertvector(h, vf); }
    case FI_DTYPE_BF16: { vu16 h; __builtin_memcpy(&h, p, sizeof h); return v_float(__builtin_convertvector(h, vu) << 16); }
    case FI_DTYPE_E4M3: { vu8 b; __builtin_memcpy(&b, p, sizeof b); return v_from_e4m3(__builtin_convertvector(b, vu)); }
    case FI_DTYPE_E5M2: { vu8 b; __builtin_memcpy(&b, p, sizeof b); return v_from_e5m2(__builtin_convertvector(b, vu)); }
    case FI_DTYPE_I8: { vi8 b; __builtin_memcpy(&b, p, sizeof b); return __builtin_convertvector(b, vf); }
    }
#endif
    __builtin_unreachable();
}

/// FI_W elements to p.
FI_INLINE void v_store_whole(void *p, fi_dtype t, vf x) {
#if FI_W == 1
    switch (t) {
    case FI_DTYPE_F32: *(float *)p = x; return;
    case FI_DTYPE_F16: *(uint16_t *)p = f16_from_float(x); return;
    case FI_DTYPE_BF16: *(uint16_t *)p = (uint16_t)v_to_bf16(x); return;
    case FI_DTYPE_E4M3: *(uint8_t *)p = (uint8_t)v_to_fp8(x, 3); return;
    case FI_DTYPE_E5M2: *(uint8_t *)p = (uint8_t)v_to_fp8(x, 2); return;
    case FI_DTYPE_I8: *(int8_t *)p = (int8_t)v_to_i8(x); return;
    }
#else
    switch (t) {
    case FI_DTYPE_F32: v_store_float((float *)p, x); return;
    case FI_DTYPE_F16: { const vh h = __builtin_convertvector(x, vh); __builtin_memcpy(p, &h, sizeof h); return; }
    case FI_DTYPE_BF16: { const vu16 h = __builtin_convertvector(v_to_bf16(x), vu16); __builtin_memcpy(p, &h, sizeof h); return; }
    case FI_DTYPE_E4M3: { const vu8 b = __builtin_convertvector(v_to_fp8(x, 3), vu8); __builtin_memcpy(p, &b, sizeof b); return; }
    case FI_DTYPE_E5M2: { const vu8 b = __builtin_convertvector(v_to_fp8(x, 2), vu8); __builtin_memcpy(p, &b, sizeof b); return; }
    case FI_DTYPE_I8: { const vi8 b = __builtin_convertvector(v_to_i8(x), vi8); __builtin_memcpy(p, &b, sizeof b); return; }
    }
#endif
}

/// n <= FI_W elements of a row from element i on, the other lanes `fill`. Nothing past the n is read.
FI_INLINE vf v_load_or(const void *row, int64_t i, fi_dtype t, int n, float fill) {
    const char *p = (const char *)row + i * dtype_size(t);
    if (n == FI_W) return v_load_whole(p, t);
#if FI_W > 1
#if FI_W == 16
    if (t == FI_DTYPE_F32) return (vf)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), p);
#endif
    char staged[FI_W * 4] __attribute__((aligned(64))) = {0};
    __builtin_memcpy(staged, p, (size_t)(n * dtype_size(t)));
    return v_iota() < v_seti(n) ? v_load_whole(staged, t) : v_set(fill);
#else
    return v_set(fill);
#endif
}
FI_INLINE vf v_load(const void *row, int64_t i, fi_dtype t, int n) { return v_load_or(row, i, t, n, 0.0f); }

/// The first n <= FI_W lanes to a row's elements from i on. Nothing past the n is written.
FI_INLINE void v_store(void *row, int64_t i, fi_dtype t, int n, vf x) {
    char *p = (char *)row + i * dtype_size(t);
    if (n == FI_W) {
        v_store_whole(p, t, x);
        return;
    }
#if FI_W > 1
#if FI_W == 16
    if (t == FI_DTYPE_F32) {
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
        return;
    }
#endif
    char staged[FI_W * 4] __attribute__((aligned(64)));
    v_store_whole(staged, t, x);
    __builtin_memcpy(p, staged, (size_t)(n * dtype_size(t)));
#endif
}

FI_INLINE void *row_at(const fi_rows *rows, int64_t inner, int64_t r) {
    const int64_t offset = inner == 1 ? r * rows->outer_stride
                                      : (r / inner) * rows->outer_stride + (r % inner) * rows->inner_stride;
    return (char *)rows->data + offset * dtype_size(rows->dtype);
}

// MARK: scales of rows

/// The greatest magnitude so far as its bits, whose order is that of the numbers, NaN above all.
FI_INLINE vi v_magnitude_max(vi greatest, vf x) {
    const vi bits = v_ibits(v_abs(x));
    return bits > greatest ? bits : greatest;
}

/// The scale of a row whose greatest magnitude is among those of the lanes; a NaN stays one.
FI_INLINE float row_scale(vi greatest, fi_dtype t) {
    const int32_t bits = v_reduce_max_int(greatest);
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, sizeof magnitude);
    const float largest = t == FI_DTYPE_E4M3 ? 448.0f : t == FI_DTYPE_E5M2 ? 57344.0f : 127.0f;
    return (magnitude < 1e-10f ? 1e-10f : magnitude) / largest;
}

/// Where the scales of a row's groups are written.
FI_INLINE float *group_scales(const fi_quantize *q, int64_t row) { return q->row_scales + row * q->scale_row; }

/// Calls body(F32), body(BF16) or body(F16) with a constant when all dtypes agree, so that the compiler makes a loop
/// without a switch for the usual cases, and one general loop for the mixed ones.
#define FI_SPECIALISE(same, dtype, uniform_call, mixed_call)                       \
    do {                                                                           \
        if ((same) && (dtype) == FI_DTYPE_F32) { const fi_dtype T = FI_DTYPE_F32; uniform_call; }        \
        else if ((same) && (dtype) == FI_DTYPE_BF16) { const fi_dtype T = FI_DTYPE_BF16; uniform_call; } \
        else if ((same) && (dtype) == FI_DTYPE_F16) { const fi_dtype T = FI_DTYPE_F16; uniform_call; }   \
        else { mixed_call; }                                                       \
    } while (0)

/// Runs the statements with X and Y the dtypes of input and output, as constants for the usual pairs: equal ones, and float32 to
/// anything.
#define FI_WITH_TYPES(tx, to, ...)                                                                            \
    do {                                                                                                      \
        if ((tx) == FI_DTYPE_F32) {                                                                           \
            const fi_dtype X = FI_DTYPE_F32;                                                                  \
            switch (to) {                                                                                     \
            case FI_DTYPE_F32: { const fi_dtype Y = FI_DTYPE_F32; __VA_ARGS__; break; }                       \
            case FI_DTYPE_F16: { const fi_dtype Y = FI_DTYPE_F16; __VA_ARGS__; break; }                       \
            case FI_DTYPE_BF16: { const fi_dtype Y = FI_DTYPE_BF16; __VA_ARGS__; break; }                     \
            case FI_DTYPE_E4M3: { const fi_dtype Y = FI_DTYPE_E4M3; __VA_ARGS__; break; }                     \
            case FI_DTYPE_E5M2: { const fi_dtype Y = FI_DTYPE_E5M2; __VA_ARGS__; break; }                     \
            case FI_DTYPE_I8: { const fi_dtype Y = FI_DTYPE_I8; __VA_ARGS__; break; }                         \
            }                                                                                                 \
        } else if ((tx) == FI_DTYPE_BF16 && (to) == FI_DTYPE_BF16) {                                          \
            const fi_dtype X = FI_DTYPE_BF16, Y = FI_DTYPE_BF16;                                              \
            __VA_ARGS__;                                                                                      \
        } else if ((tx) == FI_DTYPE_F16 && (to) == FI_DTYPE_F16) {                                            \
            const fi_dtype X = FI_DTYPE_F16, Y = FI_DTYPE_F16;                                                \
            __VA_ARGS__;                                                                                      \
        } else {                                                                                              \
            const fi_dtype X = (tx), Y = (to);                                                                \
            __VA_ARGS__;                                                                                      \
        }                                                                                                     \
    } while (0)
