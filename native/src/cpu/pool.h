// The process's threads for steps of the CPU backend. The caller of parallel_for works too, so a pool of one starts no thread.
// Items are handed out one by one to whoever is free; results must not depend on who takes which.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warpsight::cpu {

/// Calls body(i) for every i < count, each once, in any order and thread; returns when all are done. Not to be called from a
/// body. The first exception of a body is thrown here after the others have ended.
template <typename Body>
void parallel_for(int64_t count, const Body& body);

/// What a thread keeps scratch for. Each use has memory of its own.
enum class Scratch { row, sums, packed_rows };

/// Scratch of this thread that lives until the thread asks again for the same use; 64-byte aligned, contents as they were left if
/// it was not smaller. Throws ERR_OUT_OF_MEMORY.
float* thread_scratch(size_t floats, Scratch use = Scratch::row);

/// Threads that take part, the caller included.
int pool_threads();
/// 1 … kMaxThreads; waits for the parallel_for that is running.
void set_pool_threads(int count);
constexpr int kMaxThreads = 256;

void run_parallel(int64_t count, void (*call)(const void* body, int64_t item), const void* body);

template <typename Body>
void parallel_for(int64_t count, const Body& body) {
    run_parallel(
        count, [](const void* b, int64_t item) { (*static_cast<const Body*>(b))(item); }, &body);
}

}  // namespace warpsight::cpu
