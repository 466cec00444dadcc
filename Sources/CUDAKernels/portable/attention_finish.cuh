// Where states go: across the warps that shared a tile's keys, to the output or the workspace, and, by the block whose part of
// a tile came last, from the workspace to the output.
#pragma once
#include "portable/attention_softmax.cuh"

/// A finished row: base-2 log-sum-exp, and what its output is multiplied by.
struct RowEnd { float lse, factor; };

/// Ends a row with `maximum` (scaled) and `sum`; a row that saw nothing has output 0 and LSE -infinity.
///
/// The approximations are within 2^-22: sums are far from the ends of the range, and what would handle those is a tenth of the kernel's
/// text.
FI_DEVICE RowEnd end_row(float maximum, float sum) {
    // Weights of their own are not divided, and parts of a row add up as they are.
    if constexpr (!normalises) return {0, 1};
    if (!(sum > 0)) return {negative_infinity(), sum == 0 ? 0 : sum};
    return {maximum + log2_approximate(sum), __fdividef(1, sum)};
}

/// Adds a sink (base 2) to the sum of a whole row: a score with no value.
FI_DEVICE RowEnd with_sink(RowEnd row, float sink) {
    const float top = fmaxf(row.lse, sink);
    if (top == negative_infinity()) return row;
    const float lse = top + log2_approximate(exp2_approximate(row.lse - top) + exp2_approximate(sink - top));
    return {lse, row.factor * exp2_approximate(row.lse - lse)};
}

/// A whole row with its sink, divided by what the variant has in the place of the sum.
FI_DEVICE RowEnd whole_row(RowEnd row, const fi_attention_params &p, const Item &item, int query, int head) {
    if constexpr (computes_sink) row = with_sink(row, variant_sink(p, VariantRow(p, item, query, head)) * log2_e);
    else if (p.sinks != 0) row = with_sink(row, pointer<const float>(p.sinks)[head] * log2_e);
    if constexpr (changes_sum) {
        if (row.lse == negative_infinity()) return row;
        const float lse = variant_sum(p, VariantRow(p, item, query, head), row.lse * (1 / log2_e)) * log2_e;
        row.factor *= exp2_approximate(row.lse - lse);
        row.lse = lse;
    }
    return row;
}

/// Four elements of a finished row of the tile, as the variant has them.
FI_DEVICE float4 change_output(const fi_attention_params &p, const Item &item, int row, float4 v) {
    if constexpr (changes_output) {
        const int query = item.query(p, row);
        const VariantRow at(p, item, query, item.query_head(p, row, query));
        return make_float4(variant_output(p, at, v.x), variant_output(p, at, v.y), variant_output(p, at, v.z), variant_output(p, at, v.w));
    }
    return v;
}

