// bench_gemm: the linear operation of the CUDA backend beside cuBLAS and cuBLASLt. It prints one JSON object a line, of which
// bench/gemm.ts (npm run bench:gemm) makes the table.
//   bench_gemm [--dtype f16|bf16] [--filter TEXT] [--rounds N] [--seconds S] [--cublas FOLDER]… [--check | --device-only]
//     --filter   rows whose "model part size" holds the text     --cublas   where to look, after the loader's own folders
//     --seconds  no row is begun after it; rows are taken in an order that spreads over the table
//     --check    three tiny shapes: for a machine where only the answers matter
//     --device-only  no products: what the device is, how fast it copies, what an empty node costs
//
// Each side's products stand one after the other in a graph, one for each copy of x, W and y. The copies together exceed twice
// the L2 cache, so every product reads from memory what a model's layer would. A sample is the time between two events around
// one replay, divided by the products; another replay goes before, so that the host is ahead of the device. Sides alternate, and
// the one that begins changes from round to round. Outputs are compared before anything is timed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../native/cuda/backend.h"
#include "../native/cuda/stream.h"
#include "cublas.h"
#include "gemm_kernels.h"
#include "gemm_table.h"

namespace warpsight::bench {
namespace {

constexpr int kMostCandidates = 64;
constexpr int kLeastProducts = 8;  // in one graph
constexpr int kMostCopies = 256;
constexpr double kSearchSeconds = 0.5;  // for one row's candidates, once kLeastCandidates were tried
constexpr int kLeastCandidates = 8;
constexpr size_t kCopyBytes = size_t(1) << 30;

struct Options {
    DType dtype = DType::float16;
    std::string filter;
    int rounds = 15;
    double seconds = 1e9;
    std::vector<std::string> folders = {""};
    bool check = false, device_only = false;
};

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

/// Two roundings of a sum to the output's type differ by at most one unit in the last place, 2^-10 or 2^-7 of the value.
double largest_difference(DType dtype) { return dtype == DType::float16 ? 0x1p-10 : 0x1p-7; }

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Memory of the device, from the backend's pool.
class Buffer {
public:
    Buffer(Backend& backend, Stream& stream, size_t bytes)
        : backend_(backend), stream_(stream), bytes_(bytes), data_(backend.allocate(bytes, stream)) {}
    ~Buffer() { backend_.release(data_, bytes_, stream_); }
    Buffer(const Buffer&) = delete;
    void* data() const { return data_; }

private:
    Backend& backend_;
    Stream& stream_;
    size_t bytes_;
    void* data_;
};

/// A matrix that was made on the device, read as a checkpoint is.
class HostRows final : public RowSource {
public:
    HostRows(std::vector<uint8_t> bytes, size_t row_bytes) : bytes_(std::move(bytes)), row_bytes_(row_bytes) {}
    void read_rows(int64_t row, int64_t count, void* to) override {
        std::memcpy(to, bytes_.data() + size_t(row) * row_bytes_, size_t(count) * row_bytes_);
    }

private:
    std::vector<uint8_t> bytes_;
    size_t row_bytes_;
};

class Bench {
public:
    explicit Bench(const Options& options)
        : options_(options), backend_(make_cuda_backend(0)), stream_(backend_->make_stream(true)) {
        check(cudaEventCreate(&begin_), "an event");
        check(cudaEventCreate(&end_), "an event");
        check(cudaGetDeviceProperties(&properties_, 0), "properties");
        CublasApi api;
        if (open_cublas(api, options_.folders)) cublas_ = std::make_unique<Cublas>(api, handle());
    }
    ~Bench() {
        cudaEventDestroy(begin_);
        cudaEventDestroy(end_);
    }

