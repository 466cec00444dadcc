// A tensor map of the driver (CUtensorMap): how the copy engine finds boxes of a tensor.
#ifndef FLASHINFER_TENSOR_MAP_H
#define FLASHINFER_TENSOR_MAP_H

typedef struct {
    unsigned long long words[16] __attribute__((aligned(64)));
} fi_tensor_map;

#endif
