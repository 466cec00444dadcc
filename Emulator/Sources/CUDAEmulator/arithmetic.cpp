// Integers, floats, comparisons, selections, moves.

#include <cfenv>
#include <chrono>
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

// Operations. NaN in one operand of min and max gives the other, as the hardware does.
template <class T>
using Unsigned = std::make_unsigned_t<T>;

struct Add {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return (T)((Unsigned<T>)a + (Unsigned<T>)b);
        else return a + b;
    }
};
struct Sub {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return (T)((Unsigned<T>)a - (Unsigned<T>)b);
        else return a - b;
    }
};
struct Mul {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return (T)((uint64_t)a * (uint64_t)b);
        else return a * b;
    }
};
struct MulHigh {
    template <class T>
    T operator()(T a, T b) const {
        using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
        return (T)((Wide)a * (Wide)b >> 8 * sizeof(T));
    }
};
struct Div {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) {
            if (b == 0) return (T)-1;
            if constexpr (std::is_signed_v<T>) {
                if (b == -1) return (T)(0 - (Unsigned<T>)a);
            }
        }
        return a / b;
    }
};
struct Rem {
    template <class T>
    T operator()(T a, T b) const {
        if (b == 0) return a;
        if constexpr (std::is_signed_v<T>) {
            if (b == -1) return 0;
        }
        return a % b;
    }
};
struct Min {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return a < b ? a : b;
        else return (T)__builtin_fmin(a, b);
    }
};
struct Max {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return a > b ? a : b;
        else return (T)__builtin_fmax(a, b);
    }
};
/// `max.NaN`: NaN where one of the operands is.
struct MaxOrNaN {
    float operator()(float a, float b) const { return a != a || b != b ? __builtin_nanf("") : __builtin_fmaxf(a, b); }
};
struct And {
    template <class T>
    T operator()(T a, T b) const { return a & b; }
};
struct Or {
    template <class T>
    T operator()(T a, T b) const { return a | b; }
};
struct Xor {
    template <class T>
    T operator()(T a, T b) const { return a ^ b; }
};

template <class T, class F>
void two(Warp &warp, const Instruction &i, uint32_t mask) {
    binary<T, T, T>(warp, i, mask, F());
}

template <class T>
void shift_left(Warp &warp, const Instruction &i, uint32_t mask) {
    binary<T, T, uint32_t>(warp, i, mask, [](T a, uint32_t b) { return b >= 8 * sizeof(T) ? (T)0 : (T)(a << b); });
}
template <class T>
void shift_right(Warp &warp, const Instruction &i, uint32_t mask) {
    binary<T, T, uint32_t>(warp, i, mask, [](T a, uint32_t b) {
        if (b >= 8 * sizeof(T)) return a < 0 ? (T)-1 : (T)0;
        return (T)(a >> b);
    });
}
template <class T, class Wide>
void multiply_wide(Warp &warp, const Instruction &i, uint32_t mask) {
    binary<Wide, T, T>(warp, i, mask, [](T a, T b) { return (Wide)a * (Wide)b; });
}
template <class T>
void multiply_add(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<T, T, T, T>(warp, i, mask, [](T a, T b, T c) { return (T)((uint64_t)a * (uint64_t)b + (uint64_t)c); });
}
template <class T>
void multiply_add_high(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<T, T, T, T>(warp, i, mask, [](T a, T b, T c) { return (T)((Unsigned<T>)MulHigh()(a, b) + (Unsigned<T>)c); });
}
template <class T, class Wide>
void multiply_add_wide(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<Wide, T, T, Wide>(warp, i, mask, [](T a, T b, Wide c) {
        return (Wide)((Unsigned<Wide>)((Wide)a * (Wide)b) + (Unsigned<Wide>)c);
    });
}
template <class T>
void fused(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<T, T, T, T>(warp, i, mask, [](T a, T b, T c) {
        if constexpr (sizeof(T) == 4) return __builtin_fmaf(a, b, c);
        else return __builtin_fma(a, b, c);
    });
}

/// The same with another rounding than to the nearest.
template <Handler handler, int rounding>
void rounded(Warp &warp, const Instruction &i, uint32_t mask) {
    const int before = fegetround();
    fesetround(rounding);
    handler(warp, i, mask);
    fesetround(before);
}

template <class T>
void negate(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) {
        if constexpr (std::is_integral_v<T>) return (T)(0 - (Unsigned<T>)a);
        else return -a;
    });
}
template <class T>
void absolute(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) {
        if constexpr (std::is_integral_v<T>) return a < 0 ? (T)(0 - (Unsigned<T>)a) : a;
        else return (T)__builtin_fabs(a);
    });
}
template <class T>
void complement(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) { return (T)~a; });
}
template <class T>
void move(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) { return a; });
}

