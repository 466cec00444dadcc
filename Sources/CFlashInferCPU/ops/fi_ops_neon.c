/// The row kernels for AArch64 Advanced SIMD: 4 lanes.
#include "fi_ops_common.h"

#if defined(__aarch64__)
#define FI_W 4
#define FI_HAS_FMA 1
#define FI_ISA FI_ISA_NEON
#include "fi_ops_table.h"

const fi_ops_kernels *fi_ops_neon(void) { return &table; }
#endif
