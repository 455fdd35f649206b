// What bench_gemm computes on the device beside the products.
#pragma once

#include <cuda_runtime_api.h>

#include "../native/src/dtype.h"

namespace warpsight::bench {

/// Numbers from the normal distribution (mean 0, deviation 1); the same for the same seed.
void fill_normal(void* to, DType dtype, int64_t count, uint64_t seed, cudaStream_t stream);

/// ‖a − b‖₂ / ‖b‖₂; NaN where either holds a NaN. Waits.
double relative_difference(const void* a, const void* b, DType dtype, int64_t count, cudaStream_t stream);

/// A kernel that does nothing: what a node of a graph costs.
void start_nothing(cudaStream_t stream);

}  // namespace warpsight::bench
