// Every tile of the tensor-core GEMMs against float64: gemm_test [sm80 | sm90] [only names that contain this]. Without a tier,
// the one that the device takes. Prints a line per case and "N passed, N failed" last; exit code 1 if any failed.
#include <cstdio>
#include <random>
#include <stdexcept>
#include <string>

#include "../cuda/gemm.h"
#include "numbers.h"
#include "reference.h"

namespace warpsight::test {

using cuda::GemmOperands;
using cuda::GemmTile;
using cuda::GemmTileCost;

/// Device memory with a guard band behind it, all bits set.
class Buffer {
public:
    explicit Buffer(size_t bytes) : bytes_(bytes) {
        if (cudaMalloc(&data_, bytes + kGuard) != cudaSuccess) throw std::runtime_error("cudaMalloc failed");
        cudaMemset(data_, 0xff, bytes + kGuard);
    }
    Buffer(const std::vector<float>& values, DType dtype) : Buffer(values.size() * size_of(dtype)) {
        std::vector<uint16_t> halves;
        for (float v : values) halves.push_back(dtype == DType::float16 ? to_float16(v) : to_bfloat16(v));
        copy_in(dtype == DType::float32 ? static_cast<const void*>(values.data()) : halves.data());
    }
    ~Buffer() { cudaFree(data_); }
    Buffer(const Buffer&) = delete;

    void copy_in(const void* from) { cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice); }
    void* data() const { return data_; }
    std::vector<float> floats(DType dtype) const {
        std::vector<uint16_t> halves(bytes_ / 2);
        cudaMemcpy(halves.data(), data_, bytes_, cudaMemcpyDeviceToHost);
        std::vector<float> out;
        for (uint16_t h : halves) out.push_back(dtype == DType::float16 ? from_float16(h) : from_bfloat16(h));
        return out;
    }
    bool guarded() const {
        std::vector<uint8_t> guard(kGuard);
        cudaMemcpy(guard.data(), static_cast<char*>(data_) + bytes_, kGuard, cudaMemcpyDeviceToHost);
        return std::all_of(guard.begin(), guard.end(), [](uint8_t b) { return b == 0xff; });
    }

private:
    static constexpr size_t kGuard = 512;
    size_t bytes_;
    void* data_ = nullptr;
};

struct Case {
    int64_t M, N, K;
    bool bias = true, residual = true, gated = false, constant = true;
    Activation activation = Activation::none;
    int64_t planned = 0;  // more rows than M, which the device is told then
    int64_t padding = 0;  // columns of W that are not part of it
    float largest = 0;    // one element of x, NaN for that
    std::string text() const {
        std::string t = std::to_string(M) + "x" + std::to_string(K) + "x" + std::to_string(N);
        if (planned) t += " of " + std::to_string(planned);
        if (gated) t += " gated";
        if (!bias) t += " without bias";
        if (!residual) t += " without residual";
        if (activation != Activation::none) t += " activation " + std::to_string(int(activation));
        if (padding) t += " padded";
        if (!constant) t += " W from a kernel";
        if (largest != 0) t += " with " + std::to_string(largest);
        return t;
    }
};

class Suite {
public:
    Suite(bool sm90, DType dtype, std::string only) : sm90_(sm90), dtype_(dtype), only_(std::move(only)), device_(0) {
        device_.multiprocessors = 8;  // few, so that few tiles go round more than once
    }

    void run(const GemmTile& tile, const Case& c) {
        std::string name = std::string(sm90_ ? "sm90 " : "sm80 ") + std::to_string(tile.BM) + "x" + std::to_string(tile.BN) +
                           (tile.swapped ? " swapped" : "") + " tile " + std::to_string(tile.index) + " split " +
                           std::to_string(tile.splits) + " " + name_of(dtype_) + " " + c.text();
        if (name.find(only_) == std::string::npos) return;
        try {
            compute(tile, c);
            ++passed;
            std::printf("ok    %s\n", name.c_str());
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAIL  %s: %s\n", name.c_str(), error.what());
        }
    }

