// float32, float16 and bfloat16 as kernels see them: stored as they are, computed in float32, rounded to nearest even when
// stored.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "dtype.h"
#include "error.h"

namespace warpsight::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }

template <typename T>
__device__ __forceinline__ T from_float(float v) {
    if constexpr (std::is_same_v<T, float>) return v;
    else if constexpr (std::is_same_v<T, half>) return __float2half_rn(v);
    else return __float2bfloat16_rn(v);
}

/// The value that a number has once it is stored as T.
template <typename T>
__device__ __forceinline__ float rounded(float v) {
    return to_float(from_float<T>(v));
}

/// Element i of an array whose float dtype is known only at run time; the switch is uniform, so warps don't diverge.
__device__ __forceinline__ float element(const void* data, DType dtype, int64_t i) {
    if (dtype == DType::float16) return to_float(static_cast<const half*>(data)[i]);
    if (dtype == DType::bfloat16) return to_float(static_cast<const bf16*>(data)[i]);
    return static_cast<const float*>(data)[i];
}

__device__ __forceinline__ float nan_value() { return __int_as_float(0x7fffffff); }

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Calls f with a zero of the C++ type of a float dtype.
template <typename F>
void by_dtype(const char* op, DType dtype, F&& f) {
    switch (dtype) {
        case DType::float32: return f(float{});
        case DType::float16: return f(half{});
        case DType::bfloat16: return f(bf16{});
        case DType::int32:
        case DType::uint8:
        case DType::int8: break;
    }
    throw Error("ERR_DTYPE", std::string(op) + ": no kernel for " + name_of(dtype) + "; float32, float16 and bfloat16 have one");
}

}  // namespace warpsight::cuda
