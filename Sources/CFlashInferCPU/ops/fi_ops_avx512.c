/// The row kernels for AVX-512 F, BW, DQ, VL: 16 lanes.
#include "fi_ops_common.h"

#if defined(__x86_64__)
#define FI_W 16
#define FI_HAS_FMA 1
#define FI_ISA FI_ISA_AVX512
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"), min_vector_width(512))), \
    apply_to = function)
#include "fi_ops_table.h"
#pragma clang attribute pop

const fi_ops_kernels *fi_ops_avx512(void) { return &table; }
#endif
