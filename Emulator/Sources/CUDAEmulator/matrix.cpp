// Matrix instructions: of a warp (ldmatrix, stmatrix, mma) and of four (wgmma). A warp does its own 16 rows of a wgmma, at once:
// what is not emulated is that the hardware does them later, so a missing wait does not show here.

#include <type_traits>

#include "decoder.h"
#include "lanes.h"
#include "numbers.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#endif

namespace emulator {
namespace {

/// Rows of eight 16-bit numbers; lane 8 n + r has the address of row r of matrix n.
template <bool transposed>
void load_matrices(Warp &warp, const Instruction &i, uint32_t) {
    for (size_t n = 0; n < i.list.size(); n++) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; row++) {
            const int lane = (int)n * 8 + row;
            const uint64_t base = i.a.size == 4 ? warp.lanes<uint32_t>(i.a)[lane] : warp.lanes<uint64_t>(i.a)[lane];
            const uint64_t address = base + (uint64_t)i.immediate;
            if (address % 16) throw Fault("misaligned row of a matrix");
            memcpy(matrix[row], shared_address(warp, address, 16), 16);
        }
        uint32_t *d = warp.lanes<uint32_t>(i.list[n]);
        for (int lane = 0; lane < 32; lane++) {
            const int row = lane / 4, column = lane % 4 * 2;
            d[lane] = transposed ? matrix[column][row] | (uint32_t)matrix[column + 1][row] << 16
                                 : matrix[row][column] | (uint32_t)matrix[row][column + 1] << 16;
        }
    }
}

/// A matrix of 16-bit numbers, transposed: lane 4 r + c has two of row r.
void move_matrix(Warp &warp, const Instruction &i, uint32_t) {
    uint16_t matrix[8][8];
    const uint32_t *s = warp.lanes<uint32_t>(i.a);
    for (int lane = 0; lane < 32; lane++) {
        matrix[lane / 4][lane % 4 * 2] = (uint16_t)s[lane];
        matrix[lane / 4][lane % 4 * 2 + 1] = (uint16_t)(s[lane] >> 16);
    }
    uint32_t *d = warp.lanes<uint32_t>(i.d);
    for (int lane = 0; lane < 32; lane++) {
        const int row = lane / 4, column = lane % 4 * 2;
        d[lane] = matrix[column][row] | (uint32_t)matrix[column + 1][row] << 16;
    }
}

template <bool transposed>
void store_matrices(Warp &warp, const Instruction &i, uint32_t) {
    for (size_t n = 0; n < i.list.size(); n++) {
        uint16_t matrix[8][8];
        const uint32_t *s = warp.lanes<uint32_t>(i.list[n]);
        for (int lane = 0; lane < 32; lane++) {
            const int row = lane / 4, column = lane % 4 * 2;
            (transposed ? matrix[column][row] : matrix[row][column]) = (uint16_t)s[lane];
            (transposed ? matrix[column + 1][row] : matrix[row][column + 1]) = (uint16_t)(s[lane] >> 16);
        }
        for (int row = 0; row < 8; row++) {
            const int lane = (int)n * 8 + row;
            const uint64_t base = i.a.size == 4 ? warp.lanes<uint32_t>(i.a)[lane] : warp.lanes<uint64_t>(i.a)[lane];
            memcpy(shared_address(warp, base + (uint64_t)i.immediate, 16), matrix[row], 16);
        }
    }
}

enum Format : uint8_t { f16, bf16, e4m3, e5m2, s8, u8 };

unsigned bytes_of(uint8_t format) { return format <= bf16 ? 2 : 1; }

float widened(uint8_t format, const void *at) {
    switch (format) {
    case f16: {
        half value;
        memcpy(&value, at, 2);
        return (float)value;
    }
    case bf16: {
        bfloat16 value;
        memcpy(&value, at, 2);
        return (float)value;
    }
    case e4m3: return from_float8(*(const uint8_t *)at, 4);
    case e5m2: return from_float8(*(const uint8_t *)at, 5);
    case s8: return *(const int8_t *)at;
    default: return *(const uint8_t *)at;
    }
}

bool format_of(const std::string &name, uint8_t &format) {
    static const char *const names[] = {"f16", "bf16", "e4m3", "e5m2", "s8", "u8"};
    for (uint8_t n = 0; n < 6; n++) {
        if (name == names[n]) {
            format = n;
            return true;
        }
    }
    return false;
}

/// The fragment of 16 rows by 32 bytes that lanes hold in four registers, as floats.
void a_fragment(const Warp &warp, const Slot *slots, int registers, uint8_t format, float *rows, int width) {
    const int per = 4 / (int)bytes_of(format);
    for (int lane = 0; lane < 32; lane++) {
        for (int n = 0; n < registers; n++) {
            const uint32_t bits = warp.lanes<uint32_t>(slots[n])[lane];
            const int row = lane / 4 + (n % 2) * 8, column = lane % 4 * per + (n / 2) * 4 * per;
            for (int e = 0; e < per; e++) {
                rows[row * width + column + e] = widened(format, (const uint8_t *)&bits + e * bytes_of(format));
            }
        }
    }
}

