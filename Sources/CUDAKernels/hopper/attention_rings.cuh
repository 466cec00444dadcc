// Lists of items of few rows, whose keys are read once: each warp has a ring of pages of its own, 16 keys and their values, which the copy engine
// brings as boxes of whole rows.
//
// A processor has one block, and always 192 KiB on their way: warps ask for their next page as they leave one, and for the next item's while
// this one ends.
#include "hopper/attention_rings_pages.cuh"
#include "primitives/launch.cuh"

/// Reads an item; for the first warp.
FI_DEVICE void read_item(const fi_attention_params &p, int index, Item &item) {
    if (threadIdx.x < sizeof(fi_attention_item) / 16)
        reinterpret_cast<uint4 *>(&item)[threadIdx.x] =
            __ldcg(reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index) + threadIdx.x);
}

/// The same beside the program, of an item that is next: part of the next group of copies.
FI_DEVICE void copy_item(const fi_attention_params &p, int index, Item &item) {
    const char *from = pointer<const char>(p.items) + static_cast<int64>(index) * sizeof(fi_attention_item) + threadIdx.x * 16;
    if (threadIdx.x < sizeof(fi_attention_item) / 16) copy_async<16>(shared_address(&item) + threadIdx.x * 16, from, true);
}

/// Reads something of each line of the parameter: constant memory is cold when a kernel starts, and what is first needed at the kernel's
/// end would be waited for there. By a warp that has nothing else to do.
FI_DEVICE void touch_parameter(const fi_attention_params &p) {
    __shared__ uint32 anything;
    if (threadIdx.x != threads - 1) return;
    const uint32 *words = reinterpret_cast<const uint32 *>(&p);
    uint32 all = 0;
#pragma unroll
    for (int at = 0; at < static_cast<int>(sizeof p); at += 64) all |= words[at / 4];
    store_shared(shared_address(&anything), all);
}

/// A block at work on an item.
struct Block {
    const fi_hopper_attention_params &maps;
    const fi_attention_params &p;
    char *shared;
    uint32 base;

    /// This warp's pages of an item into `state`.
    __device__ __forceinline__ void compute(const Item &item, Pages &pages, const Queries &queries, State &state, float2 scale) const {
        const KeyFinder finder{p, item};
        const CommonlyVisible common(p, item, 0);
        const int end = item.key_end();
        state.clear();
#pragma unroll 1
        for (int key = pages.first_key(item.key); key < end; key += keys) {
            const uint32 page = pages.await(), values = page + Shared::page_bytes;
            clear_values(values, end - key);
            float s[row_tiles][key_tiles][4];
            multiply_keys(s, p, queries, page, 0);
            finish_scores(s, p, item, finder, common, 0, key, scale.y);
            multiply_values(state, s, scale.x, values, 0, ValueKeys{p, item, finder, key}, false);
            __syncwarp();
            pages.leave();
        }
    }
    /// Past an item's last key values become zeros: a weight of 0 does not stop what is there if it is no number.
    FI_DEVICE void clear_values(uint32 values, int there) {
        if (there >= page_keys) return;
        for (int id = there * ValueRows::chunks + threadIdx.x % warp_size; id < page_keys * ValueRows::chunks; id += warp_size)
            store_shared(values + ValueRows::offset(id / ValueRows::chunks, id % ValueRows::chunks), make_uint4(0, 0, 0, 0));
        // Before the copy engine writes there again.
        fence_async_proxy();
        __syncwarp();
    }
    /// Ends an item, eight rows at a time.
    __device__ __forceinline__ void end(const Item &item, const State &state, float scale) const {
        RowEnds ends{p, item, shared};
        ends.meet<0>(state, scale);
        ends.leave(0);
        if (item.row_count > meeting_rows) {
            __syncthreads();
            ends.meet<1>(state, scale);
            ends.leave(meeting_rows);
        }
        if (item.partial_row >= 0) merge_part_if_last(p, item, shared);
    }
};

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

/// A list's first item is where its number says, so that it is asked for at once; the rest are where the table says.
///
/// All that is read of the first item before its queries is the plan's: it is read before what was enqueued earlier is done.
extern "C" __global__ void __launch_bounds__(threads, FI_MIN_BLOCKS) fi_attention_rings(const __grid_constant__ AlignedParams maps) {
    extern __shared__ __align__(1024) char shared[];
    // Aligned for copies of 16 bytes.
    __shared__ __align__(16) Item items[2];
    __shared__ __align__(8) uint64 barriers[warps * stages];
    const fi_attention_params &p = maps.attention;
    const Block block{maps, p, shared, shared_address(shared)};
    if (p.place != place_first) fi_admit_successors();
    const int list = blockIdx.x / p.list_heads, head = blockIdx.x % p.list_heads, warp = threadIdx.x / warp_size;
    const int *rest = pointer<const int>(p.item_indptr) + list;
    const int rest_start = __ldcg(rest), rest_end = __ldcg(rest + 1);
    if (warp == 0) {
        read_item(p, list, items[0]);
        __syncwarp();
        if (threadIdx.x == 0) items[0].take_part(head);
    }
    touch_parameter(p);
    Pages pages(maps, block.base + Shared::rings, shared_address(barriers), head);
    if (threadIdx.x == threads - warp_size) {
        for (int at = 0; at < warps * stages; ++at) Barrier{shared_address(barriers) + at * 8}.init(1);
        publish_barriers();
        prefetch_map(maps.keys), prefetch_map(maps.values);
    }
    pages.start(list, rest_start, rest_end);
    pages.prefetch();
    __syncthreads();
    const auto is_own = [&](const Item &item) { return item.tile == p.tile && item.row_count > 0; };
    uint64 query = is_own(items[0]) ? own_query(p, items[0]) : 0;
    // Blocks with nothing to do make room at once.
    if (!is_own(items[0]) && rest_start >= rest_end && blockIdx.x != 0) return;
    fi_await_predecessors();
    pages.fill();
    if (p.place == place_first) fi_admit_successors();
    for (int next = rest_start, now = 0;; ++next, now = 1 - now) {
        Item &item = items[now], &other = items[1 - now];
        const bool has_next = next < rest_end;
        // The next item is on its way with this one's queries.
        if (has_next) copy_item(p, next, other);
        if (is_own(item)) {
            Queries queries(block.base + Shared::queries, 0);
            load_queries(p, item, block.base + Shared::queries, query);
            const float2 scale = score_scales(p, item);
            copy_commit();
            copy_wait<0>();
            __syncthreads();
            queries.keep(0);
            if (has_next && warp == 0) {
                if (threadIdx.x == 0) other.take_part(head);
                __syncwarp();
                if (threadIdx.x < other.row_count) fi_prefetch(reinterpret_cast<uint64>(query_row(p, other, threadIdx.x)), dim_qk * 2);
            }
            // States meet where the queries are.
            __syncthreads();
            State state;
            block.compute(item, pages, queries, state, scale);
            block.end(item, state, scale.x);
        } else if (has_next) {
            copy_commit();
            copy_wait<0>();
            __syncwarp();
            if (threadIdx.x == 0) other.take_part(head);
        }
        if (!has_next) return;
        // The item before has been read from, and the next one is there.
        __syncthreads();
        query = is_own(other) ? own_query(p, other) : 0;
    }
}