    /// The machine, and what its memory and an empty node cost.
    void describe() {
        size_t bytes = options_.check ? 1 << 16 : kCopyBytes;
        Buffer from(*backend_, *stream_, bytes), to(*backend_, *stream_, bytes);
        stream_->zero(from.data(), bytes);
        auto copy = backend_->record(*stream_, [&] { stream_->copy(to.data(), from.data(), bytes); });
        constexpr int kNodes = 200;
        auto nothing = backend_->record(*stream_, [&] {
            for (int i = 0; i < kNodes; ++i) start_nothing(handle());
        });
        std::vector<double> copies, nodes;
        for (int round = 0; round < options_.rounds; ++round) {
            copies.push_back(microseconds(*copy));
            nodes.push_back(microseconds(*nothing) / kNodes);
        }
        int runtime = 0, driver = 0;
        cudaRuntimeGetVersion(&runtime);
        cudaDriverGetVersion(&driver);
        std::printf(
            "{\"kind\": \"device\", \"name\": \"%s\", \"dtype\": \"%s\", \"multiprocessors\": %d, \"l2Bytes\": %d, "
            "\"runtime\": %d, \"driver\": %d, \"cublas\": %d, \"copyBytes\": %zu, \"differenceLimit\": %.6g, \"copyUs\": ",
            properties_.name, name_of(options_.dtype), properties_.multiProcessorCount, properties_.l2CacheSize, runtime, driver,
            cublas_ ? cublas_->version() : 0, bytes, largest_difference(options_.dtype));
        print(copies);
        std::printf(", \"emptyNodeUs\": ");
        print(nodes);
        std::printf("}\n");
        std::fflush(stdout);
    }

    void measure(const Row& row);

private:
    /// One engine's products, ready to be replayed.
    struct Side {
        const char* name;
        std::unique_ptr<Recording> recording;
        std::vector<double> us;  // of one product
    };

    cudaStream_t handle() const { return static_cast<cuda::CudaStream&>(*stream_).handle(); }

    /// One replay, while the device is still busy with another.
    double microseconds(Recording& recording) {
        recording.launch(*stream_);
        check(cudaEventRecord(begin_, handle()), "an event");
        recording.launch(*stream_);
        check(cudaEventRecord(end_, handle()), "an event");
        check(cudaEventSynchronize(end_), "a replay");
        float ms = 0;
        check(cudaEventElapsedTime(&ms, begin_, end_), "an event");
        return 1000.0 * double(ms);
    }

    static void print(const std::vector<double>& values) {
        std::printf("[");
        for (size_t i = 0; i < values.size(); ++i) std::printf("%s%.4f", i ? ", " : "", values[i]);
        std::printf("]");
    }

