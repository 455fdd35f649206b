#include "queue.h"

#include <algorithm>
#include <map>

#include "cpu/backend.h"
#include "give_way.h"
#ifdef WARPSIGHT_CUDA
#include "../cuda/backend.h"
#endif

namespace warpsight {

// ── lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Lane::Lane(std::shared_ptr<Device> device, bool interactive)
    : device_(std::move(device)), interactive_(interactive), stream_(device_->backend().make_stream(interactive)) {
    device_->executor().attach(*this);
}

Lane::~Lane() {
    close();
    device_->executor().detach(*this);
    release_arena();
}

Backend& Lane::backend() const { return device_->backend(); }

void Lane::submit(std::unique_ptr<Job> job) { device_->executor().submit(*this, std::move(job)); }

void Lane::close() { device_->executor().close(*this); }

std::byte* Lane::arena(size_t bytes) {
    if (bytes > arena_.bytes) {
        release_arena();
        arena_.data = static_cast<std::byte*>(backend().allocate(bytes, *stream_));
        arena_.bytes = bytes;
        device_->arena_bytes.fetch_add(bytes, std::memory_order_relaxed);
    }
    return arena_.data;
}

void Lane::release_arena() {
    if (arena_.data) backend().release(arena_.data, arena_.bytes, *stream_);
    device_->arena_bytes.fetch_sub(arena_.bytes, std::memory_order_relaxed);
    arena_ = {};
}

bool Lane::ready() const {
    if (jobs_.empty() || closed_) return false;
    const auto& inputs = jobs_.front()->inputs;
    return started_ || std::all_of(inputs.begin(), inputs.end(), [](const auto& input) { return input->settled(); });
}

int Lane::claim() const {
    if (!interactive_) return 1;
    return started_ ? 3 : held_up_ > 0 ? 2 : 0;
}

// ── executor ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Executor::Executor(bool computes) {
    std::thread([this, computes] {
        if (computes) give_way();
        run();
    }).detach();
}

void Executor::attach(Lane& lane) {
    std::lock_guard lock(mutex_);
    lanes_.push_back(&lane);
}

void Executor::detach(Lane& lane) {
    std::lock_guard lock(mutex_);
    std::erase(lanes_, &lane);
}

/// Never destroyed: the executor's thread goes on while the process exits.
static const std::shared_ptr<const Failure>& closed() {
    static const auto& failure = *new std::shared_ptr<const Failure>(
        new Failure{"ERR_ABORTED", "the JavaScript environment was closed while work was queued"});
    return failure;
}

void Executor::submit(Lane& lane, std::unique_ptr<Job> job) {
    {
        std::lock_guard lock(mutex_);
        if (!lane.closed_) {
            lane.jobs_.push_back(std::move(job));
            work_.notify_one();
            return;
        }
    }
    job->cancel(closed());
    job->finish();
}

void Executor::close(Lane& lane) {
    std::deque<std::unique_ptr<Job>> dropped;
    {
        std::unique_lock lock(mutex_);
        lane.closed_ = true;
        idle_.wait(lock, [&] { return !lane.running_; });
        dropped.swap(lane.jobs_);
        lane.started_ = false;
    }
    for (auto& job : dropped) {
        job->cancel(closed());
        job->finish();
    }
    work_.notify_one();  // a lane that waited for one of these may go on
}

Lane* Executor::next() {
    Lane* best = nullptr;
    for (Lane* lane : lanes_) {
        if (!lane->ready()) continue;
        if (!best || lane->claim() > best->claim() || (lane->claim() == best->claim() && lane->turn_ < best->turn_)) best = lane;
    }
    return best;
}

/// A bulk step has ended: what waited for it does not wait for another.
void Executor::hold_up_interactive() {
    for (Lane* lane : lanes_)
        if (lane->interactive_) lane->held_up_ = lane->jobs_.size();
}

void Executor::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        Lane* lane = next();
        if (!lane) {
            work_.wait(lock);
            continue;
        }
        Job& job = *lane->jobs_.front();
        lane->started_ = lane->running_ = true;
        lane->turn_ = ++turns_;
        lock.unlock();
        bool done = job.advance(*lane);
        lock.lock();
        std::unique_ptr<Job> finished;
        if (done) {
            finished = std::move(lane->jobs_.front());
            lane->jobs_.pop_front();
            lane->started_ = false;
            if (lane->held_up_ > 0) --lane->held_up_;
        }
        lane->running_ = false;
        if (!lane->interactive_) hold_up_interactive();
        idle_.notify_all();
        if (finished) {  // lane may be gone from here on
            lock.unlock();
            complete(std::move(finished));
            lock.lock();
        }
    }
}

void Executor::complete(std::unique_ptr<Job> job) {
    if (!job->fence) return job->finish();
    std::lock_guard lock(fence_mutex_);
    if (!waiter_started_) std::thread([this] { wait_for_fences(); }).detach();
    waiter_started_ = true;
    fenced_.push_back(std::move(job));
    fence_work_.notify_one();
}

void Executor::wait_for_fences() {
    std::unique_lock lock(fence_mutex_);
    for (;;) {
        fence_work_.wait(lock, [this] { return !fenced_.empty(); });
        std::unique_ptr<Job> job = std::move(fenced_.front());
        fenced_.pop_front();
        lock.unlock();
        try {
            job->fence();
        } catch (const Error& error) {
            job->cancel(std::make_shared<Failure>(Failure{error.code(), error.what()}));
        }
        job->finish();
        job.reset();
        lock.lock();
    }
}

// ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────

static std::shared_ptr<Backend> make_backend(const std::string& name) {
    if (name == "cpu") return make_cpu_backend();
#ifdef WARPSIGHT_CUDA
    if (name.rfind("cuda:", 0) == 0) {
        CudaProbe probe = probe_cuda();
        if (probe.devices == 0) throw Error("ERR_DEVICE", name + " is not usable: " + probe.reason);
        int ordinal = std::atoi(name.c_str() + 5);
        if (ordinal >= probe.devices)
            throw Error("ERR_DEVICE", name + " does not exist: this machine has " + std::to_string(probe.devices) +
                                          " CUDA device(s), from cuda:0");
        return make_cuda_backend(ordinal);
    }
#else
    if (name.rfind("cuda:", 0) == 0)
        throw Error("ERR_DEVICE",
                    name + " is not usable: this build of the addon has no CUDA; build it with WARPSIGHT_CUDA=1 npm run build");
#endif
    throw Error("ERR_DEVICE", "unknown device \"" + name + "\"; use \"cpu\" or \"cuda:0\"");
}

std::shared_ptr<Device> Device::open(const std::string& name) {
    // never destroyed: threads use them until the process ends
    static std::mutex& mutex = *new std::mutex;
    static auto& devices = *new std::map<std::string, std::shared_ptr<Device>>;
    std::lock_guard lock(mutex);
    std::shared_ptr<Device>& device = devices[name];
    if (!device) {
        try {
            device = std::make_shared<Device>(make_backend(name));
        } catch (...) {
            devices.erase(name);
            throw;
        }
    }
    return device;
}

}  // namespace warpsight
