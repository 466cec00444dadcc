// Flags packed into bits, eight a byte: all in one run, or segment by segment, each from a byte of its own.
//
// A thread has FI_VECTORS times 16 flags of one run that is aligned; else a byte at a time.
//
// What segments say is in device memory and nobody's to check but ours: no flag outside of the tensor is read.

#include "fi_rows_params.h"
#include "primitives/launch.cuh"

/// The segment that a byte belongs to: the last that starts at it or before.
static __device__ __forceinline__ unsigned int segment_of(const fi_pack_bits_params &p, long long byte) {
    const int *starts = (const int *)p.byte_starts;
    unsigned int low = 0, high = p.segments;
    while (high - low > 1) {
        const unsigned int middle = low + (high - low) / 2;
        if (starts[middle] <= byte) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/// The lowest bits of eight bytes, which are 0 where the byte is 0, together: byte i's is bit i.
static __device__ __forceinline__ unsigned int bits_of(uint2 flags) {
    // 0x80 in every byte that is not 0, moved to bits 0 to 3 by a product whose terms do not meet.
    const unsigned int low = ((flags.x & 0x7f7f7f7fu) + 0x7f7f7f7fu | flags.x) >> 7 & 0x01010101u;
    const unsigned int high = ((flags.y & 0x7f7f7f7fu) + 0x7f7f7f7fu | flags.y) >> 7 & 0x01010101u;
    return (low * 0x10204080u >> 28 & 15u) | (high * 0x10204080u >> 28 & 15u) << 4;
}

/// A byte, wherever its flags lie.
static __device__ __forceinline__ unsigned int byte_of(const fi_pack_bits_params &p, long long byte) {
    const unsigned char *flags = (const unsigned char *)p.flags;
    long long first = 8 * byte, end = p.flag_count;
    if (p.segments != 0) {
        const int *starts = (const int *)p.flag_starts;
        const unsigned int segment = segment_of(p, byte);
        first = starts[segment] + 8 * (byte - ((const int *)p.byte_starts)[segment]);
        if (starts[segment + 1] < end) end = starts[segment + 1];
    }
    unsigned int bits = 0;
    if (first < 0) {
        // Bytes that say another place than their segment's.
    } else if (first + 8 <= end && ((unsigned long long)(flags + first) & 7) == 0) {
        bits = bits_of(*(const uint2 *)(flags + first));
    } else {
        for (int i = 0; i < 8 && first + i < end; i++) bits |= (unsigned int)(flags[first + i] != 0) << i;
    }
    return p.highest_first ? __brev(bits) >> 24 : bits;
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) pack_bits(const __grid_constant__ fi_pack_bits_params p) {
    fi_admit_successors();
    const long long start = (long long)blockIdx.x * FI_THREADS * 2 * FI_VECTORS;
    const bool is_whole = p.segments == 0 && ((p.flags & 15) | (p.output & 1)) == 0
        && start + FI_THREADS * 2 * FI_VECTORS <= p.flag_count / 8;
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (is_whole) {
        uint4 flags[FI_VECTORS];
#pragma unroll
        for (int v = 0; v < FI_VECTORS; v++) {
            flags[v] = ((const uint4 *)(p.flags + 8 * start))[v * FI_THREADS + threadIdx.x];
        }
#pragma unroll
        for (int v = 0; v < FI_VECTORS; v++) {
            unsigned int bits = bits_of(make_uint2(flags[v].x, flags[v].y));
            bits |= bits_of(make_uint2(flags[v].z, flags[v].w)) << 8;
            // The bits of each byte the other way round, and the bytes back in their places.
            if (p.highest_first) bits = __byte_perm(__brev(bits), 0, 0x4423);
            ((unsigned short *)(p.output + start))[v * FI_THREADS + threadIdx.x] = (unsigned short)bits;
        }
        return;
    }
#pragma unroll 1
    for (int i = 0; i < 2 * FI_VECTORS; i++) {
        const long long byte = start + i * FI_THREADS + threadIdx.x;
        if (byte < p.byte_count) ((unsigned char *)p.output)[byte] = (unsigned char)byte_of(p, byte);
    }
}