template <class T, float (*f)(float)>
void approximate(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) { return (T)f((float)a); });
}
float two_to(float x) { return exp2f(x); }
float logarithm(float x) { return log2f(x); }
float root(float x) { return sqrtf(x); }
float reciprocal(float x) { return 1 / x; }
float reciprocal_root(float x) { return (float)(1 / sqrt((double)x)); }
float sine(float x) { return sinf(x); }
float cosine(float x) { return cosf(x); }
float tangent(float x) { return tanhf(x); }

void root_double(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<double, double>(warp, i, mask, [](double a) { return sqrt(a); });
}
void reciprocal_double(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<double, double>(warp, i, mask, [](double a) { return 1 / a; });
}
template <class T>
void copy_sign(Warp &warp, const Instruction &i, uint32_t mask) {
    binary<T, T, T>(warp, i, mask, [](T a, T b) { return (T)__builtin_copysign(b, a); });
}

// Pairs of 16-bit floats.
template <class E>
E narrowed(float x) {
    if constexpr (std::is_same_v<E, bfloat16>) return to_bfloat16(x);
    else return (E)x;
}
template <class E, int operation>
void packed(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<uint32_t, uint32_t, uint32_t, uint32_t>(warp, i, mask, [](uint32_t a, uint32_t b, uint32_t c) {
        E x[2], y[2], z[2], r[2];
        memcpy(x, &a, 4);
        memcpy(y, &b, 4);
        memcpy(z, &c, 4);
        for (int n = 0; n < 2; n++) {
            const float u = (float)x[n], v = (float)y[n];
            // Products of 16-bit floats are exact in float64, and so is the sum but for its last rounding.
            if (operation == 0) r[n] = narrowed<E>(u + v);
            if (operation == 1) r[n] = narrowed<E>(u * v);
            if (operation == 2) r[n] = narrowed<E>((float)((double)u * (double)v + (double)(float)z[n]));
            if (operation == 3) r[n] = narrowed<E>(u - v);
            if (operation == 4) r[n] = narrowed<E>(__builtin_fmaxf(u, v));
            if (operation == 5) r[n] = narrowed<E>(__builtin_fminf(u, v));
        }
        uint32_t result;
        memcpy(&result, r, 4);
        return result;
    });
}

template <int what>
void predicates(Warp &warp, const Instruction &i, uint32_t mask) {
    const uint32_t a = warp.predicate(i.a), b = what < 3 ? warp.predicate(i.b) : 0;
    const uint32_t result = what == 0 ? a & b : what == 1 ? a | b : what == 2 ? a ^ b : what == 3 ? ~a : a;
    uint32_t &d = warp.predicate(i.d);
    d = (d & ~mask) | (result & mask);
}

template <class T>
void select(Warp &warp, const Instruction &i, uint32_t mask) {
    const uint32_t chosen = warp.predicate(i.c);
    T *d = warp.lanes<T>(i.d);
    const T *a = warp.lanes<T>(i.a), *b = warp.lanes<T>(i.b);
    for_lanes(mask, [&](int lane) { d[lane] = chosen >> lane & 1 ? a[lane] : b[lane]; });
}

enum Comparison : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

template <class T>
bool compare(Comparison how, T a, T b) {
    bool unordered = false;
    if constexpr (!std::is_integral_v<T>) unordered = a != a || b != b;
    switch (how) {
    case eq: return !unordered && a == b;
    case ne: return !unordered && a != b;
    case lt: return a < b;
    case le: return a <= b;
    case gt: return a > b;
    case ge: return a >= b;
    case equ: return unordered || a == b;
    case neu: return unordered || a != b;
    case ltu: return unordered || a < b;
    case leu: return unordered || a <= b;
    case gtu: return unordered || a > b;
    case geu: return unordered || a >= b;
    case num: return !unordered;
    case nan: return unordered;
    }
    return false;
}

template <class T>
void set_predicate(Warp &warp, const Instruction &i, uint32_t mask) {
    const T *a = warp.lanes<T>(i.a), *b = warp.lanes<T>(i.b);
    uint32_t result = 0;
    for (int lane = 0; lane < 32; lane++) result |= (uint32_t)compare((Comparison)i.mode, a[lane], b[lane]) << lane;
    uint32_t other = ~result;
    if (i.count) {
        const uint32_t c = i.size ? ~warp.predicate(i.c) : warp.predicate(i.c);
        result = i.count == 1 ? result & c : i.count == 2 ? result | c : result ^ c;
        other = i.count == 1 ? other & c : i.count == 2 ? other | c : other ^ c;
    }
    uint32_t &d = warp.predicate(i.d);
    d = (d & ~mask) | (result & mask);
    if (i.d2.size) {
        uint32_t &d2 = warp.predicate(i.d2);
        d2 = (d2 & ~mask) | (other & mask);
    }
}

