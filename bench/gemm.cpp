// bench_gemm: the linear operation of the CUDA backend beside cuBLAS and cuBLASLt. It prints one JSON object a line, of which
// bench/gemm.ts (npm run bench:gemm) makes the table.
//   bench_gemm [--dtype f16|bf16] [--filter TEXT] [--rounds N] [--seconds S] [--cublas FOLDER]… [--tiles]
//              [--check | --device-only]
//     --filter   rows whose "model part size" holds the text     --cublas   where to look, after the loader's own folders
//     --seconds  no row is begun after it; rows are taken in an order that spreads over the table
//     --tiles    instead of rivals, every tile of the device's table, whole and split: what its costs are to be set by
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
#include "../native/cuda/gemm.h"
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
constexpr int kEmptyNodes = 200;
constexpr size_t kMostFailures = 5;  // rows; then there is more wrong than a row
constexpr size_t kCopyBytes = size_t(1) << 30;

struct Options {
    DType dtype = DType::float16;
    std::string filter;
    int rounds = 15;
    double seconds = 1e9;
    std::vector<std::string> folders = {""};
    bool check = false, device_only = false, tiles = false;
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

/// What all rows share: the backend, its stream, the rivals, and how a replay is timed.
struct Machine {
    explicit Machine(const Options& options)
        : options(options), backend(make_cuda_backend(0)), stream(backend->make_stream(true)) {
        check(cudaEventCreate(&begin), "an event");
        check(cudaEventCreate(&end), "an event");
        check(cudaGetDeviceProperties(&properties, 0), "properties");
        CublasApi api;
        if (open_cublas(api, options.folders)) cublas = std::make_unique<Cublas>(api, handle());
    }
    ~Machine() {
        cudaEventDestroy(begin);
        cudaEventDestroy(end);
    }
    Machine(const Machine&) = delete;

    cudaStream_t handle() const { return static_cast<cuda::CudaStream&>(*stream).handle(); }

    /// One replay, while the device is still busy with another.
    double microseconds(Recording& recording) {
        recording.launch(*stream);
        check(cudaEventRecord(begin, handle()), "an event");
        recording.launch(*stream);
        check(cudaEventRecord(end, handle()), "an event");
        check(cudaEventSynchronize(end), "a replay");
        float ms = 0;
        check(cudaEventElapsedTime(&ms, begin, end), "an event");
        return 1000.0 * double(ms);
    }

    const Options& options;
    std::shared_ptr<Backend> backend;
    std::unique_ptr<Stream> stream;
    std::unique_ptr<Cublas> cublas;  // null: not found
    cudaDeviceProp properties{};
    cudaEvent_t begin = nullptr, end = nullptr;
};

void print(const std::vector<double>& values) {
    std::printf("[");
    for (size_t i = 0; i < values.size(); ++i) std::printf("%s%.4f", i ? ", " : "", values[i]);
    std::printf("]");
}

/// The machine, and what its memory and an empty node cost.
void describe(Machine& machine) {
    const Options& options = machine.options;
    Stream& stream = *machine.stream;
    const size_t bytes = options.check ? 1 << 16 : kCopyBytes;
    Buffer from(*machine.backend, stream, bytes), to(*machine.backend, stream, bytes);
    stream.zero(from.data(), bytes);
    auto copy = machine.backend->record(stream, [&] { stream.copy(to.data(), from.data(), bytes); });
    auto nothing = machine.backend->record(stream, [&] {
        for (int i = 0; i < kEmptyNodes; ++i) start_nothing(machine.handle());
    });
    std::vector<double> copies, nodes;
    for (int round = 0; round < options.rounds; ++round) {
        copies.push_back(machine.microseconds(*copy));
        nodes.push_back(machine.microseconds(*nothing) / kEmptyNodes);
    }
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    std::printf(
        "{\"kind\": \"device\", \"name\": \"%s\", \"dtype\": \"%s\", \"multiprocessors\": %d, \"l2Bytes\": %d, "
        "\"runtime\": %d, \"driver\": %d, \"cublas\": %d, \"copyBytes\": %zu, \"differenceLimit\": %.6g, \"copyUs\": ",
        machine.properties.name, name_of(options.dtype), machine.properties.multiProcessorCount, machine.properties.l2CacheSize,
        runtime, driver, machine.cublas ? machine.cublas->version() : 0, bytes, largest_difference(options.dtype));
    print(copies);
    std::printf(", \"emptyNodeUs\": ");
    print(nodes);
    std::printf("}\n");
    std::fflush(stdout);
}

/// One row's operands, several times.
class Products {
public:
    struct Copy {
        Buffer x, w, y, rival;  // w: row by row, for cuBLAS; rival: its y
        std::unique_ptr<Step> step;
    };

