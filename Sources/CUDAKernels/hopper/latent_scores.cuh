// Scores of a stage's keys, and how a warpgroup turns them into weights.
#pragma once
#include "hopper/latent_bring.cuh"
#include "hopper/wgmma.cuh"
#include "primitives/quad.cuh"

/// Asks for an item's queries, by all who compute.
FI_DEVICE void ask_queries(const Block &block, const Item &item) {
    const fi_attention_params &p = block.p;
    const int chunk = threadIdx.x % 8, count = item.row_count;
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) {
        const int row = threadIdx.x / 8 + turn * 32;
        const bool is_there = row < count;
        const int own = is_there ? row : 0;
        const uint16 *nope = query_row(p, item, own), *rope = part_of_query(p, item, own, nope, dim_vo);
        const uint32 to = block.base + Shared::queries + row * 128 + ((chunk ^ row % 8) << 4);
#pragma unroll
        for (int column = 0; column < Shared::columns; ++column) {
            // Elements of the rest are counted from the key's start.
            const uint16 *from = (column < dim_vo / 64 ? nope : rope) + column * 64 + chunk * 8;
            copy_async<16>(to + column * (rows * 128), from, is_there);
        }
    }
}

/// Scales the queries that this thread asked for, and has, by a power of two so that the largest of the block's is 2^14 and more; what scores are to be
/// multiplied by for it. Elements 2^-32 of the largest and larger are as exact as they were.
FI_DEVICE float scale_queries(const Block &block) {
    const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
    const auto place = [&](int i) {
        const int row = threadIdx.x / 8 + i % 2 * 32;
        return block.base + Shared::queries + i / 2 * (rows * 128) + row * 128 + ((threadIdx.x % 8 ^ row % 8) << 4);
    };
    uint32 even = 0, odd = 0;
#pragma unroll 6
    for (int i = 0; i < 2 * Shared::columns; ++i) {
        const uint4 x = load_shared128(place(i));
        const uint32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) even = max(even, words[j] & 0x7fff), odd = max(odd, words[j] & 0x7fff0000);
    }
    uint32 top = max(even, odd >> 16);
#pragma unroll
    for (int by = 1; by < warp_size; by *= 2) top = max(top, __shfl_xor_sync(0xffffffff, top, by));
    // Where references will be, which nobody reads before all have read these.
    if (lane == 0) store_shared(block.base + Shared::references + warp * 4, top);
    sync_block();
#pragma unroll
    for (int i = 0; i < compute_threads / warp_size; ++i)
        top = max(top, __float_as_uint(load_shared_float(block.base + Shared::references + i * 4)));
    // Its exponent; of queries that are no numbers, one that changes nothing.
    const uint32 exponent = top >= 0x7f80 ? 141 : max(top >> 7, 15);
    const float factor = __uint_as_float(268 - exponent << 23);
#pragma unroll 3
    for (int i = 0; i < 2 * Shared::columns; ++i) {
        const uint4 x = load_shared128(place(i));
        uint32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int j = 0; j < 4; ++j)
            words[j] = pack<latent_product>(unpack<half_type>(words[j] & 0xffff) * factor, unpack<half_type>(words[j] >> 16) * factor);
        store_shared(place(i), make_uint4(words[0], words[1], words[2], words[3]));
    }
    return __uint_as_float(exponent - 14 << 23);
}

/// Waits for those, all of them. What scores are to be multiplied by.
FI_DEVICE float await_queries(const Block &block) {
    float scale = widened_surplus;
    copy_wait_all();
    if constexpr (scales_queries) scale *= scale_queries(block);
    fence_async_proxy();
    sync_block();
    return scale;
}

/// scores = queries · keys of a stage, or += from the second part on, under way: parts `first` to `end`, in order, as they come. `between` is done
/// behind the first few products, which keep the tensor cores busy meanwhile.
template <int first, int end, class Between>
FI_DEVICE void start_scores(float (&s)[key_tiles][4], const Block &block, int stage, uint32 phase, Between between) {
    const uint64 queries = operand(block.base + Shared::queries), keys_at = operand(block.stage(stage));
#pragma unroll
    for (int i = first; i < end; ++i) {
        const int part = part_in_order(stage, i), at = Shared::part_at(part);
        barrier(block.barriers.full[stage][part]).wait(phase);
        // Threads' copies arrive as they are.
        if constexpr (is_gathered && !is_narrow && !is_passed_on) fence_async_proxy();
        // Behind each wait: the compiler puts one there, and where it would be on some paths only the products wait for each other (C7520).
        wgmma_fence();
        const uint64 a = advance_operand(queries, at), b = advance_operand(keys_at, at);
#pragma unroll
        for (int step = 0; step < (i == rest_part ? 1 : Shared::part_columns) * 4; ++step) {
            const int column = step / 4 * Shared::tile_bytes + step % 4 * 32;
            wgmma<latent_product>(s, advance_operand(a, column), advance_operand(b, column), i + step > 0);
            if (i == first && step == 3) between();
        }
    }
    wgmma_commit();
}

