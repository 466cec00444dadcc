// Scores of pages by their bounds: of each query head the most that q · k can be for keys between the least and the greatest, which is
// positive elements of q times the greatest and negative ones times the least. So it is one product of the bounds, read as rows of twice a
// head's length, with queries split by sign, for the tensor cores: the time is that of the reads.
//
// A warp has 16 pages of a head at a time, rows of mma.m16n8k16, with eight query heads for columns. The order of k is free as long as both
// operands have the same, so a lane's 16 bytes are eight neighbouring elements, and two products'. Bounds come through shared memory only to
// be under way while others are computed on: a lane copies, waits for and reads what is its own, so no barrier is needed. As many blocks as
// there is room for go on from tile to tile of pages: a block's first read waits for its length and its page ids, the others do not.
//
// FI_HALF      Half::float16 or bfloat16: queries and bounds
// FI_HEAD_DIM  a multiple of 8
// FI_STAGES    tiles of a warp in shared memory

#include "fi_page_params.h"
#include "primitives/async.cuh"
#include "primitives/launch.cuh"
#include "primitives/mma.cuh"

constexpr Half half_type = FI_HALF;
constexpr int warps = FI_THREADS / 32, page_rows = 16, stages = FI_STAGES;
/// Chunks of 16 bytes of a head, of which a quad of lanes has four at a time.
constexpr int chunks = FI_HEAD_DIM / 8, fours = (chunks + 3) / 4;
/// Bytes of a stage of a warp: the chunks of two rows and both sides, each of them of all lanes.
constexpr int chunk_bytes = 16 * warp_size, stage_bytes = fours * 4 * chunk_bytes;
static_assert(FI_HEAD_DIM % 8 == 0, "heads are whole chunks");

/// Two elements of a query, the positive and the negative ones apart, zeros in place of the others.
FI_DEVICE void split(uint32 both, uint32 &positive, uint32 &negative) {
    const uint32 mask = (both >> 15 & 0x00010001u) * 0xffffu;
    negative = both & mask;
    positive = both & ~mask;
}

FI_DEVICE uint4 load_shared_chunk(uint32 from) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(from) : "memory");
    return v;
}

/// c += the pages' chunks · a query's.
FI_DEVICE void multiply(float (&c)[4], const uint4 &above, const uint4 &below, uint4 query) {
    const uint32 first[4] = {above.x, below.x, above.y, below.y}, second[4] = {above.z, below.z, above.w, below.w};
    mma<half_type>(c, first, query.x, query.y);
    mma<half_type>(c, second, query.z, query.w);
}

/// A block's share of a request's pages: 16 for each of its groups of warps, whose warps share the heads.
struct Tile {
    unsigned int number, request, first, length;

    /// The first tile from this one's number on, in steps of the grid, that has pages.
    __device__ __forceinline__ void find(const fi_score_pages_params &p, unsigned int groups) {
        for (; number < p.tiles; number += gridDim.x) {
            request = number / p.request_tiles;
            first = (number - request * p.request_tiles) * groups * page_rows;
            const int given = pointer<const int>(p.lengths)[request];
            length = given < 0 ? 0u : min((unsigned int)given, p.width);
            if (first < length) return;
        }
    }
    /// The bounds of the page at a place; 0 where there is none.
    __device__ __forceinline__ uint64 page(const fi_score_pages_params &p, unsigned int place) const {
        const int page = place < length ? pointer<const int>(p.table)[request * p.table_stride + place] : -1;
        return page >= 0 && (unsigned int)page < p.page_count ? p.bounds + 2 * (page * p.bound_page) : 0;
    }
};

/// Asks for the bounds of one tile and head after another.
struct Asker {
    const fi_score_pages_params &p;
    Tile tile;
    unsigned int group, groups, first_head, head;
    uint64 pages[2];
    uint32 ring;
    int stage = 0;

    __device__ __forceinline__ void begin() {
        tile.find(p, groups);
        if (tile.number >= p.tiles) return;
#pragma unroll
        for (int h = 0; h < 2; ++h) pages[h] = tile.page(p, tile.first + group * page_rows + threadIdx.x % warp_size / 4 + 8 * h);
    }
    __device__ __forceinline__ void ask() {
        if (tile.number < p.tiles && head < p.heads) {
            const int quad = threadIdx.x % 4;
            uint32 to = ring + stage * stage_bytes + threadIdx.x % warp_size * 16;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const uint64 row = pages[h] + 2 * (head * p.bound_head);
#pragma unroll
                for (int side = 0; side < 2; ++side)
#pragma unroll
                    for (int i = 0; i < fours; ++i, to += chunk_bytes) {
                        const bool is_there = pages[h] != 0 && (chunks % 4 == 0 || i * 4 + quad < chunks);
                        const uint64 from = row + side * 2 * p.bound_side + (i * 4 + quad) * 16;
                        copy_async<16>(to, pointer<const void>(is_there ? from : p.bounds), is_there);
                    }
            }
            head += p.head_warps;
            if (head >= p.heads) {
                head = first_head;
                tile.number += gridDim.x;
                begin();
            }
        }
        copy_commit();
        if (++stage == stages) stage = 0;
    }
};

