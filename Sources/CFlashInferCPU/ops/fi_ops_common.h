/// What every instruction set's copy of the row kernels shares: no vectors here.
#pragma once

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "fi_ops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/// Spare entries after each scratch array: a compaction stores a whole vector past its last kept element.
#define FI_SAMPLE_SLACK 16

/// Entries of one scratch row, a multiple of 16 so that each array starts on a cache line.
static inline int64_t fi_sample_row_capacity(int64_t width) { return ((width + 15) & ~INT64_C(15)) + FI_SAMPLE_SLACK; }

/// Blocks of `block` entries in a row, a multiple of 16.
static inline int64_t fi_sample_blocks(int64_t width, int64_t block) {
    return ((width + block - 1) / block + 15) & ~INT64_C(15);
}

/// Entries of a group whose greatest is kept, which bounds the k-th greatest of the row from below.
#define FI_SAMPLE_GROUP 128
/// Weights of a partial sum of the draw.
#define FI_SAMPLE_BLOCK 1024

/// Leaves the `count` greatest of `entries`, which are all different, in the order they have; `copy` is scratch of as many.
void fi_ops_keep_greatest(uint64_t *entries, int64_t size, int64_t count, uint64_t *copy);
/// Sorts, the greatest first; `copy` is scratch of as many.
void fi_ops_sort_descending(uint64_t *entries, int64_t count, uint64_t *copy);

/// One element of a row of float32, float16 or bfloat16, exactly.
float fi_ops_element(const void *row, int64_t i, fi_dtype t);

const fi_ops_kernels *fi_ops_scalar(void);
const fi_ops_kernels *fi_ops_neon(void);
const fi_ops_kernels *fi_ops_avx2(void);
const fi_ops_kernels *fi_ops_avx512(void);
