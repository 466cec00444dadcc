/// Compares what the CPU kernels of each instruction set that this machine has give with what the portable ones give, on random arguments whose memory
/// ends at a page that cannot be read. Fails where they differ by more than rounding.
///
///     check [SEED]
///
/// The package's own tests do more, on machines that have Swift; this program needs a C compiler and nothing else, so that kernels of a foreign
/// architecture run under an emulator: see Scripts/check-instruction-sets.
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments) {
    const uint64_t seed = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    int levels = 0;
    for (fi_isa isa = FI_ISA_SCALAR + 1; isa < FI_ISA_COUNT; isa++) {
        if (!fi_isa_available(isa)) continue;
        const char *name = fi_isa_name(isa);
        const struct { const char *name; void (*check)(fi_isa, const char *); } parts[] = {
            {"conversions", check_conversions}, {"products", check_products}, {"attention", check_attention},
            {"expressions", check_expressions}, {"rows", check_rows}, {"sampling", check_sampling},
        };
        levels++;
        for (size_t part = 0; part < sizeof parts / sizeof *parts; part++) {
            const int cases_before = cases(), failures_before = failures();
            seed_numbers(seed + part);
            parts[part].check(isa, name);
            printf("%s %s: %d cases, %d fail\n", name, parts[part].name, cases() - cases_before, failures() - failures_before);
            fflush(stdout);
        }
    }
    if (levels == 0) {
        fprintf(stderr, "this machine has portable kernels only\n");
        return 2;
    }
    return failures() > 0;
}
