// Elements of every storage type: vectors of them between memory, packed registers and float32.
//
// A kernel loads all its vectors first, as packed words, and unpacks them afterwards: the loads are then in flight together.
//
// FI_GLOBAL_ONLY: defined where all addresses are of global memory, which the compiler cannot see of an integer: loads and stores are then
// known to have nothing to do with shared memory.
#pragma once

#include "primitives/scalar.cuh"

/// The storage types, numbered as `DType` is.
#define FI_FLOAT32 0
#define FI_FLOAT16 1
#define FI_BFLOAT16 2
#define FI_E4M3 3
#define FI_E5M2 4
#define FI_INT8 5

/// Bytes of one element.
static __host__ __device__ constexpr int fi_size(int type) { return type == FI_FLOAT32 ? 4 : type <= FI_BFLOAT16 ? 2 : 1; }

/// Elements that one thread takes at once: 16 bytes of the narrowest of the types.
static __host__ __device__ constexpr int fi_vector(int first, int second = FI_FLOAT32, int third = FI_FLOAT32, int fourth = FI_FLOAT32) {
    int size = fi_size(first);
    if (fi_size(second) < size) size = fi_size(second);
    if (fi_size(third) < size) size = fi_size(third);
    if (fi_size(fourth) < size) size = fi_size(fourth);
    return 16 / size;
}

// MARK: 8-bit types

/// e4m3 or e5m2 from float32 by integers alone: saturating, NaN kept. Normal results round by adding half a unit; for
/// subnormal ones a float addition does it, whose unit in the last place is the subnormal step.
template <int mantissa>
static __device__ __forceinline__ unsigned int fi_float8_bits(float x) {
    const int bias = mantissa == 3 ? 7 : 15;
    const int shift = 23 - mantissa;
    const unsigned int sign = (__float_as_uint(x) >> 24) & 0x80u;
    if (x != x) return sign | 0x7fu;
    const float magnitude = fminf(fabsf(x), mantissa == 3 ? 448.0f : 57344.0f);
    if (magnitude < (mantissa == 3 ? 0x1p-6f : 0x1p-14f)) {
        const float magic = mantissa == 3 ? 0x1p14f : 0x1p7f;
        return sign | (__float_as_uint(__fadd_rn(magnitude, magic)) - __float_as_uint(magic));
    }
    const unsigned int bits = __float_as_uint(magnitude);
    const unsigned int rounded = bits + ((1u << (shift - 1)) - 1u) + ((bits >> shift) & 1u);
    return sign | ((rounded >> shift) - ((unsigned int)(127 - bias) << mantissa));
}

/// float32 from e4m3: a multiplication rebases the exponent, which makes the subnormals right as well.
static __device__ __forceinline__ float fi_float_from_e4m3(unsigned int byte) {
    const unsigned int magnitude = byte & 0x7fu;
    const float value = __uint_as_float(magnitude << 20) * 0x1p120f;
    const unsigned int bits = magnitude == 0x7fu ? 0x7fc00000u : __float_as_uint(value);
    return __uint_as_float(bits | (byte & 0x80u) << 24);
}

/// float32 from e5m2: the upper byte of a float16.
static __device__ __forceinline__ float fi_float_from_e5m2(unsigned int byte) { return fi_float_from_f16(byte << 8); }

/// The nearest integer in -128 ... 127; 0 for NaN, as the conversion instruction has it.
static __device__ __forceinline__ unsigned int fi_int8_bits(float x) {
    const int nearest = __float2int_rn(x);
    return (unsigned int)(nearest < -128 ? -128 : nearest > 127 ? 127 : nearest) & 0xffu;
}

/// Two 8-bit elements, `low` in the lower byte.
template <int type>
static __device__ __forceinline__ unsigned int fi_bytes(float low, float high) {
    if constexpr (type == FI_INT8) {
        return fi_int8_bits(low) | fi_int8_bits(high) << 8;
    } else {
#ifdef FI_HAS_FP8_CONVERSION
        return type == FI_E4M3 ? fi_e4m3x2(low, high) : fi_e5m2x2(low, high);
#else
        constexpr int mantissa = type == FI_E4M3 ? 3 : 2;
        return fi_float8_bits<mantissa>(low) | fi_float8_bits<mantissa>(high) << 8;
#endif
    }
}

// MARK: packed vectors

/// `count` elements as they lie in memory, in 32-bit words; a lone narrow element in the low bits of one.
template <int type, int count>
struct fi_packed {
    static constexpr int bytes = fi_size(type) * count;
    static constexpr int words = (bytes + 3) / 4;
    unsigned int word[words];
};

/// The elements from `index` on of the tensor at `address`. Alignment: their bytes, or 16 where they are more.
template <int type, int count>
static __device__ __forceinline__ fi_packed<type, count> fi_load(unsigned long long address, long long index) {
    using packed = fi_packed<type, count>;
    packed result;
    const char *source = (const char *)address + index * fi_size(type);
#ifdef FI_GLOBAL_ONLY
    __builtin_assume(__isGlobal(source));
#endif
    if constexpr (packed::bytes == 1) {
        result.word[0] = *(const unsigned char *)source;
    } else if constexpr (packed::bytes == 2) {
        result.word[0] = *(const unsigned short *)source;
    } else if constexpr (packed::bytes == 4) {
        result.word[0] = *(const unsigned int *)source;
    } else if constexpr (packed::bytes == 8) {
        const uint2 part = *(const uint2 *)source;
        result.word[0] = part.x;
        result.word[1] = part.y;
    } else {
        static_assert(packed::bytes % 16 == 0, "vectors of whole 16-byte words");
#pragma unroll
        for (int i = 0; i < packed::words / 4; i++) {
            const uint4 part = ((const uint4 *)source)[i];
            result.word[4 * i] = part.x;
            result.word[4 * i + 1] = part.y;
            result.word[4 * i + 2] = part.z;
            result.word[4 * i + 3] = part.w;
        }
    }
    return result;
}

