// Tensor-core tiles of compute capability 8.0: m16n8k16 products, and ldmatrix, which loads their operands from shared
// memory (stmatrix stores them).
//
// Fragments (PTX ISA, "Matrix fragments for mma.m16n8k16"), with g = lane / 4 and q = lane % 4:
//   A: a[0] = (row g, columns 2q, 2q+1), a[1] = row g+8, a[2] = columns + 8, a[3] = both
//   B: b[0] = (rows 2q, 2q+1, column g), b[1] = rows + 8
//   C: c[0], c[1] = (row g, columns 2q, 2q+1), c[2], c[3] = row g+8
#pragma once
#include "primitives/types.cuh"

/// 16-bit floats as the tensor cores see them.
enum class Half { float16, bfloat16 };

/// c += a · b. Volatile, as loads of fragments are: kernels order the two by hand.
template <Half type> FI_DEVICE void mma(float (&c)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    if constexpr (type == Half::float16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

/// c = a · b.
template <Half type> FI_DEVICE void mma_first(float (&c)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    if constexpr (type == Half::float16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                     : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                     : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
    }
}

/// Four 8 × 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
FI_DEVICE void load_matrices(uint32 (&r)[4], uint32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}

/// The same, each matrix transposed.
FI_DEVICE void load_matrices_transposed(uint32 (&r)[4], uint32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}

/// Stores four 8 × 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. Compute capability 9.0.
FI_DEVICE void store_matrices(const uint32 (&r)[4], uint32 address) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/// The same, each matrix transposed: lane l gives the address of column l % 8 of matrix l / 8.
FI_DEVICE void store_matrices_transposed(const uint32 (&r)[4], uint32 address) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/// Products of e4m3, 32 elements at a time (m16n8k32, compute capability 8.9 and up): fragments of bytes where those have pairs of bytes.
FI_DEVICE void mma_e4m3(float (&c)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
