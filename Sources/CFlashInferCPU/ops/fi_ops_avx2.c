/// The row kernels for AVX2 + FMA + F16C: 8 lanes.
#include "fi_ops_common.h"

#if defined(__x86_64__)
#define FI_W 8
#define FI_HAS_FMA 1
#define FI_ISA FI_ISA_AVX2
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "fi_ops_table.h"
#pragma clang attribute pop

const fi_ops_kernels *fi_ops_avx2(void) { return &table; }
#endif
