// read-file PATH THREADS: what reading a file into fresh memory takes. Each line of stdin asks for one measurement, answered with
// milliseconds and with the computing time of all threads in them: memory for the whole file is taken from the system as the
// library takes it for a large weight (aligned to 2 MiB, with the wish for pages of that size), every thread fills its own
// contiguous part with read calls of at most 16 MiB, and the memory goes back after the clock has stopped.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

constexpr size_t kHugePage = size_t(2) << 20, kRead = size_t(16) << 20;

struct Times {
    double wall, computed;  // ms; negative: errno says why
};

static Times read_whole(const char* path, int threads) {
    using Clock = std::chrono::steady_clock;
    const std::clock_t computed = std::clock();
    const auto begin = Clock::now();
    const int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) return {-1, 0};
    const size_t size = size_t(about.st_size), rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
    auto* memory = static_cast<char*>(std::aligned_alloc(kHugePage, rounded));
    if (!memory) return {-1, 0};
#if defined(__linux__)
    madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    std::atomic<bool> failed{false};
    auto work = [&](size_t at, size_t end) {
        while (at < end) {
            ssize_t got = pread(file, memory + at, std::min(kRead, end - at), off_t(at));
            if (got <= 0) {
                failed = true;
                return;
            }
            at += size_t(got);
        }
    };
    std::vector<std::thread> team;
    const size_t share = rounded / threads / kHugePage * kHugePage;
    for (int t = 1; t < threads; ++t)
        team.emplace_back(work, std::min(size, t * share), t == threads - 1 ? size : std::min(size, (t + 1) * share));
    work(0, threads == 1 ? size : std::min(size, share));
    for (std::thread& member : team) member.join();
    close(file);
    const Times times{std::chrono::duration<double, std::milli>(Clock::now() - begin).count(),
                      double(std::clock() - computed) / CLOCKS_PER_SEC * 1e3};
    std::free(memory);
    return failed ? Times{-1, 0} : times;
}

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    for (char line[16]; std::fgets(line, sizeof line, stdin);) {
        const Times times = read_whole(argv[1], std::atoi(argv[2]));
        if (times.wall < 0) {
            std::perror(argv[1]);
            return 1;
        }
        std::printf("[%.4f, %.4f]\n", times.wall, times.computed);
        std::fflush(stdout);
    }
}
