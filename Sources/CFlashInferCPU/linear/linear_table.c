#include "../include/fi_linear.h"

const fi_linear_kernels *fi_linear_scalar(void);
#if defined(__x86_64__)
const fi_linear_kernels *fi_linear_avx2(void);
const fi_linear_kernels *fi_linear_avx512(void);
const fi_linear_kernels *fi_linear_avx512_bf16(void);
#elif defined(__aarch64__)
const fi_linear_kernels *fi_linear_neon(void);
#endif

const fi_linear_kernels *fi_linear_table(fi_isa isa) {
    switch (isa) {
    case FI_ISA_SCALAR: return fi_linear_scalar();
#if defined(__x86_64__)
    case FI_ISA_AVX2: return fi_linear_avx2();
    case FI_ISA_AVX512: return fi_linear_avx512();
    case FI_ISA_AVX512_BF16: return fi_linear_avx512_bf16();
#elif defined(__aarch64__)
    case FI_ISA_NEON: return fi_linear_neon();
#endif
    default: return 0;
    }
}
