#define _GNU_SOURCE
#include "fi_cpu.h"

#include <sched.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/// The register state that the operating system saves: XCR0, read without needing -mxsave.
static uint64_t enabled_state(void) {
    uint32_t eax, edx;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return ((uint64_t)edx << 32) | eax;
}

fi_isa fi_detect_isa(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return FI_ISA_SCALAR;
    const bool osxsave = c & (1u << 27), fma = c & (1u << 12), f16c = c & (1u << 29);
    if (!osxsave || !fma || !f16c) return FI_ISA_SCALAR;
    const uint64_t state = enabled_state();
    if ((state & 0x6) != 0x6) return FI_ISA_SCALAR;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return FI_ISA_SCALAR;
    if (!(b & (1u << 5))) return FI_ISA_SCALAR;
    const bool f = b & (1u << 16), dq = b & (1u << 17), bw = b & (1u << 30), vl = b & (1u << 31);
    if (!(f && dq && bw && vl) || (state & 0xE0) != 0xE0) return FI_ISA_AVX2;
    const bool vbmi = c & (1u << 1), vnni = c & (1u << 11);
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return FI_ISA_AVX512;
    const bool bf16 = a & (1u << 5);
    return vbmi && vnni && bf16 ? FI_ISA_AVX512_BF16 : FI_ISA_AVX512;
}

void fi_spin_hint(void) { _mm_pause(); }

#elif defined(__aarch64__)

fi_isa fi_detect_isa(void) { return FI_ISA_NEON; }
void fi_spin_hint(void) { __asm__ volatile("yield"); }

#else

fi_isa fi_detect_isa(void) { return FI_ISA_SCALAR; }
void fi_spin_hint(void) {}

#endif

bool fi_isa_available(fi_isa isa) {
    const fi_isa best = fi_detect_isa();
    if (isa == FI_ISA_SCALAR) return true;
    if (isa == FI_ISA_NEON || best == FI_ISA_NEON) return isa == best;
    return isa <= best;
}

const char *fi_isa_name(fi_isa isa) {
    switch (isa) {
    case FI_ISA_SCALAR: return "scalar";
    case FI_ISA_NEON: return "neon";
    case FI_ISA_AVX2: return "avx2";
    case FI_ISA_AVX512: return "avx512";
    case FI_ISA_AVX512_BF16: return "avx512-bf16";
    }
    return "unknown";
}

int fi_available_processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}
