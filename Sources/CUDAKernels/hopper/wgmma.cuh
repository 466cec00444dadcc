// Products of a warpgroup on the tensor cores (wgmma): 64 rows, N columns, 16 elements deep, 16-bit operands, float32 sums.
//
// Sums lie in registers as those of mma.m16n8k16 do, a warp having 16 of the 64 rows: c[n][0], c[n][1] = (row lane / 4, columns
// 8n + 2 (lane % 4), + 1), c[n][2], c[n][3] = row + 8.
#pragma once
#include "primitives/mma.cuh"

/// Before the first product of registers that were written.
FI_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FI_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most the `pending` newest groups of products are under way.
template <int pending> FI_DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }

/// Where an operand lies in shared memory: 128-byte rows, swizzled, eight rows `eights` bytes apart from the next eight.
///
/// `columns` is how far apart blocks of 64 elements of the other dimension are, where rows are what is multiplied over.
FI_DEVICE uint64 operand(uint32 address, uint32 columns = 16, uint32 eights = 1024) {
    return static_cast<uint64>(1) << 62 | static_cast<uint64>(eights >> 4) << 32 | static_cast<uint64>(columns >> 4) << 16
           | (address & 0x3ffff) >> 4;
}
/// The operand `bytes` further on.
FI_DEVICE uint64 advance_operand(uint64 operand, int bytes) { return operand + (bytes >> 4); }

// Operand lists of the instructions, by their number of sums.
#define FI_SUMS_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define FI_SUMS_32 FI_SUMS_16 "," \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define FI_SUMS_40 FI_SUMS_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define FI_SUMS_48 FI_SUMS_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define FI_SUMS_64 FI_SUMS_32 "," \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define FI_SUMS_96 FI_SUMS_64 "," \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define FI_SUMS_128 FI_SUMS_96 "," \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define FI_FOUR(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define FI_32(c, n) \
    FI_FOUR(c, n), FI_FOUR(c, n + 1), FI_FOUR(c, n + 2), FI_FOUR(c, n + 3), FI_FOUR(c, n + 4), FI_FOUR(c, n + 5), FI_FOUR(c, n + 6),\
        FI_FOUR(c, n + 7)
// Of products whose sums start: what was there is no operand, so that nothing has to keep it.
#define FI_FOUR_NEW(c, n) "=f"(c[n][0]), "=f"(c[n][1]), "=f"(c[n][2]), "=f"(c[n][3])
#define FI_32_NEW(c, n) \
    FI_FOUR_NEW(c, n), FI_FOUR_NEW(c, n + 1), FI_FOUR_NEW(c, n + 2), FI_FOUR_NEW(c, n + 3), FI_FOUR_NEW(c, n + 4), FI_FOUR_NEW(c, n + 5),  \
        FI_FOUR_NEW(c, n + 6), FI_FOUR_NEW(c, n + 7)

/// A type's name in instructions.
template <Half type> struct HalfName { static constexpr char text[] = "bf16"; };
template <> struct HalfName<Half::float16> { static constexpr char text[] = "f16"; };

// c = a · b, or c += a · b: with both operands in shared memory, or a in registers. `transposes` says whether each row of b is an element that is
// multiplied over, and not a column of c. What differs by type or form are operands, as every text here is parsed for every kernel.
#define FI_WGMMA_SHARED(N, SUMS, LIST, A, B, ADDS, TRANS, TYPE)                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADDS ", 0;\n"                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, " A ", " B ", p, 1, 1, 0, " TRANS ";\n}\n" \
                 : LIST : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(transposes), "C"(HalfName<type>::text))
#define FI_WGMMA_REGISTERS(N, SUMS, LIST, A0, A1, A2, A3, B, ADDS, TRANS, TYPE)                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADDS ", 0;\n"                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, {" A0 "," A1 "," A2 "," A3 "}, " B    \
                 ", p, 1, 1, " TRANS ";\n}\n"                                                                                      \
                 : LIST : FI_ROW(a), "l"(b), "r"(static_cast<int>(adds)), "n"(transposes), "C"(HalfName<type>::text))
