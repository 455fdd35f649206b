// The CUDA backend: SIMT kernels for everything in ops.h. Loads and answers on machines without a driver or device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../src/backend.h"

namespace warpsight {

struct CudaProbe {
    int devices = 0;
    std::string reason;                     // why there is no usable device; empty where there is one
    std::vector<std::string> descriptions;  // "NVIDIA H100 80GB HBM3 (compute capability 9.0)", by ordinal
};

/// Never throws.
CudaProbe probe_cuda();

/// Throws ERR_DEVICE with the probe's reason where there is no such device.
std::shared_ptr<Backend> make_cuda_backend(int ordinal);

}  // namespace warpsight
