/// All float32 kernels of one instruction set, and its table. Included inside the target pragma, after FI_W, FI_ROWS,
/// FI_PANELS, FI_STREAM_ROWS are defined and lanes.h and the helpers are in place.

#include "elements.h"
#include "transform.h"
#include "expression.h"
#include "rows.h"

#define FI_NAME(x) x##_f32
#define FI_ELEMENT 4
#define FI_STEP_ELEMENTS 1
#define FI_STEP(a, b, c) vfma(a, b, c)
#define FI_EXP2 exp2_fine
#define FI_STORE_WEIGHT(p, x) storeu(p, x)
#include "blocks.h"
#include "softmax.h"
#undef FI_NAME
#undef FI_ELEMENT
#undef FI_STEP_ELEMENTS
#undef FI_STEP
#undef FI_EXP2
#undef FI_STORE_WEIGHT

#include "stream.h"

#define FI_TABLE(ISA, BF16)                                                                                       \
    {.isa = ISA,                                                                                                  \
     .f32 = {.element = FI_ATTN_F32, .gather = gather_f32, .pack_keys = pack_keys_f32,                            \
             .pack_values = pack_values_f32, .scores = scores_f32, .values = values_f32, .softmax = softmax_f32,  \
             .weigh = weigh_f32, .stream_scores = stream_scores_f32, .stream_values = stream_values_f32},         \
     .bf16 = BF16, .transform = transform, .evaluate = evaluate, .store = store_rows, .accumulate = accumulate, .rotate = rotate}
