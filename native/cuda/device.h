// One CUDA device of the process: its limits, checked calls, and whether it is lost.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "counters.h"
#include "error.h"

namespace warpsight::cuda {

class Device {
public:
    explicit Device(int ordinal);
    ~Device();

    const int ordinal;
    std::string name;  // "cuda:0"
    std::string description;
    int multiprocessors = 1;
    bool hopper = false;                    // the image for sm_90a runs: wgmma, TMA, clusters
    bool dependent_launch = false;          // kernels hold griddepcontrol
    int shared_bytes_per_block = 48 << 10;  // with opt-in

    /// First thing in every public function: makes this the calling thread's device; throws ERR_DEVICE_LOST if it is lost.
    void enter();
    /// The same where nothing may be thrown: false if the device is lost.
    bool try_enter() noexcept;

    /// Throws if `status` is an error: ERR_OUT_OF_MEMORY, ERR_DEVICE_LOST or ERR_DEVICE, in the words "cuda:0: <what>: <CUDA's
    /// text>".
    void check(cudaError_t status, const char* what);
    /// Where nothing may be thrown: a sticky error still marks the device as lost.
    void note(cudaError_t status, const char* what) noexcept;
    void check_not_lost();

    /// Events without timing whose synchronisation sleeps; kept for reuse. enter() first.
    cudaEvent_t take_event();
    void give_event(cudaEvent_t event) noexcept;

private:
    void lose(const std::string& cause) noexcept;

    std::atomic<bool> lost_{false};
    std::mutex mutex_;
    std::string cause_;
    std::vector<cudaEvent_t> events_;
};

}  // namespace warpsight::cuda
