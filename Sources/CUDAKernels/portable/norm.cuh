// Normalisation of rows, by the root of the mean square or about the mean (layer norm), optionally after adding a residual.
//
// FI_GROUP threads share a row and hold it in registers, FI_CHUNKS vectors each, so that every tensor moves once. Rows that
// are too wide for that, or not aligned, are read again for every pass instead.
//
// FI_INPUT, FI_RESIDUAL, FI_WEIGHT, FI_OUTPUT: storage types; FI_OUTPUT may be FI_BYTES. FI_HAS_RESIDUAL: whether there is
// one. FI_GROUP: 8, 16, 32, or all FI_THREADS of a block.
// FI_CENTRED: whether it is layer norm.

#include "fi_rows_params.h"
#include "portable/quantize.cuh"
#include "primitives/element.cuh"
#include "primitives/launch.cuh"
#include "primitives/reduce.cuh"
#include "primitives/rows.cuh"

#define FI_ROWS_PER_BLOCK (FI_THREADS / FI_GROUP)
/// Whether the weights arrive with the row, or after the sum where registers are short. Layer norm's are twice as many, float32 as a rule.
#define FI_HOLDS_WEIGHT (FI_CHUNKS <= (FI_CENTRED ? 1 : 2))

/// The first or second sum of a row; each has its slots, so that neither waits for the other's to be free.
template <int which>
static __device__ __forceinline__ float row_sum(float value) {
    if constexpr (FI_GROUP <= 32) {
        return fi_warp_reduce<FI_GROUP>(value, fi_sum());
    } else {
        __shared__ float slots[FI_THREADS / 32];
        return fi_block_reduce<FI_THREADS, true>(value, fi_sum(), slots);
    }
}

/// The greatest magnitude of a row, as bits.
static __device__ __forceinline__ unsigned int row_magnitude(unsigned int bits) {
    if constexpr (FI_GROUP <= 32) {
        return fi_warp_reduce<FI_GROUP>(bits, fi_magnitude_max());
    } else {
        __shared__ unsigned int slots[FI_THREADS / 32];
        return fi_block_reduce<FI_THREADS, true>(bits, fi_magnitude_max(), slots);
    }
}

static __device__ __forceinline__ float row_scale(const fi_norm_params &p, float squares) {
    return 1.0f / sqrtf(fi_mean(squares, (float)p.width) + p.epsilon);
}

/// Where a row is, and its number.
struct row_addresses {
    unsigned long long input, residual, output;
    unsigned int place;
};

/// What is taken off every element of a row, and what it is multiplied by then.
struct row_norm {
    float mean, scale;
};

/// A vector of weights and, in layer norm, of what is added at the end.
template <int V>
struct affine {
    fi_packed<FI_WEIGHT, V> weight, bias;
};

template <int V>
static __device__ __forceinline__ void load(const fi_norm_params &p, long long index, affine<V> &by) {
    by.weight = fi_load<FI_WEIGHT, V>(p.weight, index);
    if constexpr (FI_CENTRED) by.bias = fi_load<FI_WEIGHT, V>(p.bias, index);
}

/// The sum of input and residual.
template <int V>
static __device__ __forceinline__ void add(
    const fi_packed<FI_INPUT, V> &input, const fi_packed<FI_RESIDUAL, V> &residual, bool has_residual, float (&x)[V]
) {
    fi_unpack<FI_INPUT, V>(input, x);
    if (has_residual) {
        float r[V];
        fi_unpack<FI_RESIDUAL, V>(residual, r);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] += r[i];
    }
}

template <int V>
static __device__ __forceinline__ void read(const row_addresses &row, long long index, float (&x)[V]) {
    fi_packed<FI_RESIDUAL, V> residual;
    if (FI_HAS_RESIDUAL) residual = fi_load<FI_RESIDUAL, V>(row.residual, index);
    add<V>(fi_load<FI_INPUT, V>(row.input, index), residual, FI_HAS_RESIDUAL, x);
}

