// The shape of one block's work, from the macros of its specialisation, and where everything lies in shared memory.
//
// FI_HALF            Half::float16 or bfloat16: queries, and keys and values unless narrow
// FI_NARROW          Narrow::none, e4m3, e5m2 or int8
// FI_NARROW_QUERIES  whether queries are e4m3: widened to FI_HALF when they are loaded, or multiplied as they are (attention_fp8.cuh)
// FI_OUTPUT          0 float32, 1 float16, 2 bfloat16
// FI_HEAD_DIM_QK     elements of a query and key head
// FI_HEAD_DIM_VO     elements of a value head
// FI_VO_SLICE        elements of it that one block computes; gridDim.y blocks share a head
// FI_ROWS            packed query rows of a tile
// FI_KEYS            keys of a stage
// FI_WARPS_M, _N     warps along rows, and along keys: the latter have softmax states of their own until the end
// FI_STAGES          stages of keys and values in flight
// FI_VALUE_STAGES    stages of values, on Hopper, where they are fewer than those of keys; else not defined
// FI_CHUNK           bytes that addresses and strides of keys and values are multiples of: 16, 8, 4, or less (slow)
// FI_LOGITS          Logits::plain, scaled, capped, alibi, variant
// FI_VARIANT         the text of a variant's expressions, in quotes, where it has any that are not among these; else not defined
// FI_MASK            Mask::none, bytes, bits: a mask of the run's own
// FI_ROPE            Rope::none, half_split, interleaved
// FI_RAGGED          a request's keys are one after another, from row `only_block` on: no block table is read
// FI_COLUMNS         1: keys have the positions of their columns in a block-sparse matrix; 2: of their blocks' places in a sequence; 0: neither
// FI_HEAD_TABLES     1: each key/value head has a block table of its own; else not defined
// FI_QUEUE           blocks take items from a queue, not from a list of their own
// FI_MIXED           where defined, the block runs lists of few rows beside its queue, on Hopper
// FI_LATENT          elements at the end of a key that are no part of its value, which is the key's others: latent attention; else 0
#pragma once
#include "fi_attention_params.h"
#include "primitives/async.cuh"
#include "primitives/convert.cuh"

enum class Logits { plain, scaled, capped, alibi, variant };
enum class Mask { none, bytes, bits };
enum class Rope { none, half_split, interleaved };

constexpr Half half_type = FI_HALF;
constexpr Narrow narrow = FI_NARROW;
constexpr bool has_narrow_queries = FI_NARROW_QUERIES;
constexpr Logits logits = FI_LOGITS;
constexpr Mask custom_mask = FI_MASK;
constexpr Rope rope = FI_ROPE;
/// Whether keys have positions of their own: columns, or places.
constexpr bool has_columns = FI_COLUMNS != 0;
#ifdef FI_HEAD_TABLES
constexpr bool has_head_tables = true;
#else
constexpr bool has_head_tables = false;
#endif
#ifdef FI_VARIANT
constexpr bool has_variant = true;
#else
constexpr bool has_variant = false;
#endif

/// Whether a warpgroup of its own runs lists beside those that compute: see hopper/attention_lists.cuh.
#ifdef FI_MIXED
constexpr bool is_mixed = true;
#else
constexpr bool is_mixed = false;
#endif

constexpr int dim_qk = FI_HEAD_DIM_QK, dim_vo = FI_HEAD_DIM_VO, slice_vo = FI_VO_SLICE;
constexpr int rows = FI_ROWS, keys = FI_KEYS, stages = FI_STAGES;
#ifdef FI_VALUE_STAGES
constexpr int stages_of_values = FI_VALUE_STAGES;
#elif defined(FI_HOPPER_FLOAT8)
/// Whether values are transposed where they lie, as 128 keys by 128 elements take the same bytes either way. Values that are on their way then
/// need no stages of their own, and all stages are alike: each is asked for as soon as it has been multiplied with.
constexpr bool turns_in_place = keys == 128 && slice_vo % 128 == 0;
constexpr int stages_of_values = stages + (turns_in_place ? FI_RAW_STAGES : 0);
#else
constexpr int stages_of_values = stages;
#endif
constexpr int warps_m = FI_WARPS_M, warps_n = FI_WARPS_N, warps = warps_m * warps_n, threads = warps * warp_size;
constexpr int warp_rows = rows / warps_m, warp_keys = keys / warps_n;