/// bounds · queries of eight query heads from number `first` of a key/value head's on.
FI_DEVICE void score(float (&c)[4], const fi_score_pages_params &p, uint32 from, unsigned int request, unsigned int head, unsigned int first) {
    const int lane = threadIdx.x % warp_size, quad = lane % 4;
    const unsigned int member = first + lane / 4, row = member / p.group;
    const bool is_query = row < p.rows;
    const uint4 *query = pointer<const uint4>(
        p.queries
        + 2 * ((request * p.rows + (is_query ? row : 0)) * p.query_token + (head * p.group + (is_query ? member - row * p.group : 0)) * p.query_head));
    uint4 own[fours];
#pragma unroll
    for (int i = 0; i < fours; ++i)
        own[i] = is_query && (chunks % 4 == 0 || i * 4 + quad < chunks) ? query[i * 4 + quad] : make_uint4(0, 0, 0, 0);
    // The oldest stage; those after it may be under way.
    copy_wait<stages - 1>();
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = 0;
    from += lane * 16;
#pragma unroll
    for (int i = 0; i < fours; ++i) {
        uint4 positive, negative;
        split(own[i].x, positive.x, negative.x);
        split(own[i].y, positive.y, negative.y);
        split(own[i].z, positive.z, negative.z);
        split(own[i].w, positive.w, negative.w);
        const auto chunk = [&](int h, int side) { return load_shared_chunk(from + ((h * 2 + side) * fours + i) * chunk_bytes); };
        multiply(c, chunk(0, 0), chunk(1, 0), negative);
        multiply(c, chunk(0, 1), chunk(1, 1), positive);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) score_pages(const __grid_constant__ fi_score_pages_params p) {
    fi_follow_predecessors();
    extern __shared__ __align__(16) unsigned char rings[];
    __shared__ float together[2][warps][page_rows];
    const unsigned int warp = threadIdx.x / warp_size, groups = warps / p.head_warps, group = warp / p.head_warps;
    const unsigned int first_head = warp - group * p.head_warps, members = p.rows * p.group;
    const int lane = threadIdx.x % warp_size, quad = lane % 4;
    const auto combine = [&](float a, float b) { return p.is_sum ? a + b : fmaxf(a, b); };
    const float neutral = p.is_sum ? 0.0f : negative_infinity();
    const uint32 ring = shared_address(rings) + warp * stages * stage_bytes;

    Tile tile;
    tile.number = blockIdx.x;
    Asker asker{p, tile, group, groups, first_head, first_head, {0, 0}, ring};
    asker.begin();
#pragma unroll
    for (int i = 0; i < stages; ++i) asker.ask();
    int stage = 0, side = 0;
    for (;; tile.number += gridDim.x) {
        tile.find(p, groups);
        if (tile.number >= p.tiles) break;
        const unsigned int first = tile.first + group * page_rows;
        bool are_there[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) are_there[h] = tile.page(p, first + lane / 4 + 8 * h) != 0;
        float all[2] = {neutral, neutral};
        for (unsigned int head = first_head; head < p.heads; head += p.head_warps) {
            float value[2] = {neutral, neutral};
            for (unsigned int column = 0; column < members; column += 8) {
                float c[4];
                score(c, p, ring + stage * stage_bytes, tile.request, head, column);
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (column + 2 * quad + i % 2 < members) value[i / 2] = combine(value[i / 2], c[i]);
            }
            if (++stage == stages) stage = 0;
            asker.ask();
#pragma unroll
            for (int h = 0; h < 2; ++h) {
#pragma unroll
                for (int distance = 1; distance < 4; distance *= 2)
                    value[h] = combine(value[h], __shfl_xor_sync(0xffffffffu, value[h], distance));
                if (!are_there[h]) value[h] = negative_infinity();
                all[h] = combine(all[h], value[h]);
                const unsigned int place = first + lane / 4 + 8 * h;
                if (p.is_per_head && quad == 0 && place < tile.length)
                    pointer<float>(p.scores)[tile.request * p.score_request + head * p.score_head + place] = value[h];
            }
        }
        if (p.is_per_head) continue;
        if (quad == 0) together[side][warp][lane / 4] = all[0], together[side][warp][lane / 4 + 8] = all[1];
        // Two sides: who comes here again has passed the next tile's barrier, before which this one's were read.
        __syncthreads();
        const unsigned int place = first + lane;
        if (first_head == 0 && lane < page_rows && place < tile.length) {
            float value = together[side][warp][lane];
            for (unsigned int other = 1; other < p.head_warps; ++other) value = combine(value, together[side][warp + other][lane]);
            pointer<float>(p.scores)[tile.request * p.score_request + place] = value;
        }
        side ^= 1;
    }
    copy_wait_all();
}
