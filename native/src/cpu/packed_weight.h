// Weights in the CPU's layouts. Matrices: panels of `nr` rows, [ceil(N/nr)][K][nr] in the stored type, zeros behind the last row,
// widened inside the kernels; quantised ones: panels of kernels_int8.h. Vectors: float32. Tables: rows in the stored type.
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

    void* data = nullptr;  // 64-byte aligned
};

/// See Backend::make_weight. Uses no other thread; reads about 256 KiB at a time.
std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, Quantization quantization, int64_t rows,
                                          int64_t columns, RowSource& source);

/// Bytes of all weights alive.
uint64_t weight_bytes();

}  // namespace warpsight::cpu
