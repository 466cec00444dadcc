#include "CUDAKernels.h"

// #embed is C23; the older modes have it as an extension.
#pragma clang diagnostic ignored "-Wc23-extensions"


static const char attention_params[] = {
#embed "include/fi_attention_params.h"
    , 0};
static const char primitives_types[] = {
#embed "primitives/types.cuh"
    , 0};
static const char portable_attention[] = {
#embed "portable/attention.cuh"
    , 0};

const fi_kernel_text fi_kernel_texts[] = {
    {"fi_attention_params.h", attention_params},
    {"portable/attention.cuh", portable_attention},
    {"primitives/types.cuh", primitives_types},
    {0, 0},
};

static const char resources[] = {
#embed "resources.txt"
    , 0};

const char *fi_resource_table(void) { return resources; }
