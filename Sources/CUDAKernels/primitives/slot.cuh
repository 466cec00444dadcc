// Places of new tokens in a cache.
#pragma once

/// Whether a token's slot lies in a cache of `blocks` blocks of `block_rows` rows, or, of 0, of `blocks` rows; negative ones are not stored.
/// Slots in device memory are nobody's to check but the kernels'.
static __device__ __forceinline__ bool fi_is_slot(long long block, long long row, long long blocks, long long block_rows) {
    if (block < 0 || row < 0) return false;
    return block_rows > 0 ? block < blocks && row < block_rows : block + row < blocks;
}