// Which instance a type asks for.
template <class F>
Handler by_type(Type type) {
    switch (type.kind) {
    case 'f':
        if constexpr (!std::is_same_v<F, Rem> && !std::is_same_v<F, MulHigh> && !std::is_same_v<F, And> &&
                      !std::is_same_v<F, Or> && !std::is_same_v<F, Xor>) {
            if (type.bytes == 2) return two<half, F>;
            return type.bytes == 4 ? two<float, F> : two<double, F>;
        }
        return nullptr;
    case 's': return type.bytes == 2 ? two<int16_t, F> : type.bytes == 4 ? two<int32_t, F> : two<int64_t, F>;
    default: return type.bytes == 2 ? two<uint16_t, F> : type.bytes == 4 ? two<uint32_t, F> : two<uint64_t, F>;
    }
}

Handler with_rounding(Decoder &decoder, Handler nearest, Handler down, Handler up, Handler zero) {
    if (decoder.statement().has("rm")) return down;
    if (decoder.statement().has("rp")) return up;
    if (decoder.statement().has("rz")) return zero;
    return nearest;
}
#define ROUNDED(decoder, ...) \
    with_rounding(decoder, __VA_ARGS__, rounded<__VA_ARGS__, FE_DOWNWARD>, rounded<__VA_ARGS__, FE_UPWARD>, rounded<__VA_ARGS__, FE_TOWARDZERO>)

bool decode_packed(Decoder &decoder, Instruction &i) {
    const bool is_half = decoder.statement().has("f16x2");
    if (!is_half && !decoder.statement().has("bf16x2")) return false;
    const std::string &op = decoder.statement().parts[0];
    static const char *const names[] = {"add", "mul", "fma", "sub", "max", "min"};
    static const Handler halves[] = {packed<half, 0>, packed<half, 1>, packed<half, 2>, packed<half, 3>, packed<half, 4>, packed<half, 5>};
    static const Handler brains[] = {packed<bfloat16, 0>, packed<bfloat16, 1>, packed<bfloat16, 2>,
                                     packed<bfloat16, 3>, packed<bfloat16, 4>, packed<bfloat16, 5>};
    for (int n = 0; n < 6; n++) {
        if (op != names[n]) continue;
        i.handler = is_half ? halves[n] : brains[n];
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 4);
        i.b = decoder.source(2, 4);
        i.c = n == 2 ? decoder.source(3, 4) : i.b;
        return true;
    }
    return false;
}

bool decode_predicate(Decoder &decoder, Instruction &i, const std::string &op) {
    if (op == "and") i.handler = predicates<0>;
    else if (op == "or") i.handler = predicates<1>;
    else if (op == "xor") i.handler = predicates<2>;
    else if (op == "not") i.handler = predicates<3>;
    else if (op == "mov") i.handler = predicates<4>;
    else return false;
    i.d = decoder.destination(0, 4);
    i.a = decoder.predicate(1);
    if (decoder.count() > 2) i.b = decoder.predicate(2);
    return true;
}

