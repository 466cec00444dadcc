/// Products on AVX-512 without VNNI: pairs of int16 products, then an add.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../include/fi_linear.h"

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)

#define FI_TILE_ROWS 6
#define va_dot(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#include "avx512.h"
#include "quantize.h"
#include "tile.h"

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_avx512(void) { return &kernels; }

#pragma clang attribute pop
#endif
