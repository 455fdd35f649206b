// The length of a row that is to be brought to 1, whatever its scale.
#pragma once

#include <cfloat>

#include "pack.h"
#include "reduce.h"

namespace warpsight::cuda {

/// What a row is multiplied with as it is loaded (a power of two, nearly always 1), and 1 / its length after that.
struct RowNorm {
    float load, inverse;
};

/// A sum of squares that has the precision of float32.
__device__ __forceinline__ bool normal_squares(float squares) { return squares >= FLT_MIN && squares <= FLT_MAX; }

/// 1 / length; a row of zeros has products of 0 with any row, and they must stay that.
__device__ __forceinline__ float inverse_length(float squares) { return 1.f / Max{}(sqrtf(squares), FLT_MIN); }

/// All 32 lanes of a warp must call. V divides D; x is aligned as load<V> wants it.
template <int V, typename T>
__device__ __forceinline__ RowNorm row_norm(const T* x, int D) {
    auto sum_of_squares = [&](float scale) {
        float sum = 0.f;
        for (int d = threadIdx.x % 32 * V; d < D; d += 32 * V) {
            Pack<V> p = load<V>(x + d);
#pragma unroll
            for (float v : p.v) sum = fmaf(v * scale, v * scale, sum);
        }
        return warp_sum(sum);
    };
    float squares = sum_of_squares(1.f);
    if (normal_squares(squares)) return {1.f, inverse_length(squares)};
    float largest = 0.f;
    for (int d = threadIdx.x % 32; d < D; d += 32) largest = fmaxf(largest, fabsf(to_float(x[d])));
    largest = warp_reduce(largest, Max{});
    if (!(largest > 0.f && largest <= FLT_MAX)) return {1.f, inverse_length(squares)};
    float scale = scalbnf(1.f, min(127, -ilogbf(largest)));
    return {scale, inverse_length(sum_of_squares(scale))};
}

}  // namespace warpsight::cuda