    const Options& options_;
    std::shared_ptr<Backend> backend_;
    std::unique_ptr<Stream> stream_;
    std::unique_ptr<Cublas> cublas_;
    cudaDeviceProp properties_{};
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

void Bench::measure(const Row& row) {
    const DType dtype = options_.dtype;
    const int64_t M = row.M, N = row.N, K = row.K;
    const size_t x_bytes = size_t(M * K) * 2, w_bytes = size_t(N * K) * 2, y_bytes = size_t(M * N) * 2;
    const size_t all = x_bytes + w_bytes + y_bytes, cold = 2 * size_t(properties_.l2CacheSize);
    const int copies = options_.check ? 2 : int(std::clamp<size_t>(cold / all + 1, 2, kMostCopies));
    const int products = std::max(copies, options_.check ? 2 : kLeastProducts);

    struct Copy {
        Buffer x, w, y, rival;  // w row by row for cuBLAS; rival is its y
        std::unique_ptr<Step> step;
    };
    std::vector<std::unique_ptr<Copy>> all_copies;
    std::vector<uint8_t> host(w_bytes);
    size_t workspace_bytes = 0;
    for (int i = 0; i < copies; ++i) {
        auto copy = std::unique_ptr<Copy>(new Copy{{*backend_, *stream_, x_bytes},
                                                   {*backend_, *stream_, w_bytes},
                                                   {*backend_, *stream_, y_bytes},
                                                   {*backend_, *stream_, y_bytes},
                                                   nullptr});
        fill_normal(copy->x.data(), dtype, M * K, uint64_t(2 * i) << 40, handle());
        fill_normal(copy->w.data(), dtype, N * K, uint64_t(2 * i + 1) << 40, handle());
        for (void* y : {copy->y.data(), copy->rival.data()}) check(cudaMemsetAsync(y, 0xff, y_bytes, handle()), "NaN");
        check(cudaMemcpyAsync(host.data(), copy->w.data(), w_bytes, cudaMemcpyDeviceToHost, handle()), "a weight");
        stream_->synchronize();
        HostRows source(host, size_t(K) * 2);
        StepSpec spec{.op = Linear{}, .inputs = std::vector<Operand>(4), .outputs = {{true, dtype, {M, N}}}};
        spec.inputs[0] = {.present = true, .dtype = dtype, .shape = {M, K}};
        spec.inputs[1] = {.present = true, .dtype = dtype, .shape = {N, K}};
        spec.inputs[1].weight = backend_->make_weight(WeightLayout::matrix, dtype, dtype, N, K, source);
        copy->step = backend_->plan(spec);
        workspace_bytes = std::max(workspace_bytes, copy->step->workspace_bytes);
        all_copies.push_back(std::move(copy));
    }
    Buffer workspace(*backend_, *stream_, workspace_bytes);

    auto record = [&](const std::function<void(Copy&)>& product) {
        return backend_->record(*stream_, [&] {
            for (int i = 0; i < products; ++i) product(*all_copies[size_t(i % copies)]);
        });
    };
    auto linear = [&](Copy& c) {
        TensorView in[4] = {{c.x.data(), dtype, {M, K}}}, out[1] = {{c.y.data(), dtype, {M, N}}};
        c.step->run(*stream_, {.inputs = in, .outputs = out, .workspace = workspace.data()});
    };

    std::vector<Side> sides;
    auto compare = [&] {
        double worst = 0;
        for (auto& c : all_copies) {
            double apart = relative_difference(c->y.data(), c->rival.data(), dtype, M * N, handle());
            if (!(apart <= worst)) worst = apart;  // a NaN stays
        }
        return worst;
    };
    for (auto& c : all_copies) linear(*c);  // anything that is made at the first call is made outside of a recording
    sides.push_back({"warpsight", record(linear), {}});
    sides.back().recording->launch(*stream_);

    double difference = 0;
    size_t candidates = 0, best = 0;
    std::unique_ptr<Cublas::Search> search;
    const Problem problem{M, N, K, dtype == DType::float16 ? CUDA_R_16F : CUDA_R_16BF};
    if (cublas_) {
        auto gemm = [&](Copy& c) { cublas_->gemm(problem, c.x.data(), c.w.data(), c.rival.data()); };
        gemm(*all_copies[0]);
        sides.push_back({"cublas", record(gemm), {}});
        sides.back().recording->launch(*stream_);
        difference = compare();

        search = std::make_unique<Cublas::Search>(*cublas_, problem, kMostCandidates);
        double fastest = INFINITY;
        std::unique_ptr<Recording> chosen;
        auto begun = std::chrono::steady_clock::now();
        for (size_t i = 0; i < search->count(); ++i) {
            if (candidates >= kLeastCandidates && seconds_since(begun) > kSearchSeconds) break;
            Copy& first = *all_copies[0];
            if (search->run(i, first.x.data(), first.w.data(), first.rival.data()) != kSuccess) continue;
            auto recording = record([&](Copy& c) {
                if (search->run(i, c.x.data(), c.w.data(), c.rival.data()) != kSuccess)
                    throw std::runtime_error("cublasLtMatmul refused what it took before");
            });
            double us = std::min(microseconds(*recording), microseconds(*recording));
            ++candidates;
            if (us >= fastest) continue;
            fastest = us;
            best = i;
            chosen = std::move(recording);
        }
        if (chosen) {
            for (auto& c : all_copies) check(cudaMemsetAsync(c->rival.data(), 0xff, y_bytes, handle()), "NaN");
            chosen->launch(*stream_);
            double apart = compare();
            if (!(apart <= difference)) difference = apart;
            sides.push_back({"cublasLt", std::move(chosen), {}});
        }
        if (!(difference <= largest_difference(dtype)))
            throw std::runtime_error(row.model + " " + row.part + " " + row.size + ": the outputs differ by " +
                                     std::to_string(difference) + " of their size; the limit is " +
                                     std::to_string(largest_difference(dtype)));
    }

    for (int round = 0; round < options_.rounds; ++round)
        for (size_t i = 0; i < sides.size(); ++i) {
            Side& side = sides[(size_t(round) + i) % sides.size()];
            side.us.push_back(microseconds(*side.recording) / products);
        }

    std::printf(
        "{\"kind\": \"row\", \"index\": %zu, \"model\": \"%s\", \"part\": \"%s\", \"size\": \"%s\", \"M\": %lld, \"N\": %lld, "
        "\"K\": %lld, "
        "\"kernel\": \"%s\", \"copies\": %d, \"products\": %d, \"candidates\": %zu, \"best\": %zu, \"difference\": %.3g, "
        "\"us\": {",
        row.index, row.model.c_str(), row.part.c_str(), row.size.c_str(), (long long)M, (long long)N, (long long)K,
        all_copies[0]->step->kernel.c_str(), copies, products, candidates, best, difference);
    for (size_t i = 0; i < sides.size(); ++i) {
        std::printf("%s\"%s\": ", i ? ", " : "", sides[i].name);
        print(sides[i].us);
    }
    std::printf("}}\n");
    std::fflush(stdout);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        std::string name = argv[i];
        if (name == "--check" || name == "--device-only") {
            (name == "--check" ? options.check : options.device_only) = true;
            continue;
        }
        if (i + 1 == argc) throw std::runtime_error(name + " needs a value");
        std::string value = argv[++i];
        if (name == "--dtype" && value == "f16") {
            options.dtype = DType::float16;
        } else if (name == "--dtype" && value == "bf16") {
            options.dtype = DType::bfloat16;
        } else if (name == "--filter") {
            options.filter = value;
        } else if (name == "--rounds") {
            options.rounds = std::max(1, std::atoi(value.c_str()));
        } else if (name == "--seconds") {
            options.seconds = std::atof(value.c_str());
        } else if (name == "--cublas") {
            options.folders.push_back(value);
        } else {
            throw std::runtime_error("no such option: " + name + " " + value);
        }
    }
    return options;
}

/// The largest square comes first, as it says what the device can compute; then steps of the golden ratio visit the table evenly.
std::vector<Row> in_order(const std::vector<Row>& table, const std::string& filter) {
    auto wanted = [&](const Row& row) { return (row.model + " " + row.part + " " + row.size).find(filter) != std::string::npos; };
    auto turn = [&](const Row& row) {
        return row.index + 1 == table.size() ? -1 : std::fmod(double(row.index) * 0.6180339887, 1.0);
    };
    std::vector<Row> rows;
    for (const Row& row : table)
        if (turn(row) < 0 || wanted(row)) rows.push_back(row);
    std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) { return turn(a) < turn(b); });
    return rows;
}

}  // namespace
}  // namespace warpsight::bench

int main(int argc, char** argv) {
    using namespace warpsight::bench;
    try {
        auto begun = std::chrono::steady_clock::now();
        const Options options = parse(argc, argv);
        const std::vector<Row> rows = in_order(options.check ? check_table() : gemm_table(), options.filter);
        Bench bench(options);
        bench.describe();
        if (options.device_only) return 0;
        size_t measured = 0;
        while (measured < rows.size() && (measured == 0 || seconds_since(begun) < options.seconds))
            bench.measure(rows[measured++]);
        std::printf("{\"kind\": \"end\", \"seconds\": %.1f, \"notMeasured\": %zu}\n", seconds_since(begun),
                    rows.size() - measured);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_gemm: %s\n", error.what());
        return 1;
    }
}
