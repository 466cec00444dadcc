// The least and the greatest keys of each page that new keys have come to, computed anew from all keys that its sequence has in it.
//
// A thread has one vector of one head, of all rows of a page. Tables and lengths are in device memory and nobody's to check but ours:
// nothing is read or written outside of the tensors.
//
// FI_INPUT: the cache's type. FI_OUTPUT: the bounds' type, which holds every number of the cache exactly.

#include "fi_page_params.h"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"

/// Rows that are on their way at a time.
constexpr int rows_at_once = 8;

template <int V>
static __device__ __forceinline__ void run(const fi_page_bounds_params &p) {
    const unsigned int item = blockIdx.x / p.page_blocks;
    const unsigned int request = item / p.places, index = item - request * p.places;
    const unsigned int vectors = p.head_dim / V;
    const unsigned int thread = (blockIdx.x - item * p.page_blocks) * FI_THREADS + threadIdx.x;
    const unsigned int head = thread / vectors, d = (thread - head * vectors) * V;
    if (head >= p.heads) return;
    const long long room = (long long)p.width * p.page_size;
    const long long length = min(max((long long)((const int *)p.lengths)[request], 0ll), room);
    const long long given = ((const int *)p.appended)[request];
    const long long appended = min(min(max(given, 0ll), length), (long long)p.maximum_appended);
    if (appended == 0) return;
    const long long place = (length - appended) / p.page_size + index, first = place * p.page_size;
    if (first >= length) return;
    const int page = ((const int *)p.table)[request * p.table_stride + place];
    if (page < 0 || (unsigned int)page >= p.page_count) return;
    const int rows = (int)min(length - first, (long long)p.page_size);
    const long long from = page * p.key_page + head * p.key_head + d;
    float least[V], greatest[V];
#pragma unroll
    for (int i = 0; i < V; i++) least[i] = __int_as_float(0x7f800000), greatest[i] = __int_as_float(0xff800000);
    for (int row = 0; row < rows; row += rows_at_once) {
        fi_packed<FI_INPUT, V> packed[rows_at_once];
        // Rows past the last are the last one again.
#pragma unroll
        for (int i = 0; i < rows_at_once; i++) packed[i] = fi_load<FI_INPUT, V>(p.keys, from + min(row + i, rows - 1) * p.key_token);
#pragma unroll
        for (int i = 0; i < rows_at_once; i++) {
            float x[V];
            fi_unpack<FI_INPUT, V>(packed[i], x);
#pragma unroll
            for (int j = 0; j < V; j++) least[j] = fminf(least[j], x[j]), greatest[j] = fmaxf(greatest[j], x[j]);
        }
    }
    const long long to = page * p.bound_page + head * p.bound_head + d;
    fi_write<FI_OUTPUT, V>(p.bounds, to, least);
    fi_write<FI_OUTPUT, V>(p.bounds, to + p.bound_side, greatest);
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) page_bounds(const __grid_constant__ fi_page_bounds_params p) {
    fi_follow_predecessors();
    // A vector has 16 bytes of keys or of bounds, whichever are more.
    constexpr int V = 16 / (fi_size(FI_INPUT) > fi_size(FI_OUTPUT) ? fi_size(FI_INPUT) : fi_size(FI_OUTPUT));
    if (p.vectorised) {
        run<V>(p);
    } else {
        run<1>(p);
    }
}
