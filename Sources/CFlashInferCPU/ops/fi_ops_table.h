/// All row kernels and their table, for the instruction set that FI_W, FI_HAS_FMA, FI_ISA and FI_TABLE describe.
#include "fi_ops_vec.h"
#include "fi_ops_dtype.h"
#include "fi_ops_math.h"
#include "fi_ops_norm.h"
#include "fi_ops_rows.h"
#include "fi_ops_rope.h"
#include "fi_ops_softmax.h"
#include "fi_ops_sampling.h"
#include "fi_ops_filter.h"
#include "fi_ops_top_k.h"
#include "fi_ops_verify.h"

static const fi_ops_kernels table = {
    .isa = FI_ISA,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .gated = gated,
    .softmax = softmax,
    .argmax = argmax,
    .logprob = logprob,
    .add = add,
    .convert = convert,
    .quantize = quantize,
    .embedding = embedding,
    .scatter = scatter,
    .sample = sample,
    .filter = filter,
    .top_k = top_k,
    .verify = verify,
};
