/// AVX-512 with BF16 and VBMI: the float32 kernels again, and the bfloat16 format on VDPBF16PS (two products a lane).
/// VDPBF16PS flushes subnormal inputs and sums; nothing here depends on them.
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16"))), apply_to = function)

#define FI_W 16
#define FI_ROWS 6
#define FI_PANELS 4
#define FI_STREAM_ROWS 4
#include "lanes.h"
#include "helpers_avx512.h"
#include "format_f32.h"

#define FI_NAME(x) x##_bf16
#define FI_ELEMENT 2
#define FI_STEP_ELEMENTS 2
#define FI_STEP(a, b, c) (vf)_mm512_dpbf16_ps((__m512)(c), (__m512bh)(a), (__m512bh)(b))
#define FI_EXP2 exp2_coarse
#define FI_STORE_WEIGHT(p, x) _mm256_storeu_si256((__m256i *)(p), (__m256i)_mm512_cvtneps_pbh((__m512)(x)))
#include "blocks.h"
#include "softmax.h"

#include "bytes_bf16.h"
#include "rows_bf16.h"
#include "stream_bytes_bf16.h"
#include "stream_bf16.h"

static const fi_attn_format bf16_format = {
    .element = FI_ATTN_BF16, .gather = gather_bf16, .pack_keys = pack_keys_bf16, .pack_values = pack_values_bf16,
    .scores = scores_bf16, .values = values_bf16, .softmax = softmax_bf16, .weigh = weigh_bf16,
    .stream_scores = stream_scores_bf16, .stream_values = stream_values_bf16};

const fi_attention_kernels fi_attention_avx512_bf16 = FI_TABLE(FI_ISA_AVX512_BF16, &bf16_format);
#pragma clang attribute pop
#endif
