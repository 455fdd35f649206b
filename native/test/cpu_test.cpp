// The CPU backend's surroundings: threads, limits of the machine, memory, weights, choice of instructions. Operations are
// ops_golden.cpp's. Prints a line per case and "N passed, N failed" last; it ends while threads of the pool sleep, which must not
// disturb the exit.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "../src/counters.h"
#include "../src/cpu/backend.h"
#include "../src/cpu/isa.h"
#include "../src/cpu/limits.h"
#include "../src/cpu/memory.h"
#include "../src/cpu/packed_weight.h"
#include "../src/cpu/partition.h"
#include "../src/cpu/pool.h"
#include "check.h"
#include "runner.h"

namespace warpsight::test {

static void expect(bool holds, const std::string& otherwise) {
    if (!holds) throw std::runtime_error(otherwise);
}

/// `act` must throw an Error of this code and exactly this message.
static void expect_error(const std::string& code, const std::string& message, const std::function<void()>& act) {
    try {
        act();
    } catch (const Error& error) {
        expect(error.code() == code && error.what() == message, std::string("threw ") + error.code() + ": " + error.what());
        return;
    }
    throw std::runtime_error("nothing was thrown");
}

static void set_environment(const char* name, const char* value) {
#if defined(_WIN32)
    _putenv_s(name, value);
#else
    setenv(name, value, 1);
#endif
}

static void instruction_cases() {
    const char* before = std::getenv("WARPSIGHT_ISA");
    const std::string kept = before ? before : "";
    check("WARPSIGHT_ISA of unknown instructions is refused, and what there is is named", [] {
        std::string names;
        for (const std::string& isa : cpu_isas()) names += (names.empty() ? "" : ", ") + isa;
        set_environment("WARPSIGHT_ISA", "abacus");
        expect_error("ERR_CONFIG", "WARPSIGHT_ISA is \"abacus\": this machine and build have " + names,
                     [] { make_cpu_backend(); });
    });
    set_environment("WARPSIGHT_ISA", kept.c_str());
    check("plain C++ is always there", [] { expect(cpu_isas().back() == "generic", "the last is " + cpu_isas().back()); });
    check("the description names instructions and threads", [&] {
        set_cpu_threads(1);
        std::string isa = kept.empty() ? cpu_isas().front() : kept;
        expect(make_cpu_backend()->description == isa + ", 1 thread", make_cpu_backend()->description);
    });
}

static void thread_cases() {
    check("every item is done once, at any number of threads", [] {
        for (int threads : {1, 2, 3, 7, 2, 5, 1, 16, 4}) {
            set_cpu_threads(threads);
            expect(cpu_threads() == threads, "cpu_threads() is " + std::to_string(cpu_threads()));
            for (int64_t count : {0, 1, 2, 5, 64, 1000})
                for (int round = 0; round < 20; ++round) {
                    std::vector<std::atomic<int>> done(static_cast<size_t>(count));
                    cpu::parallel_for(count, [&](int64_t i) { done[size_t(i)].fetch_add(1); });
                    for (auto& times : done) expect(times == 1, "an item was done " + std::to_string(times) + " times");
                }
        }
    });
    check("several threads work", [] {
        set_cpu_threads(3);
        std::mutex lock;
        std::vector<std::thread::id> ids;
        auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (ids.size() < 3 && std::chrono::steady_clock::now() < end)
            cpu::parallel_for(3, [&](int64_t) {
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
                std::lock_guard guard(lock);
                if (std::find(ids.begin(), ids.end(), std::this_thread::get_id()) == ids.end())
                    ids.push_back(std::this_thread::get_id());
            });
        expect(ids.size() == 3, std::to_string(ids.size()) + " threads took part");
    });
    check("workers that fell asleep wake up", [] {
        set_cpu_threads(4);
        for (int round = 0; round < 50; ++round) {
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            std::atomic<int64_t> sum{0};
            cpu::parallel_for(100, [&](int64_t i) { sum += i; });
            expect(sum == 4950, "the items add up to " + std::to_string(sum));
        }
    });
    check("calls from several threads take turns", [] {
        set_cpu_threads(3);
        std::atomic<int64_t> sum{0};
        std::vector<std::thread> callers;
        for (int t = 0; t < 4; ++t)
            callers.emplace_back([&] {
                for (int round = 0; round < 100; ++round) cpu::parallel_for(10, [&](int64_t i) { sum += i; });
            });
        for (std::thread& caller : callers) caller.join();
        expect(sum == 4 * 100 * 45, "the items add up to " + std::to_string(sum));
    });
    check("what a body throws reaches the caller, and the pool goes on", [] {
        set_cpu_threads(4);
        for (int round = 0; round < 20; ++round) {
            bool thrown = false;
            try {
                cpu::parallel_for(64, [&](int64_t i) {
                    if (i == 40) throw Error("ERR_OUT_OF_MEMORY", "item 40");
                });
            } catch (const Error& error) {
                thrown = std::string(error.what()) == "item 40";
            }
            expect(thrown, "the exception was lost");
            std::atomic<int> count{0};
            cpu::parallel_for(64, [&](int64_t) { ++count; });
            expect(count == 64, "after it " + std::to_string(count) + " items were done");
        }
    });
    for (int count : {0, -3, 257})
        check("set_cpu_threads(" + std::to_string(count) + ") is refused", [&] {
            expect_error("ERR_CONFIG", "threads must be a whole number from 1 to 256, got " + std::to_string(count),
                         [&] { set_cpu_threads(count); });
        });
}

/// The quota of a process in a tree of control groups: what its membership says, and files by their path below the root.
static double quota_of(const std::string& membership, const std::vector<std::pair<std::string, std::string>>& files) {
    namespace fs = std::filesystem;
    const fs::path folder = fs::temp_directory_path() / ("warpsight-cgroup-" + std::to_string(std::random_device()()));
    fs::create_directories(folder);
    std::ofstream(folder / "membership") << membership;
    for (const auto& [path, text] : files) {
        fs::create_directories((folder / path).parent_path());
        std::ofstream(folder / path) << text << "\n";
    }
    double quota = cpu::processor_quota({(folder / "membership").string(), folder.string()});
    fs::remove_all(folder);
    return quota;
}

static void quota_cases() {
    struct Case {
        std::string name, membership;
        std::vector<std::pair<std::string, std::string>> files;
        double quota;
    };
    const std::vector<Case> cases = {
        {"version 2: the group's own", "0::/app\n", {{"app/cpu.max", "150000 100000"}, {"cpu.max", "max 100000"}}, 1.5},
        {"version 2: a group above it has less",
         "0::/slice/app\n",
         {{"slice/app/cpu.max", "400000 100000"}, {"slice/cpu.max", "50000 100000"}},
         0.5},
        {"version 2: in a container, whose group is the root", "0::/\n", {{"cpu.max", "200000 100000"}}, 2},
        {"version 2: without a limit", "0::/app\n", {{"app/cpu.max", "max 100000"}}, 0},
        {"version 2: another group's limit", "0::/app\n", {{"other/cpu.max", "100000 100000"}}, 0},
        {"version 1: the group's own",
         "5:memory:/m\n4:cpu,cpuacct:/app\n",
         {{"cpu,cpuacct/app/cpu.cfs_quota_us", "300000"}, {"cpu,cpuacct/app/cpu.cfs_period_us", "100000"}},
         3},
        {"version 1: in a container that sees the host's path",
         "4:cpu,cpuacct:/docker/0123\n",
         {{"cpu/cpu.cfs_quota_us", "250000"}, {"cpu/cpu.cfs_period_us", "100000"}},
         2.5},
        {"version 1: without a limit",
         "4:cpu:/app\n",
         {{"cpu/app/cpu.cfs_quota_us", "-1"}, {"cpu/app/cpu.cfs_period_us", "100000"}},
         0},
        {"version 1: cpuset is not cpu",
         "4:cpuset:/app\n",
         {{"cpu/app/cpu.cfs_quota_us", "100000"}, {"cpu/app/cpu.cfs_period_us", "100000"}},
         0},
        {"both versions: the smaller",
         "4:cpu,cpuacct:/old\n0::/new\n",
         {{"new/cpu.max", "800000 100000"}, {"cpu/old/cpu.cfs_quota_us", "600000"}, {"cpu/old/cpu.cfs_period_us", "100000"}},
         6},
        {"no control groups", "", {}, 0},
    };
    for (const Case& c : cases)
        check("quota, " + c.name, [&] {
            double quota = quota_of(c.membership, c.files);
            expect(quota == c.quota, std::to_string(quota) + " processors, not " + std::to_string(c.quota));
        });
}

static void limit_cases() {
    const char* before = std::getenv("WARPSIGHT_THREADS");
    const std::string kept = before ? before : "";
    check("WARPSIGHT_THREADS says how many", [] {
        set_environment("WARPSIGHT_THREADS", "3");
        expect(cpu::default_threads() == 3, std::to_string(cpu::default_threads()));
    });
    for (std::string text : {"0", "257", "x", "2.5", "-1", "4 "})
        check("WARPSIGHT_THREADS=" + text + " is refused", [&] {
            set_environment("WARPSIGHT_THREADS", text.c_str());
            expect_error("ERR_CONFIG", "WARPSIGHT_THREADS must be a whole number from 1 to 256, got \"" + text + "\"",
                         [] { cpu::default_threads(); });
        });
    set_environment("WARPSIGHT_THREADS", "");
    check("without it there is at least one thread, and no more than processors", [] {
        int count = cpu::default_threads();
        expect(count >= 1 && count <= int(std::max(1u, std::thread::hardware_concurrency())), std::to_string(count));
    });
    set_environment("WARPSIGHT_THREADS", kept.c_str());
    check("quotas of control groups are read", [] {
        expect(cpu::quota_v2("150000 100000") == 1.5, "150000 100000");
        expect(cpu::quota_v2("max 100000") == 0, "max 100000");
        expect(cpu::quota_v2("-1 100000") == 0, "-1 100000");
        expect(cpu::quota_v2("") == 0, "an empty file");
        expect(cpu::quota_v2("100000 0") == 0, "100000 0");
    });
    quota_cases();
#if defined(__linux__)
    check("a process that is bound to one processor has one thread", [] {
        cpu_set_t before, one;
        sched_getaffinity(0, sizeof before, &before);
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof one, &one);
        int count = cpu::default_threads();
        sched_setaffinity(0, sizeof before, &before);
        expect(count == 1, std::to_string(count));
    });
#endif
    check("the machine has memory", [] {
        cpu::MachineMemory memory = cpu::machine_memory();
        expect(memory.total > 0 && memory.available <= memory.total,
               std::to_string(memory.available) + " of " + std::to_string(memory.total));
    });
}

