/// Which instruction sets this machine has, found once from CPUID.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// An instruction-set level. A level's kernels need everything the lower levels of the same architecture need.
typedef enum fi_isa {
    FI_ISA_SCALAR = 0,       ///< portable C, any machine; the reference the others are tested against
    FI_ISA_NEON = 1,         ///< AArch64 Advanced SIMD
    FI_ISA_AVX2 = 2,         ///< AVX2 + FMA + F16C
    FI_ISA_AVX512 = 3,       ///< AVX-512 F, BW, DQ, VL
    FI_ISA_AVX512_BF16 = 4,  ///< AVX-512 as above + VNNI, BF16, VBMI (Zen 4 and up, Sapphire Rapids and up)
} fi_isa;

#define FI_ISA_COUNT 5

/// The highest level that both this build and this machine (with the operating system's register state) have.
fi_isa fi_detect_isa(void);

/// Whether kernels of `isa` can run here.
bool fi_isa_available(fi_isa isa);

/// The level's name, such as "avx512-bf16".
const char *fi_isa_name(fi_isa isa);

/// A hint to the processor that this thread is spinning on a memory location.
void fi_spin_hint(void);

/// The number of processors that this process may run on; 1 where the system cannot tell.
int fi_available_processors(void);
