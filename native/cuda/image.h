// Which of the images that this build holds a device runs: kernels and their launches differ.
#pragma once

#include <cuda_runtime_api.h>

namespace warpsight::cuda {

enum class Image : int {
    any = 32,        // mma.sync, cp.async
    dependent = 64,  // and griddepcontrol
    hopper = 96,     // compiled for sm_90a: and wgmma, TMA, clusters
};

/// Of the calling thread's device; an error if there is none that it can run.
cudaError_t loaded_image(Image& image);

}  // namespace warpsight::cuda
