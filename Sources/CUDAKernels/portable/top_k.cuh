// The k greatest entries of each row, with their places: of equal entries the lowest places, a NaN above all numbers.
//
// What top-k keeps is listed in the order of places, sorted where that is asked for, and its values are read once more. A list of
// up to FI_LIST entries lies in the shared memory of the row's first block, a longer one in the output.
//
// FI_INPUT, FI_TEAM: see primitives/row_part.cuh. FI_LOGARITHMS: values are logarithms of softmax(input / temperature), float32.

#define FI_FORM 0
#include "fi_sample_params.h"
#include "primitives/launch.cuh"
#include "primitives/top_many.cuh"

/// Entries of a list that lies in shared memory, and of what is sorted there of a longer one.
#define FI_LIST (2 * FI_BINS)
#define FI_CHUNK (FI_HELD ? 8192 : FI_LIST)

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
        return fi_ranked(x[0], place);
    }
    __device__ __forceinline__ void put(unsigned int index, unsigned long long entry) const {
        if (entries) {
            entries[index] = entry;
        } else {
            places[index] = (int)fi_place_of(entry);
        }
    }
};

/// Steps of a bitonic merge on `list`, whose pairs all put the greater first: then entries past the end, which count as least, never
/// move. A step compares `index` with `index ^ distance`; the first step of a merge has distance 2 * half - 1.
static __device__ __forceinline__ void sort_step(const top_list &list, unsigned int span, unsigned int half, bool is_first) {
    for (unsigned int pair = threadIdx.x; pair < span / 2; pair += FI_THREADS) {
        // The half is a power of 2.
        const unsigned int left = 2 * pair - (pair & (half - 1));
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
    for (unsigned int first = 0; first < list.count; first += FI_CHUNK) {
        const unsigned int count = list.count - first < FI_CHUNK ? list.count - first : FI_CHUNK;
        for (unsigned int i = threadIdx.x; i < count; i += FI_THREADS) entries[i] = list.get(first + i);
        __syncthreads();
        // A merge's steps are of the whole chunk's length, whatever it holds: entries past the end are least.
        top_list chunk = {entries, nullptr, 0, count};
        if (only_merges) {
#pragma unroll 1
            for (unsigned int half = FI_CHUNK / 2; half > 0; half /= 2) sort_step(chunk, FI_CHUNK, half, false);
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
    for (unsigned int size = 2 * FI_CHUNK; size / 2 < list.count; size *= 2) {
        const unsigned int span = (list.count + size - 1) / size * size;
        bool is_first = true;
#pragma unroll 1
        for (unsigned int half = size / 2; half >= FI_CHUNK; half /= 2) {
            sort_step(list, span, half, is_first);
            is_first = false;
        }
        sort_chunks(list, entries, true);
    }
}

#ifdef FI_LOGARITHMS
#define VALUES FI_FLOAT32
#else
#define VALUES FI_INPUT
#endif

/// Where a row's results go.
struct top_output {
    unsigned long long input, values;
    int *places;
    int status;
    float scale;
    /// Of the sum of the weights.
    double logarithm;

    __device__ __forceinline__ void put(unsigned int index, unsigned int place, float value, float maximum) const {
        float x[1] = {value};
#ifdef FI_LOGARITHMS
        // Both terms are at most 0, so no digits cancel; the difference alone may exceed float32.
        x[0] = status != FI_ROW_OK ? __int_as_float(0x7fc00000)
                                   : (float)(((double)x[0] - (double)maximum) * (double)scale - logarithm);
        places[index] = status == FI_ROW_OK ? (int)place : -1;
#else
        places[index] = (int)place;
#endif
        fi_write<VALUES, 1>(values, index, x);
    }
    __device__ __forceinline__ void put(unsigned int index, unsigned int place, float maximum) const {
        float x[1];
        fi_read<FI_INPUT, 1>(input, place, x);
        put(index, place, x[0], maximum);
    }
    /// An entry as `fi_ranked` has it.
    __device__ __forceinline__ void put(unsigned int index, unsigned long long entry, float maximum) const {
        const float value = fi_order_value((unsigned int)(entry >> 32));
        if (value == 0.0f || value != value) {
            // A zero's sign and what a NaN is are in memory only.
            put(index, fi_place_of(entry), maximum);
        } else {
            put(index, fi_place_of(entry), value, maximum);
        }
    }
};

/// Writes the entries that `fi_select_few` has left, by the row's first block.
static __device__ __forceinline__ void put_few(
    const top_output &output, unsigned int k, bool is_sorted, float maximum, const fi_filter_shared &shared
) {
    if (threadIdx.x >= k) return;
    const unsigned long long own = shared.entries[threadIdx.x];
    unsigned int before = 0;
#pragma unroll 4
    for (unsigned int i = 0; i < k; i++) {
        const unsigned long long other = shared.entries[i];
        before += is_sorted ? other > own : fi_place_of(other) < fi_place_of(own);
    }
    output.put(before, own, maximum);
}

#if !FI_HELD
/// Puts the first `count` of the entries in the order of their places, beside them: by parts of the row, and by comparison in each.
static __device__ __forceinline__ const unsigned long long *order_by_place(
    unsigned int count, unsigned int width, fi_filter_shared &shared
) {
    constexpr unsigned int each = FI_MANY / FI_THREADS;
    static_assert(FI_SAMPLE_BINS <= FI_THREADS && 2 * FI_MANY <= FI_GATHERED, "a part a thread, and room for both");
    unsigned long long *const by_part = shared.entries + FI_MANY;
    const unsigned int bits = 32u - (unsigned int)__clz((int)(width - 1)), shift = bits > 9 ? bits - 9 : 0;
    unsigned int arrived[each];
    fi_clear_sample(shared);
    __syncthreads();
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        const unsigned int at = i * FI_THREADS + threadIdx.x;
        if (at < count) arrived[i] = atomicAdd(&shared.sample[fi_place_of(shared.entries[at]) >> shift], 1u);
    }
    __syncthreads();
    const unsigned int own = threadIdx.x < FI_SAMPLE_BINS ? shared.sample[threadIdx.x] : 0;
    // Where each part ends.
    const unsigned int through = (unsigned int)fi_block_running_sum<FI_THREADS>(own, shared.slots);
    if (threadIdx.x < FI_SAMPLE_BINS) shared.sample[threadIdx.x] = through;
    __syncthreads();
    const auto begin_of = [&](unsigned int part) { return part == 0 ? 0 : shared.sample[part - 1]; };
#pragma unroll
    for (unsigned int i = 0; i < each; i++) {
        const unsigned int at = i * FI_THREADS + threadIdx.x;
        if (at >= count) break;
        const unsigned long long entry = shared.entries[at];
        by_part[begin_of(fi_place_of(entry) >> shift) + arrived[i]] = entry;
    }
    __syncthreads();
#pragma unroll 1
    for (unsigned int at = threadIdx.x; at < count; at += FI_THREADS) {
        const unsigned long long entry = by_part[at];
        const unsigned int part = fi_place_of(entry) >> shift, begin = begin_of(part), end = shared.sample[part];
        unsigned int rank = begin;
        for (unsigned int i = begin; i < end; i++) rank += (unsigned int)by_part[i] > (unsigned int)entry;
        shared.entries[rank] = entry;
    }
    __syncthreads();
    return shared.entries;
}
#endif

extern "C" __global__ void FI_TEAM_KERNEL __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS)
    top_k(const __grid_constant__ fi_top_k_params p) {
    fi_follow_predecessors();
    __shared__ fi_filter_shared shared;
    const unsigned int index = fi_team_row();
    unsigned int turn = 0, own_key, count = 0;
    top_output output;
    output.input = fi_row_address<FI_INPUT>(p.input, index, 1);
    output.values = fi_row_address<VALUES>(p.values, index, 1);
    output.places = (int *)fi_row_address<FI_FLOAT32>(p.places, index, 1);
    fi_row row;
    const bool is_few = p.k <= FI_FEW && p.k < p.width, is_sent = is_few || (!FI_HELD && p.k <= FI_MANY && p.k < p.width);
    unsigned int top =
        fi_begin_row(row, output.input, p.width, p.low_bits, false, false, {is_sent ? p.k : 0, 0, 1}, shared, &own_key);
    const bool is_many = FI_HELD && !is_few && p.k <= FI_MANY && p.k < p.width;
    if (is_sent) count = fi_send_few(row, own_key, top, p.k, shared);
    const unsigned int share = (p.k + FI_TEAM - 1) / FI_TEAM;
    if (is_many) count = fi_bound_of_threads(own_key, share, share / 16, shared);
    const unsigned long long *const counts = shared.numbers.exchange((unsigned long long)top << 32 | count, turn);
    const fi_sent sent = fi_read_sent(counts);
    top = sent.top;
    // Entries of -inf are not sent.
    const bool fits = is_sent && sent.fits && sent.count >= p.k;
    output.status = fi_top_status(top, false);
    output.scale = fi_reciprocal_temperature(p.temperatures, p.temperature, index);
    output.logarithm = 0;
    // The greatest may be a NaN here.
    fi_set_scale(row, top, output.scale);
    const bool is_writer = fi_team_rank() == 0;
#ifdef FI_LOGARITHMS
    if (threadIdx.x == 0 && is_writer) ((unsigned char *)p.status)[index] = (unsigned char)output.status;
    if (output.status == FI_ROW_OK) {
        output.logarithm = log(row.weight_of_mass(fi_sum_all(row, 0.0f, false, false, shared, turn).total));
    }
#endif
    if (fits) {
        if (!is_writer) return;
        fi_select_few(counts, sent.count, p.k, shared);
        if (is_few) return put_few(output, p.k, p.sorted != 0, row.maximum, shared);
#if !FI_HELD
        const unsigned long long *entries = shared.entries;
        if (p.sorted) {
            sort_chunk({shared.entries, nullptr, 0, p.k}, false);
        } else {
            entries = order_by_place(p.k, p.width, shared);
        }
        for (unsigned int i = threadIdx.x; i < p.k; i += FI_THREADS) output.put(i, entries[i], row.maximum);
        return;
#endif
    }
    top_list list = {nullptr, output.places, output.input, p.k};
#if FI_HELD
    if (is_many) {
        unsigned int least;
        count = fi_send_many(row, counts, p.k, &least, shared, turn);
        if (count > 0) {
            if (!is_writer) return;
            list.entries = fi_select_many(row, count, p.k, least, top, shared, turn);
        }
    }
    const bool is_listed = list.entries != nullptr;
#else
    const bool is_listed = false;
#endif
    if (!is_listed) {
        if (p.k < p.width) fi_keep_top_k(row, p.k, own_key, top, is_few && sent.is_tied, shared, turn);
        // Other blocks may still read the histograms, where the first block's list will be.
        fi_team_sync();
        unsigned long long *const entries = p.k <= FI_LIST ? fi_team_at(shared.masses[0], 0) : nullptr;
        fi_list_entries(
            row.part, p.k, shared, turn, [&](float x, unsigned int place) { return row.keeps(x, place); },
            [&](unsigned int index, unsigned int before, float x, unsigned int place) {
                if (entries) {
                    entries[before + index] = fi_ranked(x, place);
                } else {
                    output.places[before + index] = (int)place;
                }
            });
        fi_team_sync();
        if (!is_writer) return;
        if (entries) list.entries = shared.masses[0];
    }
#if FI_HELD
    // Nobody needs what is held any more.
    if (p.sorted) sort_list(list, (unsigned long long *)fi_held);
#else
    if (p.sorted) sort_list(list, shared.masses[0]);
#endif
    for (unsigned int i = threadIdx.x; i < p.k; i += FI_THREADS) {
        if (list.entries) {
            output.put(i, list.entries[i], row.maximum);
        } else {
            output.put(i, (unsigned int)list.places[i], row.maximum);
        }
    }
}
