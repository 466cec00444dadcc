// Copies whole pages of a cache.
//
// Moves that depend on each other form a chain. A thread makes all moves of a chain, in order, for its own piece of every page,
// so that no thread waits for another; the spare page of a cycle is a register.

#include "fi_cache_params.h"
#include "primitives/launch.cuh"

/// A piece of 16 bytes, or of one element.
template <class Piece>
static __device__ __forceinline__ void run(const fi_copy_pages_params &p) {
    const unsigned int chain = blockIdx.x / p.chain_blocks;
    const unsigned int part = blockIdx.x - chain * p.chain_blocks;
    unsigned long long place = (unsigned long long)part * FI_THREADS + threadIdx.x;
    const unsigned long long keys = (unsigned long long)p.keys.tokens * p.keys.heads * p.keys.pieces;
    const bool is_key = place < keys;
    const fi_page_tensor &pages = is_key ? p.keys : p.values;
    if (!is_key) place -= keys;
    if (place >= (unsigned long long)pages.tokens * pages.heads * pages.pieces) return;
    const unsigned int run = (unsigned int)(place / pages.pieces);
    const unsigned int piece = (unsigned int)(place - (unsigned long long)run * pages.pieces);
    const unsigned int token = run / pages.heads;
    const unsigned int head = run - token * pages.heads;
    char *base = (char *)pages.address + token * pages.token + head * pages.head + (long long)piece * sizeof(Piece);

    const int *chains = (const int *)p.chains;
    const int2 *moves = (const int2 *)p.moves;
    const int end = chains[chain + 1];
    Piece spare = Piece();
    for (int move = chains[chain]; move < end; move++) {
        const int2 pages_of_move = moves[move];
        const Piece held = pages_of_move.x < 0 ? spare : *(const Piece *)(base + pages_of_move.x * pages.page);
        if (pages_of_move.y < 0) {
            spare = held;
        } else {
            *(Piece *)(base + pages_of_move.y * pages.page) = held;
        }
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    copy_pages(const __grid_constant__ fi_copy_pages_params p) {
    fi_follow_predecessors();
    switch (p.piece_bytes) {
    case 16: run<uint4>(p); break;
    case 4: run<unsigned int>(p); break;
    case 2: run<unsigned short>(p); break;
    default: run<unsigned char>(p);
    }
}