static void memory_cases() {
    check("memory is aligned to 64 bytes at every size, and all of it can be written", [] {
        for (size_t bytes : {0, 1, 63, 64, 65, 80, 81, 127, 129, 1000, 4096, 100000, 5000000, 20000000}) {
            char* memory = static_cast<char*>(cpu::pool_allocate(bytes));
            expect(reinterpret_cast<uintptr_t>(memory) % 64 == 0, std::to_string(bytes) + " bytes are not aligned");
            for (size_t i = 0; i < bytes; ++i) memory[i] = char(i);
            cpu::pool_release(memory, bytes);
        }
    });
#if !defined(__SANITIZE_ADDRESS__)
    check("a warm pool takes nothing from the system", [] {
        const std::vector<size_t> sizes = {1, 100, 1000, 70000, 1 << 20, 3 << 20};
        auto round = [&] {
            std::vector<void*> blocks;
            for (size_t bytes : sizes) blocks.push_back(cpu::pool_allocate(bytes));
            for (size_t i = 0; i < sizes.size(); ++i) cpu::pool_release(blocks[i], sizes[i]);
        };
        round();
        uint64_t taken = counters().device_allocations;
        for (int i = 0; i < 100; ++i) round();
        expect(counters().device_allocations == taken, "blocks were taken from the system");
    });
#endif
    check("bytes in use come back to where they were", [] {
        uint64_t begun = cpu::pool_bytes();
        void* memory = cpu::pool_allocate(12345);
        expect(cpu::pool_bytes() == begun + 12345, "12345 bytes are not counted");
        cpu::pool_release(memory, 12345);
        expect(cpu::pool_bytes() == begun, "they are not given back");
    });
    for (size_t bytes : {size_t(1) << 50, SIZE_MAX, SIZE_MAX - 63})
        check(std::to_string(bytes) + " bytes are refused", [&] {
            try {
                cpu::pool_allocate(bytes);
            } catch (const Error& error) {
                expect(std::string(error.code()) == "ERR_OUT_OF_MEMORY", error.code());
                return;
            }
            throw std::runtime_error("an absurd size was granted");
        });
}