/// Four neighbouring elements of the output from element `at` on, `count` of them if unaligned or at the end of a row.
FI_DEVICE void store_output(const fi_attention_params &p, int64 at, float4 v, int count, bool is_aligned) {
    if constexpr (FI_OUTPUT == 0) {
        float *to = pointer<float>(p.output) + at;
        if (is_aligned) {
            *reinterpret_cast<float4 *>(to) = v;
        } else {
            const float elements[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (i < count) to[i] = elements[i];
        }
    } else {
        constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
        uint16 *to = pointer<uint16>(p.output) + at;
        const uint2 packed = make_uint2(pack<type>(v.x, v.y), pack<type>(v.z, v.w));
        if (is_aligned) {
            *reinterpret_cast<uint2 *>(to) = packed;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (i < count) to[i] = static_cast<uint16>((i < 2 ? packed.x : packed.y) >> (i % 2 * 16));
        }
    }
}

/// Four elements of the workspace, which is always aligned where heads are whole fours.
FI_DEVICE void store_partial(const fi_attention_params &p, int64 at, float4 v, int count) {
    float *to = pointer<float>(p.partial_output) + at;
    if constexpr (dim_vo % 4 == 0 && slice_vo % 4 == 0) {
        // Written out: the compiler made four stores of it, and who counts the part waits for all of them.
        asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
    } else {
        const float elements[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (i < count) to[i] = elements[i];
    }
}

constexpr int row_fours = ceil_div(slice_vo, 4);

/// Whether four elements of the output are stored at a time. Hopper's kernels are only launched on outputs that are aligned.
FI_DEVICE bool stores_fours(const fi_attention_params &p) {
#ifdef FI_HOPPER
    return row_fours * 4 == slice_vo;
#else
    return p.output_is_aligned && row_fours * 4 == slice_vo;
#endif
}

/// How many of the four elements from `d` of this block's slice on there are.
FI_DEVICE int count_of_four(int d) { return min(slice_vo - d, 4); }

/// What outputs are multiplied by for a quantised cache.
FI_DEVICE float value_factor(const fi_attention_params &p, const Item &item) {
    // Elements that a variant changes had theirs before.
    if constexpr (value_hook == ValueHook::element) return 1;
    return value_scale(p, item);
}

/// Where a row's output starts, and what it is multiplied by.
struct RowOutput { int64 target; float factor; };

/// Ends a whole row: writes its LSE.
FI_DEVICE RowOutput finish_row_here(const fi_attention_params &p, const Item &item, int row, RowEnd end) {
    const int query = item.query(p, row), head = item.query_head(p, row, query);
    const int64 token = item.first_query + query;
    end = whole_row(end, p, item, query, head);
    if (p.lse != 0 && blockIdx.y == 0) pointer<float>(p.lse)[token * p.lse_token + head * p.lse_head] = end.lse;
    return {token * p.output_token + head * p.output_head + blockIdx.y * slice_vo, end.factor * value_factor(p, item)};
}

/// The same as a function of its own, for what is rarely run. It reads the parameter as memory, not as constants: each line of it is waited for.
static __device__ __noinline__ RowOutput finish_row(const fi_attention_params &p, const Item &item, int row, RowEnd end) {
    return finish_row_here(p, item, row, end);
}

/// Four elements of a row that has ended, to the output.
FI_DEVICE void leave_four(const fi_attention_params &p, const Item &item, int row, int d, float4 v, RowOutput out) {
    v.x *= out.factor, v.y *= out.factor, v.z *= out.factor, v.w *= out.factor;
    store_output(p, out.target + d, change_output(p, item, row, v), count_of_four(d), stores_fours(p));
}
/// Four elements of a row that is complete, to the output.
FI_DEVICE void leave(const fi_attention_params &p, const Item &item, int row, int d, float4 v, RowEnd end) {
    leave_four(p, item, row, d, v, FI_QUEUE ? finish_row(p, item, row, end) : finish_row_here(p, item, row, end));
}

/// What becomes of one of a warp's rows: a lane's own, so that it is worked out, and is in the text, once and not for each of a thread's rows.
/// Lanes past the last row have the first ones' again.
struct LaneRow {
    int row, query, head;
    /// Of a whole row, with the cache's factor.
    RowEnd end;
    /// The address of the row's output, or of the item's part of it.
    uint64 output;

    __device__ __forceinline__ LaneRow() {}
    /// For all lanes of a warp. Writes the row's LSE.
    __device__ __forceinline__ LaneRow(const fi_attention_params &p, const Item &item, const State &state, int warp_row, float scale,
                                       bool is_part = false) {
        const int lane = threadIdx.x % warp_size;
        float maximum, sum;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float top = __shfl_sync(0xffffffff, state.maximum[m][h], lane % 8 * 4);
                const float all = __shfl_sync(0xffffffff, quad_sum(state.sum[m][h]), lane % 8 * 4);
                const bool is_own = lane % warp_rows / 8 == 2 * m + h;
                maximum = is_own ? top : maximum;
                sum = is_own ? all : sum;
            }
        row = warp_row + lane % warp_rows;
        const bool is_there = row < item.row_count;
        query = item.query(p, is_there ? row : 0), head = item.query_head(p, is_there ? row : 0, query);
        end = end_row(maximum * scale, sum);
        float *lse = pointer<float>(p.partial_lse) + item.partial_row + row;
        bool has_lse = blockIdx.y == 0;
        if (is_part) {
            output = p.partial_output + 4 * ((static_cast<int64>(item.partial_row) + row) * dim_vo + blockIdx.y * slice_vo);
        } else {
            end = whole_row(end, p, item, query, head);
            end.factor *= value_factor(p, item);
            lse = pointer<float>(p.lse) + (item.first_query + query) * p.lse_token + head * p.lse_head;
            has_lse &= p.lse != 0;
            output = p.output + 2 * ((item.first_query + query) * p.output_token + head * p.output_head + blockIdx.y * slice_vo);
        }
        if (is_there && has_lse && lane < warp_rows) *lse = end.lse;
    }
    /// What a variant knows of row `of` of the warp.
    __device__ __forceinline__ VariantRow variant_row(const fi_attention_params &p, const Item &item, int of) const {
        if constexpr (!changes_output) return VariantRow(p, item, query, head);
        const int query = __shfl_sync(0xffffffff, this->query, of), head = __shfl_sync(0xffffffff, this->head, of);
        return VariantRow(p, item, query, head);
    }
};

/// Whether a warp's outputs, of 16 bits, can leave through the memory of its queries, which no other warp reads.
constexpr bool can_finish_alone =
    warps_n == 1 && FI_OUTPUT != 0 && slice_vo % 16 == 0 && Rows<padded_vo, 2>::stride <= QueryRows::stride;

/// Ends the rows of a warp that had their keys to itself, without waiting for other warps; `staged` is the address of memory for them.
FI_DEVICE void finish_alone(const fi_attention_params &p, const Item &item, State &state, uint32 staged, int warp_row, const LaneRow &own) {
    using OutputRows = Rows<padded_vo, 2>;
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int lane = threadIdx.x % warp_size;
    // A thread's rows are a multiple of eight apart, so the places of its elements differ by constants.
    const uint32 first = is_narrow ? staged + OutputRows::offset(lane / 4, lane % 4 / 2) + lane % 2 * 8
                                   : staged + OutputRows::offset(lane / 4, 0) + lane % 4 * 4;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float factor = __shfl_sync(0xffffffff, own.end.factor, m * 16 + h * 8 + lane / 4);
            const VariantRow at = own.variant_row(p, item, m * 16 + h * 8 + lane / 4);
            const auto element = [&](float x) { return variant_output(p, at, x * factor); };
#pragma unroll
            for (int n = 0; n < value_tiles; n += 2) {
                const float(&x)[4] = state.output[m][n], (&y)[4] = state.output[m][n + 1];
                if constexpr (is_narrow) {
                    // Tiles n and n + 1 have the even and the odd elements of 16: a thread's four are neighbours.
                    store_shared(OutputRows::advance(first, m * 16 + h * 8, n),
                                 make_uint2(pack<type>(element(x[2 * h]), element(y[2 * h])),
                                            pack<type>(element(x[2 * h + 1]), element(y[2 * h + 1]))));
                } else {
                    store_shared(OutputRows::advance(first, m * 16 + h * 8, n), pack<type>(element(x[2 * h]), element(x[2 * h + 1])));
                    store_shared(OutputRows::advance(first, m * 16 + h * 8, n + 1), pack<type>(element(y[2 * h]), element(y[2 * h + 1])));
                }
            }
        }
    __syncwarp();
    constexpr int chunks = slice_vo / 8;
    // Four rows under way hide what a store waits for; more is more to compile.
#pragma unroll 4
    for (int turn = 0; turn < warp_rows * chunks / warp_size; ++turn) {
        const int id = turn * warp_size + lane, row = id / chunks, chunk = id % chunks;
        const uint64 to = of_row(own.output, row);
        const uint4 v = load_shared128(staged + OutputRows::offset(row, chunk));
        if (warp_row + row < item.row_count) pointer<uint4>(to)[chunk] = v;
    }
}