#define FI_ROW(a) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
#define FI_LIST(...) __VA_ARGS__
#define FI_WGMMA(N, SUMS, LIST, P0, P1, P2, P3, P4, P5, P6, P7)                                                                     \
    template <Half type, bool transposes> FI_DEVICE void wgmma_shared(float (&c)[N / 8][4], uint64 a, uint64 b, bool adds) {        \
        FI_WGMMA_SHARED(N, SUMS, FI_LIST(LIST), P0, P1, P2, P3, P4);                                                                \
    }                                                                                                                               \
    template <Half type, bool transposes> FI_DEVICE void wgmma_held(float (&c)[N / 8][4], const uint32 (&a)[4], uint64 b, bool adds) { \
        FI_WGMMA_REGISTERS(N, SUMS, FI_LIST(LIST), P0, P1, P2, P3, P4, P5, P6, P7);                                                 \
    }
FI_WGMMA(32, FI_SUMS_16, FI_LIST(FI_FOUR(c, 0), FI_FOUR(c, 1), FI_FOUR(c, 2), FI_FOUR(c, 3)), "%16", "%17", "%18", "%19", "%20", "%21", "%22", "%23")
FI_WGMMA(64, FI_SUMS_32, FI_LIST(FI_32(c, 0)), "%32", "%33", "%34", "%35", "%36", "%37", "%38", "%39")
FI_WGMMA(80, FI_SUMS_40, FI_LIST(FI_32(c, 0), FI_FOUR(c, 8), FI_FOUR(c, 9)), "%40", "%41", "%42", "%43", "%44", "%45", "%46", "%47")
FI_WGMMA(128, FI_SUMS_64, FI_LIST(FI_32(c, 0), FI_32(c, 8)), "%64", "%65", "%66", "%67", "%68", "%69", "%70", "%71")
FI_WGMMA(192, FI_SUMS_96, FI_LIST(FI_32(c, 0), FI_32(c, 8), FI_32(c, 16)), "%96", "%97", "%98", "%99", "%100", "%101", "%102", "%103")
FI_WGMMA(256, FI_SUMS_128, FI_LIST(FI_32(c, 0), FI_32(c, 8), FI_32(c, 16), FI_32(c, 24)), "%128", "%129", "%130", "%131", "%132", "%133", "%134", "%135")

/// Both operands in shared memory, each row of b a column of c; and a in registers, each row of b an element that is multiplied over.
template <Half type, int tiles> FI_DEVICE void wgmma(float (&c)[tiles][4], uint64 a, uint64 b, bool adds) { wgmma_shared<type, false>(c, a, b, adds); }
template <Half type, int tiles> FI_DEVICE void wgmma(float (&c)[tiles][4], const uint32 (&a)[4], uint64 b, bool adds) {
    wgmma_held<type, true>(c, a, b, adds);
}
/// The other way round: each row of b is a column of c.
template <Half type, int tiles> FI_DEVICE void wgmma_by_rows(float (&c)[tiles][4], const uint32 (&a)[4], uint64 b, bool adds) {
    wgmma_held<type, false>(c, a, b, adds);
}

/// c = a · b, or c += a · b, of 16 columns: both in shared memory, b's rows' elements side by side, and so are a's, or each
/// row of a is an element that is multiplied over (wgmma_turned).
#define FI_WGMMA_16(TYPE, TURNED)                                                                                                   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"                                                                      \
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32." TYPE "." TYPE " {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, p, 1, 1, " TURNED ", 0;\n}\n" \
                 : FI_FOUR(c, 0), FI_FOUR(c, 1) : "l"(a), "l"(b), "r"(static_cast<int>(adds)))
template <Half type> FI_DEVICE void wgmma(float (&c)[2][4], uint64 a, uint64 b, bool adds) {
    if constexpr (type == Half::float16) FI_WGMMA_16("f16", "0");
    else FI_WGMMA_16("bf16", "0");
}
template <Half type> FI_DEVICE void wgmma_turned(float (&c)[2][4], uint64 a, uint64 b, bool adds) {
    if constexpr (type == Half::float16) FI_WGMMA_16("f16", "1");
    else FI_WGMMA_16("bf16", "1");
}

// Several products as one text: the compiler takes each text's sums apart and together again.
#define FI_WGMMA_STEP(TYPE, N, SUMS, TRANS, A, B, ADDS) \
    "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, {" A "}, " B ", " ADDS ", 1, 1, " TRANS ";\n"
#define FI_ADVANCED(TO, B, STEP) "add.s64 " TO ", " B ", " STEP ";\n"

/// c = a · b, or c += a · b, four steps 32 bytes of both apart, both in shared memory.
#define FI_WGMMA_STEP_SHARED(TYPE, N, SUMS, A, B, ADDS) \
    "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SUMS "}, " A ", " B ", " ADDS ", 1, 1, 0, 0;\n"
