// The k greatest entries of each row, with their places: of equal entries the lowest places, a NaN above all numbers.
//
// What top-k keeps is listed in the order of places, sorted where that is asked for, and its values are read once more. A list of
// up to FI_LIST entries lies in the shared memory of the row's first block, a longer one in the output.
//
// FI_INPUT, FI_TEAM: see primitives/filter.cuh. FI_LOGARITHMS: values are logarithms of softmax(input / temperature), float32.

#define FI_FORM 0
#include "fi_sample_params.h"
#include "primitives/filter.cuh"

#define FI_LIST (2 * FI_BINS)

/// An entry and its place as one integer, greater for what comes first.
static __device__ __forceinline__ unsigned long long ranked(float x, unsigned int place) {
    return (unsigned long long)fi_order_key(x) << 32 | (0xffffffffu - place);
}

static __device__ __forceinline__ unsigned int place_of(unsigned long long entry) { return 0xffffffffu - (unsigned int)entry; }

/// The row's list of kept entries.
struct top_list {
    /// In shared memory, or null: places at `places`, of the row at `address`.
    unsigned long long *entries;
    int *places;
    unsigned long long address;
    unsigned int count;

    __device__ __forceinline__ unsigned long long get(unsigned int index) const {
        if (entries) return entries[index];
        const unsigned int place = (unsigned int)places[index];
        float x[1];
        fi_read<FI_INPUT, 1>(address, place, x);
        return ranked(x[0], place);
    }
    __device__ __forceinline__ void put(unsigned int index, unsigned long long entry) const {
        if (entries) {
            entries[index] = entry;
        } else {
            places[index] = (int)place_of(entry);
        }
    }
};

/// Steps of a bitonic merge on `list`, whose pairs all put the greater first: then entries past the end, which count as least, never
/// move. A step compares `index` with `index ^ distance`; the first step of a merge has distance 2 * half - 1.
static __device__ __forceinline__ void sort_step(const top_list &list, unsigned int span, unsigned int half, bool is_first) {
    for (unsigned int pair = threadIdx.x; pair < span / 2; pair += FI_THREADS) {
        const unsigned int left = (pair / half) * 2 * half + pair % half;
        const unsigned int right = is_first ? left ^ (2 * half - 1) : left + half;
        if (right >= list.count) continue;
        const unsigned long long a = list.get(left), b = list.get(right);
        if (a < b) {
            list.put(left, b);
            list.put(right, a);
        }
    }
    __syncthreads();
}

/// Sorts `chunk`, a list in shared memory whose runs of `sorted` entries are sorted, or does a merge's steps from half of the chunk
/// on, where `only_merges`.
static __device__ __forceinline__ void sort_chunk(const top_list &chunk, bool only_merges) {
    unsigned int span = 2;
    while (span < chunk.count) span *= 2;
#pragma unroll 1
    for (unsigned int size = only_merges ? span : 2; size <= span; size *= 2) {
        bool is_first = !only_merges;
#pragma unroll 1
        for (unsigned int half = size / 2; half > 0; half /= 2) {
            sort_step(chunk, span, half, is_first);
            is_first = false;
        }
    }
}

/// Sorts chunks of a long list in shared memory: each of them whole, or by the last steps of a merge.
static __device__ __forceinline__ void sort_chunks(const top_list &list, unsigned long long *entries, bool only_merges) {
#pragma unroll 1
    for (unsigned int first = 0; first < list.count; first += FI_LIST) {
        const unsigned int count = list.count - first < FI_LIST ? list.count - first : FI_LIST;
        for (unsigned int i = threadIdx.x; i < count; i += FI_THREADS) entries[i] = list.get(first + i);
        __syncthreads();
        // A merge's steps are of the whole chunk's length, whatever it holds: entries past the end are least.
        top_list chunk = {entries, nullptr, 0, count};
        if (only_merges) {
#pragma unroll 1
            for (unsigned int half = FI_LIST / 2; half > 0; half /= 2) sort_step(chunk, FI_LIST, half, false);
        } else {
            sort_chunk(chunk, false);
        }
        for (unsigned int i = threadIdx.x; i < count; i += FI_THREADS) list.put(first + i, entries[i]);
        __syncthreads();
    }
}

static __device__ __forceinline__ void sort_list(const top_list &list, unsigned long long *entries) {
    if (list.entries) return sort_chunk(list, false);
    sort_chunks(list, entries, false);
#pragma unroll 1
    for (unsigned int size = 2 * FI_LIST; size / 2 < list.count; size *= 2) {
        const unsigned int span = (list.count + size - 1) / size * size;
        bool is_first = true;
#pragma unroll 1
        for (unsigned int half = size / 2; half >= FI_LIST; half /= 2) {
            sort_step(list, span, half, is_first);
            is_first = false;
        }
        sort_chunks(list, entries, true);
    }
}

