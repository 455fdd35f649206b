#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "gemm_kernels.h"

namespace warpsight::bench {
namespace {

constexpr int kThreads = 256, kBlocks = 1024;

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

/// The finaliser of SplitMix64 (Steele et al. 2014).
__device__ uint64_t mixed(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/// Box and Muller 1958: two uniform numbers to one normal.
template <typename T>
__global__ void normal_kernel(T* to, int64_t count, uint64_t seed) {
    for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
        uint64_t bits = mixed(seed + uint64_t(i + 1) * 0x9e3779b97f4a7c15u);
        float u = (float(bits >> 40) + 1.f) * 0x1p-24f;  // (0, 1]
        float v = float(bits & 0xffffff) * 0x1p-23f;     // [0, 2), in half turns
        to[i] = T(sqrtf(-2.f * logf(u)) * cospif(v));
    }
}

/// sums[block] = Σ (a − b)², sums[kBlocks + block] = Σ b², in a fixed order.
template <typename T>
__global__ void __launch_bounds__(kThreads) difference_kernel(const T* a, const T* b, int64_t count, double* sums) {
    __shared__ double partial[2][kThreads];
    double apart = 0, size = 0;
    for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
        double x = double(float(a[i])), y = double(float(b[i]));
        apart += (x - y) * (x - y);
        size += y * y;
    }
    partial[0][threadIdx.x] = apart;
    partial[1][threadIdx.x] = size;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < half)
            for (auto& row : partial) row[threadIdx.x] += row[threadIdx.x + half];
    }
    __syncthreads();
    if (threadIdx.x < 2) sums[threadIdx.x * kBlocks + blockIdx.x] = partial[threadIdx.x][0];
}

__global__ void nothing_kernel() {}

}  // namespace

void fill_normal(void* to, DType dtype, int64_t count, uint64_t seed, cudaStream_t stream) {
    if (dtype == DType::float16) {
        normal_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<__half*>(to), count, seed);
    } else {
        normal_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(to), count, seed);
    }
    check(cudaGetLastError());
}

double relative_difference(const void* a, const void* b, DType dtype, int64_t count, cudaStream_t stream) {
    std::vector<double> sums(2 * kBlocks);
    double* device = nullptr;
    check(cudaMalloc(&device, sums.size() * sizeof(double)));
    if (dtype == DType::float16) {
        difference_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const __half*>(a), static_cast<const __half*>(b), count,
                                                            device);
    } else {
        difference_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const __nv_bfloat16*>(a),
                                                            static_cast<const __nv_bfloat16*>(b), count, device);
    }
    check(cudaGetLastError());
    check(cudaMemcpyAsync(sums.data(), device, sums.size() * sizeof(double), cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
    check(cudaFree(device));
    double apart = 0, size = 0;
    for (int block = 0; block < kBlocks; ++block) {
        apart += sums[size_t(block)];
        size += sums[size_t(kBlocks + block)];
    }
    return std::sqrt(apart / size);
}

void start_nothing(cudaStream_t stream) {
    nothing_kernel<<<1, 32, 0, stream>>>();
    check(cudaGetLastError());
}

}  // namespace warpsight::bench
