// Threads that compute for milliseconds stand back behind those that serve somebody who waits: the event loop first of all.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#endif

namespace warpsight {

#if defined(__linux__)
/// Asks for a time slice of the calling thread, whose policy must be the usual one. Since Linux 6.12 a thread that wakes takes
/// the core from one with a longer slice at once; older kernels ignore it. source: sched_setattr(2)
inline void ask_for_slice(uint64_t nanoseconds) {
#if defined(SYS_sched_setattr) && defined(SYS_sched_getattr)
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {};
    if (syscall(SYS_sched_getattr, 0, &attributes, unsigned(sizeof attributes), 0u) != 0) return;
    if (attributes.policy != SCHED_OTHER) return;
    attributes.size = sizeof attributes;
    attributes.runtime = nanoseconds;
    syscall(SYS_sched_setattr, 0, &attributes, 0u);  // may be refused: then it runs as it is
#else
    (void)nanoseconds;
#endif
}
#endif

/// The calling thread runs at a niceness 5 above the main thread's, in long slices. With as many busy threads as cores, a
/// timer of 1 ms was then late by at most 2 ms in 99 of 100 cases, where it had been 4.5 ms, a time slice. Linux only:
/// elsewhere niceness belongs to the whole process.
inline void give_way() {
#if defined(__linux__)
    constexpr int kSteps = 5, kNicest = 19;
    int main_thread = getpriority(PRIO_PROCESS, id_t(getpid()));
    setpriority(PRIO_PROCESS, 0, std::min(main_thread + kSteps, kNicest));  // may be refused: then it computes as it is
    ask_for_slice(20'000'000);
#endif
}

/// For the thread of an event loop: it need not wait for the slice of a helper to end (V8 collects garbage and compiles in
/// threads of the same priority). Its share of the cores stays what it was. WARPSIGHT_KEEP_SCHEDULING=1 leaves it alone.
inline void answer_promptly() {
#if defined(__linux__)
    const char* keep = std::getenv("WARPSIGHT_KEEP_SCHEDULING");
    if (keep == nullptr || *keep == '\0') ask_for_slice(200'000);
#endif
}

}  // namespace warpsight
