// Sums and maxima over a warp or a block, in a fixed order.
#pragma once

#include <cstdint>

namespace warpsight::cuda {

struct Add {
    template <typename T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};
/// NaN wins, as it must where it is to propagate.
struct Max {
    __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
    __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

/// Every lane gets the result; all 32 lanes must call.
template <typename T, typename F>
__device__ __forceinline__ T warp_reduce(T v, F f) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) v = f(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}
__device__ __forceinline__ float warp_sum(float v) { return warp_reduce(v, Add{}); }

/// Every thread of the group gets the result. A group is a warp (Threads = 32, no barrier) or the whole block of Threads threads;
/// all of it must call.
template <int Threads, typename T, typename F>
__device__ __forceinline__ T group_reduce(T v, F f) {
    v = warp_reduce(v, f);
    if constexpr (Threads > 32) {
        __shared__ T partial[Threads / 32];
        int thread = threadIdx.y * blockDim.x + threadIdx.x;
        if (thread % 32 == 0) partial[thread / 32] = v;
        __syncthreads();
        v = partial[0];
#pragma unroll
        for (int w = 1; w < Threads / 32; ++w) v = f(v, partial[w]);
        __syncthreads();  // the next call may write at once
    }
    return v;
}

}  // namespace warpsight::cuda