/// Latent attention: a key's first `dim_vo` elements are its value. Queries and keys lie in two tensors each, see the parameter.
constexpr bool is_latent = FI_LATENT != 0;
static_assert(!is_latent || (dim_qk == dim_vo + FI_LATENT && dim_vo % 16 == 0 && FI_LATENT % 16 == 0), "parts are whole products");

/// Those of a block's threads that merge, and their first.
#ifdef FI_HOPPER_LATENT
constexpr int first_merger = 0, mergers = 256;
#else
constexpr int first_merger = 0, mergers = threads;
#endif

constexpr bool is_narrow = narrow != Narrow::none;
/// Keys that are turned are widened on the way, so only keys that are not reach the tensor cores narrow.
constexpr bool has_narrow_keys = is_narrow && rope == Rope::none;
/// Whether one instruction widens e4m3 to float16.
#if __CUDA_ARCH__ >= 890
constexpr bool widens_e4m3 = true;
#else
constexpr bool widens_e4m3 = false;
#endif
constexpr int element_bytes = is_narrow ? 1 : 2;

/// Products take 16 elements at a time, the copy engine 64; heads are padded with zeros.
#ifdef FI_HOPPER
constexpr int padding = 64;
#else
constexpr int padding = 16;
#endif
constexpr int padded_qk = round_up(dim_qk, padding), padded_vo = round_up(slice_vo, padding);

constexpr int row_tiles = warp_rows / 16, key_tiles = warp_keys / 8, value_tiles = padded_vo / 8;

static_assert(dim_vo % slice_vo == 0, "slices of a head are equal");
static_assert(rows % (16 * warps_m) == 0 && rows / warps <= warp_size, "a warp has whole row tiles, and a lane for each row");
static_assert(keys % (16 * warps_n) == 0, "a warp has whole products' worth of keys");
static_assert(!is_narrow || keys % (32 * warps_n) == 0, "8-bit elements are loaded for 32 keys at a time");
static_assert(stages >= 2 && stages_of_values >= 2, "one stage is computed on while the next arrives");

/// Rows of shared memory whose 16-byte chunks are placed so that eight rows' worth of one column lie in different banks.
template <int elements, int bytes> struct Rows {
    static constexpr int chunks = elements * bytes / 16;
    static constexpr bool is_swizzled = chunks % 8 == 0;
    /// An odd number of chunks to a row does what the swizzle does.
    static constexpr int stride = (is_swizzled ? chunks : chunks | 1) * 16;

    FI_DEVICE uint32 offset(int row, int chunk) { return row * stride + ((is_swizzled ? chunk ^ (row & 7) : chunk) << 4); }
    /// The address `row_step` rows, a multiple of 8, and `chunk_step` chunks on from the address of a chunk whose number has no
    /// bit in common with `chunk_step`: one instruction, and nothing for the compiler to keep in registers.
    FI_DEVICE uint32 advance(uint32 address, int row_step, int chunk_step) {
        if constexpr (is_swizzled) return (address ^ (chunk_step % 8 << 4)) + chunk_step / 8 * 128 + row_step * stride;
        return address + chunk_step * 16 + row_step * stride;
    }
};
using QueryRows = Rows<padded_qk, 2>;
using KeyRows = Rows<padded_qk, element_bytes>;
using TurnedRows = Rows<padded_qk, 2>;
template <bool latent> struct ValueRowsOf { using Type = Rows<padded_vo, element_bytes>; };
template <> struct ValueRowsOf<true> { using Type = KeyRows; };
/// Values lie in rows of their own, or at the start of their keys'.
using ValueRows = ValueRowsOf<is_latent>::Type;

#if defined(FI_HOPPER_LATENT) && FI_ROWS == 16
#include "hopper/latent_short_shared.cuh"
#elif defined(FI_HOPPER_LATENT)
#include "hopper/latent_shared.cuh"
#elif defined(FI_HOPPER_FLOAT8)
#include "hopper/attention_fp8_shared.cuh"
#elif defined(FI_HOPPER)
#include "hopper/attention_shared.cuh"
#else
#include "portable/attention_shared.cuh"
#endif

/// n / d by a multiplication: see FastDivision.
FI_DEVICE uint32 divide(uint32 n, uint32 multiplier, uint32 shift) {
    return multiplier == 0 ? n : __umulhi(n, multiplier) >> shift;
}

