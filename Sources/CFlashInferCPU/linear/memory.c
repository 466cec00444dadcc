/// Memory for packed weights. Decode streams all of it once a token, so the cost of page-table walks counts: large
/// regions are aligned to, and asked for in, 2 MiB pages (5 % on Zen 5).
#define _GNU_SOURCE
#include "../include/fi_linear.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((uint64_t)2 << 20)

void *fi_linear_allocate(int64_t bytes) {
    if (bytes < 0 || bytes > INT64_MAX - (int64_t)HUGE_PAGE) return 0;
    const uint64_t unit = (uint64_t)bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    uint64_t size = ((uint64_t)bytes + unit - 1) / unit * unit;
    void *p = 0;
    if (posix_memalign(&p, unit, size ? size : unit) != 0) return 0;
#ifdef MADV_HUGEPAGE
    // A hint: without it, or where it fails, pages are small and nothing else changes.
    if (unit == HUGE_PAGE) (void)madvise(p, size, MADV_HUGEPAGE);
#endif
    return p;
}

void fi_linear_free(void *p) { free(p); }
