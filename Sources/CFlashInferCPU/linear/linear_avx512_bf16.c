/// Products on AVX-512 with VNNI: a dot product of int16 pairs (vpdpwssd) is one instruction.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../include/fi_linear.h"

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16,fma,f16c"))), \
    apply_to = function)

#define FI_TILE_ROWS 6
#define vi_dot(acc, a, b) _mm512_dpwssd_epi32(acc, a, b)
#include "avx512.h"
#include "quantize.h"
#include "tile.h"

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_avx512_bf16(void) { return &kernels; }

#pragma clang attribute pop
#endif
