// How the parts of an item's rows become one, by all blocks that have a part and nothing else left to do.
//
// Whoever comes last could merge alone, as it does elsewhere; but parts of latent rows are 128 KiB each, and one processor reads a
// hundredth of what all of them do. So a block whose list has ended waits a while for the others, and all who are there share the rows.
// Nobody depends on those who wait: the last to come merges what is left, whoever else is there, and those who wait give up in time.
#pragma once
#include "hopper/latent_items.cuh"

/// What a merge's word of `arrivals` says: parts that have arrived; whether a block left before all had, and then how many shares of rows were
/// asked for; and blocks that have left, of which the last makes it 0 again.
struct MergeWord {
    static constexpr uint32 arrival = 1, claim = 1 << 10, desertion = 1 << 21, leave = 1 << 22;
    /// What the fields hold: each block asks once more than there are shares.
    static constexpr int most_parts = 200;

    FI_DEVICE int arrived(uint32 word) { return word % claim; }
    FI_DEVICE int claimed(uint32 word) { return word % desertion / claim; }
    FI_DEVICE bool has_deserters(uint32 word) { return (word & desertion) != 0; }
    FI_DEVICE int left(uint32 word) { return word / leave; }
};

/// How often a block looks whether all parts have arrived: some 30 us.
constexpr int most_looks = 50;

/// Rows are shared in quarters: 128 columns, which 16 threads have, eight each.
constexpr int quarter = 128, quarters = dim_vo / quarter, quarter_threads = quarter / 8, slots = mergers / quarter_threads;

/// Parts of outputs are float16, scaled by a power of two for each row and half of its columns, so that the largest is some 2^14: they are off
/// by 2^-12 of themselves, a fraction of what the output's rounding and the weights' are, and what the L2 cache writes and reads is halved, which
/// is most of what a merge takes. A row has the place that it would have in float32; its scales follow its elements.
FI_DEVICE bool parts_are_halves(const Item &item) { return item.parts > 0 && item.parts <= MergeWord::most_parts; }
constexpr int part_row_bytes = dim_vo * 4, part_scales = dim_vo * 2, quarter_bytes = quarter * 2;
static_assert(FI_OUTPUT != 0, "outputs are of 16 bits");

/// The exponent of the largest of a part's elements, or that of 2^-63: a scale for less, times the factor, would be no number. And what they are
/// multiplied by then, and are multiplied by again when they are merged.
FI_DEVICE uint32 part_exponent(float largest) { return max(__float_as_uint(largest) >> 23, 64); }
FI_DEVICE float part_factor(uint32 exponent) { return __uint_as_float(268 - exponent << 23); }
FI_DEVICE float part_scale(uint32 exponent) { return __uint_as_float(exponent - 14 << 23); }

/// Where a merge has its parts, as they are.
struct MergeShared {
    /// [quarters of rows, parts] of what comes at a time: all of a block's share where there are 8 parts and fewer, and mostly else.
    static constexpr int most = 264, parts = Shared::merging;
    /// [rows, parts] float2: what a part's columns, left and right, are multiplied by; then [rows, parts]: the part's share of the row. A share of
    /// rows / parts has rows at its ends that it has quarters of.
    static constexpr int most_shares = rows + 2 * MergeWord::most_parts;
    static constexpr int scales = parts + most * quarter_bytes, weights = scales + most_shares * 8;
    /// [threads] of eight elements: those of other parts of the same quarter.
    static constexpr int sums = weights + most_shares * 4;
    static_assert(sums + mergers * 32 <= Shared::merging_end && MergeWord::most_parts <= most, "a merge has its memory");
};

/// Lanes that share a row's weights: no more than it has parts, so that all rows are weighed at once where parts are few, which takes a warp
/// some 2,000 cycles however many they are.
FI_DEVICE int row_lanes(int parts) { return parts <= 4 ? 4 : parts <= 8 ? 8 : parts <= 16 ? 16 : warp_size; }

/// Threads of different parts that share a quarter, where quarters are fewer than `slots`.
FI_DEVICE int sharing_slots(int count) { return count > 8 ? 1 : count > 4 ? 2 : count > 2 ? 4 : count > 1 ? 8 : 16; }
static_assert(slots == 16, "as above");

