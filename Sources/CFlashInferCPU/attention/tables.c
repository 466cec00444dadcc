#include "tables.h"

#include <stddef.h>

const fi_attention_kernels *fi_attention_table(fi_isa isa) {
    switch (isa) {
    case FI_ISA_SCALAR: return &fi_attention_scalar;
#if defined(__aarch64__)
    case FI_ISA_NEON: return &fi_attention_neon;
#elif defined(__x86_64__)
    case FI_ISA_AVX2: return &fi_attention_avx2;
    case FI_ISA_AVX512: return &fi_attention_avx512;
    case FI_ISA_AVX512_BF16: return &fi_attention_avx512_bf16;
#endif
    default: return NULL;
    }
}
