// Conversions between types, of one number and of pairs.

#include <cmath>
#include <limits>
#include <type_traits>

#include "decoder.h"
#include "lanes.h"
#include "numbers.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#endif

namespace emulator {
namespace {

enum Rounding : uint8_t { none, nearest, zero, down, up };

double rounded(double value, uint8_t how) {
    switch (how) {
    case nearest: return nearbyint(value);
    case zero: return trunc(value);
    case down: return floor(value);
    case up: return ceil(value);
    default: return value;
    }
}

/// Kept within the integer's range, NaN being 0.
template <class T>
T clamped(double value) {
    if (value != value) return 0;
    // The greatest 64-bit integers are no doubles; what is at or above the next power of two is cut.
    const double limit = ldexp(1.0, (int)(8 * sizeof(T)) - (std::is_signed_v<T> ? 1 : 0));
    if (value >= limit) return std::numeric_limits<T>::max();
    const double least = std::is_signed_v<T> ? -limit : 0.0;
    if (value < least) return std::numeric_limits<T>::min();
    return (T)value;
}

/// `i.mode` is the rounding to an integer, `i.count` whether the result is kept in [0, 1] or in the integer's range.
template <class D, class S>
void convert(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        const S value = warp.read<S>(i.a, lane);
        uint64_t bits = 0;
        if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
            D result = (D)value;
            if (i.count) {
                const __int128 wide = value;
                const __int128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
                result = (D)(wide < low ? low : wide > high ? high : wide);
            }
            bits = (uint64_t)(int64_t)result;
            if constexpr (!std::is_signed_v<D>) bits = (uint64_t)result;
        } else if constexpr (std::is_integral_v<D>) {
            const D result = clamped<D>(rounded((double)value, i.mode ? i.mode : (uint8_t)zero));
            bits = (uint64_t)(int64_t)result;
            if constexpr (!std::is_signed_v<D>) bits = (uint64_t)result;
        } else {
            D result;
            if constexpr (std::is_same_v<D, bfloat16>) {
                result = to_bfloat16((float)value);
            } else if constexpr (std::is_integral_v<S>) {
                result = (D)value;
            } else if constexpr (sizeof(D) == 2 && sizeof(S) == 2) {
                result = (D)(float)value;
            } else {
                double exact = (double)value;
                if (i.mode) exact = rounded(exact, i.mode);
                result = i.mode || sizeof(D) == 8 ? (D)exact : (D)value;
                if (i.count) result = result >= (D)0 ? (result > (D)1 ? (D)1 : result) : (D)0;
            }
            memcpy(&bits, &result, sizeof result);
        }
        warp.write(i.d, lane, bits);
    });
}

template <class D>
Handler from(const std::string &source) {
    if (source == "f16") return convert<D, half>;
    if (source == "bf16") return convert<D, bfloat16>;
    if (source == "f32") return convert<D, float>;
    if constexpr (!std::is_same_v<D, bfloat16>) {
        if (source == "f64") return convert<D, double>;
        if (source == "u8") return convert<D, uint8_t>;
        if (source == "s8") return convert<D, int8_t>;
        if (source == "u16") return convert<D, uint16_t>;
        if (source == "s16") return convert<D, int16_t>;
        if (source == "u32") return convert<D, uint32_t>;
        if (source == "s32") return convert<D, int32_t>;
        if (source == "u64") return convert<D, uint64_t>;
        if (source == "s64") return convert<D, int64_t>;
    }
    return nullptr;
}

Handler conversion(const std::string &to, const std::string &source) {
    if (to == "f16") return from<half>(source);
    if (to == "bf16") return from<bfloat16>(source);
    if (to == "f32") return from<float>(source);
    if (to == "f64") return from<double>(source);
    if (to == "u8") return from<uint8_t>(source);
    if (to == "s8") return from<int8_t>(source);
    if (to == "u16") return from<uint16_t>(source);
    if (to == "s16") return from<int16_t>(source);
    if (to == "u32") return from<uint32_t>(source);
    if (to == "s32") return from<int32_t>(source);
    if (to == "u64") return from<uint64_t>(source);
    if (to == "s64") return from<int64_t>(source);
    return nullptr;
}

