/* Several ranks: keys spread over devices, states exchanged and merged. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_PARALLEL_H
#define FLASHINFER_SWIFT_PARALLEL_H

#include "attention.h"
#include "base.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Which keys a rank has ----------------------------------------------------------------------------------------------- */

/* How the keys of a request are cut into runs of whole pages for the ranks. */
enum {
    FI_SHARE_CHUNKS = 0,      /* one run a rank, in order; the last rank also has what is appended later */
    FI_SHARE_INTERLEAVED = 1, /* every world_size-th run: appended tokens spread over all ranks (decode-context parallelism) */
    FI_SHARE_ZIGZAG = 2       /* a run from the front and one from the back: equal work where attention is causal */
};

/* The part of a request's keys that a rank has. */
typedef struct fi_kv_share {
    uint64_t struct_size;
    int32_t split;      /* FI_SHARE_... */
    int32_t rank;       /* in 0 ... world_size - 1 */
    int32_t world_size;
    int32_t reserved;   /* 0 */
    int64_t page_size;  /* keys per page */
    int64_t run_pages;  /* pages of a run; 0: 1 */
} fi_kv_share;

/* How many of the keys before `position` are the rank's: its keys of a request of that length. */
fi_status fi_kv_share_key_count(const fi_kv_share *share, int64_t position, int64_t *count);

/* The rank that has the key at `position`, and where the key lies among that rank's keys. Either output may be NULL. */
fi_status fi_kv_share_owner(const fi_kv_share *share, int64_t position, int32_t *rank, int64_t *local_position);

/* Which of the request's pages is the rank's page `local_page`. */
fi_status fi_kv_share_page(const fi_kv_share *share, int64_t local_page, int64_t *page);

/* Plans over the part of a paged cache that this rank has: all query rows, and this rank's keys in order, with the mask as it is over the
 * whole sequences. Masks none and causal, soft caps and sinks only; sinks count once, so give them (has_sinks) on rank 0 only. Index
 * tensors as of fi_attention_plan_paged.
 *   shares       [share_count]: 1 for all requests alike, or one a request; all of one rank, world and page size
 *   kv_lens      [requests], keys of each request on all ranks together
 *   kv_indptr    [requests + 1], where the ids of this rank's pages of each request start in kv_indices */
fi_status fi_attention_plan_kv_share(
    fi_attention *attention, void *stream, const fi_kv_share *shares, uint64_t share_count, const fi_tensor *qo_indptr,
    const fi_tensor *kv_lens, const fi_tensor *kv_indptr, const fi_tensor *kv_indices, int64_t page_count);

/* The heads of a rank of tensor parallelism: runs of query heads and of key/value heads, the first and how many of each (outputs of 2, or NULL). Where there are
 * fewer key/value heads than ranks, neighbouring ranks have a copy of the same one. */
fi_status fi_head_share(
    int64_t num_qo_heads, int64_t num_kv_heads, int32_t rank, int32_t world_size, int64_t *qo_heads, int64_t *kv_heads);

/* ---- Ranks --------------------------------------------------------------------------------------------------------------- */

/* What carries the ranks' data. */
enum {
    FI_TRANSPORT_AUTOMATIC = 0, /* NCCL (libnccl.so.2, found at run time) between GPUs, TCP between CPUs */
    FI_TRANSPORT_HOST = 1       /* TCP; for GPUs by way of host memory: slow, and not in graphs */
};

/* A process among others that work together. */
typedef struct fi_communicator_options {
    uint64_t struct_size;
    int32_t rank;              /* in 0 ... world_size - 1 */
    int32_t world_size;        /* 0: this, rank, address and port come from the environment, as torchrun sets it: RANK, WORLD_SIZE, MASTER_ADDR,
                                * MASTER_PORT */
    const char *address;       /* where rank 0 listens; NULL: 127.0.0.1 */
    int32_t port;
    int32_t transport;         /* FI_TRANSPORT_... */
    int64_t timeout_ms;        /* how long to wait for the other ranks, now and in waits of the host; 0: 60,000 */
} fi_communicator_options;

/* One rank: a device, a stream, and the way to the other ranks. */
typedef struct fi_communicator fi_communicator;

/* Meets the other ranks, and waits for them. Collectives are enqueued on `stream`, which must outlive the communicator, as the device must.
 * A rank that does not come, or disagrees, is an error that names it: FI_RANK_FAILURE, FI_RANK_MISMATCH. NULL options: the environment. */
fi_status fi_communicator_create(
    fi_device *device, void *stream, const fi_communicator_options *options, fi_communicator **communicator);

/* Frees it; NULL is nothing. Graphs that have captured its collectives must go before. */
void fi_communicator_destroy(fi_communicator *communicator);

/* Which rank this is, of how many. */
fi_status fi_communicator_get_rank(const fi_communicator *communicator, int32_t *rank, int32_t *world_size);

/* Waits until every rank is here. */
fi_status fi_communicator_barrier(fi_communicator *communicator);

/* Gathers every rank's x, contiguous, of the same size on all, into out [world_size, ...], contiguous. Enqueued on the communicator's stream. */
fi_status fi_communicator_all_gather(fi_communicator *communicator, const fi_tensor *x, const fi_tensor *out);

/* Exchanges and merges the states of attention that all ranks have of the same rows, each over its own keys: a collective, the same shapes on all
 * ranks, on the communicator's stream. Makes room for the states at its first call, and where they grow; after that it can be captured.
 *   v        [rows, heads, dim], floating, last stride 1: this rank's outputs. They travel in this type
 *   lse      [rows, heads], float32, base 2
 *   out      [rows, heads, dim], floating: the attention over all keys, the same bits on every rank
 *   lse_out  [rows, heads], float32, or NULL */
fi_status fi_merge_states_across_ranks(
    fi_communicator *communicator, const fi_tensor *v, const fi_tensor *lse, const fi_tensor *out,
    const fi_tensor *lse_out);

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_PARALLEL_H */