/// d = a · b + c, of 16 x 8 results; `i.size` k, `i.mode` and `i.count` the formats of a and b; list: d, a, b, c.
template <class Sum>
void multiply(Warp &warp, const Instruction &i, uint32_t) {
    const int k = i.size, per = 4 / (int)bytes_of(i.mode);
    const int a_registers = k / per / 4 * 2, b_registers = k / per / 4;
    const Slot *d = i.list.data(), *as = d + 4, *bs = as + a_registers, *cs = bs + b_registers;
    float a[16 * 64], b[64 * 8];
    a_fragment(warp, as, a_registers, i.mode, a, k);
    for (int lane = 0; lane < 32; lane++) {
        for (int n = 0; n < b_registers; n++) {
            const uint32_t bits = warp.lanes<uint32_t>(bs[n])[lane];
            for (int e = 0; e < per; e++) {
                const int row = lane % 4 * per + n * 4 * per + e;
                b[row * 8 + lane / 4] = widened(i.count, (const uint8_t *)&bits + e * bytes_of(i.count));
            }
        }
    }
    Sum result[4][32];
    for (int lane = 0; lane < 32; lane++) {
        for (int n = 0; n < 4; n++) {
            const int row = lane / 4 + n / 2 * 8, column = lane % 4 * 2 + n % 2;
            Sum sum = 0;
            for (int at = 0; at < k; at++) sum += (Sum)a[row * k + at] * (Sum)b[at * 8 + column];
            result[n][lane] = sum + warp.lanes<Sum>(cs[n])[lane];
        }
    }
    for (int n = 0; n < 4; n++) memcpy(warp.lanes<Sum>(d[n]), result[n], sizeof result[n]);
}

/// A matrix in shared memory as a wgmma descriptor gives it.
struct Descriptor {
    uint32_t start, leading, stride;
    unsigned swizzle_bytes;

    explicit Descriptor(uint64_t bits) {
        start = (uint32_t)(bits & 0x3fff) << 4;
        leading = (uint32_t)(bits >> 16 & 0x3fff) << 4;
        stride = (uint32_t)(bits >> 32 & 0x3fff) << 4;
        static const unsigned widths[] = {16, 128, 64, 32};
        swizzle_bytes = widths[bits >> 62];
    }

    /// Where byte `along` of row `row` is: rows of a swizzle's width, eight to a group, groups `stride` apart. What is further
    /// along than a width is `leading` further.
    uint32_t place(unsigned row, unsigned along) const {
        uint32_t address = start + row / 8 * stride + row % 8 * swizzle_bytes + along / swizzle_bytes * leading + along % swizzle_bytes;
        // The bits above the row's number turn the 16-byte chunks.
        const uint32_t turn = (swizzle_bytes / 16) - 1;
        return address ^ ((address >> 7 & turn) << 4);
    }
};

/// `i.size` k, `i.count` n / 8, `i.mode` the format; `i.immediate`: bit 0 a transposed, 1 b transposed, 2 a in shared memory,
/// 3 and 4 a and b negated. d: list; a: `i.a` or the last four of the list; b: `i.b`; scale: predicate `i.c`.
void multiply_group(Warp &warp, const Instruction &i, uint32_t mask) {
    if (mask != 0xffffffffu) throw Fault("a warp group's product by part of a warp");
    const int k = i.size, n = i.count * 8, bytes = (int)bytes_of(i.mode);
    const bool a_shared = i.immediate & 4, a_transposed = i.immediate & 1, b_transposed = i.immediate & 2;
    static thread_local float a[16 * 32], b[32 * 256], sums[16 * 256];
    const int row0 = (int)(warp.index % 4) * 16;
    auto element = [&](const Descriptor &from, bool transposed, int outer, int inner) {
        // Transposed: rows are along k, and a row's bytes along the other dimension.
        const uint32_t at = transposed ? from.place((unsigned)inner, (unsigned)(outer * bytes))
                                       : from.place((unsigned)outer, (unsigned)(inner * bytes));
        return widened(i.mode, shared_address(warp, at, (uint64_t)bytes));
    };
    if (a_shared) {
        const Descriptor from(warp.lanes<uint64_t>(i.a)[0]);
        for (int row = 0; row < 16; row++) {
            for (int at = 0; at < k; at++) a[row * k + at] = element(from, a_transposed, row0 + row, at);
        }
    } else {
        a_fragment(warp, i.list.data() + 4 * i.count, 4, i.mode, a, k);
    }
    const Descriptor from(warp.lanes<uint64_t>(i.b)[0]);
    for (int column = 0; column < n; column++) {
        for (int at = 0; at < k; at++) b[at * n + column] = element(from, b_transposed, column, at);
    }
    for (int row = 0; row < 16; row++) {
        float *sum = sums + row * n;
        for (int column = 0; column < n; column++) sum[column] = 0;
        for (int at = 0; at < k; at++) {
            float scale = a[row * k + at];
            if (((i.immediate >> 3) ^ (i.immediate >> 4)) & 1) scale = -scale;
            const float *own = b + at * n;
            for (int column = 0; column < n; column++) sum[column] += scale * own[column];
        }
    }
    const bool adds = warp.predicate(i.c) & 1;
    for (int r = 0; r < 4 * i.count; r++) {
        float *d = warp.lanes<float>(i.list[(size_t)r]);
        for (int lane = 0; lane < 32; lane++) {
            const int row = lane / 4 + r % 4 / 2 * 8, column = r / 4 * 8 + lane % 4 * 2 + r % 2;
            d[lane] = sums[row * n + column] + (adds ? d[lane] : 0.0f);
        }
    }
}