/// Pairs; the first source is the upper half.
template <int to>
void pack(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        const float high = warp.lanes<float>(i.a)[lane], low = warp.lanes<float>(i.b)[lane];
        uint32_t bits = 0;
        if constexpr (to == 0) {
            const half pair[2] = {(half)low, (half)high};
            memcpy(&bits, pair, 4);
        } else if constexpr (to == 1) {
            bits = (uint32_t)to_bfloat16(high).bits << 16 | to_bfloat16(low).bits;
        } else {
            bits = (uint32_t)to_float8(high, to) << 8 | to_float8(low, to);
        }
        warp.write(i.d, lane, bits);
    });
}

template <int exponent_bits>
void unpack_float8(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        const uint16_t pair = warp.read<uint16_t>(i.a, lane);
        const half values[2] = {(half)from_float8(pair & 255, exponent_bits), (half)from_float8(pair >> 8, exponent_bits)};
        uint32_t bits;
        memcpy(&bits, values, 4);
        warp.write(i.d, lane, bits);
    });
}

}  // namespace

bool decode_conversion(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    if (statement.parts[0] == "cvta") {
        // A shared address is counted from the block's first byte, a generic one is the host's.
        const Type type = decoder.type();
        if (type.bytes != 8) decoder.unknown("32-bit addresses");
        i.d = decoder.destination(0, 8);
        i.a = decoder.source(1, 8);
        if (!statement.has("shared")) {
            i.handler = [](Warp &warp, const Instruction &i, uint32_t mask) {
                unary<uint64_t, uint64_t>(warp, i, mask, [](uint64_t a) { return a; });
            };
        } else if (statement.has("to")) {
            i.handler = [](Warp &warp, const Instruction &i, uint32_t mask) {
                const uint64_t base = (uint64_t)(uintptr_t)warp.block->shared;
                unary<uint64_t, uint64_t>(warp, i, mask, [=](uint64_t a) { return a - base; });
            };
        } else {
            i.handler = [](Warp &warp, const Instruction &i, uint32_t mask) {
                const uint64_t base = (uint64_t)(uintptr_t)warp.block->shared;
                unary<uint64_t, uint64_t>(warp, i, mask, [=](uint64_t a) { return a + base; });
            };
        }
        return true;
    }
    if (statement.parts[0] != "cvt") return false;
    std::string source = statement.parts.back(), to = statement.parts[statement.parts.size() - 2];
    if (source == "f32" && (to == "f16x2" || to == "bf16x2" || to == "e4m3x2" || to == "e5m2x2")) {
        i.handler = to == "f16x2" ? pack<0> : to == "bf16x2" ? pack<1> : to == "e4m3x2" ? pack<4> : pack<5>;
        i.d = decoder.destination(0, to[0] == 'e' ? 2 : 4);
        i.a = decoder.source(1, 4);
        i.b = decoder.source(2, 4);
        return true;
    }
    if (to == "f16x2") {
        i.handler = source == "e4m3x2" ? unpack_float8<4> : source == "e5m2x2" ? unpack_float8<5> : nullptr;
        if (!i.handler) return false;
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 2);
        return true;
    }
    i.handler = conversion(to, source);
    if (!i.handler) return false;
    i.mode = statement.has("rni") ? nearest : statement.has("rzi") ? zero : statement.has("rmi") ? down : statement.has("rpi") ? up : none;
    if (statement.has("rz") || statement.has("rm") || statement.has("rp")) decoder.unknown("rounding of a conversion");
    i.count = statement.has("sat") || statement.has("satfinite");
    Type to_type, source_type;
    if (!parse_type(to == "bf16" ? "b16" : to, to_type) || !parse_type(source == "bf16" ? "b16" : source, source_type)) return false;
    i.d = decoder.destination(0, to_type.bytes);
    i.a = decoder.source(1, source_type.bytes);
    return true;
}

}  // namespace emulator

#if defined(__x86_64__)
#pragma clang attribute pop
#endif
