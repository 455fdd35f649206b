// Keys whose unsigned order is the order of argmax and topK: NaN above everything, −0 equal to +0, of equal values the smaller
// index above.
#pragma once

#include <cstdint>

namespace warpsight::cuda {

/// Larger values have larger keys; equal values equal ones.
__device__ __forceinline__ uint32_t order_key(float v) {
    if (v != v) return 0xfffffffeu;            // so that no key with an index is ~0, which is above all of them (topk.cu)
    uint32_t bits = __float_as_uint(v + 0.f);  // −0 + 0 is +0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The value of a key (some NaN for that of NaN, +0 for that of −0).
__device__ __forceinline__ float value_of(uint32_t key) {
    if (key == 0xfffffffeu) return __uint_as_float(0x7fffffffu);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ uint64_t order_key(float v, uint32_t index) {
    return uint64_t(order_key(v)) << 32 | (0xffffffffu - index);
}

__device__ __forceinline__ uint32_t index_of(uint64_t key) { return 0xffffffffu - uint32_t(key); }

}  // namespace warpsight::cuda
