// Queries, keys and values into shared memory.
#pragma once
#include "portable/attention_tile.cuh"

/// Where the keys of some stages lie, and their values: addresses of this block's head. Past the last key, any valid address.
struct Places { uint64 keys_at[place_stages * keys], values_at[place_stages * keys]; };

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
        return item.key_count > 0 ? __ldcg(item.blocks(p) + in_block(min(key, item.key_end() - 1))) : 0;
    }
    /// The key's column in a block-sparse matrix, or place in a sequence.
    __device__ __forceinline__ int column(int key) const { return item.places(p)[in_block(key)] * static_cast<int>(p.block_size) + row(key); }

    __device__ __forceinline__ void place(Places &places, int at, int key, int block) const {
        const int64 r = key < item.key_end() ? row(key) : 0, b = block;
        places.keys_at[at] = item.keys_address(p) + (b * p.keys.block + r * p.keys.token) * element_bytes;
        places.values_at[at] = item.values_address(p) + (b * p.values.block + r * p.values.token) * element_bytes;
    }
};

/// This thread's share of finding the places of `place_stages` stages: block ids asked for at one time, places noted later.
struct PlaceFinder {
    static constexpr int count = place_stages * keys, turns = FI_RAGGED ? 1 : ceil_div(count, threads);
    int blocks[turns];

    __device__ __forceinline__ void find(const KeyFinder &finder, const Stages &those, int first) {
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) blocks[turn] = finder.block(those.key(first + turn * threads + threadIdx.x));
    }
    __device__ __forceinline__ void note(const KeyFinder &finder, const Stages &those, int first, Places &places) const {
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
            const int at = turn * threads + threadIdx.x;
            if (count % threads == 0 || at < count) finder.place(places, at, those.key(first + at), blocks[turn]);
        }
    }
};

/// Whether keys and values are read once: where lists are run, whose items have all rows of their requests. Queues' tiles share keys. Narrower heads, which
/// have little to gain, are left out: ptxas 13.0 gave the first copies of 16 e4m3 elements a descriptor of a register that nothing writes.
constexpr bool reads_once = !FI_QUEUE && !is_latent && dim_qk >= 64;