template <int V>
static __device__ __forceinline__ float total(const float (&x)[V], float sum) {
#pragma unroll
    for (int i = 0; i < V; i++) sum += x[i];
    return sum;
}

/// The squared distances from the mean.
template <int V>
static __device__ __forceinline__ float squares(const float (&x)[V], float mean, float sum) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float distance = FI_CENTRED ? x[i] - mean : x[i];
        sum = __fmaf_rn(distance, distance, sum);
    }
    return sum;
}

/// The normalised elements.
template <int V>
static __device__ __forceinline__ void normalise(
    const fi_norm_params &p, float (&x)[V], const affine<V> &by, const row_norm &norm
) {
    float w[V];
    fi_unpack<FI_WEIGHT, V>(by.weight, w);
    if constexpr (FI_CENTRED) {
        float b[V];
        fi_unpack<FI_WEIGHT, V>(by.bias, b);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = __fmaf_rn((x[i] - norm.mean) * norm.scale, w[i], b[i]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = x[i] * norm.scale * (w[i] + p.weight_offset);
    }
}

/// The normalised elements of `x`, which is stored in the residual's place.
template <int V>
static __device__ __forceinline__ void finish(
    const fi_norm_params &p, const row_addresses &row, long long index, float (&x)[V], const affine<V> &by,
    const row_norm &norm
) {
    if (FI_HAS_RESIDUAL) fi_write<FI_RESIDUAL, V>(row.residual, index, x);
    normalise<V>(p, x, by, norm);
}

template <int V>
static __device__ __forceinline__ void store(
    const fi_norm_params &p, const row_addresses &row, long long index, float (&x)[V], float factor
) {
    if constexpr (FI_OUTPUT == FI_BYTES) {
        fi_write_bytes<V>(p.quantize.type, row.output, index, x, factor);
    } else {
        fi_write<FI_OUTPUT, V>(row.output, index, x);
    }
}

/// Whether groups of a row have scales of their own, rather than all of it one.
static __device__ __forceinline__ bool is_grouped(const fi_norm_params &p) {
    return FI_OUTPUT == FI_BYTES && p.quantize.group != 0;
}

/// What elements are multiplied by before they are rounded to 8 bits, where each row has a scale of its own: writes the scale.
static __device__ __forceinline__ float own_factor(
    const fi_norm_params &p, const row_addresses &row, int lane, bool active, unsigned int greatest
) {
    const float scale = fi_row_scale(p.quantize, row_magnitude(greatest));
    if (lane == 0 && active) ((float *)p.quantize.row_scales)[row.place] = scale;
    return __frcp_rn(scale);
}

/// The same of the group that neighbouring threads hold a vector each of. All threads of the warp take part; a row is whole groups, so
/// that all of a group are `inside` or none is.
template <int V>
static __device__ __forceinline__ float group_factor(
    const fi_norm_params &p, const row_addresses &row, long long index, const float (&x)[V], bool inside
) {
    const unsigned int lanes = p.quantize.group / V;
    const unsigned int greatest = fi_group_magnitude<FI_LARGEST_GROUP / V>(inside ? fi_magnitude<V>(x, 0) : 0, lanes);
    return fi_group_factor(
        p.quantize, greatest, row.place, fi_group_of(p.quantize, index), inside && (threadIdx.x & (lanes - 1)) == 0);
}

/// The row in registers: at most FI_CHUNKS vectors a thread.
template <int V>
static __device__ __forceinline__ void norm_held(const fi_norm_params &p, const row_addresses &row, int lane, bool active) {
    const int chunks = active ? (int)(p.width / V) : 0;
    const bool has_residual = FI_HAS_RESIDUAL;
    fi_packed<FI_INPUT, V> input[FI_CHUNKS];
    fi_packed<FI_RESIDUAL, V> residual[FI_CHUNKS];
    affine<V> by[FI_CHUNKS];
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        const int chunk = c * FI_GROUP + lane;
        if (chunk < chunks) {
            input[c] = fi_load<FI_INPUT, V>(row.input, chunk * V);
            if (has_residual) residual[c] = fi_load<FI_RESIDUAL, V>(row.residual, chunk * V);
            if constexpr (FI_HOLDS_WEIGHT) load<V>(p, chunk * V, by[c]);
        }
    }
    row_norm norm = {0.0f, 0.0f};
    if constexpr (FI_CENTRED) {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < FI_CHUNKS; c++) {
            if (c * FI_GROUP + lane < chunks) {
                float x[V];
                add<V>(input[c], residual[c], has_residual, x);
                sum = total<V>(x, sum);
            }
        }
        norm.mean = fi_mean(row_sum<0>(sum), (float)p.width);
    }
    float sum = 0;
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        if (c * FI_GROUP + lane < chunks) {
            float x[V];
            add<V>(input[c], residual[c], has_residual, x);
            sum = squares<V>(x, norm.mean, sum);
        }
    }
    norm.scale = row_scale(p, row_sum<1>(sum));
    float factor = 1.0f;
    if constexpr (FI_OUTPUT == FI_BYTES) {
        factor = fi_factor(p.quantize);
        if (p.quantize.row_scales != 0 && !is_grouped(p)) {
            unsigned int greatest = 0;
#pragma unroll
            for (int c = 0; c < FI_CHUNKS; c++) {
                const int chunk = c * FI_GROUP + lane;
                if (chunk < chunks) {
                    float x[V];
                    add<V>(input[c], residual[c], has_residual, x);
                    if constexpr (!FI_HOLDS_WEIGHT) load<V>(p, chunk * V, by[c]);
                    normalise<V>(p, x, by[c], norm);
                    greatest = fi_magnitude<V>(x, greatest);
                }
            }
            factor = own_factor(p, row, lane, active, greatest);
        }
    }
