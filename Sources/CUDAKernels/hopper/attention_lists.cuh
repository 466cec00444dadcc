// A warpgroup that runs a plan's lists, items of few rows, beside those of a block that compute on many: it reads memory while they keep the
// tensor cores busy (POD-Attention, arXiv 2410.18038, within a block).
//
// Each warp has keys and stages of its own, and waits for no other until an item's end. A product's rows are keys, and its columns query rows,
// eight at a time: an output then takes 32 registers, and scores four.
#pragma once
#include "hopper/attention_queries.cuh"

constexpr int list_threads = list_warps * warp_size, list_rows = 8;
static_assert(list_stages == 2, "stages take turns by one bit of their address");
using ListRows = Rows<128, 2>;
static_assert(!is_mixed || (dim_qk == 128 && dim_vo == 128 && !is_narrow), "lists beside a queue have heads of 128 elements of 16 bits");

/// Where the warps' states meet at an item's end, in the place of their stages: outputs [warps][rows][stride], then maxima and sums
/// [warps][rows][2].
struct ListMeeting {
    static constexpr int stride = 128 + 4, ends = list_warps * list_rows * stride * 4;
};

/// Waits for all that run lists.
FI_DEVICE void sync_lists() { sync_threads(lists_barrier, list_threads); }

/// Eight by eight elements of 16 bits, transposed.
FI_DEVICE uint32 transpose_matrix(uint32 x) {
    uint32 y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/// What all lanes have, for the compiler to keep once for a warp.
FI_DEVICE int uniform(int x) { return __shfl_sync(0xffffffff, x, 0); }

/// A maximum or a sum over the lanes that have the same rows.
template <class Combine> FI_DEVICE float over_keys(float x, Combine combine) {
#pragma unroll
    for (int step = 4; step < warp_size; step *= 2) x = combine(x, __shfl_xor_sync(0xffffffff, x, step));
    return x;
}

/// One of the threads that run lists.
struct ListRunner {
    const Block &block;
    const fi_attention_params &p;
    char *const shared;
    Item &item;
    const int thread, warp, lane;
    /// Of eight rows: this thread's are 2 (lane % 4) and the next, its elements 16 n + lane / 4 and 8 more. Maxima are scaled.
    float output[8][4];
    float maximum[2], sum[2];

    __device__ __forceinline__ ListRunner(const Block &block, char *shared, Item &item, int thread)
        : block(block), p(block.p), shared(shared), item(item), thread(thread), warp(__shfl_sync(0xffffffff, thread / warp_size, 0)), lane(thread % warp_size) {}

    /// Hides what rows do not see of a step's keys; rarely needed, so that nothing for it is kept in registers.
    __device__ __forceinline__ void hide(float (&s)[4], int first_row, int first_key) const {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int query = item.query(p, min(first_row + anew(lane) % 4 * 2 + h, item.row_count - 1));
            const int first = max(first_visible(p, item, query), item.key), last = min(last_visible(p, item, query), item.key_end() - 1);
#pragma unroll
            for (int i = h; i < 4; i += 2) {
                const int key = first_key + anew(lane) / 4 + i / 2 * 8;
                if (key < first || key > last) s[i] = negative_infinity();
            }
        }
    }

    /// The item's keys against its eight rows from `first_row` on.
    __device__ __forceinline__ void compute(int first_row) {
        const KeyFinder finder{p, item};
        const float scale = score_scales(p, item).x;
        // A step's keys of a warp lie in one page, as pages that the copy engine brings have a multiple of so many, if steps start with a page's.
        const int start = uniform((FI_RAGGED ? item.key : item.key & -list_keys) + warp * list_keys), end = uniform(item.key_end());
        const int steps = ceil_div(max(end - start, 0), list_warps * list_keys);
        const int head = uniform(item.head);
        const uint64 heads[2] = {p.keys.address + head * p.keys.head * 2, p.values.address + head * p.values.head * 2};
        const auto key_of = [&](int step) { return start + step * (list_warps * list_keys); };
        // Each lane asks for a key of its own, though all have the same page: what is known to be the same is waited for at once.
        const auto ask = [&](int step) { return FI_RAGGED ? 0 : finder.block(key_of(step) + lane % list_keys); };
        const uint32 stages_at = block.base + Shared::lists + warp * (list_stages * Shared::list_stage_bytes);
        // A half warp copies a row. What is computed anew would else be kept in registers for all steps.
        const auto copy = [&](const fi_kv_tensor &tensor, uint64 from, int id, int step, uint32 stage) {
            const int key = key_of(step), half = anew(lane) / 16, chunk = anew(lane) % 16, own = key + half;
            const uint32 to = stage + half * 256 + ((chunk ^ half) << 4);
            if (key < end) {
                const int row = FI_RAGGED ? item.only_block + key : finder.row(key);
                from += ((FI_RAGGED ? 0 : id * tensor.block) + (row + half) * tensor.token) * 2 + chunk * 16;
                uint64 two_rows = tensor.token * 4;
                asm volatile("" : "+l"(two_rows));
                if (key >= item.key && key + list_keys <= end) {
#pragma unroll
                    for (int turn = 0; turn < list_keys / 2; ++turn, from += two_rows)
                        copy_async<16>((to ^ 2 * turn % 8 << 4) + turn * 512, pointer<const char>(from), true);
                } else {
#pragma unroll 1
                    for (int turn = 0; turn < list_keys / 2; ++turn, from += two_rows) {
                        // Zeros for what is not the item's: a weight of 0 does not stop what is there if it is no number.
                        const bool is_there = own + 2 * turn >= item.key && own + 2 * turn < end;
                        copy_async<16>((to ^ 2 * turn % 8 << 4) + turn * 512, pointer<const char>(is_there ? from : heads[0]), is_there);
                    }
                }
            }
            copy_commit();
        };
        // Queries as right operands: a lane has a row, and two elements of every eight.
        uint32 queries[8][2];
        {
            const int row = first_row + lane / 4, there = row < item.row_count ? row : 0, query = item.query(p, there);
            const uint32 *from = pointer<const uint32>(
                p.queries + ((item.first_query + query) * p.query_token + item.query_head(p, there, query) * p.query_head) * 2
                + anew(lane) % 4 * 4);
#pragma unroll
            for (int step = 0; step < 8; ++step)
#pragma unroll
                for (int i = 0; i < 2; ++i) queries[step][i] = row < item.row_count ? from[step * 8 + i * 4] : 0;
        }
        const CommonlyVisible common(p, item, 0);
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) output[n][i] = 0;
#pragma unroll
        for (int h = 0; h < 2; ++h) maximum[h] = negative_infinity(), sum[h] = 0;
        uint32 stage = 0;
        const uint32 key_to = stages_at, value_to = stages_at + list_keys * 256;
        // Chunks of a row are one exclusive or from each other.
        const uint32 key_row = stages_at + lane % 16 * 256 + ((lane / 16 ^ lane % 8) << 4);
        const uint32 value_row = stages_at + (list_keys + lane / 16 * 8 + lane % 8) * 256 + ((lane / 8 % 2 ^ lane % 8) << 4);
        // The first turns only start copies: so these have one text.
        int id = uniform(ask(0));
#pragma unroll 1
        for (int step = -list_stages; step < steps; ++step, stage ^= Shared::list_stage_bytes) {
            const int next_id = ask(step + list_stages + 1);
            // Scores of the step, where there is one.
            float s[4] = {0, 0, 0, 0};
            if (step >= 0) {
                float parts[4][4];
                copy_wait<2 * list_stages - 1>();
                __syncwarp();
                // Several sums, so that products do not wait for each other.
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    uint32 a[4][4];
#pragma unroll
                    for (int at = 0; at < 4; ++at) load_matrices(a[at], (key_row + stage) ^ (half * 4 + at) << 5);
#pragma unroll
                    for (int at = 0; at < 4; ++at) {
                        const uint32(&b)[2] = queries[half * 4 + at];
                        if (half == 0) mma_first<half_type>(parts[at], a[at], b[0], b[1]);
                        else mma<half_type>(parts[at], a[at], b[0], b[1]);
                    }
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) s[i] = (parts[0][i] + parts[1][i]) + (parts[2][i] + parts[3][i]);
            }
            __syncwarp();
            copy(p.keys, heads[0], id, step + list_stages, key_to + stage);
            if (step >= 0) {
                // Beside the weights.
                copy_wait<2 * list_stages - 1>();
                __syncwarp();
                uint32 values[4][4];
#pragma unroll
                for (int n = 0; n < 4; ++n) load_matrices_transposed(values[n], (value_row + stage) ^ n << 5);
                const int first_key = key_of(step);
                if (first_key < common.first || first_key + list_keys - 1 > common.last) hide(s, first_row, first_key);
                // References, scaled, follow the maximum as `raise_references` has it.
                const float top[2] = {fmaxf(s[0], s[2]), fmaxf(s[1], s[3])};
                if (__any_sync(0xffffffff, fmaf(top[0], scale, -tolerated_rise) > maximum[0] || fmaf(top[1], scale, -tolerated_rise) > maximum[1])) {
#pragma unroll
                    for (int h = 0; h < 2; ++h) {
                        const float next = fmaxf(over_keys(top[h], [](float a, float b) { return fmaxf(a, b); }) * scale, maximum[h]);
                        const float factor = exp2_approximate(maximum[h] - reference(next, 1));
                        maximum[h] = next;
                        sum[h] *= factor;
#pragma unroll
                        for (int n = 0; n < 8; ++n) output[n][h] *= factor, output[n][2 + h] *= factor;
                    }
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[i] = exp2_approximate(fmaf(s[i], scale, -reference(maximum[i % 2], 1)));
                    sum[i % 2] += s[i];
                }
                const uint32 b0 = transpose_matrix(pack<half_type>(s[0], s[1])), b1 = transpose_matrix(pack<half_type>(s[2], s[3]));
#pragma unroll
                for (int n = 0; n < 8; ++n) {
                    mma<half_type>(output[n], values[n % 4], b0, b1);
                    if (n < 4) load_matrices_transposed(values[n], (value_row + stage) ^ (n + 4) << 5);
                }
            }
            __syncwarp();
            copy(p.values, heads[1], id, step + list_stages, value_to + stage);
            id = uniform(next_id);
        }
        copy_wait<0>();
