// Weights on the device: matrices and tables row-major, each row padded with zeros to a multiple of 16 bytes (what 16-byte loads
// and TMA can address); vectors as contiguous float32.
#pragma once

#include "launch.h"
#include "stream.h"

namespace warpsight::cuda {

class CudaWeight final : public Weight {
public:
    /// Uninitialised memory for it.
    CudaWeight(std::shared_ptr<Context> context, WeightLayout layout, DType dtype, int64_t rows, int64_t columns);
    ~CudaWeight() override;

    void* data() const { return data_; }
    int64_t pitch() const { return pitch_; }  // elements from row to row
    Matrix matrix() const { return {data_, dtype, rows, columns, pitch_}; }

private:
    std::shared_ptr<Context> context_;
    void* data_ = nullptr;
    int64_t pitch_ = 0;
};

/// Reads the source in small pieces through page-locked memory; converted on the device. Any number of threads may load at once.
std::shared_ptr<const Weight> load_weight(std::shared_ptr<Context> context, WeightLayout layout, DType dtype, DType compute,
                                          int64_t rows, int64_t columns, RowSource& source);

}  // namespace warpsight::cuda
