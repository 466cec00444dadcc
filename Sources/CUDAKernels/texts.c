#include "CUDAKernels.h"

// #embed is C23; the older modes have it as an extension.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const char attention_params[] = {
#embed "include/fi_attention_params.h"
    , 0};
static const char portable_attention[] = {
#embed "portable/attention.cuh"
    , 0};
static const char portable_attention_finish[] = {
#embed "portable/attention_finish.cuh"
    , 0};
static const char portable_attention_load[] = {
#embed "portable/attention_load.cuh"
    , 0};
static const char portable_attention_rope[] = {
#embed "portable/attention_rope.cuh"
    , 0};
static const char portable_attention_scores[] = {
#embed "portable/attention_scores.cuh"
    , 0};
static const char portable_attention_softmax[] = {
#embed "portable/attention_softmax.cuh"
    , 0};
static const char portable_attention_tile[] = {
#embed "portable/attention_tile.cuh"
    , 0};
static const char primitives_async[] = {
#embed "primitives/async.cuh"
    , 0};
static const char primitives_convert[] = {
#embed "primitives/convert.cuh"
    , 0};
static const char primitives_mma[] = {
#embed "primitives/mma.cuh"
    , 0};
static const char primitives_types[] = {
#embed "primitives/types.cuh"
    , 0};

const fi_kernel_text fi_kernel_texts[] = {
    {"fi_attention_params.h", attention_params},
    {"portable/attention.cuh", portable_attention},
    {"portable/attention_finish.cuh", portable_attention_finish},
    {"portable/attention_load.cuh", portable_attention_load},
    {"portable/attention_rope.cuh", portable_attention_rope},
    {"portable/attention_scores.cuh", portable_attention_scores},
    {"portable/attention_softmax.cuh", portable_attention_softmax},
    {"portable/attention_tile.cuh", portable_attention_tile},
    {"primitives/async.cuh", primitives_async},
    {"primitives/convert.cuh", primitives_convert},
    {"primitives/mma.cuh", primitives_mma},
    {"primitives/types.cuh", primitives_types},
    {0, 0},
};

static const char resources[] = {
#embed "resources.txt"
    , 0};

const char *fi_resource_table(void) { return resources; }
