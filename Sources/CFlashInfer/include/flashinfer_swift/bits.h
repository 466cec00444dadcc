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

/* The same where the tensors are: all on the call's device, contiguous. x bool or uint8 [elements], out uint8 [ceil(elements / 8)]. */
fi_status fi_pack_bits(
    fi_device *device, void *stream, const fi_tensor *x, int32_t big_endian, const fi_tensor *out);

/* Segment by segment: indptr and out_indptr int32 [segments + 1], both read, in elements and in bytes: segment i has
 * ceil((indptr[i + 1] - indptr[i]) / 8) bytes. out uint8 [out_indptr[segments]]. On a GPU neither is checked, and nothing outside of
 * the tensors is read or written whatever they hold. */
fi_status fi_segment_pack_bits(
    fi_device *device, void *stream, const fi_tensor *x, const fi_tensor *indptr, const fi_tensor *out_indptr,
    int32_t big_endian, const fi_tensor *out);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_BITS_H */
