#include "backend.h"

#include <cstdlib>

#include "image.h"
#include "launch.h"
#include "plan.h"
#include "weights.h"

namespace warpsight {
namespace cuda {
namespace {

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

/// Why no CUDA call can work at all; empty if it can.
std::string missing_driver() {
    int driver = 0, runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        cudaGetLastError();
        return "there is no NVIDIA driver (libcuda.so.1 cannot be opened)";
    }
    cudaRuntimeGetVersion(&runtime);
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver) {
        cudaGetLastError();
        return "the NVIDIA driver supports CUDA " + version_text(driver) + ", this build needs " + version_text(runtime) +
               ": update the driver";
    }
    cudaGetLastError();
    return {};
}

std::string missing_device(int& count) {
    cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (status == cudaSuccess && count > 0) return {};
    count = 0;
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (status != cudaSuccess && status != cudaErrorNoDevice)
        return std::string("the NVIDIA driver answers: ") + cudaGetErrorString(status);
    return visible != nullptr ? "no device is visible: CUDA_VISIBLE_DEVICES is \"" + std::string(visible) + "\""
                              : "the NVIDIA driver sees no device";
}

std::string describe(int ordinal) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess) {
        cudaGetLastError();
        return "unknown device";
    }
    return std::string(properties.name) + " (compute capability " + std::to_string(properties.major) + "." +
           std::to_string(properties.minor) + ")";
}

/// Why this build's kernels cannot run on a device; empty if they can. Makes the device's context.
std::string missing_image(int ordinal) {
    Image image;
    cudaError_t status = cudaSetDevice(ordinal);
    if (status == cudaSuccess) status = loaded_image(image);
    cudaGetLastError();
    if (status == cudaSuccess) return {};
    if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
        status == cudaErrorUnsupportedPtxVersion)
        return "this build has no kernels for " + describe(ordinal) + ": build again with WARPSIGHT_CUDA_ARCHS=native";
    return describe(ordinal) + " cannot be used: " + cudaGetErrorString(status);
}

class CudaBackend final : public Backend {
public:
    explicit CudaBackend(int ordinal) : context_(std::make_shared<Context>(ordinal)) {
        name = context_->device.name;
        description = context_->device.description = describe(ordinal);
    }

    void* allocate(size_t bytes, Stream& stream) override { return context_->memory.allocate(bytes, &stream); }
    void release(void* memory, size_t, Stream& stream) noexcept override { context_->memory.release(memory, &stream); }

    DeviceMemory memory() override {
        context_->device.enter();
        size_t free = 0, total = 0;
        context_->device.check(cudaMemGetInfo(&free, &total), "free memory cannot be asked for");
        return {.total = total,
                .free = std::min<uint64_t>(free + context_->memory.cached(), context_->memory.left()),
                .weights = context_->weight_bytes,
                .allocated = context_->memory.in_use()};
    }

    void limit_memory(uint64_t bytes) override { context_->memory.limit(bytes); }

    std::unique_ptr<Stream> make_stream(bool interactive) override { return std::make_unique<CudaStream>(context_, interactive); }
    std::unique_ptr<Step> plan(const StepSpec& spec) override { return plan_step(context_, spec); }
    std::unique_ptr<Recording> record(Stream& stream, const std::function<void()>& launches) override {
        return std::make_unique<CudaRecording>(static_cast<CudaStream&>(stream), launches, context_);
    }
    std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, DType compute, Quantization quantization,
                                              int64_t rows, int64_t columns, RowSource& source) override {
        if (quantization != Quantization::none) throw Error("ERR_DTYPE", "weight: no kernel for int8 on cuda: the cpu has them");
        return load_weight(context_, layout, dtype, compute, rows, columns, source);
    }

private:
    std::shared_ptr<Context> context_;
};

}  // namespace

void allow_shared(const Launch& launch, const void* kernel, size_t bytes) {
    launch.device.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)), "shared memory");
}

void check_grid(const Launch& launch, const char* op, const Grid& grid) {
    constexpr unsigned kMost = 65535;  // blocks along y and z, on every device
    auto refuse = [&](const std::string& why) {
        throw Error("ERR_SHAPE", std::string("no kernel of ") + op + " serves this shape: " + why);
    };
    if (grid.blocks.y > kMost || grid.blocks.z > kMost)
        refuse(std::to_string(grid.blocks.x) + " x " + std::to_string(grid.blocks.y) + " x " + std::to_string(grid.blocks.z) +
               " blocks are needed, and there are at most " + std::to_string(kMost) + " along y and z");
    if (grid.shared > size_t(launch.device.shared_bytes_per_block))
        refuse(std::to_string(grid.shared) + " bytes of shared memory are needed, and a block has " +
               std::to_string(launch.device.shared_bytes_per_block));
}

}  // namespace cuda

CudaProbe probe_cuda() {
    CudaProbe probe;
    try {
        probe.reason = cuda::missing_driver();
        if (probe.reason.empty()) probe.reason = cuda::missing_device(probe.devices);
        for (int i = 0; i < probe.devices; ++i) probe.descriptions.push_back(cuda::describe(i));
        if (probe.devices > 0) probe.reason = cuda::missing_image(0);
        if (!probe.reason.empty()) probe.devices = 0;
    } catch (const std::exception& error) {
        probe.devices = 0;
        probe.reason = error.what();
    }
    return probe;
}

std::shared_ptr<Backend> make_cuda_backend(int ordinal) {
    std::string reason = cuda::missing_driver();
    int count = 0;
    if (reason.empty()) reason = cuda::missing_device(count);
    if (reason.empty() && (ordinal < 0 || ordinal >= count))
        reason = "there is no device " + std::to_string(ordinal) + ": " + std::to_string(count) + (count == 1 ? " is" : " are") +
                 " visible, counted from 0";
    if (reason.empty()) reason = cuda::missing_image(ordinal);
    if (!reason.empty()) throw Error("ERR_DEVICE", "cuda:" + std::to_string(ordinal) + ": " + reason);
    return std::make_shared<cuda::CudaBackend>(ordinal);
}

}  // namespace warpsight
