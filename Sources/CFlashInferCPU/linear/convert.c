/// Conversions for any machine (on AArch64 the compiler's baseline is already Advanced SIMD), and the table.
#include "convert.h"

static const fi_convert_kernels kernels = FI_CONVERT_KERNELS;

#if defined(__x86_64__)
const fi_convert_kernels *fi_convert_avx2(void);
const fi_convert_kernels *fi_convert_avx512(void);
#endif

const fi_convert_kernels *fi_convert_table(fi_isa isa) {
    switch (isa) {
    case FI_ISA_SCALAR: return &kernels;
#if defined(__x86_64__)
    case FI_ISA_AVX2: return fi_convert_avx2();
    case FI_ISA_AVX512:
    case FI_ISA_AVX512_BF16: return fi_convert_avx512();
#elif defined(__aarch64__)
    case FI_ISA_NEON: return &kernels;
#endif
    default: return 0;
    }
}