template <int first, int end> FI_DEVICE void start_scores(float (&s)[key_tiles][4], const Block &block, int stage, uint32 phase) {
    start_scores<first, end>(s, block, stage, phase, [] {});
}

/// What a warpgroup knows of its rows: two of each thread's.
struct RowState {
    /// What weights and outputs are relative to, not scaled; and this thread's share of the sum of its own stages' weights.
    float maximum[2] = {negative_infinity(), negative_infinity()}, sum[2] = {0, 0};
};

/// Hides the keys that rows do not see, of a stage from key `first_key` on.
FI_DEVICE void hide_scores(float (&s)[key_tiles][4], const fi_attention_params &p, const Item &item, int first_key) {
    const int row = threadIdx.x % 128 / warp_size * 16 + threadIdx.x % warp_size / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int query = item.query(p, max(min(row + h * 8, item.row_count - 1), 0));
        const int last = min(last_visible(p, item, query), item.key_end() - 1) - first_key - threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (n * 8 + i > last) s[n][2 * h + i] = negative_infinity();
    }
}

/// Weights of a stage's scores relative to the rows' references, as left operands; and this thread's sums of them. `then` is done behind each operand.
template <class Then>
FI_DEVICE void weigh_by_references(const RowState &state, const float (&s)[key_tiles][4], float scale, uint32 (&packed)[keys / 16][4], float (&sum)[2],
                                   Then then) {
    const float offset[2] = {-reference(state.maximum[0], scale), -reference(state.maximum[1], scale)};
    float sums[2][2] = {};
#pragma unroll
    for (int step = 0; step < keys / 16; ++step) {
        float w[2][4];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[n][i] = exp2_approximate(fmaf(s[2 * step + n][i], scale, offset[i / 2]));
                sums[i / 2][i % 2] += w[n][i];
            }
#pragma unroll
        for (int i = 0; i < 4; ++i) packed[step][i] = pack<latent_product>(w[i / 2][i % 2 * 2], w[i / 2][i % 2 * 2 + 1]);
        then(step);
    }
    sum[0] = sums[0][0] + sums[0][1], sum[1] = sums[1][0] + sums[1][1];
}

/// Scores become weights; `factor` is what the rows' outputs are to be multiplied by, as references follow maxima that rise by more than
/// `tolerated_rise`. Whether any do, for all lanes.
///
/// That is rare, so weights are computed beside the maxima, relative to the references as they were, and again if any rises: the other warpgroup waits
/// for them.
template <class Store>
FI_DEVICE bool weigh_scores(RowState &state, const float (&s)[key_tiles][4], float scale, uint32 (&packed)[keys / 16][4], float (&factor)[2],
                            Store store) {
    float top[2], sum[2];
    weigh_by_references(state, s, scale, packed, sum, [&](int step) {
        store(step);
        // Shuffles, which the compiler moves nothing over, between the exponentials.
        if (step != keys / 32 - 1) return;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float even = s[0][2 * h], odd = s[0][2 * h + 1];
#pragma unroll
            for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[n][2 * h]), odd = fmaxf(odd, s[n][2 * h + 1]);
            top[h] = fmaxf(even, odd);
        }
#pragma unroll
        for (int by = 1; by < 4; by *= 2)
#pragma unroll
            for (int h = 0; h < 2; ++h) top[h] = fmaxf(top[h], __shfl_xor_sync(0xffffffff, top[h], by));
    });
    const bool rises = __any_sync(
        0xffffffff, (top[0] - state.maximum[0]) * scale > tolerated_rise || (top[1] - state.maximum[1]) * scale > tolerated_rise);
    if (rises) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float next = fmaxf(top[h], state.maximum[h]);
            factor[h] = exp2_approximate(state.maximum[h] * scale - reference(next, scale));
            state.maximum[h] = next;
            state.sum[h] *= factor[h];
        }
        weigh_by_references(state, s, scale, packed, sum, store);
    }
    state.sum[0] += sum[0], state.sum[1] += sum[1];
    return rises;
}