/// Stores what `fi_load` loads.
template <int type, int count>
static __device__ __forceinline__ void fi_store(
    unsigned long long address, long long index, const fi_packed<type, count> &value
) {
    using packed = fi_packed<type, count>;
    char *destination = (char *)address + index * fi_size(type);
#ifdef FI_GLOBAL_ONLY
    __builtin_assume(__isGlobal(destination));
#endif
    if constexpr (packed::bytes == 1) {
        *(unsigned char *)destination = (unsigned char)value.word[0];
    } else if constexpr (packed::bytes == 2) {
        *(unsigned short *)destination = (unsigned short)value.word[0];
    } else if constexpr (packed::bytes == 4) {
        *(unsigned int *)destination = value.word[0];
    } else if constexpr (packed::bytes == 8) {
        *(uint2 *)destination = make_uint2(value.word[0], value.word[1]);
    } else {
        static_assert(packed::bytes % 16 == 0, "vectors of whole 16-byte words");
#pragma unroll
        for (int i = 0; i < packed::words / 4; i++) {
            ((uint4 *)destination)[i] =
                make_uint4(value.word[4 * i], value.word[4 * i + 1], value.word[4 * i + 2], value.word[4 * i + 3]);
        }
    }
}

/// The same at an address that the compiler is told to be of global memory whatever the index, which it forgets of element 0 elsewhere.
template <int type, int count>
static __device__ __forceinline__ fi_packed<type, count> fi_load_global(unsigned long long address) {
    using packed = fi_packed<type, count>;
    static_assert(packed::bytes % 16 == 0, "vectors of whole 16-byte words");
    const uint4 *source = (const uint4 *)__cvta_global_to_generic((size_t)address);
    packed result;
#pragma unroll
    for (int i = 0; i < packed::words / 4; i++) {
        const uint4 part = source[i];
        result.word[4 * i] = part.x, result.word[4 * i + 1] = part.y;
        result.word[4 * i + 2] = part.z, result.word[4 * i + 3] = part.w;
    }
    return result;
}

/// Stores what `fi_load_global` loads.
template <int type, int count>
static __device__ __forceinline__ void fi_store_global(unsigned long long address, const fi_packed<type, count> &value) {
    static_assert(fi_packed<type, count>::bytes % 16 == 0, "vectors of whole 16-byte words");
    uint4 *destination = (uint4 *)__cvta_global_to_generic((size_t)address);
#pragma unroll
    for (int i = 0; i < fi_packed<type, count>::words / 4; i++) {
        destination[i] =
            make_uint4(value.word[4 * i], value.word[4 * i + 1], value.word[4 * i + 2], value.word[4 * i + 3]);
    }
}

/// The elements as float32, exactly.
template <int type, int count>
static __device__ __forceinline__ void fi_unpack(const fi_packed<type, count> &packed, float (&x)[count]) {
#pragma unroll
    for (int i = 0; i < count; i++) {
        if constexpr (type == FI_FLOAT32) {
            x[i] = __uint_as_float(packed.word[i]);
        } else if constexpr (fi_size(type) == 2) {
            const unsigned int word = packed.word[i / 2];
            if constexpr (type == FI_BFLOAT16) {
                x[i] = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
            } else {
                x[i] = fi_float_from_f16((i % 2 == 0 ? word : word >> 16) & 0xffffu);
            }
        } else {
            const unsigned int byte = (packed.word[i / 4] >> (8 * (i % 4))) & 0xffu;
            if constexpr (type == FI_E4M3) {
                x[i] = fi_float_from_e4m3(byte);
            } else if constexpr (type == FI_E5M2) {
                x[i] = fi_float_from_e5m2(byte);
            } else {
                x[i] = (float)(signed char)byte;
            }
        }
    }
}

/// The nearest elements, ties to even; 8-bit types saturate.
template <int type, int count>
static __device__ __forceinline__ fi_packed<type, count> fi_pack(const float (&x)[count]) {
    fi_packed<type, count> packed;
#pragma unroll
    for (int w = 0; w < fi_packed<type, count>::words; w++) {
        if constexpr (type == FI_FLOAT32) {
            packed.word[w] = __float_as_uint(x[w]);
        } else if constexpr (fi_size(type) == 2) {
            const float high = count > 1 ? x[(2 * w + 1) % count] : 0.0f;
            packed.word[w] = type == FI_BFLOAT16 ? fi_bf16x2(x[2 * w], high) : fi_f16x2(x[2 * w], high);
        } else if constexpr (count == 1) {
            packed.word[w] = fi_bytes<type>(x[0], 0.0f);
        } else {
            unsigned int word = fi_bytes<type>(x[4 * w], x[(4 * w + 1) % count]);
            if constexpr (count > 2) word |= fi_bytes<type>(x[(4 * w + 2) % count], x[(4 * w + 3) % count]) << 16;
            packed.word[w] = word;
        }
    }
    return packed;
}

/// Loads and unpacks: where there is nothing to overlap.
template <int type, int count>
static __device__ __forceinline__ void fi_read(unsigned long long address, long long index, float (&x)[count]) {
    fi_unpack<type, count>(fi_load<type, count>(address, index), x);
}

/// Packs and stores.
template <int type, int count>
static __device__ __forceinline__ void fi_write(unsigned long long address, long long index, const float (&x)[count]) {
    fi_store<type, count>(address, index, fi_pack<type, count>(x));
}
