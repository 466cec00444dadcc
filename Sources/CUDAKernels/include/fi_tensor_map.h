// A tensor map of the driver (CUtensorMap): how the copy engine finds boxes of a tensor.
//
// It lies at a multiple of 64 bytes; not said here, as Swift does not import a type of such alignment.
#ifndef FLASHINFER_TENSOR_MAP_H
#define FLASHINFER_TENSOR_MAP_H

typedef struct {
    unsigned long long words[16];
} fi_tensor_map;

#endif