/// This thread's eight columns of some quarters of a tile's rows, and some of their parts: it copies those that it adds.
struct QuarterParts {
    const char *from;
    int64 step;
    uint32 to;
    int first, count, parts, by, own, own_part;

    __device__ __forceinline__ QuarterParts(const char *outputs, int64 step, uint32 base, int first, int count, int parts)
        : step(step), first(first), count(count), parts(parts), by(sharing_slots(count)) {
        const int slot = threadIdx.x / quarter_threads, chunk = threadIdx.x % quarter_threads;
        own = slot / by, own_part = slot % by;
        from = outputs + own_part * step + chunk * 16;
        to = base + MergeShared::parts + own_part * quarter_bytes + chunk * 16;
    }
    /// Asks for all of them.
    __device__ __forceinline__ void ask() const {
#pragma unroll 1
        for (int at = own; at < count; at += slots) {
            const int unit = first + at;
            const char *source = from + unit / quarters * part_row_bytes + unit % quarters * quarter_bytes;
            uint32 place = to + at * parts * quarter_bytes;
#pragma unroll 4
            for (int part = own_part; part < parts; part += by) {
                copy_async<16>(place, source, true);
                source += by * step, place += by * quarter_bytes;
            }
        }
    }
    /// The sum of a quarter's, weighted by every second word from `scales` on.
    __device__ __forceinline__ void add(float (&sum)[8], int at, uint32 scales) const {
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] = 0;
        uint32 place = to + at * parts * quarter_bytes;
#pragma unroll 4
        for (int part = own_part; part < parts; part += by) {
            const uint4 x = load_shared128(place);
            const float weight = load_shared_float(scales + part * 8);
            const uint32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sum[2 * i] += unpack<Half::float16>(words[i] & 0xffff) * weight;
                sum[2 * i + 1] += unpack<Half::float16>(words[i] >> 16) * weight;
            }
            place += by * quarter_bytes;
        }
    }
};

/// Eight sums of a thread in shared memory, and those of another added to them.
FI_DEVICE void store_eight(uint32 at, const float (&v)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i += 4)
        store_shared(at + i * 4, make_uint4(__float_as_uint(v[i]), __float_as_uint(v[i + 1]), __float_as_uint(v[i + 2]), __float_as_uint(v[i + 3])));
}
FI_DEVICE void add_eight(float (&v)[8], uint32 at) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        const uint4 x = load_shared128(at + i * 4);
        v[i] += __uint_as_float(x.x), v[i + 1] += __uint_as_float(x.y), v[i + 2] += __uint_as_float(x.z), v[i + 3] += __uint_as_float(x.w);
    }
}

