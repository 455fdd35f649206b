#include "stream.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <thread>

namespace warpsight::cuda {
namespace {

constexpr size_t kSmallestRing = size_t(1) << 20, kLargestRing = size_t(64) << 20, kAlign = 256;
constexpr auto kSpin = std::chrono::microseconds(50);

void wait(Device& device, cudaEvent_t event) {
    auto end = std::chrono::steady_clock::now() + kSpin;
    for (;;) {
        cudaError_t status = cudaEventQuery(event);
        if (status == cudaSuccess) return;
        if (status != cudaErrorNotReady) device.check(status, "queued work failed");
        if (std::chrono::steady_clock::now() > end) break;
    }
    device.check(cudaEventSynchronize(event), "queued work failed");
}

/// An event that keeps the time.
class CudaMark final : public Mark {
public:
    CudaMark(std::shared_ptr<Context> context, cudaStream_t stream) : context_(std::move(context)) {
        context_->device.enter();
        context_->device.check(cudaEventCreate(&event_), "an event cannot be made");
        context_->device.check(cudaEventRecord(event_, stream), "an event cannot be recorded");
    }
    ~CudaMark() override {
        if (event_ != nullptr && context_->device.try_enter())
            context_->device.note(cudaEventDestroy(event_), "an event cannot be destroyed");
    }

    double since(const Mark& earlier) const override {
        float ms = 0;
        context_->device.enter();
        context_->device.check(cudaEventElapsedTime(&ms, static_cast<const CudaMark&>(earlier).event_, event_),
                               "a time cannot be read");
        return double(ms);
    }

private:
    std::shared_ptr<Context> context_;
    cudaEvent_t event_ = nullptr;
};

}  // namespace

/// The event behind a piece of work, and the downloads that are handed over once it is done.
struct CudaStream::Fence {
    std::shared_ptr<Context> context;
    cudaEvent_t event = nullptr;
    std::vector<Download> downloads;
    std::mutex mutex;
    bool done = false;

    void finish() {
        std::lock_guard lock(mutex);
        if (done) return;
        context->device.enter();
        wait(context->device, event);
        for (Download& d : downloads) std::memcpy(d.host, d.staged->data(), d.bytes);
        downloads.clear();
        done = true;
    }
    ~Fence() {
        if (event == nullptr) return;
        if (!done && context->device.try_enter()) context->device.note(cudaEventSynchronize(event), "queued work failed");
        context->device.give_event(event);
    }
};

CudaStream::CudaStream(std::shared_ptr<Context> context, bool interactive) : context_(std::move(context)) {
    context_->device.enter();
    int lowest = 0, highest = 0;
    context_->device.check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "stream priorities cannot be asked for");
    context_->device.check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, interactive ? highest : lowest),
                           "a stream cannot be made");
}

CudaStream::~CudaStream() {
    Device& device = context_->device;
    if (device.try_enter()) {
        device.note(cudaStreamSynchronize(stream_), "queued work failed");
        drop_ring();
        device.note(cudaStreamDestroy(stream_), "a stream cannot be destroyed");
    }
    context_->memory.retire(this);
}

void CudaStream::drop_ring() noexcept {
    for (Upload& u : uploads_) {
        context_->device.note(cudaEventSynchronize(u.event), "queued work failed");
        context_->device.give_event(u.event);
    }
    uploads_.clear();
    context_->pinned.give(ring_);
    ring_ = {};
    head_ = 0;
}

/// Contiguous free space in the ring; waits for the oldest uploads where it has to.
void* CudaStream::ring_space(size_t bytes) {
    if (ring_.bytes < 2 * bytes && ring_.bytes < kLargestRing) {
        drop_ring();
        ring_ = context_->pinned.take(std::clamp(std::bit_ceil(2 * bytes), kSmallestRing, kLargestRing));
    }
    if (head_ + bytes > ring_.bytes) {  // wrap: what lies from here to the end must be done before the beginning is used again
        while (!uploads_.empty() && uploads_.front().end > head_) {
            wait(context_->device, uploads_.front().event);
            context_->device.give_event(uploads_.front().event);
            uploads_.pop_front();
        }
        head_ = 0;
    }
    // In flight, oldest first, they run from somewhere ahead to the end of the ring, then from its beginning to head_.
    while (!uploads_.empty()) {
        Upload& oldest = uploads_.front();
        bool behind = oldest.end <= head_;
        if (behind && cudaEventQuery(oldest.event) != cudaSuccess) {
            cudaGetLastError();
            break;
        }
        if (!behind && oldest.start >= head_ + bytes) break;
        if (!behind) wait(context_->device, oldest.event);
        context_->device.give_event(oldest.event);
        uploads_.pop_front();
    }
    return static_cast<char*>(ring_.data) + head_;
}

