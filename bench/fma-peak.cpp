// fma-peak THREADS: the float32 multiply-adds that the cores do when nothing else holds them up, in GFLOP/s (a multiply-add is
// two). Each line of stdin asks for one measurement of a twentieth of a second. Every thread keeps independent sums in registers,
// at least as many as latency times throughput asks for (8 on x86, 16 on Apple's cores), in the widest vectors there are. On
// Linux each has a core to itself: a new thread may spend half of so short a measurement on the core of another.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#if defined(__AVX512F__)
constexpr int kBytes = 64, kSums = 20;
#elif defined(__AVX__)
constexpr int kBytes = 32, kSums = 10;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kSums = 20;
#else
constexpr int kBytes = 16, kSums = 10;
#endif
typedef float Vector __attribute__((vector_size(kBytes)));
constexpr int kLanes = kBytes / 4, kSteps = 100'000;
constexpr double kFlops = 2.0 * kLanes * kSums * kSteps;

/// sums = sums·x + y, which tends to 1 and meets no denormal number; contracted to one instruction where there is one.
static float multiply_add(float x_, float y_) {
    Vector sums[kSums], x = Vector{} + x_, y = Vector{} + y_;
    for (int j = 0; j < kSums; ++j) sums[j] = Vector{} + float(j);
    for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 20
        for (int j = 0; j < kSums; ++j) sums[j] = sums[j] * x + y;
    }
    Vector total{};
    for (int j = 0; j < kSums; ++j) total += sums[j];
    return total[0];
}

/// Keeps the calling thread on the core at `index` of those that the process may use.
static void keep_on_core(int index) {
#if defined(__linux__)
    static const cpu_set_t all = [] {
        cpu_set_t mask;
        CPU_ZERO(&mask);
        sched_getaffinity(0, sizeof mask, &mask);
        return mask;
    }();
    for (int core = 0; core < CPU_SETSIZE; ++core) {
        if (!CPU_ISSET(core, &all) || index-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
#else
    (void)index;
#endif
}

int main(int argc, char** argv) {
    using Clock = std::chrono::steady_clock;
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    volatile float x = 0.999f, y = 0.001f;  // unknown to the compiler
    for (char line[16]; std::fgets(line, sizeof line, stdin);) {
        std::vector<double> flops(threads);
        std::vector<float> results(threads);
        Clock::time_point begin, end;
        std::atomic<int> missing{threads};
        std::atomic<bool> all_here{false};
        auto work = [&](int t) {
            keep_on_core(t);
            if (--missing == 0) {
                begin = Clock::now();
                end = begin + std::chrono::milliseconds(50);
                all_here = true;
            }
            while (!all_here) continue;
            for (; Clock::now() < end; flops[t] += kFlops) results[t] += multiply_add(x, y);
        };
        std::vector<std::thread> team;
        for (int t = 1; t < threads; ++t) team.emplace_back(work, t);
        work(0);
        for (std::thread& member : team) member.join();
        const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        double sum = 0, used = 0;
        for (int t = 0; t < threads; ++t) sum += flops[t], used += results[t];
        std::printf("%.3f %.3g\n", sum / seconds / 1e9, used);
        std::fflush(stdout);
    }
}
