// Scores of pages by their bounds: of each query head the most that q · k can be for keys between the least and the greatest, which is
// positive elements of q times the greatest and negative ones times the least. So it is one product of the bounds, read as rows of twice a
// head's length, with queries split by sign, for the tensor cores: the time is that of the reads.
//
// A warp has 16 pages of a head at a time, rows of mma.m16n8k16, with eight query heads for columns. Operands come straight from memory: the
// order of k is free as long as both have the same, so a lane's 16 bytes are eight neighbouring elements, and two products'.
//
// FI_HALF      Half::float16 or bfloat16: queries and bounds
// FI_HEAD_DIM  a multiple of 8

#include "fi_page_params.h"
#include "primitives/launch.cuh"
#include "primitives/mma.cuh"

constexpr Half half_type = FI_HALF;
constexpr int warps = FI_THREADS / 32, page_rows = 16;
/// Chunks of 16 bytes of a head; a quad of lanes has four at a time, and so many fours of all operands are on their way at once.
constexpr int chunks = FI_HEAD_DIM / 8, fours = (chunks + 3) / 4, fours_at_once = fours < 4 ? fours : 4;
static_assert(FI_HEAD_DIM % 8 == 0, "heads are whole chunks");

/// Two elements of a query, the positive and the negative ones apart, zeros in place of the others.
FI_DEVICE void split(uint32 both, uint32 &positive, uint32 &negative) {
    const uint32 mask = (both >> 15 & 0x00010001u) * 0xffffu;
    negative = both & mask;
    positive = both & ~mask;
}

/// A chunk of a row; zeros past its end, and where there is no row.
FI_DEVICE uint4 load_chunk(uint64 row, bool is_there, int chunk) {
    if (is_there && (chunks % 4 == 0 || chunk < chunks)) return pointer<const uint4>(row)[chunk];
    return make_uint4(0, 0, 0, 0);
}

FI_DEVICE void multiply(float (&c)[4], const uint4 &above, const uint4 &below, uint4 query) {
    const uint32 first[4] = {above.x, below.x, above.y, below.y}, second[4] = {above.z, below.z, above.w, below.w};
    mma<half_type>(c, first, query.x, query.y);
    mma<half_type>(c, second, query.z, query.w);
}

/// The pages of a warp's rows: this lane's two.
struct Pages {
    uint64 rows[2];
    bool are_there[2];
};

/// bounds · queries of eight query heads from number `first` of a key/value head's on.
FI_DEVICE void score(float (&c)[4], const fi_score_pages_params &p, const Pages &pages, unsigned int request, unsigned int head,
                     unsigned int first) {
    const int lane = threadIdx.x % warp_size, quad = lane % 4;
    const unsigned int member = first + lane / 4, row = member / p.group;
    const bool is_query = row < p.rows;
    const uint64 query = p.queries
                         + 2 * ((request * p.rows + (is_query ? row : 0)) * p.query_token
                                + (head * p.group + (is_query ? member - row * p.group : 0)) * p.query_head);
    const uint64 least = 2 * (head * p.bound_head), greatest = least + 2 * p.bound_side;
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = 0;
#pragma unroll 1
    for (int start = 0; start < fours; start += fours_at_once) {
        uint4 low[fours_at_once][2], high[fours_at_once][2], own[fours_at_once];
#pragma unroll
        for (int i = 0; i < fours_at_once; ++i) {
            const int chunk = (start + i) * 4 + quad;
            if (start + i >= fours) continue;
            own[i] = load_chunk(query, is_query, chunk);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                low[i][h] = load_chunk(pages.rows[h] + least, pages.are_there[h], chunk);
                high[i][h] = load_chunk(pages.rows[h] + greatest, pages.are_there[h], chunk);
            }
        }
#pragma unroll
        for (int i = 0; i < fours_at_once; ++i) {
            if (start + i >= fours) continue;
            uint4 positive, negative;
            split(own[i].x, positive.x, negative.x);
            split(own[i].y, positive.y, negative.y);
            split(own[i].z, positive.z, negative.z);
            split(own[i].w, positive.w, negative.w);
            multiply(c, low[i][0], low[i][1], negative);
            multiply(c, high[i][0], high[i][1], positive);
        }
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) score_pages(const __grid_constant__ fi_score_pages_params p) {
    fi_follow_predecessors();
    __shared__ float together[warps][page_rows];
    const unsigned int request = blockIdx.x / p.request_blocks, part = blockIdx.x - request * p.request_blocks;
    const unsigned int warp = threadIdx.x / warp_size, groups = warps / p.head_warps, group = warp / p.head_warps;
    const unsigned int first_head = warp - group * p.head_warps;
    const int lane = threadIdx.x % warp_size, quad = lane % 4;
    const int given = pointer<const int>(p.lengths)[request];
    const unsigned int length = given < 0 ? 0u : min((unsigned int)given, p.width);
    if (part * groups * page_rows >= length) return;
    const unsigned int first = (part * groups + group) * page_rows;
    const auto combine = [&](float a, float b) { return p.is_sum ? a + b : fmaxf(a, b); };
    const float neutral = p.is_sum ? 0.0f : negative_infinity();

    Pages pages;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const unsigned int place = first + lane / 4 + 8 * h;
        const int page = place < length ? pointer<const int>(p.table)[request * p.table_stride + place] : -1;
        pages.are_there[h] = page >= 0 && (unsigned int)page < p.page_count;
        pages.rows[h] = p.bounds + 2 * ((pages.are_there[h] ? page : 0) * p.bound_page);
    }
    float all[2] = {neutral, neutral};
    for (unsigned int head = first_head; head < p.heads; head += p.head_warps) {
        float value[2] = {neutral, neutral};
        const unsigned int members = p.rows * p.group;
        for (unsigned int column = 0; column < members; column += 8) {
            float c[4];
            score(c, p, pages, request, head, column);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (column + 2 * quad + i % 2 < members) value[i / 2] = combine(value[i / 2], c[i]);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int distance = 1; distance < 4; distance *= 2)
                value[h] = combine(value[h], __shfl_xor_sync(0xffffffffu, value[h], distance));
            if (!pages.are_there[h]) value[h] = negative_infinity();
            all[h] = combine(all[h], value[h]);
            const unsigned int place = first + lane / 4 + 8 * h;
            if (p.is_per_head && quad == 0 && place < length)
                pointer<float>(p.scores)[request * p.score_request + head * p.score_head + place] = value[h];
        }
    }
    if (p.is_per_head) return;
    if (quad == 0) together[warp][lane / 4] = all[0], together[warp][lane / 4 + 8] = all[1];
    __syncthreads();
    const unsigned int place = first + lane;
    if (first_head == 0 && lane < page_rows && place < length) {
        float value = together[warp][lane];
        for (unsigned int other = 1; other < p.head_warps; ++other) value = combine(value, together[warp + other][lane]);
        pointer<float>(p.scores)[request * p.score_request + place] = value;
    }
}
