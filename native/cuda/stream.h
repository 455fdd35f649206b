// A cudaStream_t with staged transfers and fences, and graphs recorded from it.
#pragma once

#include <deque>

#include "../src/backend.h"
#include "memory.h"

namespace warpsight::cuda {

/// What the streams, weights and steps of one device share.
struct Context {
    explicit Context(int ordinal) : device(ordinal), memory(device), pinned(device) {}
    Device device;
    MemoryPool memory;
    PinnedPool pinned;
    std::atomic<uint64_t> weight_bytes{0};
};

/// Page-locked memory in flight: goes back to the pool when the last user lets go.
class Staged {
public:
    Staged(std::shared_ptr<Context> context, size_t bytes) : context_(std::move(context)), block_(context_->pinned.take(bytes)) {}
    ~Staged() { context_->pinned.give(block_); }
    Staged(const Staged&) = delete;
    void* data() const { return block_.data; }
    size_t bytes() const { return block_.bytes; }

private:
    std::shared_ptr<Context> context_;
    PinnedPool::Block block_;
};

class CudaStream final : public Stream {
public:
    CudaStream(std::shared_ptr<Context> context, bool interactive);
    ~CudaStream() override;

    void upload(void* device, const void* host, size_t bytes) override;
    void download(void* host, const void* device, size_t bytes) override;
    void copy(void* to, const void* from, size_t bytes) override;
    void zero(void* device, size_t bytes) override;
    void synchronize() override;
    void wait_for(Stream& other) override;
    std::function<void()> fence() override;
    std::unique_ptr<Mark> mark() override;
    void delay(std::chrono::microseconds time) override;

    cudaStream_t handle() const { return stream_; }
    Context& context() const { return *context_; }

private:
    struct Download {
        std::unique_ptr<Staged> staged;
        void* host;
        size_t bytes;
    };
    struct Fence;
    struct Upload {
        size_t start, end;  // of the ring
        cudaEvent_t event;
    };
    std::shared_ptr<Fence> make_fence();
    void* ring_space(size_t bytes);
    void drop_ring() noexcept;

    std::shared_ptr<Context> context_;
    cudaStream_t stream_ = nullptr;
    std::vector<Download> downloads_;  // since the last fence
    PinnedPool::Block ring_;
    size_t head_ = 0;             // where the next upload is staged
    std::deque<Upload> uploads_;  // oldest first
};

class CudaRecording final : public Recording {
public:
    /// Records what `launches` puts on the stream.
    CudaRecording(CudaStream& stream, const std::function<void()>& launches, std::shared_ptr<Context> context);
    ~CudaRecording() override;
    void launch(Stream& stream) override;

private:
    std::shared_ptr<Context> context_;
    cudaGraphExec_t graph_ = nullptr;
};

}  // namespace warpsight::cuda
