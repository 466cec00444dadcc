/// AArch64: four lanes and 32 registers; the compiler maps vector extensions to Advanced SIMD one to one.
#include "tables.h"

#if defined(__aarch64__)
#define FI_W 4
#define FI_ROWS 6
#define FI_PANELS 4
#define FI_STREAM_ROWS 4
#include "lanes.h"

FI_INLINE vf vfma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }

#include "half.h"
#include "portable.h"
#include "format_f32.h"

const fi_attention_kernels fi_attention_neon = FI_TABLE(FI_ISA_NEON, 0);
#endif
