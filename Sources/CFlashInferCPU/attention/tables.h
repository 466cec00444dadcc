/// The tables of the instruction-set levels, one a source file.
#pragma once

#include "fi_attention.h"

extern const fi_attention_kernels fi_attention_scalar;
#if defined(__aarch64__)
extern const fi_attention_kernels fi_attention_neon;
#elif defined(__x86_64__)
extern const fi_attention_kernels fi_attention_avx2;
extern const fi_attention_kernels fi_attention_avx512;
extern const fi_attention_kernels fi_attention_avx512_bf16;
#endif
