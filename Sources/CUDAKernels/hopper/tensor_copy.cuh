// Copies by the tensor memory accelerator: boxes of a tensor map into shared memory, rows of 128 bytes swizzled as wgmma reads them.
#pragma once
#include "hopper/barrier.cuh"
#include "fi_hopper_attention_params.h"

/// The parameter, at the alignment that the copy engine asks of its maps.
struct alignas(64) AlignedParams : fi_hopper_attention_params {};

FI_DEVICE void prefetch_map(const fi_tensor_map &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64>(&map)) : "memory");
}

/// How the L2 cache treats what is brought, as `createpolicy` says it.
enum CachePolicy : uint64 {
    /// What is read once gives way first: what all blocks read, or read soon, stays.
    read_once = 0x12f0000000000000,
};

// A copy of a box: what is said of it goes into the instruction's name, and more operands follow the place.
#define FI_COPY_BOX(MODIFIERS, OPERANDS) \
    "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes" MODIFIERS " [%0], [%1, {%3, %4, %5, %6}], [%2]" OPERANDS ";"
#define FI_BOX_OPERANDS \
    "r"(to), "l"(reinterpret_cast<uint64>(&map)), "r"(barrier.address), "r"(element), "r"(head), "r"(row), "r"(block)

/// Copies the box at (element, head, row, block); its bytes arrive at `barrier`.
FI_DEVICE void copy_box(uint32 to, const fi_tensor_map &map, int element, int head, int row, int block, Barrier barrier) {
    asm volatile(FI_COPY_BOX("", "")::FI_BOX_OPERANDS : "memory");
}

FI_DEVICE void copy_box(uint32 to, const fi_tensor_map &map, int element, int head, int row, int block, Barrier barrier, CachePolicy policy) {
    asm volatile(FI_COPY_BOX(".L2::cache_hint", ", %7")::FI_BOX_OPERANDS, "l"(static_cast<uint64>(policy)) : "memory");
}

/// The same to the same place in all blocks of the cluster whose bits are set; the bytes arrive at each one's barrier.
FI_DEVICE void copy_box_to(uint16 blocks, uint32 to, const fi_tensor_map &map, int element, int head, int row, int block, Barrier barrier) {
    asm volatile(FI_COPY_BOX(".multicast::cluster", ", %7")::FI_BOX_OPERANDS, "h"(blocks) : "memory");
}

FI_DEVICE void copy_box_to(uint16 blocks, uint32 to, const fi_tensor_map &map, int element, int head, int row, int block, Barrier barrier,
                           CachePolicy policy) {
    asm volatile(FI_COPY_BOX(".multicast::cluster.L2::cache_hint", ", %7, %8")::FI_BOX_OPERANDS, "h"(blocks), "l"(static_cast<uint64>(policy))
                 : "memory");
}
#undef FI_COPY_BOX
#undef FI_BOX_OPERANDS

/// Copies the box of whole rows, eight by eight, at (column, eight, place) of a map of five dimensions.
FI_DEVICE void copy_wide_box(uint32 to, const fi_tensor_map &map, int column, int eight, int place, Barrier barrier) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%6, %6, %3, %4, %5}], [%2];" ::"r"(to),
        "l"(reinterpret_cast<uint64>(&map)), "r"(barrier.address), "r"(column), "r"(eight), "r"(place), "r"(0)
        : "memory");
}

/// The same to the same place in all blocks of the cluster whose bits are set; the bytes arrive at each one's barrier.
FI_DEVICE void copy_wide_box_to(uint16 blocks, uint32 to, const fi_tensor_map &map, int column, int eight, int place, Barrier barrier) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%6, %6, %3, %4, %5}], "
        "[%2], %7;" ::"r"(to),
        "l"(reinterpret_cast<uint64>(&map)), "r"(barrier.address), "r"(column), "r"(eight), "r"(place), "r"(0), "h"(blocks)
        : "memory");
}

/// Copies bytes of shared memory to the same place in another block of the cluster; they arrive at its barrier.
FI_DEVICE void copy_to_block(uint32 rank, uint32 at, int bytes, Barrier barrier) {
    asm volatile(
        "{\n"
        ".reg .b32 to, full;\n"
        "mapa.shared::cluster.u32 to, %0, %1;\n"
        "mapa.shared::cluster.u32 full, %2, %1;\n"
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [to], [%0], %3, [full];\n"
        "}\n" ::"r"(at), "r"(rank), "r"(barrier.address), "r"(bytes)
        : "memory");
}
