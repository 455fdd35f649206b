// Tensor cores as sm_80 and later have them: fragments from shared memory and the product of 16 × 8 × 16. PTX ISA, "Warp-level
// matrix load" (ldmatrix) and "Matrix fragments for mma.m16n8k16".
//
//   A [16, 16], four registers of two elements        B [16, 8] as [n, k] rows             C [16, 8] float32
//   a[0] rows 0–7,  k 0–7    a[2] rows 0–7,  k 8–15    b[0] k 0–7, b[1] k 8–15              c[0], c[1] row lane/4
//   a[1] rows 8–15, k 0–7    a[3] rows 8–15, k 8–15    lane holds n = lane/4, k = lane%4·2  c[2], c[3] row lane/4 + 8
//   lane holds row lane/4, k = lane%4·2 and + 1        and + 1                              columns lane%4·2 and + 1
#pragma once

#include "number.h"

namespace warpsight::cuda {

/// An address in shared memory as PTX instructions take it.
__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

/// Four 8 × 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, aligned). Lane l gets
/// elements 2·(l % 4) and + 1 of row l / 4 of each.
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
/// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/// c += a·b with float32 sums; T is half or bf16.
template <typename T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<T, half>)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two float32 as neighbouring 16-bit elements, `low` first, rounded to nearest even.
template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
    if constexpr (std::is_same_v<T, half>) {
        half2 v = __floats2half2_rn(low, high);
        return *reinterpret_cast<uint32_t*>(&v);
    } else {
        __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<uint32_t*>(&v);
    }
}

/// The other way: x is the lower element.
template <typename T>
__device__ __forceinline__ float2 unpack_pair(uint32_t pair) {
    if constexpr (std::is_same_v<T, half>) return __half22float2(*reinterpret_cast<half2*>(&pair));
    else return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&pair));
}

}  // namespace warpsight::cuda