    Products(Machine& machine, const Row& row) : machine_(machine), row_(row), dtype_(machine.options.dtype) {
        const size_t once = size_t(row.M * row.K + row.N * row.K + row.M * row.N) * 2;
        const size_t cold = 2 * size_t(machine.properties.l2CacheSize);
        const int count = machine.options.check ? 2 : int(std::clamp<size_t>(cold / once + 1, 2, kMostCopies));
        products = std::max(count, machine.options.check ? 2 : kLeastProducts);
        size_t workspace = 0;
        for (int i = 0; i < count; ++i) {
            copies.push_back(make_copy(uint64_t(i)));
            workspace = std::max(workspace, copies.back()->step->workspace_bytes);
        }
        workspace_ = std::make_unique<Buffer>(*machine.backend, *machine.stream, workspace);
        forget_outputs();
    }

    std::unique_ptr<Recording> record(const std::function<void(const Copy&)>& product) {
        return machine_.backend->record(*machine_.stream, [&] {
            for (int i = 0; i < products; ++i) product(*copies[size_t(i) % copies.size()]);
        });
    }

    void linear(const Copy& c) const {
        TensorView in[4] = {{c.x.data(), dtype_, {row_.M, row_.K}}}, out[1] = {{c.y.data(), dtype_, {row_.M, row_.N}}};
        c.step->run(*machine_.stream, {.inputs = in, .outputs = out, .workspace = workspace_->data()});
    }

    /// ‖ours − rival's‖ / ‖rival's‖, the largest over the copies. Throws above the limit.
    double compare() const {
        const double limit = largest_difference(dtype_);
        double worst = 0;
        for (auto& c : copies) {
            double apart = relative_difference(c->y.data(), c->rival.data(), dtype_, row_.M * row_.N, machine_.handle());
            if (!(apart <= limit))  // NaN, too
                throw std::runtime_error(row_.model + " " + row_.part + " " + row_.size + ": the outputs differ by " +
                                         std::to_string(apart) + " of their size; the limit is " + std::to_string(limit));
            worst = std::max(worst, apart);
        }
        return worst;
    }

    void forget_rival() const { poison(&Copy::rival); }

    std::vector<std::unique_ptr<Copy>> copies;
    int products = 0;  // in one recording

private:
    std::unique_ptr<Copy> make_copy(uint64_t i) {
        Backend& backend = *machine_.backend;
        Stream& stream = *machine_.stream;
        const int64_t M = row_.M, N = row_.N, K = row_.K;
        const size_t x = size_t(M * K) * 2, w = size_t(N * K) * 2, y = size_t(M * N) * 2;
        std::unique_ptr<Copy> copy(
            new Copy{{backend, stream, x}, {backend, stream, w}, {backend, stream, y}, {backend, stream, y}, nullptr});
        fill_normal(copy->x.data(), dtype_, M * K, 2 * i << 40, machine_.handle());
        fill_normal(copy->w.data(), dtype_, N * K, (2 * i + 1) << 40, machine_.handle());
        std::vector<uint8_t> host(w);
        stream.download(host.data(), copy->w.data(), w);
        stream.synchronize();
        HostRows source(std::move(host), size_t(K) * 2);
        StepSpec spec{.op = Linear{}, .inputs = std::vector<Operand>(4), .outputs = {{true, dtype_, {M, N}}}};
        spec.inputs[0] = {.present = true, .dtype = dtype_, .shape = {M, K}};
        spec.inputs[1] = {.present = true, .dtype = dtype_, .shape = {N, K}};
        spec.inputs[1].weight = backend.make_weight(WeightLayout::matrix, dtype_, dtype_, Quantization::none, N, K, source);
        copy->step = backend.plan(spec);
        return copy;
    }

