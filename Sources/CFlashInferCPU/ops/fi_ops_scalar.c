/// The row kernels in portable C: the reference that the other instruction sets are tested against.
#include "fi_ops_common.h"

#define FI_W 1
#define FI_HAS_FMA 0
#define FI_ISA FI_ISA_SCALAR
#include "fi_ops_table.h"

const fi_ops_kernels *fi_ops_scalar(void) { return &table; }

float fi_ops_element(const void *row, int64_t i, fi_dtype t) { return v_load(row, i, t, 1); }