/// Merges quarters `first` to `end` of a tile's rows. In an order that does not depend on who does it. A function of its own: its registers would
/// cost others theirs.
///
/// Everything is asked for at once, and comes beside the program: read to registers, it was a wait for the ends of rows and one for each few
/// parts that fitted beside what the products' loop keeps.
static __device__ __noinline__ void merge_quarters(const fi_attention_params &p, const Item &item, char *shared, int first, int end) {
    constexpr Half type = FI_OUTPUT == 1 ? Half::float16 : Half::bfloat16;
    const int parts = item.parts, stride = item.part_stride();
    const uint32 base = shared_address(shared);
    const char *outputs = pointer<const char>(p.partial_output) + static_cast<int64>(item.merge_row) * part_row_bytes;
    const int64 step = static_cast<int64>(stride) * part_row_bytes;
    const int first_row = first / quarters, rows_end = (end - 1) / quarters + 1;
    const int lanes = row_lanes(parts), own_lane = threadIdx.x % lanes, own_row = first_row + static_cast<int>(threadIdx.x) / lanes;
    const uint32 scales = base + MergeShared::scales, weights = base + MergeShared::weights;
    const float *lses = pointer<const float>(p.partial_lse) + item.merge_row;
#pragma unroll 1
    for (int row = own_row; row < rows_end; row += mergers / lanes)
#pragma unroll 1
        for (int part = own_lane; part < parts; part += lanes) {
            const int at = (row - first_row) * parts + part;
            copy_async<4>(weights + at * 4, lses + part * stride + row, true);
            copy_async<8>(scales + at * 8, outputs + part * step + row * part_row_bytes + part_scales, true);
        }
    copy_commit();
    const int at_once = min(MergeShared::most / parts, end - first);
    const uint32 sums = base + MergeShared::sums;
    const int chunk = threadIdx.x % quarter_threads;
    int64 *targets = reinterpret_cast<int64 *>(shared + Shared::meeting_targets);
    // Mostly once. One text for all that are brought, and for those that are added by one thread or by several: text comes from afar, too.
#pragma unroll 1
    for (int now = first; now < end; now += at_once) {
        const QuarterParts quarters_now(outputs, step, base, now, min(at_once, end - now), parts);
        quarters_now.ask();
        copy_commit();
        if (now == first) {
            copy_wait<1>();
#pragma unroll 1
            for (int turn = own_row; turn - own_row + first_row < rows_end; turn += mergers / lanes) {
                // The same turns for all lanes of a warp. What this thread copied, it reads.
                const int own_parts = turn < rows_end ? parts : 0, own = (turn - first_row) * parts;
                float maximum = negative_infinity(), sum = 0;
#pragma unroll 1
                for (int part = own_lane; part < own_parts; part += lanes) maximum = fmaxf(maximum, load_shared_float(weights + (own + part) * 4));
#pragma unroll 1
                for (int by = lanes / 2; by > 0; by /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffff, maximum, by));
                const float top = reference(maximum, 1);
#pragma unroll 1
                for (int part = own_lane; part < own_parts; part += lanes) {
                    const float weight = exp2_approximate(load_shared_float(weights + (own + part) * 4) - top);
                    store_shared(weights + (own + part) * 4, __float_as_uint(weight));
                    sum += weight;
                }
#pragma unroll 1
                for (int by = lanes / 2; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffff, sum, by);
                if (turn < rows_end) {
                    const RowOutput out = finish_row(p, item, turn, end_row(maximum, sum));
#pragma unroll 1
                    for (int part = own_lane; part < parts; part += lanes) {
                        const uint32 at = scales + (own + part) * 8;
                        const float weight = load_shared_float(weights + (own + part) * 4) * out.factor;
                        const float left = load_shared_float(at) * weight, right = load_shared_float(at + 4) * weight;
                        store_shared(at, __float_as_uint(left));
                        store_shared(at + 4, __float_as_uint(right));
                    }
                    if (own_lane == 0) targets[turn - first_row] = out.target;
                }
                __syncwarp();
            }
        }
        copy_wait<0>();
        sync_block();
        const int count = quarters_now.count, by = quarters_now.by;
        const bool is_first = quarters_now.own_part == 0;
#pragma unroll 1
        for (int at = quarters_now.own;; at += slots) {
            const bool is_there = at < count;
            const int unit = now + at, row = unit / quarters - first_row;
            float v[8];
            // By the scales of the row and the half that a quarter has.
            if (is_there) quarters_now.add(v, at, scales + row * parts * 8 + unit % quarters / (quarters / 2) * 4);
            if (by > 1) {
                // Of one quarter, by threads that have every so many of its parts.
                const uint32 own_sum = sums + threadIdx.x * 32;
                if (is_there) store_eight(own_sum, v);
                sync_block();
                if (is_there && is_first)
#pragma unroll 1
                    for (int other = 1; other < by; ++other) add_eight(v, own_sum + other * (quarter_threads * 32));
            }
            if (is_there && is_first) {
                uint32 w[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) w[i] = pack<type>(v[2 * i], v[2 * i + 1]);
                pointer<uint4>(p.output + 2 * (targets[row] + unit % quarters * quarter))[chunk] = make_uint4(w[0], w[1], w[2], w[3]);
            }
            if (by > 1 || at + slots >= count) break;
        }
        sync_block();
    }
}

/// Waits a while for all parts, if it may, after this block's own was number `order` to arrive. The word as it was when all had arrived, or 0
/// if this block is not to wait any longer, and has left. For one thread.
FI_DEVICE uint32 await_parts(uint32 *word, int parts, bool may_wait, int &order) {
    uint32 seen = add_acquire_release(word, MergeWord::arrival) + MergeWord::arrival;
    order = MergeWord::arrived(seen) - 1;
#pragma unroll 1
    for (int look = 0; may_wait && look < most_looks && MergeWord::arrived(seen) < parts; ++look) seen = load_acquire(word);
    while (MergeWord::arrived(seen) < parts) {
        const uint32 found = compare_and_swap(word, seen, (seen | MergeWord::desertion) + MergeWord::leave);
        if (found == seen) return 0;
        seen = found;
    }
    return seen;
}

