/// What one thread of this machine can do at most, for kernels to be compared with.
#pragma once

#include <stdint.h>

#include "cuda_ceilings.h"

/// Floating-point operations that `ceiling_fma32(iterations)` does.
double ceiling_fma32_operations(int64_t iterations);

/// Chains of float32 fused multiply-adds on registers, as wide as the machine has. Returns a value that depends on all.
float ceiling_fma32(int64_t iterations);

/// Floating-point operations that `ceiling_bf16_dot(iterations)` does; 0 where the machine has no such instruction.
double ceiling_bf16_dot_operations(int64_t iterations);

/// Chains of bfloat16 dot products on registers.
float ceiling_bf16_dot(int64_t iterations);

/// Reads `count` bytes (a multiple of 512) and returns a value that depends on all.
uint64_t ceiling_read(const void *bytes, int64_t count);