#define FI_WGMMA_FOUR_SHARED(N, SUMS, LIST, A, B, ADDS, TYPE)                                                                       \
    template <Half type> FI_DEVICE void wgmma_four(float (&c)[N / 8][4], uint64 a, uint64 b, bool adds) {                           \
        asm volatile("{\n.reg .pred p;\n.reg .b64 a1, a2, a3, b1, b2, b3;\nsetp.ne.b32 p, " ADDS ", 0;\n"                           \
                     FI_ADVANCED("a1", A, "2") FI_ADVANCED("a2", A, "4") FI_ADVANCED("a3", A, "6")                                   \
                     FI_ADVANCED("b1", B, "2") FI_ADVANCED("b2", B, "4") FI_ADVANCED("b3", B, "6")                                   \
                     FI_WGMMA_STEP_SHARED(TYPE, N, SUMS, A, B, "p") FI_WGMMA_STEP_SHARED(TYPE, N, SUMS, "a1", "b1", "1")              \
                     FI_WGMMA_STEP_SHARED(TYPE, N, SUMS, "a2", "b2", "1") FI_WGMMA_STEP_SHARED(TYPE, N, SUMS, "a3", "b3", "1") "}\n"  \
                     : LIST : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "C"(HalfName<type>::text));                               \
    }
FI_WGMMA_FOUR_SHARED(64, FI_SUMS_32, FI_LIST(FI_32(c, 0)), "%32", "%33", "%34", "%35")
FI_WGMMA_FOUR_SHARED(80, FI_SUMS_40, FI_LIST(FI_32(c, 0), FI_FOUR(c, 8), FI_FOUR(c, 9)), "%40", "%41", "%42", "%43")
FI_WGMMA_FOUR_SHARED(128, FI_SUMS_64, FI_LIST(FI_32(c, 0), FI_32(c, 8)), "%64", "%65", "%66", "%67")

/// c = a · b, or c += a · b, four steps `apart` bytes of b apart.
#define FI_WGMMA_FOUR(TYPE)                                                                                                         \
    asm volatile("{\n.reg .pred p;\n.reg .b64 b1, b2, b3;\nsetp.ne.b32 p, %81, 0;\n"                                                        \
                 FI_ADVANCED("b1", "%80", "%82") FI_ADVANCED("b2", "%80", "%83") FI_ADVANCED("b3", "%80", "%84")                     \
                 FI_WGMMA_STEP(TYPE, 128, FI_SUMS_64, "1", "%64,%65,%66,%67", "%80", "p")                                          \
                 FI_WGMMA_STEP(TYPE, 128, FI_SUMS_64, "1", "%68,%69,%70,%71", "b1", "1")                                            \
                 FI_WGMMA_STEP(TYPE, 128, FI_SUMS_64, "1", "%72,%73,%74,%75", "b2", "1")                                            \
                 FI_WGMMA_STEP(TYPE, 128, FI_SUMS_64, "1", "%76,%77,%78,%79", "b3", "1") "}\n"                                      \
                 : FI_32(c, 0), FI_32(c, 8)                                                                                         \
                 : FI_ROW(a[0]), FI_ROW(a[1]), FI_ROW(a[2]), FI_ROW(a[3]), "l"(b), "r"(static_cast<int>(adds)), "n"(apart >> 4), "n"(apart >> 3),  \
                   "n"(3 * (apart >> 4)), "C"(HalfName<type>::text))
template <Half type, int apart> FI_DEVICE void wgmma_four(float (&c)[16][4], const uint32 (*a)[4], uint64 b, bool adds) {
    FI_WGMMA_FOUR("%85");
}

