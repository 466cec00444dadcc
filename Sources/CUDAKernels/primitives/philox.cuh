// Random numbers: Philox 4x32-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
#pragma once

/// The number in (0, 1] of a request's seed and step: the same bits as `Philox4x32(seed:step:stream:).uniform()` on the host.
static __device__ __forceinline__ double fi_uniform(
    unsigned long long seed, unsigned long long step, unsigned int stream = 0
) {
    unsigned int c0 = (unsigned int)step, c1 = (unsigned int)(step >> 32), c2 = stream, c3 = 0;
    unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long first = 0xD2511F53ull * c0;
        const unsigned long long second = 0xCD9E8D57ull * c2;
        c0 = (unsigned int)(second >> 32) ^ c1 ^ k0;
        c1 = (unsigned int)second;
        c2 = (unsigned int)(first >> 32) ^ c3 ^ k1;
        c3 = (unsigned int)first;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const unsigned long long bits = (unsigned long long)c0 << 32 | c1;
    return (double)((bits >> 11) + 1) * 0x1p-53;
}