/// The numbers of `m64n128k16`.
bool shape(const Statement &statement, int &n, int &k) {
    int m;
    for (const std::string &part : statement.parts) {
        if (part[0] == 'm' && sscanf(part.c_str(), "m%dn%dk%d", &m, &n, &k) == 3) return true;
    }
    return false;
}

void nothing(Warp &, const Instruction &, uint32_t) {}

bool decode_group(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    i.kind = Kind::collective;
    i.members = decoder.source("-1", 4);
    if (statement.parts[1] != "mma_async") {
        i.handler = nothing;
        return true;
    }
    int n = 0, k = 0;
    if (!shape(statement, n, k)) return false;
    const size_t last = statement.parts.size() - 1;
    uint8_t b_format;
    if (!format_of(statement.parts[last - 1], i.mode) || !format_of(statement.parts[last], b_format)) return false;
    if (statement.parts[last - 2] != "f32" || b_format != i.mode) decoder.unknown("formats");
    i.size = (uint8_t)k;
    i.count = (uint8_t)(n / 8);
    for (const std::string &element : decoder.elements(0)) i.list.push_back(decoder.destination(element, 4));
    if (i.list.size() != 4u * i.count) decoder.unknown("wrong number of results");
    size_t next = 1;
    if (decoder.operand(1)[0] == '{') {
        for (const std::string &element : decoder.elements(1)) i.list.push_back(decoder.source(element, 4));
    } else {
        i.immediate |= 4;
        i.a = decoder.source(1, 8);
    }
    i.b = decoder.source(2, 8);
    i.c = decoder.predicate(3);
    next = 4;
    auto flag = [&] { return next < decoder.count() ? atoi(decoder.operand(next++).c_str()) : 0; };
    if (flag() < 0) i.immediate |= 8;
    if (flag() < 0) i.immediate |= 16;
    if (bytes_of(i.mode) == 2) {
        if ((i.immediate & 4) && flag()) i.immediate |= 1;
        if (flag()) i.immediate |= 2;
    }
    i.handler = multiply_group;
    return true;
}

}  // namespace

bool decode_matrix(Decoder &decoder, Instruction &i) {
    const Statement &statement = decoder.statement();
    const std::string &op = statement.parts[0];
    if (op == "wgmma") return decode_group(decoder, i);
    if (op == "ldmatrix" || op == "stmatrix") {
        if (!statement.has("b16")) return false;
        i.kind = Kind::collective;
        i.members = decoder.source("-1", 4);
        const bool loads = op == "ldmatrix", transposed = statement.has("trans");
        decoder.address(loads ? 1 : 0, i);
        for (const std::string &element : decoder.elements(loads ? 0 : 1)) {
            i.list.push_back(loads ? decoder.destination(element, 4) : decoder.source(element, 4));
        }
        if (loads) i.handler = transposed ? load_matrices<true> : load_matrices<false>;
        else i.handler = transposed ? store_matrices<true> : store_matrices<false>;
        return true;
    }
    if (op == "movmatrix") {
        if (!statement.has("trans") || !statement.has("b16")) return false;
        i.kind = Kind::collective;
        i.members = decoder.source("-1", 4);
        i.d = decoder.destination(0, 4);
        i.a = decoder.source(1, 4);
        i.handler = move_matrix;
        return true;
    }
    if (op == "mma") {
        int n = 0, k = 0;
        if (!shape(statement, n, k) || n != 8) return false;
        // …row.col.d.a.b.c
        const size_t last = statement.parts.size() - 1;
        if (!format_of(statement.parts[last - 2], i.mode) || !format_of(statement.parts[last - 1], i.count)) return false;
        const bool is_integer = i.mode >= s8;
        if (statement.parts[last] != (is_integer ? "s32" : "f32")) decoder.unknown("formats");
        i.kind = Kind::collective;
        i.members = decoder.source("-1", 4);
        i.size = (uint8_t)k;
        for (size_t index = 0; index < 4; index++) {
            for (const std::string &element : decoder.elements(index)) {
                i.list.push_back(index == 0 ? decoder.destination(element, 4) : decoder.source(element, 4));
            }
        }
        i.handler = is_integer ? multiply<int32_t> : multiply<float>;
        return true;
    }
    return false;
}

}  // namespace emulator

#if defined(__x86_64__)
#pragma clang attribute pop
#endif