/// Lists what is kept of the block's entries, from where the blocks before end.
static __device__ __forceinline__ void list_kept(
    unsigned long long *entries, int *places, fi_filter_shared &shared, unsigned int &turn
) {
    const fi_filtered_row &row = shared.row;
    constexpr unsigned int warps = FI_THREADS / 32;
    const unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // A run of entries for each warp, counted first and listed then.
    const unsigned int run = (row.count / warps / 32 + 1) * 32;
    unsigned int offset = 0;
#pragma unroll 1
    for (int round = 0; round < 2; round++) {
#pragma unroll 1
        for (unsigned int start = warp * run; start < (warp + 1) * run && start < row.count; start += 32) {
            const unsigned int index = start + lane;
            const float x = index < row.count ? row.read(row.first + index) : 0.0f;
            const bool kept = index < row.count && row.keeps(x, row.first + index);
            const unsigned int all = __ballot_sync(0xffffffffu, kept);
            if (round == 1 && kept) {
                const unsigned int at = offset + __popc(all & ((1u << lane) - 1u));
                if (entries) {
                    entries[at] = ranked(x, row.first + index);
                } else {
                    places[at] = (int)(row.first + index);
                }
            }
            offset += __popc(all);
        }
        if (round == 1) break;
        __syncthreads();
        if (lane == 0) shared.parts[warp] = offset;
        __syncthreads();
        const unsigned long long own = threadIdx.x < warps ? shared.parts[threadIdx.x] : 0;
        const unsigned long long through = fi_block_running_sum<FI_THREADS>(own, shared.slots);
        if (threadIdx.x < warps) shared.parts[threadIdx.x] = through - own;
        if (threadIdx.x == FI_THREADS - 1) shared.at[0] = through;
        __syncthreads();
        unsigned long long before;
        shared.numbers.sum(shared.at[0], turn, &before);
        offset = (unsigned int)(before + shared.parts[warp]);
    }
}

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    top_k(const __grid_constant__ fi_top_k_params p) {
    __shared__ fi_filter_shared shared;
    FI_HELD_ROW(held);
    const unsigned int place = fi_team_row();
    unsigned int turn = 0, own_key;
    const unsigned long long address = fi_row_address<FI_INPUT>(p.input, place, 1);
    const unsigned long long top = fi_begin_row(address, p.width, p.low_bits, held, shared, turn, &own_key);
    const float scale = fi_reciprocal_temperature(p.temperatures, p.temperature, place);
    // The greatest may be a NaN here.
    fi_set_scale(top, scale, shared);
    int *const places = (int *)fi_row_address<FI_FLOAT32>(p.places, place, 1);
    if (p.k < p.width) fi_keep_top_k(p.k, own_key, shared, turn);
    // Other blocks may still read the histograms, where the first block's list will be.
    fi_team_sync();
    const bool is_short = p.k <= FI_LIST;
    list_kept(is_short ? (unsigned long long *)fi_team_at(shared.masses[0], 0) : nullptr, places, shared, turn);
    const int status = fi_top_status(top, false);
#ifdef FI_LOGARITHMS
    const fi_filtered_row &row = shared.row;
    double logarithm = 0;
    // All warps have read what is held, which becomes weights.
    __syncthreads();
    if (status == FI_ROW_OK) logarithm = log(row.weight_of_mass(fi_weigh(true, shared, turn)));
#endif
    fi_team_sync();
    if (fi_team_rank() != 0) return;
    const top_list list = {is_short ? shared.masses[0] : nullptr, places, address, p.k};
    if (p.sorted) sort_list(list, shared.masses[0]);
    constexpr int VALUES =
#ifdef FI_LOGARITHMS
        FI_FLOAT32;
#else
        FI_INPUT;
#endif
    const unsigned long long values = fi_row_address<VALUES>(p.values, place, 1);
    for (unsigned int index = threadIdx.x; index < p.k; index += FI_THREADS) {
        const unsigned int at = is_short ? place_of(shared.masses[0][index]) : (unsigned int)places[index];
        float x[1];
        fi_read<FI_INPUT, 1>(address, at, x);
#ifdef FI_LOGARITHMS
        // Both terms are at most 0, so no digits cancel; the difference alone may exceed float32.
        x[0] = status != FI_ROW_OK ? __int_as_float(0x7fc00000)
                                   : (float)(((double)x[0] - (double)row.maximum) * (double)scale - logarithm);
        places[index] = status == FI_ROW_OK ? (int)at : -1;
#else
        places[index] = (int)at;
#endif
        fi_write<VALUES, 1>(values, index, x);
    }
#ifdef FI_LOGARITHMS
    if (threadIdx.x == 0) ((unsigned char *)p.status)[place] = (unsigned char)status;
#endif
}
