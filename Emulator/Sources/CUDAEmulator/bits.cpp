// Instructions that look at numbers as bits: permutations, fields, counts, funnel shifts.

#include <type_traits>

#include "decoder.h"
#include "lanes.h"

namespace emulator {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

void permute(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<uint32_t, uint32_t, uint32_t, uint32_t>(warp, i, mask, [](uint32_t a, uint32_t b, uint32_t c) {
        const uint64_t all = (uint64_t)b << 32 | a;
        uint32_t result = 0;
        for (int n = 0; n < 4; n++) {
            const uint32_t selector = c >> 4 * n & 15;
            uint32_t byte = all >> 8 * (selector & 7) & 255;
            if (selector & 8) byte = byte & 128 ? 255 : 0;
            result |= byte << 8 * n;
        }
        return result;
    });
}
void logic(Warp &warp, const Instruction &i, uint32_t mask) {
    const unsigned table = (unsigned)i.immediate;
    ternary<uint32_t, uint32_t, uint32_t, uint32_t>(warp, i, mask, [=](uint32_t a, uint32_t b, uint32_t c) {
        uint32_t result = 0;
        for (int n = 0; n < 8; n++) {
            if (table >> n & 1) result |= (n & 4 ? a : ~a) & (n & 2 ? b : ~b) & (n & 1 ? c : ~c);
        }
        return result;
    });
}
template <bool left, bool wraps>
void funnel(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<uint32_t, uint32_t, uint32_t, uint32_t>(warp, i, mask, [](uint32_t a, uint32_t b, uint32_t c) {
        const uint32_t n = wraps ? c & 31 : c > 32 ? 32 : c;
        const uint64_t all = (uint64_t)b << 32 | a;
        return left ? (uint32_t)(all << n >> 32) : (uint32_t)(all >> n);
    });
}
template <class T>
void extract_bits(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<T, T, uint32_t, uint32_t>(warp, i, mask, [](T a, uint32_t b, uint32_t c) {
        const unsigned position = b & 255, length = c & 255, bits = 8 * sizeof(T);
        if (length == 0) return (T)0;
        using U = Unsigned<T>;
        const U all = position >= bits ? 0 : (U)a >> position;
        const U field = length >= bits ? all : all & (((U)1 << length) - 1);
        if constexpr (std::is_signed_v<T>) {
            const unsigned top = position + length - 1 < bits - 1 ? position + length - 1 : bits - 1;
            if ((U)a >> top & 1 && length < bits) return (T)(field | ~(((U)1 << length) - 1));
        }
        return (T)field;
    });
}
template <class T>
void insert_bits(Warp &warp, const Instruction &i, uint32_t mask) {
    T *d = warp.lanes<T>(i.d);
    const T *a = warp.lanes<T>(i.a), *b = warp.lanes<T>(i.b);
    const uint32_t *c = warp.lanes<uint32_t>(i.c), *e = warp.lanes<uint32_t>(i.list[0]);
    for_lanes(mask, [&](int lane) {
        const unsigned position = c[lane] & 255, length = e[lane] & 255, bits = 8 * sizeof(T);
        const T field = length >= bits ? ~(T)0 : (((T)1 << length) - 1);
        const T place = position >= bits ? 0 : field << position;
        d[lane] = (b[lane] & ~place) | (position >= bits ? 0 : (a[lane] << position) & place);
    });
}
template <class T, int what>
void count_bits(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<uint32_t, T>(warp, i, mask, [](T a) -> uint32_t {
        const int bits = 8 * sizeof(T);
        const int zeros = a == 0 ? bits : __builtin_clzll(a) - (64 - bits);
        if (what == 0) return (uint32_t)__builtin_popcountll(a);
        if (what == 1) return (uint32_t)zeros;
        // The highest bit's place, or how far it is from the top.
        if (a == 0) return 0xffffffffu;
        return what == 2 ? (uint32_t)(bits - 1 - zeros) : (uint32_t)zeros;
    });
}
template <class T>
void reverse_bits(Warp &warp, const Instruction &i, uint32_t mask) {
    unary<T, T>(warp, i, mask, [](T a) {
        if constexpr (sizeof(T) == 4) return __builtin_bitreverse32(a);
        else return __builtin_bitreverse64(a);
    });
}
template <class A, class B>
void dot4(Warp &warp, const Instruction &i, uint32_t mask) {
    ternary<uint32_t, uint32_t, uint32_t, uint32_t>(warp, i, mask, [](uint32_t a, uint32_t b, uint32_t c) {
        for (int n = 0; n < 4; n++) c += (uint32_t)((int)(A)(a >> 8 * n) * (int)(B)(b >> 8 * n));
        return c;
    });
}

}  // namespace

bool decode_bits(Decoder &decoder, Instruction &i) {
    const std::string &op = decoder.statement().parts[0];
    if (decoder.types().empty()) return false;
    const Type type = decoder.type();
    unsigned sources = 3;
    if (op == "prmt") i.handler = permute;
    else if (op == "lop3") {
        i.handler = logic;
        i.immediate = strtoll(decoder.operand(4).c_str(), nullptr, 0);
    } else if (op == "shf") {
        const bool wraps = decoder.statement().has("wrap");
        if (decoder.statement().has("l")) i.handler = wraps ? funnel<true, true> : funnel<true, false>;
        else i.handler = wraps ? funnel<false, true> : funnel<false, false>;
    } else if (op == "bfe") i.handler = BY_INTEGER(extract_bits, type);
    else if (op == "bfi") {
        i.handler = type.bytes == 4 ? insert_bits<uint32_t> : insert_bits<uint64_t>;
        i.list = {decoder.source(4, 4)};
    } else if (op == "popc") i.handler = type.bytes == 4 ? count_bits<uint32_t, 0> : count_bits<uint64_t, 0>, sources = 1;
    else if (op == "clz") i.handler = type.bytes == 4 ? count_bits<uint32_t, 1> : count_bits<uint64_t, 1>, sources = 1;
    else if (op == "bfind") {
        sources = 1;
        if (type.kind == 's') decoder.unknown("signed bfind");
        if (decoder.statement().has("shiftamt")) i.handler = type.bytes == 4 ? count_bits<uint32_t, 3> : count_bits<uint64_t, 3>;
        else i.handler = type.bytes == 4 ? count_bits<uint32_t, 2> : count_bits<uint64_t, 2>;
    } else if (op == "brev") i.handler = type.bytes == 4 ? reverse_bits<uint32_t> : reverse_bits<uint64_t>, sources = 1;
    else if (op == "dp4a") {
        const std::vector<Type> types = decoder.types();
        if (types[0].is_signed()) i.handler = types[1].is_signed() ? dot4<int8_t, int8_t> : dot4<int8_t, uint8_t>;
        else i.handler = types[1].is_signed() ? dot4<uint8_t, int8_t> : dot4<uint8_t, uint8_t>;
    } else return false;
    const bool is_field = op == "bfe";
    i.d = decoder.destination(0, op == "bfe" || op == "bfi" || op == "brev" ? type.bytes : 4);
    i.a = decoder.source(1, type.bytes);
    if (sources > 1) i.b = decoder.source(2, is_field ? 4 : type.bytes);
    if (sources > 2) i.c = decoder.source(3, 4);
    return true;
}

}  // namespace emulator
