#include "tensor.h"

#include "queue.h"

namespace warpsight {

Storage::~Storage() {
    if (data_) lane_->backend().release(data_, bytes(), lane_->stream());
}

void* Storage::allocate() {
    if (!data_) data_ = lane_->backend().allocate(bytes(), lane_->stream());
    return data_;
}

void Storage::poison(std::shared_ptr<const Failure> failure) {
    failure_ = std::move(failure);
    state_.store(State::poisoned, std::memory_order_release);
}

}  // namespace warpsight
