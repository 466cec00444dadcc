#include "fi_cublaslt.h"

#include <stdint.h>

static const fi_symbol symbols[] = {
#define X(name, parameters) {#name, offsetof(fi_cublaslt_table, name), 1},
    FI_CUBLASLT_FUNCTIONS(X)
#undef X
    {"cublasLtGetVersion", offsetof(fi_cublaslt_table, cublasLtGetVersion), 1},
    {"cublasLtGetStatusName", offsetof(fi_cublaslt_table, cublasLtGetStatusName), 1},
    {"", SIZE_MAX, 0},
};

const fi_symbol *fi_cublaslt_symbols(void) { return symbols; }

_Static_assert(sizeof(fi_cublas_heuristic) == 96, "the library writes an array of these");