/// Rows of known numbers; remembers the largest read.
class CountingSource : public RowSource {
public:
    explicit CountingSource(int64_t columns) : columns_(columns) {}
    void read_rows(int64_t row, int64_t count, void* destination) override {
        largest = std::max(largest, count * columns_ * 4);
        float* to = static_cast<float*>(destination);
        for (int64_t i = 0; i < count * columns_; ++i) to[i] = float((row * columns_ + i) % 1009);
    }
    int64_t largest = 0;

private:
    int64_t columns_;
};

/// Rows of bytes, of which two elements rarely have the same: every mistaken place shows.
class PatternSource : public RowSource {
public:
    explicit PatternSource(size_t row_bytes) : row_bytes_(row_bytes) {}
    static uint8_t byte(uint64_t at) { return uint8_t((at + 1) * 0x9e3779b97f4a7c15u >> 56); }
    void read_rows(int64_t row, int64_t count, void* destination) override {
        uint8_t* to = static_cast<uint8_t*>(destination);
        for (size_t i = 0; i < size_t(count) * row_bytes_; ++i) to[i] = byte(size_t(row) * row_bytes_ + i);
    }

private:
    size_t row_bytes_;
};

/// [ceil(N/nr)][K][nr], zeros behind the last row.
static void expect_panels(const cpu::CpuWeight& weight, int64_t N, int64_t K, size_t size) {
    const int64_t nr = cpu::kernels().nr;
    const uint8_t* data = static_cast<const uint8_t*>(weight.data);
    expect(weight.bytes == size_t((N + nr - 1) / nr * nr * K) * size, std::to_string(weight.bytes) + " bytes");
    for (int64_t at = 0; at < int64_t(weight.bytes); ++at) {
        int64_t element = at / int64_t(size), within = at % int64_t(size);
        int64_t n = element / (K * nr) * nr + element % nr, k = element / nr % K;
        uint8_t want = n < N ? PatternSource::byte(uint64_t((n * K + k) * int64_t(size) + within)) : 0;
        if (data[at] != want)
            throw std::runtime_error("[" + std::to_string(N) + ", " + std::to_string(K) + "]: a byte of row " +
                                     std::to_string(n) + ", column " + std::to_string(k) + " is " + std::to_string(data[at]) +
                                     ", not " + std::to_string(want));
    }
}

