// Queries, keys and values into shared memory.
#pragma once
#include "portable/attention_tile.cuh"

/// Where the keys of a stage lie, and where their values: addresses of this block's head. Past the last key, any valid address.
struct Places { uint64 addresses[2][keys]; };

/// n / d by a multiplication: see FastDivision in the launch.
FI_DEVICE uint32 divide(uint32 n, uint32 multiplier, uint32 shift) {
    return multiplier == 0 ? n : __umulhi(n, multiplier) >> shift;
}

/// Finds keys through the block table. Made where it is used, so that it takes no registers elsewhere.
struct KeyFinder {
    const fi_attention_params &p;
    const Item &item;

    __device__ __forceinline__ int in_block(int key) const {
        return divide(key, p.block_size_multiplier, p.block_size_shift);
    }
    __device__ __forceinline__ int row(int key) const { return key - in_block(key) * static_cast<int>(p.block_size); }
    /// The block id of a key; the item's first key's past the end, where no table entry may be read.
    __device__ __forceinline__ int block(int key) const {
        return item.work.key_count > 0 ? item.blocks[in_block(min(key, item.key_end - 1))] : 0;
    }
    /// The key's column in a block-sparse matrix.
    __device__ __forceinline__ int column(int key) const { return item.blocks[in_block(key)] * static_cast<int>(p.block_size) + row(key); }

    __device__ __forceinline__ void place(Places &places, int at, int key, int block) const {
        const int64 r = key < item.key_end ? row(key) : 0, b = block;
        places.addresses[0][at] = item.keys + (b * p.keys.block + r * p.keys.token) * element_bytes;
        places.addresses[1][at] = item.values + (b * p.values.block + r * p.values.token) * element_bytes;
    }
};

/// One stage's rows of keys or of values, `elements` of each head, in chunks as large as alignment allows; zeros from row
/// `there` on.
template <class Layout, int elements, bool are_all_there>
FI_DEVICE void load_rows(uint32 stage, const uint64 (&places)[keys], int there) {
    constexpr int chunk = FI_CHUNK >= 4 ? FI_CHUNK : element_bytes;
    constexpr int per_row = elements * element_bytes / chunk;
    static_assert(per_row * chunk == elements * element_bytes, "rows are whole chunks");
    constexpr int count = keys * per_row, turns = ceil_div(count, threads), group = 4;
    // Elements one at a time are slow however they are compiled: then compile fast.
    constexpr int unrolled = FI_CHUNK >= 4 ? turns : 1;
    // Where threads divide evenly into rows, a thread keeps its column, and its swizzle, for all rows.
    constexpr bool is_even = threads % per_row == 0;
    // Addresses are read some at a time before the copies, which the compiler does not move reads across.
#pragma unroll unrolled
    for (int first = 0; first < turns; first += group) {
        uint64 from[group];
#pragma unroll
        for (int i = 0; i < group; ++i) {
            const int id = (first + i) * threads + threadIdx.x;
            const int row = is_even ? (first + i) * (threads / per_row) + threadIdx.x / per_row : id / per_row;
            const int column = is_even ? threadIdx.x % per_row : id - row * per_row;
            if (first + i < turns && (count % threads == 0 || id < count)) from[i] = places[row] + column * chunk;
        }
#pragma unroll
        for (int i = 0; i < group; ++i) {
            if (first + i >= turns) break;
            const int id = (first + i) * threads + threadIdx.x;
            const int row = is_even ? (first + i) * (threads / per_row) + threadIdx.x / per_row : id / per_row;
            const int byte = (is_even ? threadIdx.x % per_row : id - row * per_row) * chunk;
            if (count % threads != 0 && id >= count) break;
            const uint32 to = stage + Layout::offset(row, byte / 16) + byte % 16;
            const bool is_there = are_all_there || row < there;
            if constexpr (FI_CHUNK >= 4) {
                copy_async<chunk>(to, pointer<const char>(from[i]), is_there);
            } else if constexpr (element_bytes == 2) {
                store_shared(to, is_there ? *pointer<const uint16>(from[i]) : static_cast<uint16>(0));
            } else {
                store_shared_byte(to, is_there ? *pointer<const uint8>(from[i]) : 0);
            }
        }
    }
}

/// A stage of keys and values, whose first key is `first_key`.
FI_DEVICE void load_stage(const Item &item, const Places &places, uint32 key_stage, uint32 value_stage, int first_key) {
    const int there = item.key_end - first_key;
    if (there >= keys) {
        load_rows<KeyRows, dim_qk, true>(key_stage, places.addresses[0], there);
        load_rows<ValueRows, slice_vo, true>(value_stage, places.addresses[1], there);
    } else {
        load_rows<KeyRows, dim_qk, false>(key_stage, places.addresses[0], there);
        load_rows<ValueRows, slice_vo, false>(value_stage, places.addresses[1], there);
    }
    copy_commit();
}

/// Zeros in the padding of heads that are not whole products: written once, never overwritten.
template <class Layout, int elements> FI_DEVICE void clear_padding(uint32 base, int row_count) {
    constexpr int first = elements * element_bytes, end = Layout::chunks * 16;
    if constexpr (first < end) {
        for (int i = threadIdx.x; i < row_count * (end - first); i += threads) {
            const int row = i / (end - first), byte = first + i % (end - first);
            store_shared_byte(base + Layout::offset(row, byte / 16) + byte % 16, 0);
        }
    }
}

/// Eight elements of a query row from element `first` on; zeros past the head.
FI_DEVICE uint4 load_query(const uint16 *row, int first, bool is_aligned) {
    if (is_aligned && first + 8 <= dim_qk) return *reinterpret_cast<const uint4 *>(row + first);
    uint32 words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        const int d = first + 2 * w;
        words[w] = (d < dim_qk ? row[d] : 0) | (d + 1 < dim_qk ? static_cast<uint32>(row[d + 1]) << 16 : 0);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/// The tile's queries. For narrow keys each 16 elements come evens first, then odds: the order `widen` gives keys in.
FI_DEVICE void load_queries(const fi_attention_params &p, const Item &item, uint32 to) {
    constexpr int units = padded_qk / 16;
    for (int id = threadIdx.x; id < rows * units; id += threads) {
        const int row = id / units, unit = id % units;
        uint4 low = make_uint4(0, 0, 0, 0), high = low;
        if (row < item.work.row_count) {
            const uint16 *from = pointer<const uint16>(p.queries) + (item.first_query + item.query(row)) * p.query_token
                                 + item.head(row) * p.query_head;
            low = load_query(from, unit * 16, p.query_is_aligned);
            high = load_query(from, unit * 16 + 8, p.query_is_aligned);
        }
        if constexpr (has_narrow_keys) {
            const uint4 a = low, b = high;
            low = make_uint4(__byte_perm(a.x, a.y, 0x5410), __byte_perm(a.z, a.w, 0x5410), __byte_perm(b.x, b.y, 0x5410),
                             __byte_perm(b.z, b.w, 0x5410));
            high = make_uint4(__byte_perm(a.x, a.y, 0x7632), __byte_perm(a.z, a.w, 0x7632), __byte_perm(b.x, b.y, 0x7632),
                              __byte_perm(b.z, b.w, 0x7632));
        }
        store_shared(to + QueryRows::offset(row, 2 * unit), low);
        store_shared(to + QueryRows::offset(row, 2 * unit + 1), high);
    }
}