    /// Two products, the second of what the first writes: on the stream one behind the other, and with a wait between them.
    void chain(const GemmTile& tile) {
        const int64_t M = 35, K = 136;
        std::string name = std::string(sm90_ ? "sm90" : "sm80") + " tile " + std::to_string(tile.index) + " split " +
                           std::to_string(tile.splits) + " " + name_of(dtype_) + " two in a row";
        if (name.find(only_) == std::string::npos) return;
        try {
            Buffer x(normals(M * K, 1.f), dtype_), w(normals(K * K, 0.1f), dtype_), h(size_t(M * K) * 2), y(size_t(M * K) * 2);
            GemmOperands g{
                .x = x.data(), .x_pitch = K, .w = {w.data(), dtype_, K, K, K}, .constant = true, .rows = {.planned = M}};
            Buffer workspace(sm90_ ? 0 : cuda::gemm_sm80_workspace(tile, g));
            std::vector<float> results[2];
            for (bool wait : {true, false}) {
                cudaMemset(h.data(), 0xff, size_t(M * K) * 2);
                for (const auto& [from, to] : {std::pair{&x, &h}, std::pair{&h, &y}}) {
                    g.x = from->data();
                    start(tile, {}, g, nullptr, {}, {to->data(), dtype_, {M, K}}, workspace.data());
                    if (wait) device_.check(cudaDeviceSynchronize(), "gemm");
                }
                device_.check(cudaDeviceSynchronize(), "gemm");
                results[wait] = y.floats(dtype_);
            }
            if (std::memcmp(results[0].data(), results[1].data(), size_t(M * K) * 4) != 0)
                throw std::runtime_error("other numbers without a wait");
            ++passed;
            std::printf("ok    %s\n", name.c_str());
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAIL  %s: %s\n", name.c_str(), error.what());
        }
    }

    int passed = 0, failed = 0;

private:
    void start(const GemmTile& tile, const Linear& op, const GemmOperands& g, const float* bias, const TensorView& residual,
               const TensorView& y, void* workspace) {
        const cuda::Launch launch{device_, nullptr};
        if (sm90_) cuda::gemm_sm90(launch, op, tile, g, bias, residual, y);
        else cuda::gemm_sm80(launch, op, tile, g, bias, residual, y, workspace);
    }

    std::vector<float> normals(int64_t count, float scale) {
        std::normal_distribution<float> normal(0.f, scale);
        std::vector<float> values;
        for (int64_t i = 0; i < count; ++i) {
            float v = normal(random_);
            values.push_back(dtype_ == DType::float16 ? from_float16(to_float16(v)) : from_bfloat16(to_bfloat16(v)));
        }
        return values;
    }

    void compute(const GemmTile& tile, const Case& c) {
        const int64_t rows = c.planned ? c.planned : c.M, columns = c.gated ? c.N / 2 : c.N, pitch = c.K + c.padding;
        std::vector<float> x = normals(rows * c.K, 1.f), w = normals(c.N * c.K, 1.f / std::sqrt(float(c.K)));
        std::vector<float> bias = c.bias ? normals(columns, 1.f) : std::vector<float>{};
        std::vector<float> residual = c.residual ? normals(rows * columns, 1.f) : std::vector<float>{};
        if (c.largest != 0) x[size_t(c.K / 2)] = c.largest;
        for (int64_t i = c.M * c.K; i < rows * c.K; ++i) x[size_t(i)] = NAN;  // rows past the end
        std::vector<float> padded(size_t(c.N * pitch), NAN);
        for (int64_t n = 0; n < c.N; ++n) std::copy_n(&w[size_t(n * c.K)], c.K, &padded[size_t(n * pitch)]);

        Doubles all = linear64(widen(x), widen(w), {}, {}, c.M, c.N, c.K, Activation::none);
        Doubles expected(size_t(c.M * columns));
        for (int64_t m = 0; m < c.M; ++m)
            for (int64_t n = 0; n < columns; ++n) {
                double sum = all[size_t(m * c.N + n)];
                if (c.gated) sum = activate64(Activation::silu, sum) * all[size_t(m * c.N + columns + n)];
                else sum = activate64(c.activation, sum + (c.bias ? bias[size_t(n)] : 0));
                expected[size_t(m * columns + n)] = sum + (c.residual ? residual[size_t(m * columns + n)] : 0);
            }

        Buffer bx(x, dtype_), bw(padded, dtype_), bb(bias, DType::float32), br(residual, dtype_), by(size_t(rows * columns) * 2);
        int32_t symbol = int32_t(c.M);
        Buffer symbols(sizeof symbol);
        symbols.copy_in(&symbol);
        GemmOperands g{.x = bx.data(),
                       .x_pitch = c.K,
                       .w = {bw.data(), dtype_, c.N, c.K, pitch},
                       .constant = c.constant,
                       .gated = c.gated,
                       .rows = {.planned = rows}};
        if (c.planned) g.rows = {static_cast<const int32_t*>(symbols.data()), 0, 1, rows};
        TensorView y{by.data(), dtype_, {rows, columns}}, r;
        if (c.residual) r = {br.data(), dtype_, {rows, columns}};
        const float* b = c.bias ? static_cast<const float*>(bb.data()) : nullptr;
        Buffer workspace(sm90_ ? 0 : cuda::gemm_sm80_workspace(tile, g));
        std::vector<float> first;
        for (int again = 0; again < 2; ++again) {
            start(tile, {c.activation}, g, b, r, y, workspace.data());
            device_.check(cudaDeviceSynchronize(), "gemm");
            std::vector<float> got = by.floats(dtype_);
            if (again && std::memcmp(got.data(), first.data(), size_t(c.M * columns) * 4) != 0)
                throw std::runtime_error("other bits in a second run");
            first = got;
        }
        if (!by.guarded() || !workspace.guarded()) throw std::runtime_error("written past the end");
        compare(first, expected, columns);
    }