static void weight_cases() {
    for (DType dtype : {DType::float32, DType::float16})
        check(std::string("a matrix of ") + name_of(dtype) + " stands in panels, at every size", [dtype] {
            const int64_t nr = cpu::kernels().nr, size = int64_t(size_of(dtype));
            // one, less than four rows, than a panel, than a line; whole ones, and more; chunks of a panel, of 2 rows or a panel,
            // of one row
            for (auto [N, K] : {std::pair<int64_t, int64_t>{1, 1},
                                {3, 16},
                                {nr - 1, 15},
                                {nr, 16},
                                {nr, 64},
                                {2 * nr + 5, 67},
                                {500, 333},
                                {4 * nr + 2, 768},
                                {nr + 3, (44 << 10) / size},
                                {nr + 3, (90 << 10) / size},
                                {6, (200 << 10) / size}}) {
                PatternSource source(size_t(K * size));
                auto weight = cpu::make_weight(WeightLayout::matrix, dtype, DType::float32, Quantization::none, N, K, source);
                expect_panels(static_cast<const cpu::CpuWeight&>(*weight), N, K, size_t(size));
            }
        });
    check("weights are read in chunks, whatever their layout, and their bytes are counted", [] {
        for (WeightLayout layout : {WeightLayout::matrix, WeightLayout::vector, WeightLayout::table}) {
            uint64_t begun = cpu::weight_bytes();
            CountingSource source(700);
            auto weight = cpu::make_weight(layout, DType::float32, DType::float32, Quantization::none, 900, 700, source);
            expect(source.largest <= 256 << 10, std::to_string(source.largest) + " bytes were read at once");
            expect(cpu::weight_bytes() == begun + weight->bytes, "the bytes are not counted");
            expect(weight->bytes < size_t(900 + 32) * 700 * 4 + 64, std::to_string(weight->bytes) + " bytes");
            weight.reset();
            expect(cpu::weight_bytes() == begun, "the bytes are not given back");
        }
    });
    check("an int8 weight is read in the same chunks, takes a byte a number, and is a matrix", [] {
        uint64_t begun = cpu::weight_bytes();
        CountingSource source(700);
        auto weight =
            cpu::make_weight(WeightLayout::matrix, DType::float32, DType::float32, Quantization::int8, 900, 700, source);
        expect(source.largest <= 256 << 10, std::to_string(source.largest) + " bytes were read at once");
        expect(weight->dtype == DType::int8, name_of(weight->dtype));
        expect(weight->bytes < size_t(900 + 32) * (704 + 8) + 64, std::to_string(weight->bytes) + " bytes");
        expect(cpu::weight_bytes() == begun + weight->bytes, "the bytes are not counted");
        for (WeightLayout layout : {WeightLayout::vector, WeightLayout::table})
            expect_error("ERR_DTYPE", "only a matrix can be kept as int8",
                         [&] { cpu::make_weight(layout, DType::float32, DType::float32, Quantization::int8, 900, 700, source); });
    });
    check("loader threads make the same weights at once", [] {
        CountingSource source(333);
        auto want = std::dynamic_pointer_cast<const cpu::CpuWeight>(
            cpu::make_weight(WeightLayout::matrix, DType::float32, DType::float32, Quantization::none, 500, 333, source));
        std::atomic<int> different{0};
        std::vector<std::thread> loaders;
        for (int t = 0; t < 4; ++t)
            loaders.emplace_back([&] {
                CountingSource own(333);
                auto got = std::dynamic_pointer_cast<const cpu::CpuWeight>(
                    cpu::make_weight(WeightLayout::matrix, DType::float32, DType::float32, Quantization::none, 500, 333, own));
                different += got->bytes != want->bytes || std::memcmp(got->data, want->data, got->bytes) != 0;
            });
        for (std::thread& loader : loaders) loader.join();
        expect(different == 0, std::to_string(different) + " differ");
    });
    check("a weight of integers is refused", [] {
        CountingSource source(2);
        expect_error("ERR_DTYPE", "a weight is float32, float16 or bfloat16, got int32", [&] {
            cpu::make_weight(WeightLayout::matrix, DType::int32, DType::float32, Quantization::none, 2, 2, source);
        });
    });
    check("a weight larger than the machine is refused", [] {
        CountingSource source(1);
        for (int64_t rows : {int64_t(1) << 46, INT64_MAX - 40, INT64_MAX}) try {
                cpu::make_weight(WeightLayout::matrix, DType::float32, DType::float32, Quantization::none, rows, 7, source);
                throw std::runtime_error("it was made");
            } catch (const Error& error) {
                expect(std::string(error.code()) == "ERR_OUT_OF_MEMORY", error.code());
            }
    });
    check("16-bit activations are refused with the operation's name", [] {
        StepSpec spec{.op = Softmax{}};
        spec.inputs = {Operand{.present = true, .dtype = DType::float16, .shape = {2, 3}}};
        spec.outputs = spec.inputs;
        expect_error("ERR_DTYPE", "softmax: the cpu computes in float32, got float16", [&] { make_cpu_backend()->plan(spec); });
    });
}

