#include "device.h"

#include "image.h"

namespace warpsight::cuda {
namespace {

/// Errors after which every call on the device fails until the process ends.
bool sticky(cudaError_t status) {
    switch (status) {
        case cudaErrorIllegalAddress:
        case cudaErrorLaunchTimeout:
        case cudaErrorAssert:
        case cudaErrorHardwareStackError:
        case cudaErrorIllegalInstruction:
        case cudaErrorMisalignedAddress:
        case cudaErrorInvalidAddressSpace:
        case cudaErrorInvalidPc:
        case cudaErrorLaunchFailure:
        case cudaErrorECCUncorrectable:
        case cudaErrorNvlinkUncorrectable:
        case cudaErrorContextIsDestroyed:
        case cudaErrorContained:
        case cudaErrorMpsClientTerminated:
        case cudaErrorUnknown: return true;
        default: return false;
    }
}

int attribute(cudaDeviceAttr which, int ordinal) {
    int value = 0;
    return cudaDeviceGetAttribute(&value, which, ordinal) == cudaSuccess ? value : 0;
}

}  // namespace

Device::Device(int ordinal) : ordinal(ordinal), name("cuda:" + std::to_string(ordinal)) {
    multiprocessors = attribute(cudaDevAttrMultiProcessorCount, ordinal);
    shared_bytes_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
    Image image;
    check(cudaSetDevice(ordinal), "cannot be selected");
    check(loaded_image(image), "its kernels cannot be asked for");
    hopper = image == Image::hopper;
    dependent_launch = hopper || image == Image::dependent;
}

Device::~Device() {
    if (try_enter())
        for (cudaEvent_t event : events_) cudaEventDestroy(event);
}

void Device::enter() {
    check_not_lost();
    check(cudaSetDevice(ordinal), "cannot be selected");
}

bool Device::try_enter() noexcept { return !lost_ && cudaSetDevice(ordinal) == cudaSuccess; }

void Device::check_not_lost() {
    if (!lost_) return;
    std::lock_guard lock(mutex_);
    throw Error("ERR_DEVICE_LOST", name + " is lost until the process is started again: " + cause_);
}

void Device::lose(const std::string& cause) noexcept {
    std::lock_guard lock(mutex_);
    if (lost_) return;
    cause_ = cause;
    lost_ = true;
}

void Device::note(cudaError_t status, const char* what) noexcept {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    if (sticky(status)) lose(std::string(what) + ": " + cudaGetErrorString(status));
}

void Device::check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // a plain error must not show up in the next call's check
    if (sticky(status)) {
        lose(std::string(what) + ": " + cudaGetErrorString(status));
        check_not_lost();
    }
    if (status == cudaErrorMemoryAllocation)
        throw Error("ERR_OUT_OF_MEMORY", name + ": " + what + ": " + cudaGetErrorString(status));
    throw Error("ERR_DEVICE", name + ": " + what + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

cudaEvent_t Device::take_event() {
    {
        std::lock_guard lock(mutex_);
        if (!events_.empty()) {
            cudaEvent_t event = events_.back();
            events_.pop_back();
            return event;
        }
    }
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming), "an event cannot be made");
    return event;
}

void Device::give_event(cudaEvent_t event) noexcept {
    std::lock_guard lock(mutex_);
    events_.push_back(event);
}

}  // namespace warpsight::cuda
