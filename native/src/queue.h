// Execution: a device of this process has one executor thread; each JavaScript environment has two lanes on it, interactive and
// bulk. Jobs of a lane run in order. Between steps the executor chooses a lane again:
//   an interactive job that has begun goes on until it ends;
//   then come those that a bulk step held up, which ended while they were in their lanes;
//   then a step of bulk work; then any other interactive job.
// So an interactive job is held up by one bulk step at most: the one that runs when it comes, or the next one. A call of several
// jobs that come together, such as a run and the reading of its result, waits for one as a whole. What comes while others of
// its lane run lets a bulk step pass, so that calls that never cease don't stop bulk work. Of lanes with equal claims the one
// that has not run for longest goes: environments take turns, with bulk work after every step.
// A job whose inputs are not there yet makes no claim, whatever its lane.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "backend.h"
#include "tensor.h"

namespace warpsight {

class Device;

/// Queued work. The executor calls advance() until it returns true, then finish() once; both in the executor's thread (finish()
/// in the waiting thread where the work left a fence).
class Job {
public:
    virtual ~Job() = default;
    /// Storages that must be settled before the job may start.
    std::vector<std::shared_ptr<Storage>> inputs;
    /// Runs one step; true when there is no more to run. Does not throw.
    virtual bool advance(Lane& lane) = 0;
    /// Set by advance(): waits until the device has done the work.
    std::function<void()> fence;
    /// Tells whoever waits. Also called (instead of advance) when the environment closes before the job has started.
    virtual void finish() = 0;
    virtual void cancel(const std::shared_ptr<const Failure>& why) = 0;
};

/// The memory that one lane's programs share for what lives only inside a run: as large as the largest need, not the sum.
struct Arena {
    std::byte* data = nullptr;
    size_t bytes = 0;
};

class Lane {
public:
    Lane(std::shared_ptr<Device> device, bool interactive);
    ~Lane();

    Backend& backend() const;
    Stream& stream() { return *stream_; }
    const std::shared_ptr<Device>& device() const { return device_; }

    void submit(std::unique_ptr<Job> job);
    /// Cancels what has not started, waits for the step that runs, and takes no more jobs. What is submitted later is cancelled
    /// at once.
    void close();

    /// At least `bytes`, in the executor's thread. The address changes when it grows.
    std::byte* arena(size_t bytes);

private:
    void release_arena();
    bool ready() const;  // this and claim() with the executor's mutex
    int claim() const;

    friend class Executor;
    std::shared_ptr<Device> device_;
    const bool interactive_;
    std::unique_ptr<Stream> stream_;
    Arena arena_;
    std::deque<std::unique_ptr<Job>> jobs_;  // guarded by the executor's mutex
    bool started_ = false;                   // jobs_.front() has run its first step
    bool running_ = false;                   // … is inside advance() now
    bool closed_ = false;
    size_t held_up_ = 0;  // interactive: so many of jobs_, the first ones, were there when a bulk step ended
    uint64_t turn_ = 0;   // of the executor's steps the one that this lane ran last
};

/// Lives as long as the process: never joined, so that exit can't hang on it.
class Executor {
public:
    /// @param computes the steps compute in this thread, as on the CPU, and don't only launch
    explicit Executor(bool computes);
    void attach(Lane& lane);
    void detach(Lane& lane);
    void submit(Lane& lane, std::unique_ptr<Job> job);
    void close(Lane& lane);

private:
    void run();
    void wait_for_fences();
    Lane* next();  // the lane whose job runs a step now, or null; the mutex is held
    void hold_up_interactive();
    void complete(std::unique_ptr<Job> job);

    std::mutex mutex_;
    std::condition_variable work_, idle_;
    std::vector<Lane*> lanes_;
    uint64_t turns_ = 0;  // steps that have begun

    std::mutex fence_mutex_;
    std::condition_variable fence_work_;
    std::deque<std::unique_ptr<Job>> fenced_;
    bool waiter_started_ = false;
};

/// A device of this process, opened once.
class Device : public std::enable_shared_from_this<Device> {
public:
    explicit Device(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}
    /// By name: "cpu", "cuda:0". Throws ERR_DEVICE with the reason.
    static std::shared_ptr<Device> open(const std::string& name);

    Backend& backend() { return *backend_; }
    Executor& executor() { return *executor_; }
    /// Bytes that the arenas of its lanes hold.
    std::atomic<uint64_t> arena_bytes{0};

private:
    std::shared_ptr<Backend> backend_;
    Executor* executor_ = new Executor(backend_->host_memory);  // not destroyed: its threads run until the process ends
};

}  // namespace warpsight