/// c = a · b, or c += a · b, eight steps: `apart` bytes of b apart, the second four `half` from the first.
template <Half type, int apart, int half, bool transposes = true>
FI_DEVICE void wgmma_eight(float (&c)[16][4], const uint32 (&a)[8][4], uint64 b, bool adds) {
    asm volatile("{\n.reg .pred p;\n.reg .b64 b1, b2, b3, b4, b5, b6, b7;\nsetp.ne.b32 p, %97, 0;\n"
                 FI_ADVANCED("b1", "%96", "%98") FI_ADVANCED("b2", "%96", "%99") FI_ADVANCED("b3", "%96", "%100") FI_ADVANCED("b4", "%96", "%101")
                 FI_ADVANCED("b5", "%96", "%102") FI_ADVANCED("b6", "%96", "%103") FI_ADVANCED("b7", "%96", "%104")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%64,%65,%66,%67", "%96", "p")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%68,%69,%70,%71", "b1", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%72,%73,%74,%75", "b2", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%76,%77,%78,%79", "b3", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%80,%81,%82,%83", "b4", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%84,%85,%86,%87", "b5", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%88,%89,%90,%91", "b6", "1")
                 FI_WGMMA_STEP("%106", 128, FI_SUMS_64, "%105", "%92,%93,%94,%95", "b7", "1") "}\n"
                 : FI_32(c, 0), FI_32(c, 8)
                 : FI_ROW(a[0]), FI_ROW(a[1]), FI_ROW(a[2]), FI_ROW(a[3]), FI_ROW(a[4]), FI_ROW(a[5]), FI_ROW(a[6]), FI_ROW(a[7]), "l"(b),
                   "r"(static_cast<int>(adds)), "n"(apart >> 4), "n"(apart >> 3), "n"(3 * (apart >> 4)), "n"(half >> 4), "n"((half + apart) >> 4),
                   "n"((half + 2 * apart) >> 4), "n"((half + 3 * apart) >> 4), "n"(transposes), "C"(HalfName<type>::text));
}
/// c = a · b, where each row of b is a column of c. What was there is an operand all the same: an item's first scores without it took 2 % less to compile, but
/// left loops over stages of pages four instructions longer (H200, 4,096 keys: 867 to 876 us).
template <Half type, int apart, int half> FI_DEVICE void wgmma_eight_by_rows(float (&c)[16][4], const uint32 (&a)[8][4], uint64 b) {
    wgmma_eight<type, apart, half, false>(c, a, b, false);
}

/// c = a · b, or c += a · b, five steps `apart` bytes of b apart, of 256 columns. Before each step but the first stands `BEFORE(of its first key)`.
#define FI_WGMMA_FIVE(BEFORE, ...)                                                                                                  \
    asm volatile("{\n.reg .pred p, q;\n.reg .b64 b1, b2, b3, b4;\nsetp.ne.b32 p, %149, 0;\n"                                        \
                 FI_ADVANCED("b1", "%148", "%150") FI_ADVANCED("b2", "%148", "%151") FI_ADVANCED("b3", "%148", "%152") FI_ADVANCED("b4", "%148", "%153") \
                 FI_WGMMA_STEP("%154", 256, FI_SUMS_128, "1", "%128,%129,%130,%131", "%148", "p")                                   \
                 BEFORE("16") FI_WGMMA_STEP("%154", 256, FI_SUMS_128, "1", "%132,%133,%134,%135", "b1", "1")                        \
                 BEFORE("32") FI_WGMMA_STEP("%154", 256, FI_SUMS_128, "1", "%136,%137,%138,%139", "b2", "1")                        \
                 BEFORE("48") FI_WGMMA_STEP("%154", 256, FI_SUMS_128, "1", "%140,%141,%142,%143", "b3", "1")                        \
                 BEFORE("64") FI_WGMMA_STEP("%154", 256, FI_SUMS_128, "1", "%144,%145,%146,%147", "b4", "1")                        \
                 "done:\n}\n"                                                                                                       \
                 : FI_32(c, 0), FI_32(c, 8), FI_32(c, 16), FI_32(c, 24)                                                             \
                 : FI_ROW(a[0]), FI_ROW(a[1]), FI_ROW(a[2]), FI_ROW(a[3]), FI_ROW(a[4]), "l"(b), "r"(static_cast<int>(adds)), "n"(apart >> 4), \
                   "n"(apart >> 3), "n"(3 * (apart >> 4)), "n"(apart >> 2), "C"(HalfName<type>::text), "r"(__VA_ARGS__))
#define FI_ALWAYS(KEY)
#define FI_IF_USED(KEY) "setp.le.s32 q, %155, " KEY ";\n@q bra.uni done;\n"
template <Half type, int apart> FI_DEVICE void wgmma_five(float (&c)[32][4], const uint32 (&a)[5][4], uint64 b, bool adds) {
    FI_WGMMA_FIVE(FI_ALWAYS, 0);
}
/// The same of the first `used` keys alone, a multiple of 16 that is the same for all lanes. Its branches are in the text: with branches about texts of one
/// product each the compiler merges all sums after each, a fortieth of all it does.
template <Half type, int apart> FI_DEVICE void wgmma_up_to_five(float (&c)[32][4], const uint32 (&a)[5][4], uint64 b, bool adds, int used) {
    FI_WGMMA_FIVE(FI_IF_USED, used);
}