#pragma unroll
    for (int c = 0; c < FI_CHUNKS; c++) {
        const int chunk = c * FI_GROUP + lane;
        const bool inside = chunk < chunks;
        float x[V];
        if (inside) {
            add<V>(input[c], residual[c], has_residual, x);
            if constexpr (!FI_HOLDS_WEIGHT) load<V>(p, chunk * V, by[c]);
            finish<V>(p, row, chunk * V, x, by[c], norm);
        }
        if (is_grouped(p)) factor = group_factor<V>(p, row, chunk * V, x, inside);
        if (inside) store<V>(p, row, chunk * V, x, factor);
    }
}

/// The last pass over a row that is not held, where its groups have scales of their own. One element a thread: a warp takes a group.
template <int V>
static __device__ __forceinline__ void norm_groups(
    const fi_norm_params &p, const row_addresses &row, int lane, bool active, const row_norm &norm
) {
    affine<V> by;
    if constexpr (V > 1) {
        for (long long base = 0; base < p.width; base += FI_GROUP * V) {
            const long long index = base + lane * V;
            const bool inside = active && index < p.width;
            float x[V];
            if (inside) {
                read<V>(row, index, x);
                load<V>(p, index, by);
                finish<V>(p, row, index, x, by, norm);
            }
            const float factor = group_factor<V>(p, row, index, x, inside);
            if (inside) store<V>(p, row, index, x, factor);
        }
    } else {
        // Rows of fewer than 32 threads are narrower than a group.
        constexpr int singles = FI_LARGEST_GROUP / 32, warps = FI_GROUP < 32 ? 1 : FI_GROUP / 32;
        const long long groups = p.width / p.quantize.group;
        for (long long group = lane / 32; group < groups; group += warps) {
            const long long first = group * p.quantize.group + lane % 32;
            float x[singles][1];
            unsigned int greatest = 0;
#pragma unroll
            for (int i = 0; i < singles; i++) {
                if (!active || 32 * i >= p.quantize.group) break;
                read<1>(row, first + 32 * i, x[i]);
                load<1>(p, first + 32 * i, by);
                finish<1>(p, row, first + 32 * i, x[i], by, norm);
                greatest = fi_magnitude<1>(x[i], greatest);
            }
            greatest = fi_group_magnitude<32>(greatest, 32);
            const float factor = fi_group_factor(p.quantize, greatest, row.place, group, active && lane % 32 == 0);
#pragma unroll
            for (int i = 0; i < singles; i++) {
                if (!active || 32 * i >= p.quantize.group) break;
                store<1>(p, row, first + 32 * i, x[i], factor);
            }
        }
    }
}

