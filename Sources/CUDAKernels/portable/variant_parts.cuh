// A variant's expressions by themselves, a function a place: compiled alone, in a twentieth of a kernel's time, and put as PTX where the
// frame of a kernel has marked their places. What a place is given are fi_in's numbers, what it gives are fi_out's, as the frame's marks
// have them in order (see VariantText).
#include "fi_hopper_attention_params.h"
#include "portable/variant_terms.cuh"

/// Operand n of the mark.
template <int n> FI_DEVICE int part_input() {
    int x;
    asm("fi_in %0, %1;" : "=r"(x) : "n"(n));
    return x;
}
template <int n> FI_DEVICE void part_input(int &x) { x = part_input<n>(); }
template <int n> FI_DEVICE void part_input(float &x) { x = __int_as_float(part_input<n>()); }
template <int n> FI_DEVICE void part_input(bool &x) { x = part_input<n>() != 0; }
template <int n> FI_DEVICE void part_output(int x) { asm volatile("fi_out %0, %1;" ::"n"(n), "r"(x)); }
template <int n> FI_DEVICE void part_output(float x) { part_output<n>(__float_as_int(x)); }
template <int n> FI_DEVICE void part_output(bool x) { part_output<n>(static_cast<int>(x)); }

struct Item {};
/// Stands for a row whose terms the frame has kept.
struct Kept {};

/// Terms of a row come first among operands: results of the place that computes them, operands of all others, after their result.
constexpr int kept_terms = 8;

struct VariantSite {
    int request, head, kv_head, query_index, query_position, query_length, key_length;

    template <int first> __device__ __forceinline__ void fetch() {
        part_input<first>(request), part_input<first + 1>(head), part_input<first + 2>(kv_head), part_input<first + 3>(query_index);
        part_input<first + 4>(query_position), part_input<first + 5>(query_length), part_input<first + 6>(key_length);
    }
    __device__ __forceinline__ VariantSite(const fi_attention_params &, const Item &, int, int) { fetch<kept_terms>(); }
    __device__ __forceinline__ VariantSite(Kept) { fetch<kept_terms + 1>(); }
};

/// Hooks of values are no parts.
struct VariantKeySite {
    int request, kv_head, query_length, key_length;

    __device__ __forceinline__ VariantKeySite(const Item &) {}
};

struct VariantBlock {
    int request, kv_head, first_head, last_head, first_index, last_index, first_position, last_position, first_key, last_key,
        query_length, key_length;

    __device__ __forceinline__ VariantBlock(const fi_attention_params &, const Item &, int, int) {
        part_input<1>(request), part_input<2>(kv_head), part_input<3>(first_head), part_input<4>(last_head), part_input<5>(first_index);
        part_input<6>(last_index), part_input<7>(first_position), part_input<8>(last_position), part_input<9>(first_key);
        part_input<10>(last_key), part_input<11>(query_length), part_input<12>(key_length);
    }
};

#include FI_VARIANT

/// The kernel's parameter, at the places that it has there.
struct Parameters {
#ifdef FI_HOPPER
    alignas(64) fi_hopper_attention_params all;
    __device__ __forceinline__ const fi_attention_params &attention() const { return all.attention; }
#else
    fi_attention_params all;
    __device__ __forceinline__ const fi_attention_params &attention() const { return all; }
#endif
};

constexpr int first_of_score = kept_terms + 8;

extern "C" __global__ void fi_row(const __grid_constant__ Parameters p) { VariantRow(p.attention(), Item(), 0, 0).keep(); }
extern "C" __global__ void fi_shows(const __grid_constant__ Parameters p) {
    const VariantRow at{Kept()};
    part_output<0>(variant_shows(p.attention(), at, part_input<first_of_score>(), part_input<first_of_score + 1>()));
}
extern "C" __global__ void fi_bits(const __grid_constant__ Parameters p) {
    const VariantRow at{Kept()};
    part_output<0>(static_cast<int>(variant_bits(p.attention(), at, part_input<first_of_score>(), part_input<first_of_score + 1>())));
}
extern "C" __global__ void fi_logit(const __grid_constant__ Parameters p) {
    const VariantRow at{Kept()};
    const float score = __int_as_float(part_input<first_of_score + 2>());
    part_output<0>(variant_logit(p.attention(), at, score, part_input<first_of_score>(), part_input<first_of_score + 1>()));
}
extern "C" __global__ void fi_weight(const __grid_constant__ Parameters p) {
    const VariantRow at{Kept()};
    const float score = __int_as_float(part_input<first_of_score + 2>());
    part_output<0>(variant_weight(p.attention(), at, score, part_input<first_of_score>(), part_input<first_of_score + 1>()));
}
extern "C" __global__ void fi_hides(const __grid_constant__ Parameters p) {
    part_output<0>(variant_may_hide(p.attention(), Item(), 0, 0));
}
