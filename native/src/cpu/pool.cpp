#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

#include "../error.h"
#include "../give_way.h"
#include "backend.h"
#include "limits.h"
#include "memory.h"

namespace warpsight::cpu {

static void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

/// Spins until `done` is true, at most about 50 µs; tells whether it is.
template <typename Done>
static bool spin(const Done& done) {
    auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return done();
}

// One job at a time. `gate_` says whether the job may be entered (kOpen) and how many workers are inside: its fields stay valid
// until the caller has closed the gate and seen the last one leave. Workers that sleep through a job cost nothing.
class Pool {
public:
    // Never destroyed: its threads are detached and may be asleep in it while the process exits.
    static Pool& instance() {
        static Pool* pool = new Pool(default_threads());
        return *pool;
    }

    int threads() const { return wanted_.load(std::memory_order_relaxed); }

    void resize(int count) {
        std::lock_guard run(run_);
        wanted_.store(count);
        started_ = false;
        {
            std::lock_guard lock(sleep_);
            generation_.fetch_add(1);
        }
        wake_.notify_all();
    }

    void run(int64_t count, void (*call)(const void*, int64_t), const void* body) {
        if (count <= 0) return;
        if (count == 1 || threads() == 1) {
            for (int64_t i = 0; i < count; ++i) call(body, i);
            return;
        }
        std::lock_guard run(run_);
        start_workers();
        call_ = call;
        body_ = body;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        error_ = nullptr;
        gate_.store(kOpen, std::memory_order_release);
        generation_.fetch_add(
            1);  // sequentially consistent against sleepers_: either we see the sleeper or it sees the new generation
        if (sleepers_.load() > 0) {
            std::lock_guard lock(sleep_);
            wake_.notify_all();
        }
        work();
        gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
        auto empty = [&] { return gate_.load(std::memory_order_acquire) == 0; };
        while (!spin(empty)) std::this_thread::yield();
        if (error_) std::rethrow_exception(error_);
    }

private:
    static constexpr uint32_t kOpen = 1u << 31;

    explicit Pool(int threads) : wanted_(threads) {}

    void work() {
        for (;;) {
            int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
            if (item >= count_) return;
            try {
                call_(body_, item);
            } catch (...) {
                std::lock_guard lock(error_lock_);
                if (!error_) error_ = std::current_exception();
                next_.store(count_, std::memory_order_relaxed);
            }
        }
    }

    bool enter() {
        uint32_t gate = gate_.load(std::memory_order_relaxed);
        while (gate & kOpen)
            if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
        return false;
    }

    void start_workers() {
        if (started_) return;
        started_ = true;
        std::lock_guard lock(sleep_);
        int workers = threads() - 1;
        if (int(alive_.size()) < workers) alive_.resize(size_t(workers));
        for (int i = 0; i < workers; ++i) {
            if (alive_[size_t(i)]) continue;
            keep_loaded();
            try {
                std::thread([this, i] {
                    give_way();
                    worker(i);
                }).detach();
            } catch (const std::exception&) {
                wanted_.store(i + 1);  // the system gives no more threads: go on with those that there are
                return;
            }
            alive_[size_t(i)] = true;
        }
    }

    void worker(int index) {
        uint64_t seen = generation_.load() - 1;  // the job that it was started for
        for (;;) {
            if (!spin([&] { return generation_.load() != seen; })) {
                std::unique_lock lock(sleep_);
                sleepers_.fetch_add(1);
                wake_.wait(lock, [&] { return generation_.load() != seen; });
                sleepers_.fetch_sub(1);
            }
            seen = generation_.load();
            if (index + 1 >= wanted_.load()) {
                std::lock_guard lock(sleep_);
                if (index + 1 >= wanted_.load()) {
                    alive_[size_t(index)] = false;
                    return;
                }
            }
            if (!enter()) continue;
            work();
            gate_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    /// A library that is unloaded (Node does it when the last environment that loaded an addon ends) would take the code from
    /// under sleeping threads.
    static void keep_loaded() {
#if (defined(__unix__) || defined(__APPLE__)) && defined(RTLD_NODELETE)
        static const bool once = [] {
            Dl_info info;
            if (dladdr(reinterpret_cast<void*>(&pool_threads), &info) && info.dli_fname)
                dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
            return true;
        }();
        (void)once;
#endif
    }

    std::mutex run_;        // one job at a time
    bool started_ = false;  // under run_: as many workers as are wanted

    // A cache line each: what threads write while they work must not lie beside what the others read for every item, nor beside
    // what idle threads watch.
    alignas(64) void (*call_)(const void*, int64_t) = nullptr;
    const void* body_ = nullptr;
    int64_t count_ = 0;
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<uint32_t> gate_{0};
    alignas(64) std::atomic<uint64_t> generation_{1};
    alignas(64) std::atomic<int> wanted_;
    std::atomic<int> sleepers_{0};

    std::mutex error_lock_;
    std::exception_ptr error_;
    std::mutex sleep_;
    std::condition_variable wake_;
    std::vector<bool> alive_;  // under sleep_
};

void run_parallel(int64_t count, void (*call)(const void*, int64_t), const void* body) {
    Pool::instance().run(count, call, body);
}

int pool_threads() { return Pool::instance().threads(); }

void set_pool_threads(int count) { Pool::instance().resize(count); }

namespace {
struct ScratchMemory {
    float* memory = nullptr;
    size_t floats = 0;
    ~ScratchMemory() { free_aligned(memory); }
};
}  // namespace

float* thread_scratch(size_t floats, Scratch use) {
    static thread_local ScratchMemory scratches[3];
    ScratchMemory& scratch = scratches[int(use)];
    if (scratch.floats < floats) {
        free_aligned(scratch.memory);
        scratch.memory = nullptr;
        scratch.floats = 0;
        float* memory = static_cast<float*>(allocate_aligned(floats * sizeof(float)));
        scratch.memory = memory;
        scratch.floats = floats;
    }
    return scratch.memory;
}

}  // namespace warpsight::cpu

namespace warpsight {

void set_cpu_threads(int count) {
    if (count < 1 || count > cpu::kMaxThreads)
        throw Error("ERR_CONFIG", "threads must be a whole number from 1 to " + std::to_string(cpu::kMaxThreads) + ", got " +
                                      std::to_string(count));
    cpu::set_pool_threads(count);
}

int cpu_threads() { return cpu::pool_threads(); }

}  // namespace warpsight
