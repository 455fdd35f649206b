// Weights in the CPU's layouts. Matrices: panels of `nr` rows, [ceil(N/nr)][K][nr] in the stored type, zeros behind the last row,
// widened inside the kernels; quantised ones: panels of kernels_int8.h;
// those of products in bfloat16: panels of kernels_bfloat16.h. Vectors: float32. Tables: rows in the stored type.
#pragma once

#include <atomic>
#include <memory>

#include "../backend.h"

namespace warpsight::cpu {

class CpuWeight final : public Weight {
public:
    CpuWeight(WeightLayout layout, DType dtype, int64_t rows, int64_t columns, size_t bytes);
    ~CpuWeight() override;
    CpuWeight(const CpuWeight&) = delete;
    CpuWeight& operator=(const CpuWeight&) = delete;

    void* data = nullptr;   // 64-byte aligned
    bool in_pairs = false;  // a matrix in the panels of kernels_bfloat16.h
};

/// See Backend::make_weight; `compute` bfloat16 asks for products in bfloat16, and ERR_DTYPE says that this level has none. Uses
/// no other thread; reads about 256 KiB at a time.
std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, DType compute, Quantization quantization,
                                          int64_t rows, int64_t columns, RowSource& source);

/// Bytes of all weights alive.
uint64_t weight_bytes();

}  // namespace warpsight::cpu