/// The item at hand, in shared memory, where it costs no registers.
struct Item : fi_attention_item {
    __device__ __forceinline__ int key_end() const { return key + key_count; }
    /// Makes it one of the blocks' that run a list side by side: of that head of it, or of those rows. False where there are none.
    __device__ __forceinline__ bool take_part(int part) {
        if constexpr (is_latent) {
            const int first = part * rows;
            // There is one head; parts of a merge are as far apart as the item has rows.
            heads = row_count;
            row += first;
            merge_row += first;
            partial_row += partial_row < 0 ? 0 : first;
            row_count = max(min(row_count - first, rows), 0);
        } else if (part != 0) {
            // States of one item lie head after head.
            head += part;
            partial_row += partial_row < 0 ? 0 : part * row_count;
            merge_row += part * row_count;
        }
        return row_count > 0;
    }
    /// Rows of the workspace between a merge's parts.
    __device__ __forceinline__ int part_stride() const { return is_latent ? heads : heads * row_count; }
    /// Whether only causality and window hide some of those of `count` keys from `first` on that are the item's.
    __device__ __forceinline__ bool is_full(int first, int count) const {
        return max(first, key) >= full && min(first + count, key_end()) <= full + full_count;
    }
    /// The query row, within the request, of packed row `row` of the tile.
    __device__ __forceinline__ int query(const fi_attention_params &p, int row) const {
        return divide(this->row + row, p.group_multiplier, p.group_shift);
    }
    /// The query head of a packed row whose query row is `query`.
    __device__ __forceinline__ int query_head(const fi_attention_params &p, int row, int query) const {
        return head * static_cast<int>(p.group) + this->row + row - query * static_cast<int>(p.group);
    }
    /// The position of query row `query`, as masks see it.
    __device__ __forceinline__ int position(const fi_attention_params &p, int query) const {
        return query
               + (FI_COLUMNS == 1 ? static_cast<int>(p.column_count) - p.query_count + first_query : sequence_length() - query_count);
    }
    /// Keys of the request, or of the sequence that it has some blocks of.
    __device__ __forceinline__ int sequence_length() const { return FI_COLUMNS == 2 ? only_block : key_total; }
    /// Where the request's, or its head's, block table starts.
    __device__ __forceinline__ int first_entry(const fi_attention_params &p) const {
        return first_block + (has_head_tables ? head * p.head_entries : 0);
    }
    /// The block table, and this block's part of the first key and value.
    __device__ __forceinline__ const int *blocks(const fi_attention_params &p) const {
        return pointer<const int>(p.block_indices) + first_entry(p);
    }
    /// What positions are counted by: the blocks, or their places.
    __device__ __forceinline__ const int *places(const fi_attention_params &p) const {
        return pointer<const int>(FI_COLUMNS == 2 ? p.block_places : p.block_indices) + first_entry(p);
    }
    __device__ __forceinline__ uint64 keys_address(const fi_attention_params &p) const {
        return p.keys.address + head * p.keys.head * element_bytes;
    }
    __device__ __forceinline__ uint64 values_address(const fi_attention_params &p) const {
        return p.values.address + (head * p.values.head + (is_latent ? 0 : blockIdx.y * slice_vo)) * element_bytes;
    }
};

/// Where a variant hides keys in the middle of an item from all rows, whole stages of them are left out: stages, and keys counted in stages,
/// are numbered without them. `jump` keys are left out after the first `before`, of those from key `first` on.
struct Hole {
    int before = 0x7fffffff, jump = 0;

    __device__ __forceinline__ Hole(const Item &item, int first) {
        if constexpr (has_variant) {
            if (item.hole_count == 0) return;
            before = round_up(item.hole - first, keys);
            jump = max((item.hole + item.hole_count - first) / keys * keys - before, 0);
        }
    }
    /// Keys left out before number `at`.
    __device__ __forceinline__ int skipped(int at) const { return at >= before ? jump : 0; }
};

/// The stages of an item, from its first key on.
struct Stages : Hole {
    const Item &item;

    __device__ __forceinline__ Stages(const Item &item) : Hole(item, item.key), item(item) {}
    __device__ __forceinline__ int count() const { return item.key_count - jump; }
    /// The key that is number `at` of those in stages.
    __device__ __forceinline__ int key(int at) const { return item.key + at + skipped(at); }
};