/// The row from memory for every pass. Each thread reads an element before it writes it, so tensors may share memory here too.
template <int V>
static __device__ __forceinline__ void norm_streamed(
    const fi_norm_params &p, const row_addresses &row, int lane, bool active
) {
    const long long first = (long long)lane * V, width = active ? p.width : 0;
    float x[V];
    row_norm norm = {0.0f, 0.0f};
    if constexpr (FI_CENTRED) {
        float sum = 0;
        for (long long index = first; index < width; index += FI_GROUP * V) {
            read<V>(row, index, x);
            sum = total<V>(x, sum);
        }
        norm.mean = fi_mean(row_sum<0>(sum), (float)p.width);
    }
    float sum = 0;
    for (long long index = first; index < width; index += FI_GROUP * V) {
        read<V>(row, index, x);
        sum = squares<V>(x, norm.mean, sum);
    }
    norm.scale = row_scale(p, row_sum<1>(sum));
    if (is_grouped(p)) return norm_groups<V>(p, row, lane, active, norm);
    affine<V> by;
    float factor = 1.0f;
    if constexpr (FI_OUTPUT == FI_BYTES) {
        factor = fi_factor(p.quantize);
        if (p.quantize.row_scales != 0) {
            unsigned int greatest = 0;
            for (long long index = first; index < width; index += FI_GROUP * V) {
                read<V>(row, index, x);
                load<V>(p, index, by);
                normalise<V>(p, x, by, norm);
                greatest = fi_magnitude<V>(x, greatest);
            }
            factor = own_factor(p, row, lane, active, greatest);
        }
    }
    for (long long index = first; index < width; index += FI_GROUP * V) {
        read<V>(row, index, x);
        load<V>(p, index, by);
        finish<V>(p, row, index, x, by, norm);
        store<V>(p, row, index, x, factor);
    }
}

extern "C" __global__ void __launch_bounds__(FI_THREADS, FI_MIN_BLOCKS) norm_rows(const __grid_constant__ fi_norm_params p) {
    fi_admit_successors();
    // Bytes take no part: vectors of sixteen would not fit in registers.
    constexpr int V = fi_vector(FI_INPUT, FI_RESIDUAL, FI_WEIGHT, FI_OUTPUT == FI_BYTES ? FI_FLOAT32 : FI_OUTPUT);
    const unsigned int wanted = blockIdx.x * FI_ROWS_PER_BLOCK + threadIdx.x / FI_GROUP;
    const bool active = wanted < p.rows;
    const unsigned int place = active ? wanted : 0;
    const int lane = (int)(threadIdx.x % FI_GROUP);
    row_addresses row;
    row.input = fi_row_address<FI_INPUT>(p.input, place, p.inner_rows);
    row.residual = FI_HAS_RESIDUAL ? fi_row_address<FI_RESIDUAL>(p.residual, place, p.inner_rows) : 0;
    row.output = fi_row_address<FI_OUTPUT>(p.output, place, p.inner_rows);
    row.place = place;
    // A line of memory for each of the first threads.
    constexpr int line = 128 / fi_size(FI_INPUT);
    if (active && lane * line < p.width) {
        fi_prefetch(row.input + (unsigned long long)(lane * line * fi_size(FI_INPUT)));
    }
    // Parameters are there before anything else is.
    fi_await_predecessors();
    if (p.vectorised && p.width <= (long long)FI_GROUP * FI_CHUNKS * V) {
        norm_held<V>(p, row, lane, active);
    } else if (p.vectorised) {
        norm_streamed<V>(p, row, lane, active);
    } else {
        norm_streamed<1>(p, row, lane, active);
    }
}
