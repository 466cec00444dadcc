/// Products on AVX-512 with VNNI: a dot product of int16 pairs (vpdpwssd) is one instruction.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../include/fi_linear.h"

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16,fma,f16c"))), \
    apply_to = function)

#define FI_TILE_ROWS 6
#include "avx512.h"

/// An intrinsic here is split by clang into vpmaddwd and vpaddd to shorten its latency, which halves the throughput
/// that a tile with many independent sums lives on.
static inline __attribute__((always_inline)) va va_dot(va acc, vi a, vi b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#include "quantize.h"
#include "tile.h"

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_avx512_bf16(void) { return &kernels; }

#pragma clang attribute pop
#endif
