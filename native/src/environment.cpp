#include "environment.h"

#include <thread>

#include "give_way.h"

namespace warpsight {

// ── completions ──────────────────────────────────────────────────────────────────────────────────────────────────────

std::shared_ptr<Completions> Completions::create(Napi::Env env) {
    auto completions = std::make_shared<Completions>();
    completions->function_ = Napi::ThreadSafeFunction::New(env, Napi::Function(), "warpsight completions", 0, 1);
    completions->function_.Unref(env);
    return completions;
}

void Completions::post(std::function<void(Napi::Env)> work) {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    waiting_.push_back(std::move(work));
    if (waiting_.size() > 1) return;  // a wake-up is on its way
    function_.NonBlockingCall([self = shared_from_this()](Napi::Env env, Napi::Function) { self->drain(env); });
}

void Completions::drain(Napi::Env env) {
    std::vector<std::function<void(Napi::Env)>> batch;
    {
        std::lock_guard lock(mutex_);
        batch.swap(waiting_);
    }
    Napi::HandleScope scope(env);
    for (auto& work : batch) {
        try {
            work(env);
        } catch (const Napi::Error&) {
            return;  // worker.terminate() came first: no JavaScript value can be made any more, and nobody waits for one
        }
    }
}

void Completions::wait_started(Napi::Env env) {
    if (waits_++ == 0) function_.Ref(env);
}

void Completions::wait_finished(Napi::Env env) {
    if (--waits_ == 0) function_.Unref(env);
}

void Completions::close() {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    waiting_.clear();
}

// ── environment ──────────────────────────────────────────────────────────────────────────────────────────────────────

Environment::Environment(Napi::Env env) : completions_(Completions::create(env)) {
    answer_promptly();
    // Hooks run last in, first out: this one before Node tears down the thread-safe function it was added after.
    env.AddCleanupHook([](Environment* self) { self->close(); }, this);
}

Environment& Environment::of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

LanePair& Environment::lanes(const std::string& name) {
    auto found = lanes_.find(name);
    if (found != lanes_.end()) return found->second;
    std::shared_ptr<Device> device = Device::open(name);
    LanePair pair{std::make_shared<Lane>(device, true), std::make_shared<Lane>(device, false)};
    return lanes_.emplace(name, std::move(pair)).first->second;
}

uint64_t Environment::hold(const Napi::Object& value) {
    held_.emplace(++next_held_, Napi::Persistent(value));
    return next_held_;
}

void Environment::close() {
    for (auto& [name, pair] : lanes_) {
        pair.interactive->close();
        pair.bulk->close();
    }
    completions_->close();
    held_.clear();
    aborted_.clear();
    error_class.Reset();
}

Napi::Promise Environment::background(Napi::Env env, std::function<std::function<Napi::Value(Napi::Env)>()> work) {
    auto deferred = std::make_shared<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
    Napi::Promise promise = deferred->Promise();
    std::thread([completions = completions_, deferred, work = std::move(work)]() mutable {
        give_way();
        std::function<Napi::Value(Napi::Env)> value;
        std::string code, message;
        try {
            value = work();
        } catch (const Error& error) {
            code = error.code();
            message = error.what();
        } catch (const std::bad_alloc&) {
            code = "ERR_OUT_OF_MEMORY";
            message = "out of host memory";
        } catch (const std::exception& error) {
            code = "ERR_INTERNAL";
            message = error.what();
        }
        work = nullptr;
        completions->post([completions, deferred, value = std::move(value), code, message](Napi::Env env) {
            completions->wait_finished(env);
            if (value) deferred->Resolve(value(env));
            else deferred->Reject(make_error(env, code, message));
        });
    }).detach();
    completions_->wait_started(env);  // only now: where no thread can be started, nothing would ever end the wait
    return promise;
}

void Environment::keep_abort_options(const std::shared_ptr<const AbortFlag>& flag, const Napi::Object& options) {
    std::erase_if(aborted_, [](const Aborted& aborted) { return aborted.flag.expired(); });
    aborted_.push_back({flag, Napi::Persistent(options)});
}

Napi::Value Environment::abort_options(Napi::Env env, const std::shared_ptr<const AbortFlag>& flag) const {
    for (const Aborted& aborted : aborted_)
        if (flag && aborted.flag.lock() == flag) return aborted.options.Value();
    return env.Undefined();
}

Napi::Value make_error(Napi::Env env, const Failure& failure) {
    Environment& environment = Environment::of(env);
    const auto& [code, message, aborted] = failure;
    if (environment.error_class.IsEmpty()) return Napi::Error::New(env, code + ": " + message).Value();
    Napi::Value options = environment.abort_options(env, aborted);
    return environment.error_class.New({Napi::String::New(env, code), Napi::String::New(env, message), options});
}

Napi::Value make_error(Napi::Env env, const std::string& code, const std::string& message) {
    return make_error(env, Failure{code, message});
}

}  // namespace warpsight
