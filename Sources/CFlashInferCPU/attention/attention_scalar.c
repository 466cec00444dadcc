/// Portable kernels: vector extensions of four floats, which any compiler target lowers, and no intrinsics.
#include "tables.h"

#define FI_W 4
#define FI_ROWS 4
#define FI_PANELS 2
#define FI_STREAM_ROWS 2
#include "lanes.h"

// No fused multiply-add: without the instruction it would be a library call for every lane.
FI_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }

#include "half.h"
#include "portable.h"
#include "format_f32.h"

const fi_attention_kernels fi_attention_scalar = FI_TABLE(FI_ISA_SCALAR, 0);