/// Whether merges stand where they are called: a kernel without any call takes 6 % less to compile than one with functions that are as long. Three groups,
/// variants and kernels that run lists beside their queue have no registers for it, nor have the portable ones.
#ifdef FI_HOPPER
constexpr bool merges_inline = warps <= 8 && !is_mixed && !has_variant;
#else
constexpr bool merges_inline = false;
#endif

/// Whether this block's part of its tile was the last to arrive in the workspace, and all of the tile is to be merged now; for all threads.
FI_DEVICE bool arrives_last(const fi_attention_params &p, const Item &item) {
    __shared__ uint32 arrived;
    const uint32 parts = item.parts;
    // Of several levels: merged by a launch of its own.
    if (parts == 0) return false;
    uint32 *arrivals = pointer<uint32>(p.arrivals) + item.merge_row * gridDim.y + blockIdx.y;
    // What the block wrote before the barrier is visible, through the one thread's release, before its arrival is; and what
    // others wrote before theirs, through its acquisition, is to the block after the next barrier (PTX ISA, causality order).
    sync_block();
    if (threadIdx.x == first_merger) {
        arrived = add_acquire_release(arrivals, 1);
        if (arrived == parts - 1) *arrivals = 0;
    }
    sync_block();
    return arrived == parts - 1;
}

