// What belongs to one JavaScript environment (the main thread, or a worker): its lanes on each device and the way back to its
// event loop.
#pragma once

#define NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS
// Nothing can be thrown in an environment that is being terminated, and to try must not end the process.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#include <napi.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "queue.h"
#include "tensor.h"

namespace warpsight {

/// Carries results from other threads to the event loop of one environment. One wake-up drains everything that is waiting.
/// Outlives the environment in the hands of threads that still work for it; what they post then is dropped.
class Completions : public std::enable_shared_from_this<Completions> {
public:
    static std::shared_ptr<Completions> create(Napi::Env env);

    /// From any thread: runs `work` in the event loop, unless the environment has gone.
    void post(std::function<void(Napi::Env)> work);

    /// The event loop stays alive while anybody waits. From the JavaScript thread; `finished` inside posted work.
    void wait_started(Napi::Env env);
    void wait_finished(Napi::Env env);

    /// The environment is going away: nothing is posted from here on.
    void close();

private:
    void drain(Napi::Env env);

    std::mutex mutex_;
    bool closed_ = false;
    std::vector<std::function<void(Napi::Env)>> waiting_;
    Napi::ThreadSafeFunction function_;
    size_t waits_ = 0;  // JavaScript thread only
};

struct LanePair {
    std::shared_ptr<Lane> interactive, bulk;
};

class Environment {
public:
    explicit Environment(Napi::Env env);
    static Environment& of(Napi::Env env);

    /// Opens the device where this environment has not used it yet.
    LanePair& lanes(const std::string& device);
    const std::shared_ptr<Completions>& completions() const { return completions_; }

    /// A promise that `work` settles: it runs in a thread of its own and returns what makes the value in the event loop. An Error
    /// rejects.
    Napi::Promise background(Napi::Env env, std::function<std::function<Napi::Value(Napi::Env)>()> work);

    /// Keeps a JavaScript value alive until let_go(id), which returns it; in the JavaScript thread.
    uint64_t hold(const Napi::Object& value);
    Napi::Object let_go(uint64_t id) { return held_.extract(id).mapped().Value(); }

    /// Options of the errors of runs that this flag ends, `{ cause }`; kept as long as a run or a failure holds the flag.
    void keep_abort_options(const std::shared_ptr<const AbortFlag>& flag, const Napi::Object& options);
    /// Undefined if it was ended otherwise.
    Napi::Value abort_options(Napi::Env env, const std::shared_ptr<const AbortFlag>& flag) const;

    Napi::FunctionReference error_class;

private:
    void close();

    struct Aborted {
        std::weak_ptr<const AbortFlag> flag;
        Napi::ObjectReference options;
    };
    std::vector<Aborted> aborted_;

    std::map<uint64_t, Napi::ObjectReference> held_;
    uint64_t next_held_ = 0;
    std::map<std::string, LanePair> lanes_;
    std::shared_ptr<Completions> completions_;
};

/// A WarpsightError (lib/errors.ts) with code and message.
Napi::Value make_error(Napi::Env env, const std::string& code, const std::string& message);
/// The same with the cause, if a signal ended it.
Napi::Value make_error(Napi::Env env, const Failure& failure);

}  // namespace warpsight
