// Scores into weights of e4m3, and the sums of long rows in two levels.
#pragma once
#include "hopper/attention_output.cuh"

/// Weights are 2^lift times those relative to the reference, and maxima may rise by `tolerated` (in powers of two) above it: the largest
/// is then below e4m3's 448, and weights keep their three bits of mantissa down to 2^-13 of the largest.
constexpr float lift = 7, tolerated = 1.75f;

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
    __device__ __forceinline__ void apply(float (&s)[key_tiles][4]) const {
        if (is_late(0) && is_late(1)) return;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[n][i] *= is_late(i / 2) ? 1 : factor[i / 2];
    }
};

/// What the output is to be multiplied by, and whether it is 1 for all rows of the warp.
struct Rise {
    float factor[2];
    bool rises;
};

/// Scores become weights; the output follows later, when the product under way has ended.
FI_DEVICE Rise weigh_scores(State &state, float (&s)[1][key_tiles][4], const RowScales &scales) {
    Rise rise{{1, 1}, false};
    const float scale[2] = {scales.late(0), scales.late(1)};
    float maximum[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float even = s[0][0][2 * h], odd = s[0][0][2 * h + 1];
#pragma unroll
        for (int n = 1; n < key_tiles; ++n) even = fmaxf(even, s[0][n][2 * h]), odd = fmaxf(odd, s[0][n][2 * h + 1]);
        maximum[h] = quad_max(fmaxf(even, odd));
        rise.rises |= (maximum[h] - state.maximum[0][h]) * scale[h] > tolerated;
    }
    rise.rises = __any_sync(0xffffffff, rise.rises);
    if (rise.rises) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float next = fmaxf(maximum[h], state.maximum[0][h]);
            rise.factor[h] = exp2_approximate(state.maximum[0][h] * scale[h] - reference(next, scale[h]));
            state.maximum[0][h] = next;
            state.sum[0][h] *= rise.factor[h];
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float offset = lift - reference(state.maximum[0][h], scale[h]);
        float even = 0, odd = 0;
#pragma unroll
        for (int n = 0; n < key_tiles; ++n) {
            even += s[0][n][2 * h] = exp2_approximate(fmaf(s[0][n][2 * h], scale[h], offset));
            odd += s[0][n][2 * h + 1] = exp2_approximate(fmaf(s[0][n][2 * h + 1], scale[h], offset));
        }
        state.sum[0][h] += even + odd;
    }
    return rise;
}

FI_DEVICE void follow(State &state, const Rise &rise) {
    if (!rise.rises) return;
#pragma unroll
    for (int n = 0; n < value_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) state.output[0][n][i] *= rise.factor[i / 2];
}

/// Four floats as e4m3, the first in the lowest byte.
FI_DEVICE uint32 pack_e4m3(float a, float b, float c, float d) {
    uint32 r;
    asm("{\n.reg .b16 low, high;\n"
        "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
        "mov.b32 %0, {low, high};\n}\n"
        : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
    return r;
}

/// Weights as left operands of 32 keys each, the keys in the order in which a lane has them: see `Transposer`.
FI_DEVICE void pack_all(uint32 (&weights)[keys / 32][4], const float (&s)[key_tiles][4]) {
#pragma unroll
    for (int step = 0; step < keys / 32; ++step)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&x)[4] = s[4 * step + i / 2 * 2], (&y)[4] = s[4 * step + i / 2 * 2 + 1];
            const int h = i % 2;
            weights[step][i] = pack_e4m3(x[2 * h], x[2 * h + 1], y[2 * h], y[2 * h + 1]);
        }
}

/// Outputs of earlier keys in float32: the tensor cores' own sums lose bits with every product, so they are added here every 2,048
/// keys. 64 products then cost at most 64 · 2^-13 of the sum.
struct Kept {
    static constexpr int stages = 2048 / keys;
    /// Local memory of the thread where shared memory has no room.
    static constexpr bool is_local = Shared::kept_bytes == 0;

    uint64 address;
    /// The maxima that they are relative to.
    float maximum[2];
    bool is_there;

    __device__ __forceinline__ void load(float4 &v, int n) const {
        if constexpr (is_local)
            asm volatile("ld.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(address + n * 16) : "memory");
        else
            asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                         : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(static_cast<uint32>(address) + n * threads * 16) : "memory");
    }
    __device__ __forceinline__ void store(const float (&v)[4], int n) const {
        if constexpr (is_local)
            asm volatile("st.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(address + n * 16), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
        else
            asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(static_cast<uint32>(address) + n * threads * 16), "f"(v[0]),
                         "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
    }
    /// Adds what there is to the output, which no product may be under way to.
    __device__ __forceinline__ void add_to(State &state, const RowScales &scales) const {
        if (!is_there) return;
        float factor[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) factor[h] = exp2_approximate(maximum[h] * scales.late(h) - reference(state.maximum[0][h], scales.late(h)));
#pragma unroll
        for (int n = 0; n < value_tiles; ++n) {
            float4 v;
            load(v, n);
            float(&o)[4] = state.output[0][n];
            o[0] = fmaf(v.x, factor[0], o[0]), o[1] = fmaf(v.y, factor[0], o[1]);
            o[2] = fmaf(v.z, factor[1], o[2]), o[3] = fmaf(v.w, factor[1], o[3]);
        }
    }
    /// Takes the output, which starts again from zero.
    __device__ __forceinline__ void take(State &state, const RowScales &scales) {
        add_to(state, scales);
#pragma unroll
        for (int n = 0; n < value_tiles; ++n) {
            store(state.output[0][n], n);
#pragma unroll
            for (int i = 0; i < 4; ++i) state.output[0][n][i] = 0;
        }
        maximum[0] = state.maximum[0][0], maximum[1] = state.maximum[0][1];
        is_there = true;
    }
};