/// The copies of one stage's rows of keys or of values, `elements` of each head, in chunks as large as alignment allows; zeros
/// for rows that are not there. A thread has `turns` rows, and `columns` chunks of each.
template <class Layout, int elements> struct RowCopies {
    static constexpr int chunk = FI_CHUNK >= 4 ? FI_CHUNK : element_bytes;
    static constexpr int per_row = elements * element_bytes / chunk;
    static_assert(per_row * chunk == elements * element_bytes, "rows are whole chunks");
    /// Threads side by side along a row. Eight have a line of 128 bytes of it and a swizzle's period: their other chunks of the row are at
    /// constant distances, and one address is enough for all of them.
    static constexpr int across = FI_QUEUE && chunk == 16 && per_row % 8 == 0 && !is_latent ? 8 : per_row, columns = per_row / across;
    static constexpr int count = keys * across, turns = ceil_div(count, threads);
    // Where threads divide evenly into rows, a thread keeps its column, and its swizzle, for all rows.
    static constexpr bool is_even = threads % across == 0;
    static constexpr int row_step = threads / across;

    FI_DEVICE int first_row() { return threadIdx.x / across; }
    FI_DEVICE int row(int turn) { return is_even ? turn * row_step + first_row() : (turn * threads + threadIdx.x) / across; }
    FI_DEVICE int byte(int turn) {
        return (is_even ? threadIdx.x % across : turn * threads + threadIdx.x - row(turn) * across) * chunk;
    }
    FI_DEVICE bool has(int turn) { return turn < turns && (count % threads == 0 || turn * threads + threadIdx.x < count); }
    /// Where a turn copies from, by the table.
    FI_DEVICE uint64 source(const uint64 *places, int turn) { return has(turn) ? places[row(turn)] + byte(turn) : 0; }
    /// The same of keys in two tensors.
    FI_DEVICE uint64 source(const uint64 *places, const uint64 *rest, int turn) {
        constexpr int shared = dim_vo * element_bytes;
        if (!has(turn)) return 0;
        return byte(turn) < shared ? places[row(turn)] + byte(turn) : rest[row(turn)] + byte(turn) - shared;
    }
    /// Where this thread's first turn copies from, of rows one after another from `first` on.
    FI_DEVICE uint64 first_source(uint64 first, int64 stride) { return is_even ? first + first_row() * stride + byte(0) : first; }
    /// Where a turn does: past the last row nothing is read.
    FI_DEVICE uint64 source(uint64 first_source, int64 stride, int turn) {
        return first_source + (is_even ? turn * row_step * stride : row(turn) * stride + byte(turn));
    }
    FI_DEVICE void copy(uint32 stage, uint64 from, int there, int turn) {
        if (!has(turn)) return;
        // Rows a multiple of eight apart have the same swizzle.
        const uint32 to = is_even && row_step % 8 == 0
                              ? stage + Layout::offset(first_row(), byte(0) / 16) + byte(0) % 16 + turn * row_step * Layout::stride
                              : stage + Layout::offset(row(turn), byte(turn) / 16) + byte(turn) % 16;
        const bool is_there = is_even ? turn * row_step < there - first_row() : row(turn) < there;
        if constexpr (FI_CHUNK >= 4) {
#pragma unroll
            for (int column = 0; column < columns; ++column) {
                const int step = column * across * chunk;
                if constexpr (reads_once && chunk == 16) copy_async_once(to + step, pointer<const char>(from) + step, is_there);
                else copy_async<chunk>(to + step, pointer<const char>(from) + step, is_there);
            }
        } else if constexpr (element_bytes == 2) {
            store_shared(to, is_there ? *pointer<const uint16>(from) : static_cast<uint16>(0));
        } else {
            store_shared_byte(to, is_there ? *pointer<const uint8>(from) : 0);
        }
    }
    /// All turns. The sources are read before the first copy, which reads do not move across, and copies stay together: between
    /// other accesses to shared memory each costs several no-ops.
    template <class Source> FI_DEVICE void copy_all(uint32 stage, int there, Source source) {
        if constexpr (FI_CHUNK >= 4) {
            uint64 from[turns];
#pragma unroll
            for (int turn = 0; turn < turns; ++turn) from[turn] = source(turn);
#pragma unroll
            for (int turn = 0; turn < turns; ++turn) copy(stage, from[turn], there, turn);
        } else {
            // Elements one at a time are slow however they are compiled: then compile fast.
#pragma unroll 1
            for (int turn = 0; turn < turns; ++turn) copy(stage, source(turn), there, turn);
        }
    }
};
using KeyCopies = RowCopies<KeyRows, dim_qk>;
using ValueCopies = RowCopies<ValueRows, slice_vo>;

template <bool has_chunks> struct ChunkPlace { using Type = uint64; };
template <> struct ChunkPlace<true> { using Type = uint32; };

/// Where this thread's copies of the next stage come from, of keys one after another: stepped from stage to stage, as computed anew each
/// time it took as many instructions as the copies. In chunks from the tensors' starts, which takes half the registers and reaches 64 GiB.
struct Sources {
    static constexpr int shift = FI_CHUNK >= 16 ? 4 : 0;
    using Place = ChunkPlace<FI_CHUNK >= 16>::Type;
    Place keys_at, values_at;

    __device__ __forceinline__ uint64 keys(const fi_attention_params &p) const {
        return p.keys.address + (static_cast<uint64>(keys_at) << shift);
    }
    __device__ __forceinline__ uint64 values(const fi_attention_params &p) const {
        return p.values.address + (static_cast<uint64>(values_at) << shift);
    }