/// Every panel of every block belongs to one part; threads that take parts in turn find the next one as foretold.
static void expect_partition(int64_t M, int64_t N, int64_t K, int64_t threads) {
    const cpu::Tile tile{.mr = 14, .nr = 32, .row_bytes = 4, .column_bytes = 4, .group = 16};
    const cpu::Partition parts = cpu::partition(M, N, K, tile, 1 << 20, threads);
    const std::string name =
        std::to_string(M) + "x" + std::to_string(N) + "x" + std::to_string(K) + " of " + std::to_string(threads) + " threads: ";
    const int64_t blocks = (M + 13) / 14, panels = (N + 31) / 32;
    std::vector<int> times(size_t(blocks * panels));
    for (int64_t i = 0; i < parts.items(); ++i) {
        const cpu::GemmPart part = parts.item(i);
        expect(part.first_block < part.last_block && part.last_block <= blocks, name + "blocks of part " + std::to_string(i));
        expect(part.first_panel < part.last_panel && part.last_panel <= panels, name + "panels of part " + std::to_string(i));
        expect(part.depth == K || part.depth % tile.group == 0, name + "k of part " + std::to_string(i));
        for (int64_t block = part.first_block; block < part.last_block; ++block)
            for (int64_t panel = part.first_panel; panel < part.last_panel; ++panel) ++times[size_t(block * panels + panel)];
        const int64_t next = i + threads < parts.items() ? parts.item(i + threads).first_panel : -1;
        expect(part.next_panel == next, name + "what follows part " + std::to_string(i));
    }
    for (int count : times) expect(count == 1, name + "a tile is in " + std::to_string(count) + " parts");
}