/// Merges a tile's parts from the workspace. Short rather than fast, as it is run rarely and always compiled: a tenth of what a queue's kernels take.
FI_DEVICE void merge_parts(const fi_attention_params &p, const Item &item, char *shared) {
    const int merger = threadIdx.x - first_merger;
    // Parts have the rows of all their heads.
    const int parts = item.parts, first = item.merge_row, count = item.row_count, stride = item.part_stride();
    // Parts are added in the order of their keys, so the result does not depend on who came last.
    float2 *ends = reinterpret_cast<float2 *>(shared + Shared::meeting_ends);
    int64 *targets = reinterpret_cast<int64 *>(shared + Shared::meeting_targets);
    const float *lses = pointer<const float>(p.partial_lse) + first;
    const auto finish = [&](int row, float maximum, float base, float sum) {
        const RowEnd end = end_row(maximum, sum);
        const RowOutput out = merges_inline ? finish_row_here(p, item, row, end) : finish_row(p, item, row, end);
        targets[row] = out.target;
        ends[row] = make_float2(base, out.factor);
    };
    if constexpr (FI_QUEUE) {
        // A thread a row, and four parts at a time: one after another, each would wait for memory.
        constexpr int at_once = 4;
#pragma unroll 1
        for (int row = merger; row < count; row += mergers) {
            float maximum = negative_infinity(), base = 0, sum = 0;
#pragma unroll 1
            for (int part = 0; part < parts; part += at_once) {
                float of_part[at_once], next = maximum;
#pragma unroll
                for (int i = 0; i < at_once; ++i)
                    of_part[i] = part + i < parts ? __ldcg(lses + (part + i) * stride + row) : negative_infinity();
#pragma unroll
                for (int i = 0; i < at_once; ++i) next = fmaxf(next, of_part[i]);
                base = reference(next, 1);
                sum *= exp2_approximate(maximum - base);
#pragma unroll
                for (int i = 0; i < at_once; ++i) sum += exp2_approximate(of_part[i] - base);
                maximum = next;
            }
            finish(row, maximum, base, sum);
        }
    } else {
        const int lane = threadIdx.x % warp_size;
#pragma unroll 1
        for (int row = merger / warp_size; row < count; row += mergers / warp_size) {
            // A lane has every 32nd part; the first of them stays in a register.
            const float first_lse = lane < parts ? __ldcg(lses + lane * stride + row) : negative_infinity();
            float maximum = first_lse;
#pragma unroll 1
            for (int part = lane + warp_size; part < parts; part += warp_size) maximum = fmaxf(maximum, __ldcg(lses + part * stride + row));
#pragma unroll
            for (int step = warp_size / 2; step > 0; step /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, step));
            const float base = reference(maximum, 1);
            float sum = exp2_approximate(first_lse - base);
#pragma unroll 1
            for (int part = lane + warp_size; part < parts; part += warp_size) sum += exp2_approximate(__ldcg(lses + part * stride + row) - base);
#pragma unroll
            for (int step = warp_size / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
            if (lane == 0) finish(row, maximum, base, sum);
        }
    }
    sync_block();
    const float *outputs = pointer<const float>(p.partial_output) + static_cast<int64>(first) * dim_vo + blockIdx.y * slice_vo;
    const auto read_four = [&](int part, int row, int d) {
        const float *from = outputs + static_cast<int64>(part * stride + row) * dim_vo + d;
        if constexpr (dim_vo % 4 == 0 && slice_vo % 4 == 0) return __ldcg(reinterpret_cast<const float4 *>(from));
        const int elements = count_of_four(d);
        return make_float4(__ldcg(from), elements > 1 ? __ldcg(from + 1) : 0, elements > 2 ? __ldcg(from + 2) : 0,
                           elements > 3 ? __ldcg(from + 3) : 0);
    };
    const auto add_four = [&](float4 &v, int part, int row, int d) {
        const float weight = exp2_approximate(__ldcg(lses + part * stride + row) - ends[row].x);
        const float4 x = read_four(part, row, d);
        v.x += x.x * weight, v.y += x.y * weight, v.z += x.z * weight, v.w += x.w * weight;
    };
    const auto write_four = [&](float4 v, int row, int d) {
        const float factor = ends[row].y;
        v.x *= factor, v.y *= factor, v.z *= factor, v.w *= factor;
        v = change_output(p, item, row, v);
        store_output(p, targets[row] + d, v, count_of_four(d), stores_fours(p));
    };
    // Reads of several rows or parts are under way, or each turn would wait for its own: of a queue's tiles, which have two parts or a few more, two
    // rows or four; of lists, whose tiles have many, eight parts; of latent attention, whose rows are long, eight rows' pairs of parts.
    if constexpr (FI_QUEUE) {
        // A thread has the same elements of every few rows.
        constexpr int beside = mergers / row_fours, under_way = row_fours > 16 ? 4 : 2;
        const int d = merger % row_fours * 4;
        if (mergers % row_fours != 0 && merger >= beside * row_fours) return;
#pragma unroll 1
        for (int row = merger / row_fours; row < count; row += beside * under_way) {
            float4 v[under_way];
#pragma unroll
            for (int i = 0; i < under_way; ++i) v[i] = make_float4(0, 0, 0, 0);
            // Past the last row, that one again.
            const auto own = [&](int i) { return min(row + i * beside, count - 1); };
#pragma unroll 1
            for (int part = 0; part < parts; ++part)
#pragma unroll
                for (int i = 0; i < under_way; ++i) add_four(v[i], part, own(i), d);
#pragma unroll
            for (int i = 0; i < under_way; ++i) write_four(v[i], own(i), d);
        }
    } else {
        constexpr int under_way = is_latent ? 8 : 1, parts_under_way = is_latent ? 2 : 8;
#pragma unroll 1
        for (int id = merger; id < count * row_fours; id += mergers * under_way) {
            float4 v[under_way];
#pragma unroll
            for (int i = 0; i < under_way; ++i) v[i] = make_float4(0, 0, 0, 0);
#pragma unroll parts_under_way
            for (int part = 0; part < parts; ++part)
#pragma unroll
                for (int i = 0; i < under_way; ++i) {
                    // Past the last row the last is read again, and not written.
                    const int own = min(id + i * mergers, count * row_fours - 1);
                    add_four(v[i], part, own / row_fours, own % row_fours * 4);
                }
#pragma unroll
            for (int i = 0; i < under_way; ++i) {
                const int own = id + i * mergers;
                if (own < count * row_fours) write_four(v[i], own / row_fours, own % row_fours * 4);
            }
        }
    }
}

/// Merges a tile's parts from the workspace, if this block's was the last to arrive.
FI_DEVICE void merge_here_if_last(const fi_attention_params &p, const Item &item, char *shared) {
    if (!arrives_last(p, item)) return;
    merge_parts(p, item, shared);
}
/// The same as a function of its own, which takes less to compile where a kernel has other functions.
static __device__ __noinline__ void merge_in_function_if_last(const fi_attention_params &p, const Item &item, char *shared) {
    merge_here_if_last(p, item, shared);
}
FI_DEVICE void merge_if_last(const fi_attention_params &p, const Item &item, char *shared) {
    if constexpr (merges_inline) merge_here_if_last(p, item, shared);
    else merge_in_function_if_last(p, item, shared);
}