bool decode_setp(Decoder &decoder, Instruction &i, Type type) {
    static const char *const names[] = {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
    static const char *const unsigned_names[] = {"lo", "ls", "hi", "hs"};
    static const Comparison unsigned_comparisons[] = {lt, le, gt, ge};
    const std::string &how = decoder.statement().parts[1];
    bool found = false;
    for (uint8_t n = 0; n < 14; n++) {
        if (how == names[n]) i.mode = n, found = true;
    }
    for (int n = 0; n < 4; n++) {
        if (how == unsigned_names[n]) i.mode = unsigned_comparisons[n], found = true;
    }
    if (!found) decoder.unknown("unknown comparison");
    std::string first = decoder.operand(0);
    const size_t bar = first.find('|');
    if (bar != std::string::npos) {
        i.d2 = decoder.destination(std::string(trimmed(first.substr(bar + 1))), 4);
        first = std::string(trimmed(first.substr(0, bar)));
    }
    i.d = decoder.destination(first, 4);
    i.a = decoder.source(1, type.bytes);
    i.b = decoder.source(2, type.bytes);
    if (decoder.count() > 3) {
        i.count = decoder.statement().has("and") ? 1 : decoder.statement().has("or") ? 2 : 3;
        std::string third = decoder.operand(3);
        if (third[0] == '!') {
            i.size = 1;
            third.erase(0, 1);
        }
        i.c = decoder.source(third, 4);
    }
    if (type.is_float()) {
        i.handler = type.bytes == 2 ? set_predicate<half> : type.bytes == 4 ? set_predicate<float> : set_predicate<double>;
    } else {
        i.handler = BY_INTEGER(set_predicate, type);
    }
    return true;
}

bool decode_approximate(Decoder &decoder, Instruction &i, const std::string &op, Type type) {
    if (type.bytes == 8) {
        if (op == "sqrt") i.handler = root_double;
        else if (op == "rcp") i.handler = reciprocal_double;
        else return false;
    } else if (op == "ex2") i.handler = type.bytes == 2 ? approximate<half, two_to> : approximate<float, two_to>;
    else if (op == "lg2") i.handler = approximate<float, logarithm>;
    else if (op == "sqrt") i.handler = approximate<float, root>;
    else if (op == "rcp") i.handler = approximate<float, reciprocal>;
    else if (op == "rsqrt") i.handler = approximate<float, reciprocal_root>;
    else if (op == "sin") i.handler = approximate<float, sine>;
    else if (op == "cos") i.handler = approximate<float, cosine>;
    else if (op == "tanh") i.handler = type.bytes == 2 ? approximate<half, tangent> : approximate<float, tangent>;
    else return false;
    i.d = decoder.destination(0, type.bytes);
    i.a = decoder.source(1, type.bytes);
    return true;
}

/// `mov.b32 %r, {%rs1, %rs2}` and its reverse.
void join(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        uint64_t bits = 0;
        for (size_t n = 0; n < i.list.size(); n++) {
            uint64_t part = 0;
            memcpy(&part, warp.registers + i.list[n].offset + lane * i.list[n].size, i.size);
            bits |= part << 8 * i.size * n;
        }
        warp.write(i.d, lane, bits);
    });
}
void split(Warp &warp, const Instruction &i, uint32_t mask) {
    for_lanes(mask, [&](int lane) {
        uint64_t bits = 0;
        memcpy(&bits, warp.registers + i.a.offset + lane * i.a.size, i.a.size);
        for (size_t n = 0; n < i.list.size(); n++) {
            const uint64_t part = bits >> 8 * i.size * n & (i.size == 8 ? ~0ull : (1ull << 8 * i.size) - 1);
            warp.write(i.list[n], lane, part);
        }
    });
}

/// `%globaltimer`, which is looked at when the instruction runs: kernels that wait for others' launches bound it so.
void clock(Warp &warp, const Instruction &i, uint32_t mask) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const uint64_t nanoseconds = (uint64_t)std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
    for_lanes(mask, [&](int lane) { warp.write(i.d, lane, nanoseconds); });
}

bool decode_move(Decoder &decoder, Instruction &i, Type type) {
    if (decoder.operand(0)[0] == '{') {
        const std::vector<std::string> parts = decoder.elements(0);
        i.size = (uint8_t)(type.bytes / parts.size());
        for (const std::string &part : parts) i.list.push_back(decoder.destination(part, i.size));
        i.a = decoder.source(1, type.bytes);
        i.handler = split;
    } else if (decoder.operand(1)[0] == '{') {
        const std::vector<std::string> parts = decoder.elements(1);
        i.size = (uint8_t)(type.bytes / parts.size());
        for (const std::string &part : parts) i.list.push_back(decoder.source(part, i.size));
        i.d = decoder.destination(0, type.bytes);
        i.handler = join;
    } else if (decoder.operand(1) == "%globaltimer") {
        i.d = decoder.destination(0, type.bytes);
        i.handler = clock;
    } else {
        i.d = decoder.destination(0, type.bytes);
        i.a = decoder.source(1, type.bytes);
        i.handler = BY_SIZE(move, type);
    }
    return true;
}

}  // namespace

