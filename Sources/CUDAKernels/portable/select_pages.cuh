// The pages of the greatest scores of each row (a request, or a head of one), by place: a block a row.
//
// The k-th greatest score is found eight bits at a time: a histogram of the bits that follow those already known says which come next.
// A last pass lists what is above it, and as many of its equals as are wanted, in the order of places. Scores come from L2 after the
// first pass, and lengths, requests and tables are in device memory and nobody's to check but ours: nothing is read or written outside of
// the tensors.
//
// FI_INPUT: the scores' type.

#include "fi_sample_params.h"
#include "primitives/distribution.cuh"
#include "primitives/launch.cuh"

#define FI_WARPS (FI_THREADS / 32)

/// A row's scores, as numbers in their order.
struct score_keys {
    unsigned long long address;
    __device__ __forceinline__ unsigned int operator()(unsigned int place) const {
        float x[1];
        fi_read<FI_INPUT, 1>(address, place, x);
        return fi_order_key(x[0]);
    }
};

struct select_shared {
    unsigned int histogram[256];
    /// The digit that the k-th greatest has, and how many with it are wanted of how many.
    unsigned int digit, wanted, equals;
    /// Chosen and equal entries of each warp's share of a round.
    unsigned int above[FI_WARPS], equal[FI_WARPS];
};

/// What is chosen of a row: what is above a key, and `wanted` of `equals` that are equal to it.
struct selection { unsigned int key, wanted, equals; };

/// The selection of the `wanted` greatest of `count` scores; 0 < wanted < count.
static __device__ __forceinline__ selection find_kth(const score_keys &keys, unsigned int count, unsigned int wanted, select_shared &shared) {
    selection found = {0, wanted, count};
#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (unsigned int i = threadIdx.x; i < 256; i += FI_THREADS) shared.histogram[i] = 0;
        __syncthreads();
        const unsigned int known = shift == 24 ? 0u : ~0u << (shift + 8);
        for (unsigned int place = threadIdx.x; place < count; place += FI_THREADS) {
            const unsigned int key = keys(place);
            if (((key ^ found.key) & known) == 0) atomicAdd(shared.histogram + (key >> shift & 255u), 1u);
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            // Lane 0 has the greatest eight digits.
            const unsigned int first = 255u - 8u * threadIdx.x;
            unsigned int sum = 0;
#pragma unroll
            for (unsigned int i = 0; i < 8; i++) sum += shared.histogram[first - i];
            unsigned int end = sum;
#pragma unroll
            for (int distance = 1; distance < 32; distance *= 2) {
                const unsigned int before = __shfl_up_sync(0xffffffffu, end, distance);
                if (threadIdx.x >= distance) end += before;
            }
            unsigned int start = end - sum;
            if (start < found.wanted && found.wanted <= end) {
                unsigned int digit = first;
                while (start + shared.histogram[digit] < found.wanted) start += shared.histogram[digit--];
                shared.digit = digit;
                shared.wanted = found.wanted - start;
                shared.equals = shared.histogram[digit];
            }
        }
        __syncthreads();
        found.key |= shared.digit << shift;
        found.wanted = shared.wanted;
        found.equals = shared.equals;
    }
    return found;
}

/// Where a row's chosen places go, and as what.
struct page_output {
    int *to;
    /// The places themselves, or null.
    int *positions;
    /// The row of the table, or null; else the offset is added.
    const int *table;
    int offset;
    bool is_there;
    __device__ __forceinline__ void put(unsigned int index, unsigned int place) const {
        to[index] = !is_there ? -1 : table ? table[place] : (int)place + offset;
        if (positions) positions[index] = is_there ? (int)place : -1;
    }
    __device__ __forceinline__ void put_none(unsigned int index) const {
        to[index] = -1;
        if (positions) positions[index] = -1;
    }
};

/// Lists what is chosen of the first `count` places.
static __device__ __forceinline__ void list_chosen(
    const score_keys &keys, unsigned int count, const selection &chosen, bool takes_highest, const page_output &output, select_shared &shared
) {
    const unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // Of its equals, those from number `skipped` on, so many.
    const unsigned int skipped = takes_highest ? chosen.equals - chosen.wanted : 0;
    unsigned int above_before = 0, equal_before = 0;
#pragma unroll 1
    for (unsigned int start = 0; start < count; start += FI_THREADS) {
        const unsigned int place = start + threadIdx.x, key = place < count ? keys(place) : 0u;
        const bool is_above = place < count && key > chosen.key, is_equal = place < count && key == chosen.key;
        const unsigned int aboves = __ballot_sync(0xffffffffu, is_above), equals = __ballot_sync(0xffffffffu, is_equal);
        __syncthreads();
        if (lane == 0) shared.above[warp] = __popc(aboves), shared.equal[warp] = __popc(equals);
        __syncthreads();
        const unsigned int lower = (1u << lane) - 1u;
        unsigned int above = above_before + __popc(aboves & lower), equal = equal_before + __popc(equals & lower);
#pragma unroll
        for (unsigned int other = 0; other < FI_WARPS; other++) {
            const unsigned int a = shared.above[other], e = shared.equal[other];
            if (other < warp) above += a, equal += e;
            above_before += a, equal_before += e;
        }
        const bool is_taken = is_equal && equal >= skipped && equal - skipped < chosen.wanted;
        const unsigned int equals_taken = equal <= skipped ? 0 : min(equal - skipped, chosen.wanted);
        if (is_above || is_taken) output.put(above + equals_taken, place);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) select_pages(const __grid_constant__ fi_select_pages_params p) {
    fi_follow_predecessors();
    __shared__ select_shared shared;
    const unsigned int row = blockIdx.x, own = row / p.heads;
    const score_keys keys = {fi_row_address<FI_INPUT>(p.scores, row, p.heads)};
    const int given = ((const int *)p.lengths)[own];
    const unsigned int length = given < 0 ? 0u : min((unsigned int)given, p.width);
    page_output output;
    // Entries are as large as float32 ones.
    output.to = (int *)fi_row_address<FI_FLOAT32>(p.pages, row, p.heads);
    output.positions = p.positions.address ? (int *)fi_row_address<FI_FLOAT32>(p.positions, row, p.heads) : nullptr;
    output.table = nullptr;
    output.offset = 0;
    output.is_there = true;
    if (p.table != 0) {
        const int request = p.requests ? ((const int *)p.requests)[own] : (int)own;
        output.is_there = request >= 0 && (unsigned int)request < p.table_rows;
        output.table = (const int *)p.table + (output.is_there ? request : 0) * p.table_stride;
    } else {
        output.offset = ((const int *)p.offsets)[own];
    }
    const unsigned int count = min(p.k, length), recent = min(p.recent, count);
    // The last places need no scores, nor do all.
    const unsigned int ranked = count == length ? 0 : length - recent, wanted = count - recent;
    if (ranked > 0 && wanted > 0) list_chosen(keys, ranked, find_kth(keys, ranked, wanted, shared), p.takes_highest != 0, output, shared);
    const unsigned int first = count == length ? 0 : wanted;
    for (unsigned int i = first + threadIdx.x; i < p.k; i += FI_THREADS) {
        if (i < count) {
            output.put(i, length - count + i);
        } else {
            output.put_none(i);
        }
    }
}
