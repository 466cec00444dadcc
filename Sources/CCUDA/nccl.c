#include "fi_nccl.h"

static const fi_symbol symbols[] = {
#define X(name, required, parameters) {#name, offsetof(fi_nccl_table, name), required},
    FI_NCCL_FUNCTIONS(X)
#undef X
    {"ncclGetErrorString", offsetof(fi_nccl_table, ncclGetErrorString), 1},
    {"ncclGetLastError", offsetof(fi_nccl_table, ncclGetLastError), 0},
    {"", SIZE_MAX, 0},
};

const fi_symbol *fi_nccl_symbols(void) { return symbols; }

_Static_assert(sizeof(fi_nccl_unique_id) == 128, "the library takes it by value");