#pragma unroll
        for (int h = 0; h < 2; ++h) sum[h] = over_keys(sum[h], [](float a, float b) { return a + b; });
    }

    /// The warps' states of eight rows become one, and leave: for the output, or as a part for the workspace.
    __device__ __forceinline__ void meet(int first_row) {
        float *outputs = reinterpret_cast<float *>(shared + Shared::lists);
        float2 *ends = reinterpret_cast<float2 *>(shared + Shared::lists + ListMeeting::ends);
        // Every warp is past its last product, and every copy has arrived: the memory is free.
        sync_lists();
        {
            float *to = outputs + (warp * list_rows + lane % 4 * 2) * ListMeeting::stride + lane / 4;
#pragma unroll
            for (int n = 0; n < 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) to[i % 2 * ListMeeting::stride + n * 16 + i / 2 * 8] = output[n][i];
            if (lane < 4) {
#pragma unroll
                for (int h = 0; h < 2; ++h) ends[warp * list_rows + lane * 2 + h] = make_float2(maximum[h], sum[h]);
            }
        }
        sync_lists();
        const int count = min(item.row_count - first_row, list_rows);
#pragma unroll 1
        for (int row = warp; row < count; row += list_warps) {
            float top = negative_infinity(), total = 0;
            float4 v = make_float4(0, 0, 0, 0);
#pragma unroll
            for (int w = 0; w < list_warps; ++w) top = fmaxf(top, ends[w * list_rows + row].x);
#pragma unroll
            for (int w = 0; w < list_warps; ++w) {
                const float2 end = ends[w * list_rows + row];
                const float weight = end.x == negative_infinity() ? 0 : exp2_approximate(end.x - top);
                const float4 x = *reinterpret_cast<const float4 *>(outputs + (w * list_rows + row) * ListMeeting::stride + lane * 4);
                total += end.y * weight;
                v.x += x.x * weight, v.y += x.y * weight, v.z += x.z * weight, v.w += x.w * weight;
            }
            const RowEnd end = end_row(top, total);
            if (item.partial_row < 0) {
                leave(p, item, first_row + row, lane * 4, v, end);
                continue;
            }
            v.x *= end.factor, v.y *= end.factor, v.z *= end.factor, v.w *= end.factor;
            const int partial = item.partial_row + first_row + row;
            if (lane == 0) pointer<float>(p.partial_lse)[partial] = end.lse;
            store_partial(p, static_cast<int64>(partial) * dim_vo + lane * 4, v, 4);
        }
    }

    /// Merges a tile's parts from the workspace, if this block's was the last to arrive.
    __device__ __forceinline__ void merge_if_last() {
        __shared__ uint32 arrived;
        const int parts = item.parts, stride = item.part_stride();
        if (parts == 0) return;
        sync_lists();
        if (thread == 0) {
            uint32 *arrivals = pointer<uint32>(p.arrivals) + item.merge_row;
            arrived = add_acquire_release(arrivals, 1);
            if (arrived == parts - 1) *arrivals = 0;
        }
        sync_lists();
        if (arrived != parts - 1) return;
        constexpr int at_once = 4;
#pragma unroll 1
        for (int row = warp; row < item.row_count; row += list_warps) {
            const float *lse_at = pointer<const float>(p.partial_lse) + item.merge_row + row;
            const float *from = pointer<const float>(p.partial_output) + static_cast<int64>(item.merge_row + row) * dim_vo + lane * 4;
            const int64 step = static_cast<int64>(stride) * dim_vo;
            float top = negative_infinity(), total = 0;
            float4 v = make_float4(0, 0, 0, 0);
            // Parts are added in the order of their keys, so the result does not depend on who came last.
#pragma unroll 1
            for (int first = 0; first < parts; first += at_once) {
                float of_part[at_once];
                float4 x[at_once];
#pragma unroll
                for (int i = 0; i < at_once; ++i) {
                    of_part[i] = negative_infinity(), x[i] = make_float4(0, 0, 0, 0);
                    if (first + i < parts) {
                        of_part[i] = __ldcg(lse_at);
                        x[i] = __ldcg(reinterpret_cast<const float4 *>(from));
                    }
                    lse_at += stride, from += step;
                }
                float next = top;
#pragma unroll
                for (int i = 0; i < at_once; ++i) next = fmaxf(next, of_part[i]);
                const float base = reference(next, 1), factor = exp2_approximate(top - base);
                top = next;
                total *= factor, v.x *= factor, v.y *= factor, v.z *= factor, v.w *= factor;
#pragma unroll
                for (int i = 0; i < at_once; ++i) {
                    const float weight = exp2_approximate(of_part[i] - base);
                    total += weight;
                    v.x += x[i].x * weight, v.y += x[i].y * weight, v.z += x[i].z * weight, v.w += x[i].w * weight;
                }
            }
            leave(p, item, row, lane * 4, v, end_row(top, total));
        }
    }

    __device__ __forceinline__ void run_item() {
#pragma unroll 1
        for (int first_row = 0; first_row < item.row_count; first_row += list_rows) {
            // What met before may still be read from.
            if (first_row > 0) sync_lists();
            compute(first_row);
            meet(first_row);
        }
        if (item.partial_row >= 0) merge_if_last();
    }
};

