// Conversions between float32, the tensor cores' 16-bit floats, and the cache's 8-bit types.
#pragma once
#include "primitives/mma.cuh"

/// Two floats, rounded to nearest even, `low` in the low half.
template <Half type> FI_DEVICE uint32 pack(float low, float high) {
    uint32 r;
    if constexpr (type == Half::float16) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    }
    return r;
}

/// A 16-bit float's value.
template <Half type> FI_DEVICE float unpack(uint16 bits) {
    if constexpr (type == Half::float16) {
        float r;
        asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
        return r;
    } else {
        return __uint_as_float(static_cast<uint32>(bits) << 16);
    }
}

/// What a cache stores, beside the queries' own 16-bit type.
enum class Narrow { none, e4m3, e5m2, int8 };

/// (x & mask) | bits.
FI_DEVICE uint32 mask_or(uint32 x, uint32 mask, uint32 bits) { return (x & mask) | bits; }

/// a · b + c of two bfloat16 (there is no product alone before compute capability 9.0).
FI_DEVICE uint32 fma_bfloat16(uint32 a, uint32 b, uint32 c) {
    uint32 r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

FI_DEVICE uint32 add_float16(uint32 a, uint32 b) {
    uint32 r;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/// Two 8-bit elements, in the high bytes of the halves of `y`, as 16-bit floats: moved bits, exponents rebased by a product.
///
/// Floats are read as finite: the patterns of NaN and infinity, which the cache's append never writes, give large numbers.
template <Half type, Narrow from> FI_DEVICE uint32 widen_high_bytes(uint32 y) {
    if constexpr (type == Half::float16) {
        if constexpr (from == Narrow::e5m2) return y & 0xff00ff00;
        // The exponent's bias is 8 less than float16's: the result is 2^-8 of the stored number.
        if constexpr (from == Narrow::e4m3) return mask_or(y, 0x80008000, (y >> 1) & 0x3f803f80);
    } else {
        constexpr uint32 minus_zero = 0x80008000;
        if constexpr (from == Narrow::e5m2)
            return fma_bfloat16(mask_or(y, 0x80008000, (y >> 3) & 0x0fe00fe0), 0x77807780 /* 2^112 */, minus_zero);
        if constexpr (from == Narrow::e4m3)
            return fma_bfloat16(mask_or(y, 0x80008000, (y >> 4) & 0x07f007f0), 0x7b807b80 /* 2^120 */, minus_zero);
    }
    return 0;
}

/// Two signed bytes, in the low bytes of the halves of `y`, as 16-bit floats.
template <Half type> FI_DEVICE uint32 widen_low_integers(uint32 y) {
    // 1024 + (i + 128) and 128 + (i's low seven bits) have their integers in the last bits of the mantissa.
    if constexpr (type == Half::float16) return add_float16((y & 0x00ff00ff) ^ 0x64806480, 0xe480e480 /* -1152 */);
    return fma_bfloat16(mask_or(y, 0x007f007f, 0x43004300), 0x3f803f80, mask_or(y, 0x00800080, 0xc300c300));
}

/// Four 8-bit elements as 16-bit floats: bytes 0 and 2 in `even`, 1 and 3 in `odd`.
template <Half type, Narrow from> FI_DEVICE void widen(uint32 x, uint32 &even, uint32 &odd) {
    if constexpr (from == Narrow::int8) {
        even = widen_low_integers<type>(x);
        odd = widen_low_integers<type>(x >> 8);
    } else {
        even = widen_high_bytes<type, from>(x << 8);
        odd = widen_high_bytes<type, from>(x);
    }
}

/// Four e4m3 as bfloat16 in the order in which they lie: bytes 0 and 1 in `low`, 2 and 3 in `high`.
///
/// Each byte is spread to 16 bits with copies of its sign, of which a shift leaves one where bfloat16 has it.
FI_DEVICE void widen_e4m3_bfloat16(uint32 x, uint32 &low, uint32 &high) {
    constexpr uint32 kept = 0x87f087f0, rebase = 0x7b807b80 /* 2^120 */, minus_zero = 0x80008000;
    // __byte_perm has no selectors of signs.
    uint32 first, second;
    asm("prmt.b32 %0, %1, 0, 0x9180;" : "=r"(first) : "r"(x));
    asm("prmt.b32 %0, %1, 0, 0xb3a2;" : "=r"(second) : "r"(x));
    low = fma_bfloat16(first << 4 & kept, rebase, minus_zero);
    high = fma_bfloat16(second << 4 & kept, rebase, minus_zero);
}

/// The same as float16, of values that products of float16 take whatever the queries' type is: exact, in half the instructions or fewer.
///
/// One instruction widens two neighbouring e4m3 on compute capability 8.9 and up; there NaN stays NaN.
template <Narrow from> FI_DEVICE void widen_to_float16(uint32 x, uint32 &even, uint32 &odd) {
#if __CUDA_ARCH__ >= 890
    if constexpr (from == Narrow::e4m3) {
        const uint32 sorted = __byte_perm(x, 0, 0x3120);
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(even) : "h"(static_cast<uint16>(sorted)));
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(odd) : "h"(static_cast<uint16>(sorted >> 16)));
        return;
    }
#endif
    widen<Half::float16, from>(x, even, odd);
}

/// Four 8-bit elements as float16 in the order in which they lie: bytes 0 and 1 in `first`, 2 and 3 in `second`. Exact, as above.
template <Narrow from> FI_DEVICE void widen_neighbours(uint32 x, uint32 &first, uint32 &second) {
    if constexpr (from == Narrow::e4m3) {
#if __CUDA_ARCH__ >= 890
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(first) : "h"(static_cast<uint16>(x)));
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(second) : "h"(static_cast<uint16>(x >> 16)));
#endif
    } else if constexpr (from == Narrow::e5m2) {
        first = __byte_perm(x, 0, 0x1404), second = __byte_perm(x, 0, 0x3424);
    } else {
        first = widen_low_integers<Half::float16>(__byte_perm(x, 0, 0x4140));
        second = widen_low_integers<Half::float16>(__byte_perm(x, 0, 0x4342));
    }
}
