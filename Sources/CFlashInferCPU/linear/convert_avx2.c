/// Conversions on AVX2 + F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../include/fi_convert.h"

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define FI_F16C
#include "convert.h"

static const fi_convert_kernels kernels = FI_CONVERT_KERNELS;
const fi_convert_kernels *fi_convert_avx2(void) { return &kernels; }

#pragma clang attribute pop
#endif
