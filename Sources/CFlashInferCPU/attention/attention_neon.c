/// AArch64: four lanes and 32 registers; the compiler maps vector extensions to Advanced SIMD one to one, but for what is told here.
#include "tables.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define FI_W 4
#define FI_ROWS 6
#define FI_PANELS 4
#define FI_STREAM_ROWS 4
#include "lanes.h"

FI_INLINE vf vfma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }

FI_INLINE vf load_f16(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
FI_INLINE void store_f16(uint8_t *p, vf x) { vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(x))); }

// Rounding down is an instruction, to a float and to an integer. The lowest exponent is clamped by a maximum that keeps NaNs.
FI_INLINE vf vmax(vf a, vf b) { return vmaxnmq_f32(a, b); }
FI_INLINE vf clamp_exponent(vf x) { return vmaxq_f32(x, vdupq_n_f32(-127)); }

FI_INLINE vf vfloor_part(vf x) {
    x = clamp_exponent(x);
    return x - vrndmq_f32(x);
}

/// a * 2^floor(b) for a in [1, 2), b <= 127; 0 below 2^-126. -127 gives the exponent field 0.
FI_INLINE vf vscale(vf a, vf b) { return a * (vf)((vcvtmq_s32_f32(clamp_exponent(b)) + 127) << 23); }

#include "format_f32.h"

const fi_attention_kernels fi_attention_neon = FI_TABLE(FI_ISA_NEON, 0);
#endif
