#include "fi_nvrtc.h"

#include <stdint.h>

static const fi_symbol symbols[] = {
#define X(name, required, parameters) {#name, offsetof(fi_nvrtc_table, name), required},
    FI_NVRTC_FUNCTIONS(X)
#undef X
    {"nvrtcGetErrorString", offsetof(fi_nvrtc_table, nvrtcGetErrorString), 1},
    {"", SIZE_MAX, 0},
};

const fi_symbol *fi_nvrtc_symbols(void) { return symbols; }
