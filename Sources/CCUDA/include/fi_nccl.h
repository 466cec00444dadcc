// The functions of NCCL, NVIDIA's library of collectives between GPUs, that are used. The same in all of version 2 since 2.14.
#ifndef FLASHINFER_NCCL_H
#define FLASHINFER_NCCL_H

#include <stddef.h>
#include <stdint.h>

#include "fi_symbols.h"

/// ncclResult_t; 0 is success.
typedef int fi_nccl_status;
/// ncclComm_t
typedef uintptr_t fi_nccl_communicator;

enum { FI_NCCL_UNIQUE_ID_BYTES = 128 };

/// ncclUniqueId: made by one rank, known to all; handed over by value.
typedef struct {
    char bytes[FI_NCCL_UNIQUE_ID_BYTES];
} fi_nccl_unique_id;

enum {
    FI_NCCL_SUCCESS = 0,
    FI_NCCL_IN_PROGRESS = 7,
    /// ncclDataType_t: ncclUint8
    FI_NCCL_BYTES = 1,
};

// name, whether required, parameters; all return a status. Buffers are device addresses, streams are CUstreams.
#define FI_NCCL_FUNCTIONS(X) \
    X(ncclGetVersion, 1, (int *_Nonnull version)) \
    X(ncclGetUniqueId, 1, (fi_nccl_unique_id *_Nonnull id)) \
    X(ncclCommInitRank, 1, (fi_nccl_communicator *_Nonnull communicator, int ranks, fi_nccl_unique_id id, int rank)) \
    X(ncclCommDestroy, 1, (fi_nccl_communicator communicator)) \
    X(ncclCommAbort, 1, (fi_nccl_communicator communicator)) \
    X(ncclCommGetAsyncError, 1, (fi_nccl_communicator communicator, fi_nccl_status *_Nonnull status)) \
    X(ncclAllGather, 1, \
      (uintptr_t source, uintptr_t destination, size_t count, int type, fi_nccl_communicator communicator, \
       uintptr_t stream)) \
    X(ncclSend, 1, \
      (uintptr_t source, size_t count, int type, int peer, fi_nccl_communicator communicator, uintptr_t stream)) \
    X(ncclRecv, 1, \
      (uintptr_t destination, size_t count, int type, int peer, fi_nccl_communicator communicator, uintptr_t stream)) \
    X(ncclGroupStart, 1, (void)) \
    X(ncclGroupEnd, 1, (void))

/// NCCL's functions; none is null but the last.
typedef struct {
#define X(name, required, parameters) fi_nccl_status (*_Null_unspecified name) parameters;
    FI_NCCL_FUNCTIONS(X)
#undef X
    /// What a status stands for; never null.
    const char *_Null_unspecified (*_Null_unspecified ncclGetErrorString)(fi_nccl_status status);
    /// What went wrong last, in more words; null before version 2.13.
    const char *_Nullable (*_Nullable ncclGetLastError)(fi_nccl_communicator communicator);
} fi_nccl_table;

/// The symbols of ``fi_nccl_table``, as `fi_fill_table` takes them.
const fi_symbol *_Nonnull fi_nccl_symbols(void);

#endif
