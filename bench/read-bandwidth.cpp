// read-bandwidth THREADS: the memory bandwidth that a plain loop reads with, in GB/s. Each line of stdin asks for one
// measurement, which reads a buffer of 1 GiB, far larger than any cache, for a quarter of a second: every thread its own
// contiguous part, in vectors, fetching 32 KB ahead, a third more than without.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

static uint64_t read(const uint64_t* from, size_t count) {
    uint64_t sums[64] = {};  // independent, so that the compiler keeps them in vectors
    for (size_t i = 0; i + 64 <= count; i += 64) {
        for (int line = 0; line < 64; line += 8) __builtin_prefetch(from + i + 4096 + line, 0, 2);
        for (int j = 0; j < 64; ++j) sums[j] += from[i + j];
    }
    uint64_t total = 0;
    for (uint64_t sum : sums) total += sum;
    return total;
}

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : int(std::thread::hardware_concurrency());
    const size_t words = (size_t(1) << 30) / sizeof(uint64_t), share = words / threads;
    auto* buffer = static_cast<uint64_t*>(std::aligned_alloc(size_t(2) << 20, words * sizeof(uint64_t)));
    if (!buffer) return 1;
#if defined(__linux__)
    madvise(buffer, words * sizeof(uint64_t), MADV_HUGEPAGE);  // else it is the page tables that are measured
#endif
    std::fill_n(buffer, words, 1);
    std::vector<uint64_t> sums(threads);
    for (char line[16]; std::fgets(line, sizeof line, stdin);) {
        using Clock = std::chrono::steady_clock;
        const auto begin = Clock::now();
        double seconds = 0, bytes = 0;
        do {
            std::vector<std::thread> team;
            for (int t = 0; t < threads; ++t) team.emplace_back([&, t] { sums[t] += read(buffer + t * share, share); });
            for (std::thread& member : team) member.join();
            bytes += double(threads) * double(share) * sizeof(uint64_t);
            seconds = std::chrono::duration<double>(Clock::now() - begin).count();
        } while (seconds < 0.25);
        uint64_t total = 0;
        for (uint64_t sum : sums) total += sum;
        std::printf("%.3f %llu\n", bytes / seconds / 1e9, (unsigned long long)total);
        std::fflush(stdout);
    }
}
