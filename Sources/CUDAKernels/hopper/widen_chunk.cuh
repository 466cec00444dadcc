// Sixteen 8-bit elements on their way to the tensor cores' 16 bits, and to where wgmma reads them.
#pragma once
#include "portable/attention_tile.cuh"
#include "primitives/async.cuh"

/// Bytes 0 to 3 as two pairs.
FI_DEVICE void widen_four(uint32 bytes, uint32 &low, uint32 &high) {
    if constexpr (half_type == Half::bfloat16 && narrow == Narrow::e4m3) {
        widen_e4m3_bfloat16(bytes, low, high);
        return;
    }
    uint32 even, odd;
    widen<half_type, narrow>(bytes, even, odd);
    low = __byte_perm(even, odd, 0x5410);
    high = __byte_perm(even, odd, 0x7632);
}

/// All sixteen.
FI_DEVICE void widen_sixteen(uint4 bytes, uint4 (&halves)[2]) {
    widen_four(bytes.x, halves[0].x, halves[0].y);
    widen_four(bytes.y, halves[0].z, halves[0].w);
    widen_four(bytes.z, halves[1].x, halves[1].y);
    widen_four(bytes.w, halves[1].z, halves[1].w);
}

/// Chunk `chunk` of row `row` of a stage, whose tiles of 64 elements lie beside each other.
FI_DEVICE void widen_chunk(uint4 bytes, uint32 stage, int row, int chunk) {
    uint4 halves[2];
    widen_sixteen(bytes, halves);
    const uint32 place = stage + (chunk / 4 * keys + row) * 128;
    // Lanes at one place of neighbouring tiles store their halves in different orders, to different banks.
    const int flip = chunk / 4 % 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) store_shared(place + ((chunk % 4 * 2 + (i ^ flip) ^ row % 8) << 4), flip ? halves[1 - i] : halves[i]);
}