/// Every block has the same share of the lists' heads. A list's first item is where its number says, the rest are where the table says.
FI_DEVICE void run_lists(const Block &block, char *shared, int thread) {
    __shared__ __align__(16) Item item;
    const fi_attention_params &p = block.p;
    ListRunner runner(block, shared, item, thread);
    const int heads = p.list_heads;
#pragma unroll 1
    for (int number = blockIdx.x; number < block.maps.lists * heads; number += gridDim.x) {
        const int list = number / heads, head = number - list * heads;
        const int *rest = pointer<const int>(p.item_indptr) + list;
        const int rest_start = __ldcg(rest), rest_end = __ldcg(rest + 1);
#pragma unroll 1
        for (int index = list;;) {
            if (thread < static_cast<int>(sizeof(fi_attention_item) / 16))
                reinterpret_cast<uint4 *>(&item)[thread] =
                    __ldcg(reinterpret_cast<const uint4 *>(pointer<const fi_attention_item>(p.items) + index) + thread);
            if (thread < warp_size) __syncwarp();
            if (thread == 0) item.take_part(head);
            sync_lists();
            if (item.tile == block.maps.list_tile && item.row_count > 0) runner.run_item();
            index = index == list ? rest_start : index + 1;
            if (index >= rest_end) break;
            // The item before may still be read from.
            sync_lists();
        }
        sync_lists();
    }
}