    void forget_outputs() const {
        poison(&Copy::y);
        poison(&Copy::rival);
    }
    void poison(Buffer Copy::*output) const {  // with NaN
        for (auto& c : copies)
            check(cudaMemsetAsync(((*c).*output).data(), 0xff, size_t(row_.M * row_.N) * 2, machine_.handle()), "NaN");
    }

    Machine& machine_;
    const Row row_;
    const DType dtype_;
    std::unique_ptr<Buffer> workspace_;
};

/// Each tile of the device's table with each split, beside the one that is chosen.
void measure_tiles(Machine& machine, const Row& row) {
    Products products(machine, row);
    const DType dtype = machine.options.dtype;
    cuda::Device& device = static_cast<cuda::CudaStream&>(*machine.stream).context().device;
    const cuda::Launch launch{device, machine.handle()};
    auto operands = [&](const Products::Copy& c) {
        const cuda::Matrix w{c.w.data(), dtype, row.N, row.K, row.K};
        return cuda::GemmOperands{.x = c.x.data(), .x_pitch = row.K, .w = w, .constant = true, .rows = {.planned = row.M}};
    };
    std::printf(
        "{\"kind\": \"tiles\", \"model\": \"%s\", \"part\": \"%s\", \"size\": \"%s\", \"M\": %lld, \"N\": %lld, \"K\": %lld, "
        "\"chosen\": \"%s\", \"us\": {",
        row.model.c_str(), row.part.c_str(), row.size.c_str(), (long long)row.M, (long long)row.N, (long long)row.K,
        products.copies[0]->step->kernel.c_str());
    const char* separator = "";
    const auto tiles = device.hopper ? cuda::gemm_sm90_tiles() : cuda::gemm_sm80_tiles();
    for (size_t i = 0; i < tiles.size(); ++i)
        for (int splits = 1; splits <= tiles[i].most_splits; ++splits) {
            const cuda::GemmTile tile{int(i), tiles[i].BM, tiles[i].BN, splits, tiles[i].swapped};
            const cuda::GemmOperands any = operands(*products.copies[0]);
            const int steps = any.steps(), part = (steps + splits - 1) / splits;
            if ((splits - 1) * part >= steps) continue;
            const Buffer workspace(*machine.backend, *machine.stream, device.hopper ? 0 : cuda::gemm_sm80_workspace(tile, any));
            auto product = [&](const Products::Copy& c) {
                const TensorView y{c.y.data(), dtype, {row.M, row.N}};
                if (device.hopper) cuda::gemm_sm90(launch, {}, tile, operands(c), nullptr, {}, y);
                else cuda::gemm_sm80(launch, {}, tile, operands(c), nullptr, {}, y, workspace.data());
            };
            product(*products.copies[0]);
            auto recording = products.record(product);
            std::vector<double> us;
            for (int round = 0; round < machine.options.rounds; ++round)
                us.push_back(machine.microseconds(*recording) / products.products);
            std::printf("%s\"%s\": ", separator, cuda::name_of(tile, device.hopper).c_str());
            print(us);
            separator = ", ";
        }
    std::printf("}}\n");
    std::fflush(stdout);
}

/// cuBLASLt's candidates, each timed in a recording of its own.
struct Candidates {
    Candidates(Machine& machine, Products& products, const Problem& problem) : search(*machine.cublas, problem, kMostCandidates) {
        double fastest = INFINITY;
        auto begun = std::chrono::steady_clock::now();
        for (size_t i = 0; i < search.count(); ++i) {
            if (tried >= kLeastCandidates && seconds_since(begun) > kSearchSeconds) break;
            if (run(i, *products.copies[0]) != kSuccess) continue;
            auto recording = products.record([&](const Products::Copy& c) {
                if (run(i, c) != kSuccess) throw std::runtime_error("cublasLtMatmul refuses what it took before");
            });
            ++tried;
            double us = std::min(machine.microseconds(*recording), machine.microseconds(*recording));
            if (us >= fastest) continue;
            fastest = us;
            best = std::move(recording);
        }
    }
    int run(size_t i, const Products::Copy& c) const { return search.run(i, c.x.data(), c.w.data(), c.rival.data()); }