    /// To an item's first key.
    __device__ __forceinline__ void start(const fi_attention_params &p, const Item &item, const Stages &those) {
        if constexpr (!FI_RAGGED) return;
        const int64 first = item.only_block + those.key(0), key_stride = p.keys.token * element_bytes,
                    value_stride = p.values.token * element_bytes;
        keys_at = (KeyCopies::first_source(item.keys_address(p) + first * key_stride, key_stride) - p.keys.address) >> shift;
        values_at = (ValueCopies::first_source(item.values_address(p) + first * value_stride, value_stride) - p.values.address) >> shift;
    }
};

/// Stage `tile` of an item into stage memory; `sources` are at it, and step on, or `places` are those of the stages that `tile` is one of.
FI_DEVICE void load_stage(const fi_attention_params &p, Sources &sources, const Stages &those, const Places *places, uint32 key_stage, uint32 value_stage,
                          int tile) {
    const int there = those.count() - tile * keys;
    if constexpr (FI_RAGGED) {
        const int64 key_stride = p.keys.token * element_bytes, value_stride = p.values.token * element_bytes;
        const int step = those.key((tile + 1) * keys) - those.key(tile * keys);
        KeyCopies::copy_all(key_stage, there, [&](int turn) { return KeyCopies::source(sources.keys(p), key_stride, turn); });
        ValueCopies::copy_all(value_stage, there,
                              [&](int turn) { return ValueCopies::source(sources.values(p), value_stride, turn); });
        sources.keys_at += step * static_cast<Sources::Place>(key_stride >> Sources::shift);
        sources.values_at += step * static_cast<Sources::Place>(value_stride >> Sources::shift);
    } else {
        const Places &at = places[tile / place_stages % 2];
        const int first = tile % place_stages * keys;
        if constexpr (is_latent) {
            KeyCopies::copy_all(key_stage, there, [&](int turn) { return KeyCopies::source(at.keys_at + first, at.values_at + first, turn); });
            return;
        }
        KeyCopies::copy_all(key_stage, there, [&](int turn) { return KeyCopies::source(at.keys_at + first, turn); });
        ValueCopies::copy_all(value_stage, there, [&](int turn) { return ValueCopies::source(at.values_at + first, turn); });
    }
}

/// Where this thread's copies of an item's first stage come from: found from the plan alone, so that nothing but the copies is left to do
/// once what they read may be read.
struct FirstSources {
    /// Keys one after another have their own; keys in two tensors, elements one at a time, and rows of more chunks than there are registers to
    /// spare are looked up as they are copied.
    static constexpr bool are_found = !FI_QUEUE && !FI_RAGGED && FI_CHUNK >= 4 && !is_latent && KeyCopies::turns + ValueCopies::turns <= 16;
    uint64 keys_at[are_found ? KeyCopies::turns : 1], values_at[are_found ? ValueCopies::turns : 1];

    __device__ __forceinline__ void find(const Places &places) {
        if constexpr (are_found) {
#pragma unroll
            for (int turn = 0; turn < KeyCopies::turns; ++turn) keys_at[turn] = KeyCopies::source(places.keys_at, turn);
#pragma unroll
            for (int turn = 0; turn < ValueCopies::turns; ++turn) values_at[turn] = ValueCopies::source(places.values_at, turn);
        }
    }
    __device__ __forceinline__ void copy(uint32 key_stage, uint32 value_stage, const Item &item) const {
        if constexpr (are_found) {
            const int there = Stages(item).count();
            KeyCopies::copy_all(key_stage, there, [&](int turn) { return keys_at[turn]; });
            ValueCopies::copy_all(value_stage, there, [&](int turn) { return values_at[turn]; });
        }
    }
};

