#include "image.h"

namespace warpsight::cuda {
namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr Image kImage = Image::hopper;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr Image kImage = Image::dependent;
#else
constexpr Image kImage = Image::any;
#endif

/// Never started: its largest block says what it was compiled for.
__global__ void __launch_bounds__(int(kImage)) image_kernel() {}

}  // namespace

cudaError_t loaded_image(Image& image) {
    cudaFuncAttributes attributes{};
    cudaError_t status = cudaFuncGetAttributes(&attributes, image_kernel);
    image = Image(attributes.maxThreadsPerBlock);
    return status;
}

}  // namespace warpsight::cuda
