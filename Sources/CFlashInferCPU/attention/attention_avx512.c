/// AVX-512 F, BW, DQ, VL: sixteen lanes, 32 registers (a 6x4 block takes 24, its columns 4, a broadcast 1).
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)

#define FI_W 16
#define FI_ROWS 6
#define FI_PANELS 4
#define FI_STREAM_ROWS 4
#include "lanes.h"
#include "helpers_avx512.h"
#include "format_f32.h"

const fi_attention_kernels fi_attention_avx512 = FI_TABLE(FI_ISA_AVX512, 0);
#pragma clang attribute pop
#endif
