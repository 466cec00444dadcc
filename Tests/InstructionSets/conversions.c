/// Conversions between float32 and narrow types: the same bits on every instruction set.
#include "check.h"

#include <string.h>

/// Any bits at all, NaNs and infinities among them, and the neighbourhoods of powers of two.
static void fill_bits(float *x, int count) {
    for (int i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)next_bits();
        if (below(3) == 0) bits = (bits & 0x80000000u) | (uint32_t)(below(255) << 23) | (uint32_t)below(4) << 12 | (bits & 3);
        // Magnitudes that narrow types have.
        if (below(2) == 0) bits = (bits & 0x807fffffu) | (uint32_t)(127 - 30 + below(60)) << 23;
        memcpy(x + i, &bits, 4);
    }
}

#define CHECK_NARROW(NAME, TYPE, ...) \
    begin_case(level, NAME, "%d numbers", n); \
    { \
        TYPE *a = room((size_t)n * sizeof(TYPE), sizeof(TYPE)), *b = room((size_t)n * sizeof(TYPE), sizeof(TYPE)); \
        TYPE *out = a; const fi_convert_kernels *k = own; __VA_ARGS__; \
        out = b; k = other; __VA_ARGS__; \
        expect_same(NAME, a, b, (size_t)n * sizeof(TYPE)); \
    }

void check_conversions(fi_isa isa, const char *level) {
    const fi_convert_kernels *own = fi_convert_table(isa), *other = fi_convert_table(FI_ISA_SCALAR);
    // Where a level has no conversions of its own there is nothing to compare.
    if (own == NULL) return;
    for (int n = 0; n < 150; n = n < 40 ? n + 1 : n + 37) {
        float *x = room((size_t)n * 4, 4);
        uint16_t *halves = room((size_t)n * 2, 2);
        uint8_t *bytes = room((size_t)n, 1);
        fill_bits(x, n);
        for (int i = 0; i < n; i++) halves[i] = (uint16_t)next_bits(), bytes[i] = (uint8_t)next_bits();
        CHECK_NARROW("f16_from_f32", uint16_t, k->f16_from_f32(x, n, out))
        CHECK_NARROW("bf16_from_f32", uint16_t, k->bf16_from_f32(x, n, out))
        CHECK_NARROW("e4m3_from_f32", uint8_t, k->e4m3_from_f32(x, n, false, out))
        CHECK_NARROW("e4m3_from_f32, saturating", uint8_t, k->e4m3_from_f32(x, n, true, out))
        CHECK_NARROW("e5m2_from_f32", uint8_t, k->e5m2_from_f32(x, n, false, out))
        CHECK_NARROW("e5m2_from_f32, saturating", uint8_t, k->e5m2_from_f32(x, n, true, out))
        CHECK_NARROW("i8_from_f32", int8_t, k->i8_from_f32(x, n, 12.5f, out))
        CHECK_NARROW("f32_from_f16", float, k->f32_from_f16(halves, n, out))
        CHECK_NARROW("f32_from_bf16", float, k->f32_from_bf16(halves, n, out))
        CHECK_NARROW("f32_from_e4m3", float, k->f32_from_e4m3(bytes, n, out))
        CHECK_NARROW("f32_from_e5m2", float, k->f32_from_e5m2(bytes, n, out))
        CHECK_NARROW("f32_from_i8", float, k->f32_from_i8((const int8_t *)bytes, n, 0.3f, out))
        leave_rooms();
    }
}
