// Products of a warpgroup of e4m3 elements (wgmma): 64 rows, N columns, 32 elements deep, sums as those of hopper/wgmma.cuh.
//
// Rows of both operands hold what is multiplied over: there is no transposed operand of 8 bits. In registers, a lane has of the left
// operand a[0] = (row lane / 4, columns 4 (lane % 4) to + 3), a[1] = row + 8, a[2], a[3] = columns + 16.
//
// The tensor cores add with fewer bits than float32 has: measurements by others (DeepSeek-V3, arXiv 2412.19437, section 3.3.2) find
// sums cut to some 14 bits with every product, so long sums are to be ended from time to time.
#pragma once
#include "hopper/wgmma.cuh"

#define FI_WGMMA_E4M3(N, SUMS, LIST, P0, P1, P2, P3, P4, P5)                                                                        \
    FI_DEVICE void wgmma_e4m3(float (&c)[N / 8][4], uint64 a, uint64 b, bool adds) {                                                \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P2 ", 0;\n"                                                                \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" SUMS "}, " P0 ", " P1 ", p, 1, 1;\n}\n"           \
                     : LIST : "l"(a), "l"(b), "r"(static_cast<int>(adds)));                                                         \
    }                                                                                                                               \
    FI_DEVICE void wgmma_e4m3(float (&c)[N / 8][4], const uint32 (&a)[4], uint64 b, bool adds) {                                    \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P5 ", 0;\n"                                                                \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" SUMS "}, {" P0 "," P1 "," P2 "," P3 "}, " P4      \
                     ", p, 1, 1;\n}\n"                                                                                              \
                     : LIST : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));                     \
    }
FI_WGMMA_E4M3(64, FI_SUMS_32, FI_LIST(FI_32(c, 0)), "%32", "%33", "%34", "%35", "%36", "%37")
FI_WGMMA_E4M3(96, FI_SUMS_48, FI_LIST(FI_32(c, 0), FI_FOUR(c, 8), FI_FOUR(c, 9), FI_FOUR(c, 10), FI_FOUR(c, 11)), "%48", "%49", "%50", "%51", "%52", "%53")
FI_WGMMA_E4M3(128, FI_SUMS_64, FI_LIST(FI_32(c, 0), FI_32(c, 8)), "%64", "%65", "%66", "%67", "%68", "%69")
FI_WGMMA_E4M3(192, FI_SUMS_96, FI_LIST(FI_32(c, 0), FI_32(c, 8), FI_32(c, 16)), "%96", "%97", "%98", "%99", "%100", "%101")
FI_WGMMA_E4M3(256, FI_SUMS_128, FI_LIST(FI_32(c, 0), FI_32(c, 8), FI_32(c, 16), FI_32(c, 24)), "%128", "%129", "%130", "%131",
              "%132", "%133")

/// Rows of 32, 64 or 128 bytes, whose chunks of 16 are swizzled as the copy engine and wgmma have them: eight rows' worth of one column
/// lie in different banks.
template <int bytes> struct SwizzledRows {
    static_assert(bytes == 32 || bytes == 64 || bytes == 128, "rows are as long as a swizzle is wide");
    FI_DEVICE uint32 offset(int row, int chunk) { return row * bytes + ((chunk ^ row / (128 / bytes) % (bytes / 16)) << 4); }
    /// The operand at an address.
    FI_DEVICE uint64 operand(uint32 address) {
        return static_cast<uint64>(bytes == 128 ? 1 : bytes == 64 ? 2 : 3) << 62 | static_cast<uint64>(8 * bytes >> 4) << 32 | 1 << 16
               | (address & 0x3ffff) >> 4;
    }
};
