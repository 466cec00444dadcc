// Queries, keys and values into shared memory.
#pragma once
#include "portable/attention_tile.cuh"

/// Where the keys of a stage lie, and where their values: addresses of this block's head. Past the last key, any valid address.
struct Places { uint64 addresses[2][keys]; };

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
        if (item.only_block >= 0) return item.only_block;
        return item.key_count > 0 ? item.blocks(p)[in_block(min(key, item.key_end() - 1))] : 0;
    }
    /// The key's column in a block-sparse matrix.
    __device__ __forceinline__ int column(int key) const { return item.blocks(p)[in_block(key)] * static_cast<int>(p.block_size) + row(key); }

    __device__ __forceinline__ void place(Places &places, int at, int key, int block) const {
        const int64 r = key < item.key_end() ? row(key) : 0, b = block;
        places.addresses[0][at] = item.keys_address(p) + (b * p.keys.block + r * p.keys.token) * element_bytes;
        places.addresses[1][at] = item.values_address(p) + (b * p.values.block + r * p.values.token) * element_bytes;
    }
};

/// The copies of one stage's rows of keys or of values, `elements` of each head, in chunks as large as alignment allows; zeros
/// for rows that are not there. A thread has `turns` of them, to be made a part at a time between other work.
template <class Layout, int elements> struct RowCopies {
    static constexpr int chunk = FI_CHUNK >= 4 ? FI_CHUNK : element_bytes;
    static constexpr int per_row = elements * element_bytes / chunk;
    static_assert(per_row * chunk == elements * element_bytes, "rows are whole chunks");
    static constexpr int count = keys * per_row, turns = ceil_div(count, threads);
    // Where threads divide evenly into rows, a thread keeps its column, and its swizzle, for all rows.
    static constexpr bool is_even = threads % per_row == 0;

    /// Turns first ..< end.
    FI_DEVICE void copy(uint32 stage, const uint64 (&places)[keys], int there, int first, int end) {
#pragma unroll(FI_CHUNK >= 4 ? turns : 1)
        for (int turn = first; turn < end; ++turn) {
            const int id = turn * threads + threadIdx.x;
            if (count % threads != 0 && id >= count) break;
            const int row = is_even ? turn * (threads / per_row) + threadIdx.x / per_row : id / per_row;
            const int byte = (is_even ? threadIdx.x % per_row : id - row * per_row) * chunk;
            const uint64 from = places[row] + byte;
            const uint32 to = stage + Layout::offset(row, byte / 16) + byte % 16;
            const bool is_there = row < there;
            if constexpr (FI_CHUNK >= 4) {
                copy_async<chunk>(to, pointer<const char>(from), is_there);
            } else if constexpr (element_bytes == 2) {
                store_shared(to, is_there ? *pointer<const uint16>(from) : static_cast<uint16>(0));
            } else {
                store_shared_byte(to, is_there ? *pointer<const uint8>(from) : 0);
            }
        }
    }
};
using KeyCopies = RowCopies<KeyRows, dim_qk>;
using ValueCopies = RowCopies<ValueRows, slice_vo>;

/// The copies of one stage: where from, where to, how many keys there are.
struct StageCopies {
    const Places &places;
    uint32 keys_stage, values_stage;
    int there;

    /// Part `part` of `parts`, which are constants once loops are unrolled.
    __device__ __forceinline__ void copy(int part, int parts) const {
        KeyCopies::copy(keys_stage, places.addresses[0], there, KeyCopies::turns * part / parts, KeyCopies::turns * (part + 1) / parts);
        ValueCopies::copy(values_stage, places.addresses[1], there, ValueCopies::turns * part / parts,
                          ValueCopies::turns * (part + 1) / parts);
    }
    __device__ __forceinline__ void copy_all() const {
        copy(0, 1);
        copy_commit();
    }
};

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

FI_DEVICE const uint16 *query_row(const fi_attention_params &p, const Item &item, int row) {
    const int query = item.query(p, row);
    return pointer<const uint16>(p.queries) + (item.first_query + query) * p.query_token
           + item.query_head(p, row, query) * p.query_head;
}

/// The tile's queries, beside the program where they can be copied as they are: part of the next group of copies.
FI_DEVICE void load_queries(const fi_attention_params &p, const Item &item, uint32 to) {
    if (!has_narrow_keys && dim_qk % 16 == 0 && p.query_is_aligned) {
        constexpr int chunks = padded_qk / 8;
        for (int id = threadIdx.x; id < rows * chunks; id += threads) {
            const int row = id / chunks, chunk = id % chunks;
            // Rows past the tile's get zeros, from an address that is there.
            const bool is_there = row < item.row_count;
            copy_async<16>(to + QueryRows::offset(row, chunk), query_row(p, item, is_there ? row : 0) + chunk * 8, is_there);
        }
        return;
    }
    // For narrow keys each 16 elements come evens first, then odds: the order `widen` gives keys in.
    constexpr int units = padded_qk / 16;
    for (int id = threadIdx.x; id < rows * units; id += threads) {
        const int row = id / units, unit = id % units;
        uint4 low = make_uint4(0, 0, 0, 0), high = low;
        if (row < item.row_count) {
            const uint16 *from = query_row(p, item, row);
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