/// Has the keys and values of an item's first stage brought to L2, without waiting for them: whoever may still write some of them writes
/// there too. `places` are those of the first stages.
FI_DEVICE void prefetch_first(const fi_attention_params &p, const Item &item, const Places &places) {
#if __CUDA_ARCH__ >= 900
    constexpr int sector = 128, key_sectors = ceil_div((is_latent ? dim_vo : dim_qk) * element_bytes, sector),
                  value_sectors = ceil_div((is_latent ? FI_LATENT : slice_vo) * element_bytes, sector), sectors = key_sectors + value_sectors;
    if constexpr (!FI_RAGGED) {
        const int count = min(item.key_count, keys) * sectors;
#pragma unroll 4
        for (int id = threadIdx.x; id < count; id += threads) {
            const int at = id / sectors, place = id % sectors;
            const uint64 from = place < key_sectors ? places.keys_at[at] + place * sector : places.values_at[at] + (place - key_sectors) * sector;
            asm volatile("prefetch.global.L2 [%0];" ::"l"(from) : "memory");
        }
    }
#endif
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

/// What a row from element 0 on is at `first`, of 16 elements: itself, or the part that latent queries have in another tensor.
FI_DEVICE const uint16 *part_of_query(const fi_attention_params &p, const Item &item, int row, const uint16 *nope, int first) {
    if (!is_latent || first < dim_vo) return nope;
    const int query = item.query(p, row);
    return pointer<const uint16>(p.rope_queries) + (item.first_query + query) * p.rope_query_token
           + item.query_head(p, row, query) * p.rope_query_head - dim_vo;
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

/// The same of e4m3 elements.
FI_DEVICE const uint8 *narrow_query_row(const fi_attention_params &p, const Item &item, int row) {
    const int query = item.query(p, row);
    return pointer<const uint8>(p.queries) + (item.first_query + query) * p.query_token
           + item.query_head(p, row, query) * p.query_head;
}

/// Sixteen elements of an e4m3 row from element `first` on, as they lie; zeros past the head.
FI_DEVICE uint4 load_narrow_query(const uint8 *row, int first, bool is_aligned) {
    if (is_aligned && first + 16 <= dim_qk) return *reinterpret_cast<const uint4 *>(row + first);
    uint32 words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 16; ++i)
        if (first + i < dim_qk) words[i / 4] |= static_cast<uint32>(row[first + i]) << i % 4 * 8;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/// A value that each lane computed for one of a warp's rows, for any lane: addresses of rows take tens of instructions.
FI_DEVICE uint64 of_row(uint64 own, int row) { return __shfl_sync(0xffffffff, own, row); }

/// Whether queries can be copied as they are, if they are aligned. Each warp copies rows of its own.
constexpr bool copies_queries = !has_narrow_keys && !has_narrow_queries && !is_latent && dim_qk % 16 == 0;
constexpr int own_query_rows = rows / warps;

/// Whether bfloat16 queries meet 8-bit keys as float16, to which those are widened in a quarter of the instructions: each row times a power of
/// two that brings its largest element to 2^14, so that what float16 cannot hold is 2^-38 of that and less. The lanes that copy a row are
/// neighbours, a power of two of them.
constexpr int query_units = padded_qk / 16;
constexpr bool multiplies_in_float16 = has_narrow_keys && !has_narrow_queries && half_type == Half::bfloat16
                                       && (narrow != Narrow::e4m3 || widens_e4m3) && (query_units & (query_units - 1)) == 0
                                       && query_units <= warp_size && rows * query_units % warp_size == 0;
constexpr Half product_type = multiplies_in_float16 ? Half::float16 : half_type;

/// What the products of each row are multiplied by where they are float16's.
FI_DEVICE float *row_factors() {
    __shared__ float of_rows[multiplies_in_float16 ? rows : 1];
    return of_rows;
}

/// Sixteen elements of row `row`, of which neighbouring lanes have the others, times its power of two; notes what takes it back.
FI_DEVICE void rebase_queries(uint4 &low, uint4 &high, int row, int unit) {
    uint32 *words[8] = {&low.x, &low.y, &low.z, &low.w, &high.x, &high.y, &high.z, &high.w};
    float maximum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        maximum = fmaxf(maximum, fmaxf(fabsf(__uint_as_float(*words[i] << 16)), fabsf(__uint_as_float(*words[i] & 0xffff0000))));
#pragma unroll
    for (int step = 1; step < query_units; step *= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, step));
    // Both powers are normal numbers.
    const uint32 exponent = max(__float_as_uint(maximum) >> 23, 15u);
    const float power = __uint_as_float((268 - exponent) << 23);
#pragma unroll
    for (int i = 0; i < 8; ++i)
        *words[i] = pack<Half::float16>(__uint_as_float(*words[i] << 16) * power, __uint_as_float(*words[i] & 0xffff0000) * power);
    if (unit == 0) row_factors()[row] = __uint_as_float((exponent - 14) << 23);
}

/// Where that one of the warp's rows of queries starts that this lane knows of.
FI_DEVICE uint64 own_query(const fi_attention_params &p, const Item &item) {
    if (!copies_queries || item.row_count == 0) return 0;
    const int own = threadIdx.x / warp_size * own_query_rows + threadIdx.x % warp_size % own_query_rows;
    // Rows past the tile's get zeros, from an address that is there.
    return reinterpret_cast<uint64>(query_row(p, item, own < item.row_count ? own : 0));
}

/// The tile's queries, beside the program where they can be copied as they are: part of the next group of copies. `address`: `own_query`.
FI_DEVICE void load_queries(const fi_attention_params &p, const Item &item, uint32 to, uint64 address) {
    if (copies_queries && p.query_is_aligned) {
        constexpr int own_rows = own_query_rows, chunks = padded_qk / 8;
        const int lane = threadIdx.x % warp_size, first = threadIdx.x / warp_size * own_rows;
#pragma unroll 4
        for (int turn = 0; turn < ceil_div(own_rows * chunks, warp_size); ++turn) {
            const int id = turn * warp_size + lane, row = id / chunks, chunk = id % chunks;
            const uint64 from = of_row(address, row % warp_size);
            if (own_rows * chunks % warp_size == 0 || row < own_rows)
                copy_async<16>(to + QueryRows::offset(first + row, chunk), pointer<const uint16>(from) + chunk * 8,
                               first + row < item.row_count);
        }
        return;
    }
    // For narrow keys each 16 elements come evens first, then odds, the order `widen` gives keys in; or every other pair first, for
    // `widen_neighbours`.
    constexpr int units = query_units;
#pragma unroll 1
    for (int id = threadIdx.x; id < rows * units; id += threads) {
        const int row = id / units, unit = id % units;
        uint4 low = make_uint4(0, 0, 0, 0), high = low;
        if constexpr (has_narrow_queries) {
            if (row < item.row_count) {
                const uint4 x = load_narrow_query(narrow_query_row(p, item, row), unit * 16, p.query_is_aligned);
                // Evens, and odds.
                widen<half_type, Narrow::e4m3>(x.x, low.x, high.x);
                widen<half_type, Narrow::e4m3>(x.y, low.y, high.y);
                widen<half_type, Narrow::e4m3>(x.z, low.z, high.z);
                widen<half_type, Narrow::e4m3>(x.w, low.w, high.w);
                if constexpr (!has_narrow_keys) {
                    const uint4 a = low, b = high;
                    low = make_uint4(__byte_perm(a.x, b.x, 0x5410), __byte_perm(a.x, b.x, 0x7632), __byte_perm(a.y, b.y, 0x5410),
                                     __byte_perm(a.y, b.y, 0x7632));
                    high = make_uint4(__byte_perm(a.z, b.z, 0x5410), __byte_perm(a.z, b.z, 0x7632), __byte_perm(a.w, b.w, 0x5410),
                                      __byte_perm(a.w, b.w, 0x7632));
                }
            }
        } else if (row < item.row_count) {
            const uint16 *from = part_of_query(p, item, row, query_row(p, item, row), unit * 16);
            low = load_query(from, unit * 16, p.query_is_aligned);
            high = load_query(from, unit * 16 + 8, p.query_is_aligned);
        }
        if constexpr (multiplies_in_float16) {
            rebase_queries(low, high, row, unit);
            const uint4 a = low, b = high;
            low = make_uint4(a.x, a.z, b.x, b.z), high = make_uint4(a.y, a.w, b.y, b.w);
        } else if constexpr (has_narrow_keys && !has_narrow_queries) {
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
