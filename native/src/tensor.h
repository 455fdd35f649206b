// Storage: the memory behind a tensor handle. Counted references; freed in the order of the lane it belongs to.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "backend.h"
#include "dtype.h"

namespace warpsight {

class Lane;

/// Set by abort() in the JavaScript thread, read by the executor between steps.
using AbortFlag = std::atomic<bool>;

/// Why a tensor will never have a value: the first failure, inherited by everything computed from it.
struct Failure {
    std::string code, message;
    std::shared_ptr<const AbortFlag> aborted = nullptr;  // of ERR_ABORTED by a signal: which one, for the error's cause
};

/// Bytes on one device. Made empty when an operation is queued; the device's executor allocates and fills it, or poisons it.
class Storage {
public:
    Storage(std::shared_ptr<Lane> lane, DType dtype, Shape shape) : lane_(std::move(lane)), dtype_(dtype), shape_(shape) {}
    ~Storage();
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;

    const std::shared_ptr<Lane>& lane() const { return lane_; }
    DType dtype() const { return dtype_; }
    const Shape& shape() const { return shape_; }
    size_t bytes() const { return size_t(shape_.elements()) * size_of(dtype_); }

    /// Ready or poisoned: what depends on it may run.
    bool settled() const { return state_.load(std::memory_order_acquire) != State::pending; }
    /// Null unless poisoned. Only after settled().
    const std::shared_ptr<const Failure>& failure() const { return failure_; }

    /// A run that is being queued will overwrite it: what is queued later waits for that run.
    void expect_new_value() {
        failure_.reset();
        state_.store(State::pending, std::memory_order_release);
    }

    // The executor's side.
    void* allocate();  // throws ERR_OUT_OF_MEMORY
    void* data() const { return data_; }
    void set_ready() { state_.store(State::ready, std::memory_order_release); }
    void poison(std::shared_ptr<const Failure> failure);

private:
    enum class State : uint8_t { pending, ready, poisoned };

    std::shared_ptr<Lane> lane_;
    DType dtype_;
    Shape shape_;
    void* data_ = nullptr;
    std::atomic<State> state_{State::pending};
    std::shared_ptr<const Failure> failure_;
};

}  // namespace warpsight
