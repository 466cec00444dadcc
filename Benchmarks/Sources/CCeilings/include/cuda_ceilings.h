// What a GPU can do at most, and what the driver says of memory, by the driver alone: no part of FlashInfer is used.
#ifndef CUDA_CEILINGS_H
#define CUDA_CEILINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The first GPU, held by a context that it shares with the rest of the process.
typedef struct {
    /// Whether there is one. If not, `message` says why.
    bool is_present;
    char name[128];
    char message[256];
    /// Bytes free and in all, now.
    size_t free_bytes, total_bytes;
    /// Bytes of the L2 cache.
    int l2_bytes, processors;
} ceiling_cuda_device;

/// Starts the driver and makes the context, unless that was done before; then looks.
ceiling_cuda_device ceiling_cuda_look(void);

/// GB/s of a copy within device memory (bytes read and written) and of a plain read, the best of `tries`; 0 where it failed.
typedef struct {
    double copy, read;
} ceiling_cuda_rates;

ceiling_cuda_rates ceiling_cuda_measure(int64_t byte_count, int tries);

/// Seconds of a plain copy that reads and writes `byte_count` bytes together, one of `launches` in a graph, each on the next of `sets` pairs of
/// memory, each starting early as the small operations do; the median of `tries` replays. 0 where it failed, as where kernels cannot
/// start early. Small copies are slower a byte than one of gigabytes: they begin and end.
double ceiling_cuda_copy(int64_t byte_count, int sets, int launches, int tries);

#endif
