// The blocks that work on one row together: one, or a cluster (compute capability 9.0 and up), whose blocks write to each other's
// shared memory.
//
// FI_TEAM: blocks of a row, neighbours in the grid; 1 unless it is defined.
#pragma once

#ifndef FI_TEAM
#define FI_TEAM 1
#endif

#if FI_TEAM > 1
#define FI_TEAM_KERNEL __attribute__((cluster_dims(FI_TEAM, 1, 1)))
#else
#define FI_TEAM_KERNEL
#endif

/// The row of a block, and the block's place among those of the row.
static __device__ __forceinline__ unsigned int fi_team_row() { return blockIdx.x / FI_TEAM; }
static __device__ __forceinline__ unsigned int fi_team_rank() { return blockIdx.x % FI_TEAM; }

/// The halves of `fi_team_sync`, for who has something to do in between that no other block reads.
static __device__ __forceinline__ void fi_team_arrive() {
#if FI_TEAM > 1
    // Both halves are executed by whole warps.
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
static __device__ __forceinline__ void fi_team_wait() {
#if FI_TEAM > 1
    __syncwarp();
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

/// Waits for all threads of all blocks of the row: what they wrote before, to shared or to global memory, is seen after.
static __device__ __forceinline__ void fi_team_sync() {
    fi_team_arrive();
    fi_team_wait();
}

/// Before a block's first access to another's memory both must have started: `fi_team_start` says that this one has, and
/// `fi_team_started` waits for the others. What lies between runs beside the start of the others.
static __device__ __forceinline__ void fi_team_start() {
#if FI_TEAM > 1
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
static __device__ __forceinline__ void fi_team_started() {
    if (FI_TEAM > 1) fi_team_wait();
}

/// Where the block with a rank has its copy of a variable in shared memory.
template <class T>
static __device__ __forceinline__ T *fi_team_at(T *own, unsigned int rank) {
#if FI_TEAM > 1
    unsigned long long address;
    // Volatile, as it must not move to where the rank is none of the cluster's.
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"((unsigned long long)own), "r"(rank));
    return (T *)address;
#else
    return own;
#endif
}

/// The part of a row that a block takes: `count` entries from place `first` on, which is aligned as the row is.
struct fi_team_part {
    unsigned int first, count;
};

static __device__ __forceinline__ fi_team_part fi_part_of_row(unsigned int width) {
    if (FI_TEAM == 1) return {0, width};
    const unsigned int share = (width + (64 * FI_TEAM - 1)) / (64 * FI_TEAM) * 64;
    const unsigned int start = share * fi_team_rank();
    const unsigned int first = start < width ? start : width;
    return {first, width - first < share ? width - first : share};
}

/// A number of each block, written to the shared memory of all of them, so that what follows the barrier reads its own block's only.
/// Turns alternate between two places: a block is two turns ahead of another at no time, so none is overwritten before it was read.
struct fi_team_numbers {
    unsigned long long of[2][FI_TEAM];

    /// Sends this block's number, which its first FI_TEAM threads have, and waits for those of the others.
    __device__ __forceinline__ const unsigned long long *exchange(unsigned long long value, unsigned int &turn) {
        const unsigned int place = turn++ & 1;
        if (threadIdx.x < FI_TEAM) *fi_team_at(&of[place][fi_team_rank()], threadIdx.x) = value;
        fi_team_sync();
        return of[place];
    }
    /// The greatest of the blocks' numbers.
    __device__ __forceinline__ unsigned long long greatest(unsigned long long value, unsigned int &turn) {
        const unsigned long long *numbers = exchange(value, turn);
        unsigned long long result = 0;
#pragma unroll
        for (unsigned int rank = 0; rank < FI_TEAM; rank++) result = numbers[rank] > result ? numbers[rank] : result;
        return result;
    }
    /// The sum of the blocks' numbers, in the order of their ranks.
    __device__ __forceinline__ double total(double value, unsigned int &turn) {
        const unsigned long long *numbers = exchange((unsigned long long)__double_as_longlong(value), turn);
        double result = 0;
#pragma unroll
        for (unsigned int rank = 0; rank < FI_TEAM; rank++) result += __longlong_as_double((long long)numbers[rank]);
        return result;
    }
    /// The sum of the blocks' numbers, and of those of lower rank.
    __device__ __forceinline__ unsigned long long sum(
        unsigned long long value, unsigned int &turn, unsigned long long *before
    ) {
        const unsigned long long *numbers = exchange(value, turn);
        unsigned long long result = 0;
        *before = 0;
#pragma unroll
        for (unsigned int rank = 0; rank < FI_TEAM; rank++) {
            if (rank == fi_team_rank()) *before = result;
            result += numbers[rank];
        }
        return result;
    }
};