bool decode_arithmetic(Decoder &decoder, Instruction &i) {
    const std::string &op = decoder.statement().parts[0];
    if (decode_packed(decoder, i)) return true;
    if (decoder.types().empty()) return false;
    const Type type = decoder.type();
    if (op == "setp") return decode_setp(decoder, i, type);
    if (type.kind == 'p') return decode_predicate(decoder, i, op);
    if (op == "mov") return decode_move(decoder, i, type);
    if (decode_approximate(decoder, i, op, type)) return true;
    unsigned sources = 2, d_bytes = type.bytes, b_bytes = type.bytes, c_bytes = type.bytes;
    const bool wide = decoder.statement().has("wide"), high = decoder.statement().has("hi");
    if (op == "add") i.handler = type.kind == 'f' && type.bytes == 4 ? ROUNDED(decoder, two<float, Add>) : by_type<Add>(type);
    else if (op == "sub") i.handler = type.kind == 'f' && type.bytes == 4 ? ROUNDED(decoder, two<float, Sub>) : by_type<Sub>(type);
    else if (op == "mul" && wide) {
        d_bytes *= 2;
        if (type.bytes == 2) i.handler = type.is_signed() ? (Handler)multiply_wide<int16_t, int32_t> : multiply_wide<uint16_t, uint32_t>;
        else i.handler = type.is_signed() ? (Handler)multiply_wide<int32_t, int64_t> : multiply_wide<uint32_t, uint64_t>;
    } else if (op == "mul" && high) i.handler = by_type<MulHigh>(type);
    else if (op == "mul") i.handler = type.kind == 'f' && type.bytes == 4 ? ROUNDED(decoder, two<float, Mul>) : by_type<Mul>(type);
    else if (op == "div") i.handler = type.kind == 'f' && type.bytes == 4 ? ROUNDED(decoder, two<float, Div>) : by_type<Div>(type);
    else if (op == "rem") i.handler = by_type<Rem>(type);
    else if (op == "min") i.handler = by_type<Min>(type);
    else if (op == "max" && decoder.statement().has("NaN")) {
        if (type.kind != 'f' || type.bytes != 4) return false;
        i.handler = two<float, MaxOrNaN>;
    } else if (op == "max") i.handler = by_type<Max>(type);
    else if (op == "and") i.handler = by_type<And>(type);
    else if (op == "or") i.handler = by_type<Or>(type);
    else if (op == "xor") i.handler = by_type<Xor>(type);
    else if (op == "shl") i.handler = BY_SIZE(shift_left, type), b_bytes = 4;
    else if (op == "shr") i.handler = BY_INTEGER(shift_right, type), b_bytes = 4;
    else if (op == "copysign") i.handler = type.bytes == 4 ? copy_sign<float> : copy_sign<double>;
    else if (op == "selp") {
        i.handler = BY_SIZE(select, type);
        i.d = decoder.destination(0, type.bytes);
        i.a = decoder.source(1, type.bytes);
        i.b = decoder.source(2, type.bytes);
        i.c = decoder.predicate(3);
        return true;
    } else if (op == "neg" || op == "abs" || op == "not") {
        sources = 1;
        if (op == "not") i.handler = BY_SIZE(complement, type);
        else if (type.is_float()) {
            if (op == "neg") i.handler = type.bytes == 4 ? (Handler)negate<float> : negate<double>;
            else i.handler = type.bytes == 4 ? (Handler)absolute<float> : absolute<double>;
        } else if (op == "neg") i.handler = type.bytes == 2 ? (Handler)negate<int16_t> : type.bytes == 4 ? negate<int32_t> : negate<int64_t>;
        else i.handler = type.bytes == 2 ? (Handler)absolute<int16_t> : type.bytes == 4 ? absolute<int32_t> : absolute<int64_t>;
    } else if (op == "mad" || op == "fma") {
        sources = 3;
        if (type.is_float()) i.handler = type.bytes == 4 ? ROUNDED(decoder, fused<float>) : fused<double>;
        else if (wide) {
            d_bytes = c_bytes = type.bytes * 2;
            if (type.bytes == 2) i.handler = type.is_signed() ? (Handler)multiply_add_wide<int16_t, int32_t> : multiply_add_wide<uint16_t, uint32_t>;
            else i.handler = type.is_signed() ? (Handler)multiply_add_wide<int32_t, int64_t> : multiply_add_wide<uint32_t, uint64_t>;
        } else if (high) i.handler = type.is_signed() ? (Handler)multiply_add_high<int32_t> : multiply_add_high<uint32_t>;
        else i.handler = BY_INTEGER(multiply_add, type);
    } else return false;
    if (!i.handler) return false;
    i.d = decoder.destination(0, d_bytes);
    i.a = decoder.source(1, type.bytes);
    if (sources > 1) i.b = decoder.source(2, b_bytes);
    if (sources > 2) i.c = decoder.source(3, c_bytes);
    return true;
}

}  // namespace emulator

#if defined(__x86_64__)
#pragma clang attribute pop
#endif
