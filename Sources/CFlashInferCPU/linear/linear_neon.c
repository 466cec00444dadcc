/// Products on AArch64 Advanced SIMD: widening int16 products; tiles of four rows, as sums of six spill in every step.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "../include/fi_linear.h"

#define FI_TILE_ROWS 4
#define FI_LANES 4
typedef int32x4_t vi;
typedef float32x4_t vf;

#define vi_load(p) vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)(p)))
#define vi_set1(v) vdupq_n_s32(v)
#define vi_and(a, b) vandq_s32(a, b)
#define vi_sub(a, b) vsubq_s32(a, b)
// Shifts by a register, since a count of zero is not encodable where a layout has no zero point.
#define vi_sll32(a, n) vshlq_s32(a, vdupq_n_s32(n))
#define vi_sll16(a, n) vreinterpretq_s32_s16(vshlq_n_s16(vreinterpretq_s16_s32(a), n))
#define vi_srl16(a, n) vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(a), n))
#define vi_sra16(a, n) vreinterpretq_s32_s16(vshrq_n_s16(vreinterpretq_s16_s32(a), n))
#define vf_zero() vdupq_n_f32(0)
#define vf_load(p) vld1q_f32(p)
#define vf_store(p, a) vst1q_f32(p, a)
#define vf_set1(v) vdupq_n_f32(v)
#define vf_mul(a, b) vmulq_f32(a, b)
#define vf_add(a, b) vaddq_f32(a, b)
#define vf_fma(a, b, c) vfmaq_f32(c, a, b)
#define vf_from_i(a) vcvtq_f32_s32(a)
#define vf_load_half(p) vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)(p))))
#define vf_load_bf16(p) vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)(p))), 16))

// Products of the lower and of the upper outputs' pairs by themselves, one instruction each; a pair is added up once a block.
typedef struct {
    int32x4_t low, high;
} va;
#define FI_VA static inline __attribute__((always_inline))
FI_VA va va_zero(void) { return (va){vdupq_n_s32(0), vdupq_n_s32(0)}; }
FI_VA va va_dot(va acc, vi a, vi b) {
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    return (va){vmlal_s16(acc.low, vget_low_s16(x), vget_low_s16(y)), vmlal_high_s16(acc.high, x, y)};
}
FI_VA vi va_total(va acc) { return vpaddq_s32(acc.low, acc.high); }

#include "quantize.h"
#include "tile.h"

static const fi_linear_kernels kernels = {quantize, product};
const fi_linear_kernels *fi_linear_neon(void) { return &kernels; }
#endif