void CudaStream::upload(void* device, const void* host, size_t bytes) {
    context_->device.enter();
    for (size_t done = 0; done < bytes;) {
        size_t part = std::min(bytes - done, kLargestRing / 2);
        void* staged = ring_space(part);
        std::memcpy(staged, static_cast<const char*>(host) + done, part);
        context_->device.check(cudaMemcpyAsync(static_cast<char*>(device) + done, staged, part, cudaMemcpyHostToDevice, stream_),
                               "an upload failed");
        cudaEvent_t event = context_->device.take_event();
        context_->device.check(cudaEventRecord(event, stream_), "an event cannot be recorded");
        size_t start = head_;
        head_ = std::min(ring_.bytes, (head_ + part + kAlign - 1) / kAlign * kAlign);
        uploads_.push_back({start, head_, event});
        done += part;
    }
}

void CudaStream::download(void* host, const void* device, size_t bytes) {
    if (bytes == 0) return;
    context_->device.enter();
    Download d{std::make_unique<Staged>(context_, bytes), host, bytes};
    context_->device.check(cudaMemcpyAsync(d.staged->data(), device, bytes, cudaMemcpyDeviceToHost, stream_),
                           "a download failed");
    downloads_.push_back(std::move(d));
}

void CudaStream::copy(void* to, const void* from, size_t bytes) {
    if (bytes == 0) return;
    context_->device.enter();
    context_->device.check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "a copy failed");
}

void CudaStream::zero(void* device, size_t bytes) {
    if (bytes == 0) return;
    context_->device.enter();
    context_->device.check(cudaMemsetAsync(device, 0, bytes, stream_), "memory cannot be cleared");
}

std::shared_ptr<CudaStream::Fence> CudaStream::make_fence() {
    context_->device.enter();
    auto fence = std::make_shared<Fence>();
    fence->context = context_;
    fence->event = context_->device.take_event();
    fence->downloads = std::move(downloads_);
    downloads_.clear();
    context_->device.check(cudaEventRecord(fence->event, stream_), "an event cannot be recorded");
    return fence;
}

std::function<void()> CudaStream::fence() {
    return [fence = make_fence()] { fence->finish(); };
}

std::unique_ptr<Mark> CudaStream::mark() { return std::make_unique<CudaMark>(context_, stream_); }

void CudaStream::delay(std::chrono::microseconds time) {
    context_->device.enter();
    auto sleep = [](void* us) { std::this_thread::sleep_for(std::chrono::microseconds(reinterpret_cast<intptr_t>(us))); };
    context_->device.check(cudaLaunchHostFunc(stream_, sleep, reinterpret_cast<void*>(intptr_t(time.count()))),
                           "a stream cannot be delayed");
}

void CudaStream::synchronize() { make_fence()->finish(); }

void CudaStream::wait_for(Stream& other) {
    context_->device.enter();
    auto& from = static_cast<CudaStream&>(other);
    cudaEvent_t event = context_->device.take_event();
    context_->device.check(cudaEventRecord(event, from.stream_), "an event cannot be recorded");
    context_->device.check(cudaStreamWaitEvent(stream_, event, 0), "a stream cannot wait");
    context_->device.give_event(event);  // the wait keeps the state that the event had at the call
}

CudaRecording::CudaRecording(CudaStream& stream, const std::function<void()>& launches, std::shared_ptr<Context> context)
    : context_(std::move(context)) {
    Device& device = context_->device;
    device.enter();
    cudaGraph_t graph = nullptr;
    device.check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "a recording cannot be started");
    try {
        launches();
    } catch (...) {
        device.note(cudaStreamEndCapture(stream.handle(), &graph), "a recording failed");
        if (graph != nullptr) device.note(cudaGraphDestroy(graph), "a graph cannot be destroyed");
        throw;
    }
    device.check(cudaStreamEndCapture(stream.handle(), &graph), "a recording failed");
    cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    device.note(cudaGraphDestroy(graph), "a graph cannot be destroyed");
    device.check(status, "a graph cannot be made");
}

CudaRecording::~CudaRecording() {
    if (graph_ != nullptr && context_->device.try_enter())
        context_->device.note(cudaGraphExecDestroy(graph_), "a graph cannot be destroyed");
}

void CudaRecording::launch(Stream& stream) {
    context_->device.enter();
    context_->device.check(cudaGraphLaunch(graph_, static_cast<CudaStream&>(stream).handle()), "a graph cannot be launched");
    ++counters().graph_launches;
}

}  // namespace warpsight::cuda