static void product_cases() {
    check("the parts of a product are each tile once, at any number of threads", [] {
        for (int64_t M : {1, 13, 50, 197, 400, 1024})
            for (int64_t N : {1, 32, 33, 768, 3072, 50000})
                for (int64_t K : {1, 16, 768, 1040, 3072})
                    for (int64_t threads : {1, 2, 3, 8, 64}) expect_partition(M, N, K, threads);
    });
    check("a product has the same bits whether each thread packs the rows, or all do together", [] {
        std::mt19937 random(7);
        std::uniform_real_distribution<float> uniform(-1, 1);
        auto numbers = [&](int64_t count) {
            std::vector<float> out(static_cast<size_t>(count));
            for (float& x : out) x = uniform(random);
            return out;
        };
        Runner runner(make_cpu_backend(), DType::float32);
        // more rows than a group of blocks has, columns that end within a panel, k that ends within a group or has slices
        for (auto [M, N, K] : {std::array<int64_t, 3>{50, 1536, 96}, {260, 1561, 45}, {20, 2100, 1100}}) {
            const std::vector<Value> inputs{activation({M, K}, numbers(M * K)), weight(Value::As::matrix, {N, K}, numbers(N * K)),
                                            absent(), absent()};
            std::vector<uint8_t> first;
            for (int threads : {1, 2, 3, 5, 2}) {
                set_cpu_threads(threads);
                std::vector<Value> outputs{activation({M, N})};
                const std::vector<uint8_t> bytes = runner.run(Linear{}, inputs, outputs);
                if (first.empty()) first = bytes;
                expect(bytes == first, std::to_string(threads) + " threads give other bits");
            }
        }
    });
}

}  // namespace warpsight::test

int main() {
    using namespace warpsight::test;
    for (auto cases : {instruction_cases, thread_cases, limit_cases, memory_cases, weight_cases, product_cases}) cases();
    warpsight::set_cpu_threads(4);
    warpsight::cpu::parallel_for(100, [](int64_t) {});
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
