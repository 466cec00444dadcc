// The next item, and its queries, into shared memory, as they are.
#pragma once
#include "hopper/attention_bring.cuh"
#include "primitives/launch.cuh"

/// A number that the compiler knows nothing of: what follows from it is computed where it is used, and takes no registers elsewhere.
FI_DEVICE int anew(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/// Puts item number `turn` of this block where it belongs; of tile -1 where there is no more. For a warp: lanes copy a part each.
///
/// A cluster takes two neighbours, of which its blocks have the first, often the longer one, by turns. The second is missing where the queue's
/// items are of an odd number: it is then as the first, without rows and keys.
FI_DEVICE void fetch_item(const Block &block, uint32 turn) {
    constexpr int parts = sizeof(fi_attention_item) / 16;
    static_assert(cluster * parts <= warp_size, "a lane reads a part");
    const ItemQueue queue(block.p);
    const int lane = anew(threadIdx.x) % warp_size, slot = turn % item_slots;
    const bool claims = block.rank() == 0;
    int index = blockIdx.x / cluster;
    if (turn > 0) {
        // The other lanes sleep meanwhile, and do not wait by asking.
        if (lane == 0) {
            if (claims) {
                barrier(block.barriers.claim).wait_asleep(turn - 1);
                index = queue.claim(cluster);
                if constexpr (cluster > 1) {
                    store_shared_at(1, shared_address(block.state.indices + turn % index_slots), index);
                    barrier(block.barriers.index_full[turn % index_slots]).arrive_releasing_at(1);
                }
            } else {
                barrier(block.barriers.index_full[turn % index_slots]).wait_in_cluster((turn - 1) / index_slots);
                index = block.state.indices[turn % index_slots];
            }
        }
        index = __shfl_sync(0xffffffff, index, 0);
    }
    const int first = index * cluster, own = first + (block.rank() ^ turn & cluster - 1);
    const bool is_there = first < queue.count, is_missing = own >= queue.count;
    // Lanes of the second part read the other block's item.
    const int read = cluster > 1 ? min(first + (lane / parts ^ own - first), queue.count - 1) : first;
    uint4 part = make_uint4(0, 0, 0, 0);
    if (is_there && lane < cluster * parts)
        part = (pointer<const uint4>(block.p.items) + static_cast<int64>(queue.start + read) * parts)[lane % parts];
    if (lane == 0) barrier(block.barriers.item_empty[slot]).wait(turn / item_slots + 1);
    __syncwarp();
    Item &item = block.items[slot];
    if (is_there) {
        if (lane < parts) reinterpret_cast<uint4 *>(&item)[lane] = part;
        if constexpr (cluster > 1) {
            Item &other = block.state.beside;
            if (lane >= parts && lane < 2 * parts) reinterpret_cast<uint4 *>(&other)[lane - parts] = part;
            __syncwarp();
            if (lane == 0) {
                // Without a part either, which a merge would count.
                if (is_missing) item.row_count = item.key_count = 0, item.partial_row = -1;
                const Span span(item, block.maps.box_rows), beside(other, block.maps.box_rows);
                const bool shares = item.request == other.request && item.head == other.head && item.key == other.key && span.jump == 0
                                    && beside.jump == 0;
                block.state.passages[slot] = {max(max(span.tiles(), beside.tiles()), 1), shares ? max(span.count, beside.count) : -1};
            }
        }
    } else if (lane == 0) {
        item.tile = -1;
        if (claims) queue.end(cluster);
    }
    barrier(block.barriers.item_full[slot]).arrive();
    __syncwarp();
}

/// One of `count` threads that copy queries: it has one chunk of 16 bytes of every few rows. `place` says where in shared memory a chunk of a
/// row belongs.
///
/// What it reads of the item and the parameters is read once: with the copies between, it would be read for every row, and the
/// computing warps waited for that (H200, 1,024 keys, causal: a twelfth of their time).
template <int element_bytes, int count = bringers, class Place>
FI_DEVICE void copy_queries(const fi_attention_params &p, const Item &item, int thread, Place place) {
    constexpr int chunks = padded_qk * element_bytes / 16, step = count / chunks;
    static_assert(step > 0, "a thread has the same chunk of all its rows");
    thread = anew(thread);
    const int chunk = thread % chunks;
    const uint32 there = chunk * 16 < dim_qk * element_bytes ? item.row_count : 0;
    const uint32 first = item.row, group = p.group, multiplier = p.group_multiplier, shift = p.group_shift;
    const int64 token = p.query_token * element_bytes, head = p.query_head * element_bytes;
    const uint64 from = p.queries + item.first_query * token + item.head * static_cast<int64>(group) * head + chunk * 16;
    const uint32 own = count % chunks == 0 || thread < step * chunks ? thread / chunks : rows;
    // Rows are so many queries and heads apart, and past a group's last head the next query's first one follows: sums, as a division and two products
    // for each row were an eighth of all instructions of short items, which take power (H200, 64 × 64 blocks at density 0.05: 1.5 % of the time;
    // heads of 256, whose queries are waited for, 3 % at 1,024 keys).
    const uint32 packed = first + min(own, rows - 1), query = divide(packed, multiplier, shift);
    const uint32 next_query = divide(step, multiplier, shift), next_rest = step - next_query * group;
    const int64 next = next_query * token + next_rest * head, wrap = token - group * head;
    uint32 rest = packed - query * group;
    uint64 at = from + query * token + rest * head;
    // A warp alone has several rows under way, and so have those whose queries are waited for: whole turns of them, as what is left over would be text of
    // its own.
    constexpr int under_way = count == warp_size ? 2 : padded_qk <= 128 || element_bytes == 1 ? 1 : 4;
#pragma unroll 1
    for (uint32 row = own; row < rows;) {
#pragma unroll
        for (int i = 0; i < under_way; ++i) {
            // Rows past the item's get zeros, from an address that is there.
            const bool is_there = row < there;
            if (i == 0 || row < rows) copy_async<16>(place(row, chunk), pointer<const uint8>(is_there ? at : p.queries), is_there);
            row += step, at += next, rest += next_rest;
            if (rest >= group) rest -= group, at += wrap;
        }
    }
    copy_commit();
    copy_wait<0>();
    fence_async_proxy();
}

/// Asks for an item's queries, so that they are near when there is room for them: a thread for a row.
template <int count> FI_DEVICE void prefetch_queries(const fi_attention_params &p, const Item &item, int thread) {
#pragma unroll 1
    for (int row = anew(thread); row < item.row_count; row += count) {
        const int query = item.query(p, row), head = item.query_head(p, row, query);
        fi_prefetch(p.queries + 2 * ((item.first_query + query) * p.query_token + head * p.query_head), dim_qk * 2);
    }
}

/// A warp copies every third eight of a group's 64 rows of 256 elements: a lane a chunk of 16 bytes of each row.
template <int count> FI_DEVICE void copy_rows_of_group(const fi_attention_params &p, const Item &item, int thread, int part, uint32 to) {
    thread = anew(thread);
    const uint32 lane = thread % warp_size, there = lane * 8 < dim_qk ? item.row_count : 0;
    const int64 head = p.query_head * 2, wrap = p.query_token * 2 - (p.group - 1) * head;
    const uint32 group = p.group;
    const uint64 from = p.queries + 2 * (item.first_query * p.query_token + item.head * static_cast<int64>(group) * p.query_head) + lane * 16;
    to += part * (64 * Shared::key_columns * 128) + lane / 8 * (64 * 128) + lane % 8 * 16;
#pragma unroll 1
    for (uint32 eight = lane < padded_qk / 8 ? thread / warp_size : 8; eight < 8; eight += count / warp_size) {
        uint32 row = part * 64 + eight * 8;
        const uint32 packed = item.row + row, query = divide(packed, p.group_multiplier, p.group_shift);
        uint32 rest = packed - query * group;
        uint64 at = from + query * (p.query_token * 2) + rest * head;
#pragma unroll
        for (uint32 i = 0; i < 8; ++i) {
            const bool is_there = row + i < there;
            // A row's chunks lie in the order of its number's bits.
            copy_async<16>((to + eight * 1024) ^ i * 144, pointer<const uint8>(is_there ? at : p.queries), is_there);
            const bool wraps = ++rest == group;
            rest = wraps ? 0 : rest;
            at += wraps ? wrap : head;
        }
    }
    copy_commit();
    copy_wait<0>();
    fence_async_proxy();
}
