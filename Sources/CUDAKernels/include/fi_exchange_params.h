// The parameter of exchanging states of attention between ranks, and merging them.
#ifndef FLASHINFER_EXCHANGE_PARAMS_H
#define FLASHINFER_EXCHANGE_PARAMS_H

#include "fi_merge_params.h"

enum {
    /// The most ranks that an exchange joins: no more, as their states then have the bits of a merge on one device.
    FI_EXCHANGE_RANKS = FI_MERGED_AT_ONCE,
    /// Threads of a block.
    FI_EXCHANGE_THREADS = 128,
    /// The most blocks of a launch. All of them run at a time on any GPU, so that none waits for one that waits for room.
    FI_EXCHANGE_BLOCKS = 256,
    /// 16-byte units that a thread sends: two words of the state and the exchange's number twice in each.
    FI_EXCHANGE_UNITS = 3,
    /// Bytes that a block of one rank sends to another.
    FI_EXCHANGE_BLOCK_BYTES = 16 * FI_EXCHANGE_UNITS * FI_EXCHANGE_THREADS,
};

/// A rank's own words, which only its kernels write.
typedef struct {
    /// How many exchanges each block has made.
    unsigned int exchanges[FI_EXCHANGE_BLOCKS];
    /// 1 once a rank did not come: nothing is waited for any more.
    unsigned int is_lost;
} fi_exchange_progress;

typedef struct {
    /// Values and LSEs of all ranks' states as `merge_states` takes them, of which there is this rank's alone.
    fi_merge_params merge;
    /// Each rank's window: for even exchanges and for odd ones, by sender, by block: what comes from the others.
    unsigned long long windows[FI_EXCHANGE_RANKS];
    /// An fi_exchange_progress.
    unsigned long long progress;
    /// A word of the host: 0, or 1 + the rank that did not come.
    unsigned long long missing;
    /// Nanoseconds to wait for the others.
    unsigned long long timeout;
    unsigned int rank;
} fi_exchange_params;

#endif