    void compare(const std::vector<float>& got, const Doubles& expected, int64_t columns) const {
        const double rounding = dtype_ == DType::float16 ? 1.0 / 2048 : 1.0 / 256,
                     largest = dtype_ == DType::float16 ? 65504 : 3e38;
        for (size_t i = 0; i < expected.size(); ++i) {
            double want = expected[i], error = std::fabs(double(got[i]) - want);
            if (std::isnan(want) ? std::isnan(got[i]) : error <= rounding * std::fabs(want) + 1e-4) continue;
            if (std::fabs(want) >= largest && std::isinf(got[i])) continue;
            char text[160];
            std::snprintf(text, sizeof text, "y[%lld, %lld] is %.9g, expected %.9g", static_cast<long long>(int64_t(i) / columns),
                          static_cast<long long>(int64_t(i) % columns), got[i], want);
            throw std::runtime_error(text);
        }
    }

    const bool sm90_;
    const DType dtype_;
    const std::string only_;
    cuda::Device device_;
    std::mt19937 random_{7};
};

static void cases(Suite& suite, const GemmTileCost& t, int index, bool persistent) {
    const int64_t rows = t.swapped ? t.BN : t.BM, columns = t.swapped ? t.BM : t.BN;  // of x and of W in a tile
    auto tile = [&](int splits) { return GemmTile{index, t.BM, t.BN, splits, t.swapped}; };
    suite.chain(tile(1));
    if (!persistent) suite.chain(tile(3));
    suite.run(tile(1), {.M = 1, .N = 8, .K = 8});
    suite.run(tile(1), {.M = rows, .N = columns, .K = 64, .bias = false, .residual = false});
    suite.run(tile(1), {.M = rows + 1, .N = columns + 8, .K = 72, .padding = 8});
    suite.run(tile(1), {.M = 2 * rows + 5, .N = 2 * columns - 16, .K = 776, .constant = false});
    suite.run(tile(1), {.M = rows - 1, .N = columns, .K = 136, .bias = false, .planned = 2 * rows + 3});
    suite.run(tile(1), {.M = rows + 3, .N = columns + 16, .K = 200, .bias = false, .residual = false, .gated = true});
    suite.run(tile(1), {.M = 5, .N = 24, .K = 96, .residual = false, .activation = Activation::quick_gelu, .largest = NAN});
    suite.run(tile(1), {.M = 5, .N = 24, .K = 96, .residual = false, .activation = Activation::gelu, .largest = 61440});
    suite.run(tile(1), {.M = 9, .N = 40, .K = 40, .activation = Activation::gelu_tanh});
    if (!persistent) {
        suite.run(tile(1), {.M = rows + 1, .N = columns + 3, .K = 72});
        for (Activation a : {Activation::silu, Activation::relu, Activation::tanh, Activation::sigmoid})
            suite.run(tile(1), {.M = 9, .N = 37, .K = 40, .activation = a});
    } else {
        suite.run(tile(1), {.M = 5 * rows, .N = 3 * columns, .K = 64});  // several tiles for each block
    }
    for (int splits : {2, 3, t.most_splits}) {
        if (persistent) break;
        suite.run(tile(splits), {.M = rows + 1, .N = columns + 8, .K = 64 * splits, .activation = Activation::gelu});
        suite.run(tile(splits), {.M = 3, .N = 21, .K = 64 * splits - 8});
        suite.run(tile(splits), {.M = rows - 1,
                                 .N = columns + 32,
                                 .K = 64 * splits,
                                 .bias = false,
                                 .residual = false,
                                 .gated = true,
                                 .planned = rows + 1});
    }
}

static int run(const std::string& tier, const std::string& only) {
    cuda::Device device(0);
    const bool sm90 = tier.empty() ? device.hopper : tier == "sm90";
    int passed = 0, failed = 0;
    for (DType dtype : {DType::float16, DType::bfloat16}) {
        Suite suite(sm90, dtype, only);
        int index = 0;
        for (const GemmTileCost& t : sm90 ? cuda::gemm_sm90_tiles() : cuda::gemm_sm80_tiles()) {
            cases(suite, t, index, t.most_splits == 1);
            ++index;
        }
        passed += suite.passed;
        failed += suite.failed;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}

}  // namespace warpsight::test

int main(int count, char** arguments) {
    try {
        return warpsight::test::run(count > 1 ? arguments[1] : "", count > 2 ? arguments[2] : "");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
