/* Packing of bits. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_BITS_H
#define FLASHINFER_SWIFT_BITS_H

#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Bits ---------------------------------------------------------------------------------------------------------------- */

/* Packs x [elements] (bool or uint8, nonzero = 1; contiguous; HOST memory) into out uint8 [ceil(elements / 8)], host memory:
 * element n is bit n % 8 of byte n / 8, counted from the lowest (big_endian 0, what masks need) or the highest (1). */
fi_status fi_packbits(const fi_tensor *x, int32_t big_endian, const fi_tensor *out);

/* The same segment by segment, each padded to a byte: indptr int32 [segments + 1] in elements; out_indptr int32 [segments + 1] is
 * written, in bytes; out uint8 [out_indptr[segments] or more]. Host memory. NULL out: out_indptr only. */
fi_status fi_segment_packbits(
    const fi_tensor *x, const fi_tensor *indptr, int32_t big_endian, const fi_tensor *out, const fi_tensor *out_indptr);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_BITS_H */