    Cublas::Search search;
    std::unique_ptr<Recording> best;  // null: none serves the problem
    int tried = 0;
};

void measure(Machine& machine, const Row& row) {
    struct Side {
        const char* name;
        Recording& recording;
        std::vector<double> us;  // of one product
    };
    Products products(machine, row);
    std::vector<Side> sides;
    double difference = 0;

    auto linear = [&](const Products::Copy& c) { products.linear(c); };
    linear(*products.copies[0]);  // what is made at the first call is made outside of a recording
    auto ours = products.record(linear);
    ours->launch(*machine.stream);
    sides.push_back({"warpsight", *ours, {}});

    std::unique_ptr<Recording> cublas;
    std::unique_ptr<Candidates> candidates;
    if (machine.cublas) {
        const Problem problem{row.M, row.N, row.K, machine.options.dtype == DType::float16 ? CUDA_R_16F : CUDA_R_16BF};
        auto gemm = [&](const Products::Copy& c) { machine.cublas->gemm(problem, c.x.data(), c.w.data(), c.rival.data()); };
        gemm(*products.copies[0]);
        cublas = products.record(gemm);
        cublas->launch(*machine.stream);
        difference = products.compare();
        sides.push_back({"cublas", *cublas, {}});

        candidates = std::make_unique<Candidates>(machine, products, problem);
        if (candidates->best) {
            products.forget_rival();
            candidates->best->launch(*machine.stream);
            difference = std::max(difference, products.compare());
            sides.push_back({"cublasLt", *candidates->best, {}});
        }
    }

    for (int round = 0; round < machine.options.rounds; ++round)
        for (size_t i = 0; i < sides.size(); ++i) {
            Side& side = sides[(size_t(round) + i) % sides.size()];
            side.us.push_back(machine.microseconds(side.recording) / products.products);
        }

    std::printf(
        "{\"kind\": \"row\", \"index\": %zu, \"model\": \"%s\", \"part\": \"%s\", \"size\": \"%s\", "
        "\"M\": %lld, \"N\": %lld, \"K\": %lld, \"kernel\": \"%s\", \"copies\": %zu, \"products\": %d, "
        "\"candidates\": %d, \"difference\": %.3g, \"us\": {",
        row.index, row.model.c_str(), row.part.c_str(), row.size.c_str(), (long long)row.M, (long long)row.N, (long long)row.K,
        products.copies[0]->step->kernel.c_str(), products.copies.size(), products.products, candidates ? candidates->tried : 0,
        difference);
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
        if (name == "--check" || name == "--device-only" || name == "--tiles") {
            (name == "--check" ? options.check : name == "--tiles" ? options.tiles : options.device_only) = true;
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
        Machine machine(options);
        describe(machine);
        if (options.device_only) return 0;
        size_t next = 0, failed = 0;
        while (next < rows.size() && failed < kMostFailures && (next == 0 || seconds_since(begun) < options.seconds)) {
            try {
                (options.tiles ? measure_tiles : measure)(machine, rows[next++]);
            } catch (const std::exception& error) {
                std::fprintf(stderr, "bench_gemm: %s\n", error.what());
                ++failed;
            }
        }
        std::printf("{\"kind\": \"end\", \"seconds\": %.1f, \"failed\": %zu, \"notMeasured\": %zu}\n", seconds_since(begun),
                    failed, rows.size() - next);
        return failed > 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_gemm: %s\n", error.what());
        return 1;
    }
}