/// c += a · b, four steps `apart` bytes of b apart, of 256 columns.
template <Half type, int apart> FI_DEVICE void wgmma_four(float (&c)[32][4], const uint32 (&a)[4][4], uint64 b) {
    asm volatile("{\n.reg .b64 b1, b2, b3;\n" FI_ADVANCED("b1", "%144", "%145") FI_ADVANCED("b2", "%144", "%146") FI_ADVANCED("b3", "%144", "%147")
                 FI_WGMMA_STEP("%148", 256, FI_SUMS_128, "1", "%128,%129,%130,%131", "%144", "1")
                 FI_WGMMA_STEP("%148", 256, FI_SUMS_128, "1", "%132,%133,%134,%135", "b1", "1")
                 FI_WGMMA_STEP("%148", 256, FI_SUMS_128, "1", "%136,%137,%138,%139", "b2", "1")
                 FI_WGMMA_STEP("%148", 256, FI_SUMS_128, "1", "%140,%141,%142,%143", "b3", "1") "}\n"
                 : FI_32(c, 0), FI_32(c, 8), FI_32(c, 16), FI_32(c, 24)
                 : FI_ROW(a[0]), FI_ROW(a[1]), FI_ROW(a[2]), FI_ROW(a[3]), "l"(b), "n"(apart >> 4), "n"(apart >> 3), "n"(3 * (apart >> 4)),
                   "C"(HalfName<type>::text));
}

/// The same with both in shared memory, steps of a `apart_a` bytes apart, and each row of b an element that is multiplied over.
#define FI_WGMMA_STEP_COLUMNS(A, B) \
    "wgmma.mma_async.sync.aligned.m64n256k16.f32.%136.%136 {" FI_SUMS_128 "}, " A ", " B ", 1, 1, 1, 0, 1;\n"
template <Half type, int apart_a, int apart> FI_DEVICE void wgmma_four_by_columns(float (&c)[32][4], uint64 a, uint64 b) {
    asm volatile("{\n.reg .b64 a1, a2, a3, b1, b2, b3;\n" FI_ADVANCED("a1", "%128", "%130") FI_ADVANCED("a2", "%128", "%131") FI_ADVANCED("a3", "%128", "%132")
                 FI_ADVANCED("b1", "%129", "%133") FI_ADVANCED("b2", "%129", "%134") FI_ADVANCED("b3", "%129", "%135")
                 FI_WGMMA_STEP_COLUMNS("%128", "%129") FI_WGMMA_STEP_COLUMNS("a1", "b1") FI_WGMMA_STEP_COLUMNS("a2", "b2")
                 FI_WGMMA_STEP_COLUMNS("a3", "b3") "}\n"
                 : FI_32(c, 0), FI_32(c, 8), FI_32(c, 16), FI_32(c, 24)
                 : "l"(a), "l"(b), "n"(apart_a >> 4), "n"(apart_a >> 3), "n"(3 * (apart_a >> 4)), "n"(apart >> 4), "n"(apart >> 3), "n"(3 * (apart >> 4)),
                   "C"(HalfName<type>::text));
}

/// The least product, of zeros, that starts sums which nobody reads.
#define FI_WGMMA_OF_ZEROS(N, SUMS, LIST, ZERO, B)                                                                                   \
    FI_DEVICE void wgmma_of_zeros(float (&c)[N / 8][4], uint64 b) {                                                                 \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"                                                                      \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" SUMS "}, {" ZERO "," ZERO "," ZERO "," ZERO "}, " B \
                     ", p, 1, 1, 1;\n}\n" : LIST : "r"(0), "l"(b));                                                                 \
    }
FI_WGMMA_OF_ZEROS(64, FI_SUMS_32, FI_LIST(FI_32_NEW(c, 0)), "%32", "%33")
FI_WGMMA_OF_ZEROS(128, FI_SUMS_64, FI_LIST(FI_32_NEW(c, 0), FI_32_NEW(c, 8)), "%64", "%65")
FI_WGMMA_OF_ZEROS(192, FI_SUMS_96, FI_LIST(FI_32_NEW(c, 0), FI_32_NEW(c, 8), FI_32_NEW(c, 16)), "%96", "%97")
FI_WGMMA_OF_ZEROS(256, FI_SUMS_128, FI_LIST(FI_32_NEW(c, 0), FI_32_NEW(c, 8), FI_32_NEW(c, 16), FI_32_NEW(c, 24)), "%128", "%129")
