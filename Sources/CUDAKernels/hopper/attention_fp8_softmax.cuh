// What scores of e4m3 products are multiplied by, and the sums of long rows in two levels.
#pragma once
#include "hopper/attention_output.cuh"
#include "hopper/attention_weigh.cuh"

/// What the scores of a thread's rows are multiplied by where that is all that becomes of them: by the softmax where it is positive, as
/// the softmax wants it, and before the mask otherwise. Where it is not all, `finish_scores` multiplies.
struct RowScales {
    float factor[2];

    __device__ __forceinline__ RowScales(const fi_attention_params &p, const Item &item, int warp_row) {
        const int lane = threadIdx.x % warp_size;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            factor[h] = score_scales(p, item).x;
            if (logits == Logits::plain && p.query_scales != 0) {
                const int row = min(warp_row + h * 8 + lane / 4, item.row_count - 1), query = item.query(p, row);
                factor[h] *= pointer<const float>(p.query_scales)[item.query_head(p, row, query)];
            }
        }
    }
    __device__ __forceinline__ bool is_late(int h) const { return logits != Logits::plain || factor[h] > 0; }
    /// The softmax's factor.
    __device__ __forceinline__ float late(int h) const { return is_late(h) ? factor[h] : 1; }
    __device__ __forceinline__ bool are_late() const { return is_late(0) && is_late(1); }
    __device__ __forceinline__ void apply(float (&s)[key_tiles][4]) const {
        if (are_late()) return;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[n][i] *= is_late(i / 2) ? 1 : factor[i / 2];
    }
};

/// Outputs of earlier keys in float32: the tensor cores' own sums lose bits with every product, so they are added here every 2,048
/// keys, and begin again. 64 products then cost at most 64 · 2^-13 of the sum.
struct Kept {
    static constexpr int stages = ceil_div(2048, keys);
    /// Local memory of the thread where shared memory has no room.
    static constexpr bool is_local = Shared::kept_bytes == 0;
    using Room = float[is_local ? value_tiles : 1][4];

    Room &room;
    /// Where they lie in shared memory.
    uint32 address;
    /// The references that they are relative to.
    Pair references;
    bool is_there = false;

    /// Whether the product of a stage is added to those before it.
    FI_DEVICE bool adds(int tile) { return tile % stages != 0; }

    /// Local memory by its own addresses, which take no registers.
    __device__ __forceinline__ uint64 local(int n) const {
        uint64 address;
        asm("cvta.to.local.u64 %0, %1;" : "=l"(address) : "l"(room[n]));
        return address;
    }
    __device__ __forceinline__ void load(float4 &v, int n) const {
        if constexpr (is_local)
            asm volatile("ld.local.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(local(n)) : "memory");
        else
            asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                         : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address + n * threads * 16) : "memory");
    }
    __device__ __forceinline__ void store(const float (&v)[4], int n) const {
        if constexpr (is_local)
            asm volatile("st.local.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(local(n)), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
        else
            asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address + n * threads * 16), "f"(v[0]), "f"(v[1]), "f"(v[2]),
                         "f"(v[3]) : "memory");
    }
    /// Adds what there is to the output, which no product may be under way to.
    __device__ __forceinline__ void add_to(State &state) const {
        if (!is_there) return;
        Pair factor;
#pragma unroll
        for (int h = 0; h < 2; ++h) factor[h] = exp2_approximate(references[h] - reference(state.maximum[0][h], 1));
#pragma unroll
        for (int n = 0; n < value_tiles; ++n) {
            float4 v;
            load(v, n);
            float(&o)[4] = state.output[0][n];
            o[0] = fmaf(v.x, factor[0], o[0]), o[1] = fmaf(v.y, factor[0], o[1]);
            o[2] = fmaf(v.z, factor[1], o[2]), o[3] = fmaf(v.w, factor[1], o[3]);
        }
    }
    /// Takes the output, which the next product starts again.
    __device__ __forceinline__ void take(State &state) {
        add_to(state);
#pragma unroll
        for (int n = 0; n < value_tiles; ++n) store(state.output[0][n], n);
        references[0] = state.maximum[0][0], references[1] = state.maximum[0][1];
        is_there = true;
    }
};