/// Merges all rows of an item of more parts than that, which are float32, if this block's was the last to arrive: a warp a row. Rare, so little text.
static __device__ __noinline__ void merge_many_parts(const fi_attention_params &p, const Item &item) {
    if (!arrives_last(p, item)) return;
    const int lane = threadIdx.x % warp_size, parts = item.parts, stride = item.part_stride();
#pragma unroll 1
    for (int row = __shfl_sync(0xffffffff, threadIdx.x / warp_size, 0); row < item.row_count; row += mergers / warp_size) {
        const float *lses = pointer<const float>(p.partial_lse) + item.merge_row + row;
        float maximum = negative_infinity(), sum = 0;
#pragma unroll 4
        for (int part = 0; part < parts; ++part) maximum = fmaxf(maximum, __ldcg(lses + part * stride));
        const float base = reference(maximum, 1);
        const float4 *from = pointer<const float4>(p.partial_output) + static_cast<int64>(item.merge_row + row) * (dim_vo / 4) + lane;
        float4 v[quarters];
#pragma unroll
        for (int i = 0; i < quarters; ++i) v[i] = make_float4(0, 0, 0, 0);
#pragma unroll 2
        for (int part = 0; part < parts; ++part) {
            const float weight = exp2_approximate(__ldcg(lses + part * stride) - base);
            sum += weight;
#pragma unroll
            for (int i = 0; i < quarters; ++i) {
                const float4 x = __ldcg(from + i * warp_size);
                v[i].x += x.x * weight, v[i].y += x.y * weight, v[i].z += x.z * weight, v[i].w += x.w * weight;
            }
            from += static_cast<int64>(stride) * (dim_vo / 4);
        }
        const RowOutput out = finish_row(p, item, row, end_row(maximum, sum));
#pragma unroll
        for (int i = 0; i < quarters; ++i) leave_four(p, item, row, lane * 4 + i * quarter, v[i], out);
    }
}

/// Notes that a part has arrived, and merges rows of the item once all have; waits for the others if `may_wait`.
static __device__ __noinline__ void merge_with_others(const fi_attention_params &p, const Item &item, char *shared, bool may_wait) {
    __shared__ int share;
    __shared__ uint32 word_then;
    const int parts = item.parts;
    if (parts == 0) return;
    if (parts > MergeWord::most_parts) return merge_many_parts(p, item);
    uint32 *word = pointer<uint32>(p.arrivals) + item.merge_row;
    // What a block wrote before the barrier is visible, through the one thread's release, to those who see its arrival and go on.
    sync_block();
    // Who has seen all arrive, and needs nothing more of the word, leaves before it merges, and looks only then whether it was the last.
    uint32 left = 0;
    if (threadIdx.x == first_merger) {
        int order;
        const uint32 seen = await_parts(word, parts, may_wait, order);
        word_then = seen;
        share = order;
        if (seen != 0 && !MergeWord::has_deserters(seen)) left = MergeWord::left(atomicAdd(word, MergeWord::leave)) + 1;
    }
    sync_block();
    if (word_then == 0) return;
    const int count = item.row_count * quarters, shares = min(parts, count);
    // All are there, and each has its own; or shares are claimed until there are no more.
    const bool claims = MergeWord::has_deserters(word_then);
    while (true) {
        if (claims) {
            sync_block();
            if (threadIdx.x == first_merger) share = MergeWord::claimed(add_acquire_release(word, MergeWord::claim));
            sync_block();
        }
        if (share >= shares) break;
        merge_quarters(p, item, shared, share * count / shares, (share + 1) * count / shares);
        if (!claims) break;
    }
    if (claims && threadIdx.x == first_merger) left = MergeWord::left(add_acquire_release(word, MergeWord::leave)) + 1;
    if (static_cast<int>(left) == parts) *word = 0;
}
