// The few names that every kernel uses. No CUDA header is included anywhere: NVRTC knows the vector types and the math
// functions by itself, and everything else is inline PTX in this folder.
#pragma once

#define FI_DEVICE static __device__ __forceinline__

typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;
typedef unsigned long long uint64;
typedef long long int64;

constexpr int warp_size = 32;

/// a / b, rounded up.
FI_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// a, rounded up to a multiple of b.
FI_DEVICE constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }

/// -infinity.
FI_DEVICE float negative_infinity() { return __int_as_float(0xff800000); }

/// A device address as a pointer.
template <class T> FI_DEVICE T *pointer(uint64 address) { return reinterpret_cast<T *>(address); }
