// Products in bfloat16 on the CPU, at the level that WARPSIGHT_ISA names, against float64 arithmetic on the rounded operands; at
// a level without them, that they are refused. bfloat16_test <only names that contain this>. Prints a line per case and "N
// passed, N failed" last.
#include <cstdio>
#include <functional>

#include "../src/cpu/backend.h"
#include "../src/cpu/isa.h"
#include "cases.h"
#include "check.h"

namespace warpsight::test {

using As = Value::As;

static Runner* runner;
static std::string only;

static void check_chosen(const std::string& name, const std::function<void()>& act) {
    if (name.find(only) != std::string::npos) check(name, act);
}

static Value matrix(int64_t N, int64_t K, std::vector<float> values, DType dtype = DType::float32) {
    Value w = weight(As::matrix, {N, K}, std::move(values), dtype);
    w.compute = DType::bfloat16;
    return w;
}

static Value rounded(Value value) {
    for (float& f : value.floats) f = round_to(f, DType::bfloat16);
    return value;
}

/// A linear whose expectation is made of the rounded operands, but whose input is not rounded yet.
static Case product(Activation act, Value x, const Value& w, Value bias = absent(), Value residual = absent()) {
    Value w_seen = w;
    for (float& f : w_seen.floats) f = round_to(round_to(f, w.dtype), DType::bfloat16);
    w_seen.dtype = DType::float32;
    Case c = linear_case(DType::float32, act, rounded(x), w_seen, std::move(bias), std::move(residual));
    c.inputs[0] = std::move(x);
    c.inputs[1] = w;
    return c;
}

/// Runs the case at 1, 2, 3 and 7 threads, which must give the same bits, and compares.
static void agrees(Case c) {
    set_cpu_threads(1);
    const std::vector<uint8_t> first = runner->run(c.op, c.inputs, c.outputs);
    if (runner->kernel.find("bfloat16") == std::string::npos) throw std::runtime_error("the kernel is " + runner->kernel);
    const double error = max_rel(c.outputs[0].floats, c.expected[0]);
    if (!(error <= c.tolerance)) throw std::runtime_error("error " + std::to_string(error));
    std::vector<Value> again = c.outputs;
    for (int threads : {2, 3, 7}) {
        set_cpu_threads(threads);
        if (runner->run(c.op, c.inputs, again) != first)
            throw std::runtime_error("other bits with " + std::to_string(threads) + " threads");
    }
}

static std::string shape_name(int64_t M, int64_t N, int64_t K) {
    return std::to_string(M) + "x" + std::to_string(K) + "x" + std::to_string(N);
}

static void shape_cases() {
    Random random(31);
    auto compare = [&](int64_t M, int64_t N, int64_t K, DType dtype = DType::float32) {
        check_chosen("shape/" + shape_name(M, N, K) + "-" + name_of(dtype), [&] {
            const Value w = matrix(N, K, random.normals(N * K, 1.f / std::sqrt(float(std::max<int64_t>(1, K)))), dtype);
            agrees(product(Activation::none, activation({M, K}, random.normals(M * K)), w));
        });
    };
    for (int64_t M = 0; M <= 40; ++M) compare(M, 40, 70);
    for (int64_t M : {63, 64, 65, 97, 300}) compare(M, 33, 40);
    for (int64_t N : {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 1537}) compare(5, N, 50);
    for (int64_t K : {0, 1, 2, 3, 31, 32, 33, 47, 63, 64, 65, 588, 2047, 2048, 2049, 4200}) compare(18, 9, K);
    for (DType dtype : {DType::float16, DType::bfloat16})
        for (int64_t K : {31, 32, 64, 65}) compare(3, 34, K, dtype);
}

static void epilogue_cases() {
    Random random(32);
    const int64_t M = 21, N = 37, K = 45;
    for (Activation act : {Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu,
                           Activation::relu, Activation::tanh, Activation::sigmoid})
        check_chosen("epilogue/activation-" + std::to_string(int(act)), [&] {
            agrees(product(act, activation({M, K}, random.normals(M * K)), matrix(N, K, random.normals(N * K, 0.2f)),
                           weight(As::vector, {N}, random.normals(N)), activation({M, N}, random.normals(M * N))));
        });
    for (int64_t rows : {1, 21})
        check_chosen("epilogue/silu-gate-" + std::to_string(rows), [&] {
            agrees(product(Activation::silu_gate, activation({rows, K}, random.normals(rows * K)),
                           matrix(70, K, random.normals(70 * K, 0.2f)), weight(As::vector, {70}, random.normals(70))));
        });
    check_chosen("epilogue/patch-embed", [&] {
        const int patch = 7;
        const int64_t D = 33, columns = 3 * patch * patch;
        Value pixels = float32({2, 3, 15, 22}, random.normals(2 * 3 * 15 * 22)),
              w = matrix(D, columns, random.normals(D * columns, 0.1f));
        Case c = patch_embed_case(DType::float32, patch, rounded(pixels), rounded(w), weight(As::vector, {D}, random.normals(D)),
                                  weight(As::vector, {D}, random.normals(D)), weight(As::vector, {7 * D}, random.normals(7 * D)));
        c.inputs[0] = pixels;
        c.inputs[1] = w;
        agrees(c);
    });
}

static void value_cases() {
    Random random(33);
    check_chosen("value/rounding is to the nearest, halves to even", [] {
        // times the unit matrix the product is the rounded row
        std::vector<float> row;
        for (float x : {1.f, 1.0039062f, 1.00390625f, 1.0039064f, 1.01171875f, 1.99999f, 3.f, 0.33333334f, 1e30f, 1.5e-30f, 0.f})
            for (float sign : {1.f, -1.f}) row.push_back(sign * x);
        const int64_t K = int64_t(row.size());
        std::vector<float> unit(size_t(K * K));
        for (int64_t k = 0; k < K; ++k) unit[size_t(k * K + k)] = 1.f;
        for (bool transposed : {false, true}) {  // as x, and as the weight
            Value x = activation({K, K}, unit), w = matrix(K, K, unit);
            for (int64_t k = 0; k < K; ++k) (transposed ? w : x).floats[size_t(k * K + k)] = row[size_t(k)];
            std::vector<Value> y = {activation({K, K})};
            runner->run(Linear{}, {x, w}, y);
            for (int64_t k = 0; k < K; ++k) {
                const float got = y[0].floats[size_t(k * K + k)], want = round_to(row[size_t(k)], DType::bfloat16);
                if (got != want) throw std::runtime_error(std::to_string(row[size_t(k)]) + " became " + std::to_string(got));
            }
        }
    });
    check_chosen("value/NaN and infinities reach their rows and columns, and no others", [&] {
        const int64_t M = 35, N = 40, K = 50;
        Value x = activation({M, K}, random.normals(M * K)), w = matrix(N, K, random.normals(N * K));
        x.floats[size_t(3 * K + 7)] = NAN;
        x.floats[size_t(20 * K + 49)] = INFINITY;
        x.floats[size_t(34 * K)] = 3.4e38f;  // rounds to infinity
        w.floats[size_t(5 * K + 49)] = -INFINITY;
        w.floats[size_t(39 * K + 1)] = NAN;
        agrees(product(Activation::none, x, w));
    });
    check_chosen("value/numbers below the normal range are small or zero", [&] {
        const int64_t K = 40;
        std::vector<Value> y = {activation({1, 1})};
        runner->run(Linear{}, {activation({1, K}, std::vector<float>(K, 1e-39f)), matrix(1, K, std::vector<float>(K, 1.f))}, y);
        if (!(std::fabs(y[0].floats[0]) <= 41e-39f)) throw std::runtime_error(std::to_string(y[0].floats[0]));
    });
}

static void batch_cases() {
    Random random(34);
    for (int64_t K : {33, 768, 3072})
        check_chosen("batch/a row has the bits that it has alone, K = " + std::to_string(K), [&] {
            const int64_t M = 50, N = 70;
            const Value x = activation({M, K}, random.normals(M * K)), w = matrix(N, K, random.normals(N * K));
            std::vector<Value> whole = {activation({M, N})};
            set_cpu_threads(3);
            runner->run(Linear{}, {x, w}, whole);
            for (int64_t rows : {1, 2, 15, 17, 31, 33, 49}) {
                Value some = activation({rows, K}, {x.floats.end() - rows * K, x.floats.end()});
                std::vector<Value> y = {activation({rows, N})};
                runner->run(Linear{}, {some, w}, y);
                if (!std::equal(y[0].floats.begin(), y[0].floats.end(), whole[0].floats.end() - rows * N))
                    throw std::runtime_error("other bits among " + std::to_string(rows) + " rows than among 50");
            }
        });
    check_chosen("batch/rows of a matrix are gathered as they were rounded", [&] {
        for (int64_t D : {1, 31, 64, 101}) {
            const Value table = matrix(70, D, random.normals(70 * D));
            std::vector<int32_t> ids = {0, 69, 31, 32, 7, 8, 70, -1};
            std::vector<Value> y = {activation({int64_t(ids.size()), D})};
            runner->run(Embed{}, {int32({int64_t(ids.size())}, ids), table}, y);
            for (size_t i = 0; i < ids.size(); ++i)
                for (int64_t d = 0; d < D; ++d) {
                    const float got = y[0].floats[i * size_t(D) + size_t(d)];
                    const bool there = ids[i] >= 0 && ids[i] < 70;
                    const float want = there ? round_to(table.floats[size_t(ids[i] * D + d)], DType::bfloat16) : NAN;
                    if (there ? got != want : !std::isnan(got))
                        throw std::runtime_error("row " + std::to_string(ids[i]) + " differs");
                }
        }
    });
}

static void refusal_cases() {
    check_chosen("a level without products in bfloat16 says so", [] {
        std::vector<Value> y = {activation({1, 1})};
        try {
            runner->run(Linear{}, {activation({1, 4}), matrix(1, 4, std::vector<float>(4))}, y);
        } catch (const Error& error) {
            const std::string want = "products in bfloat16 need AVX-512 on the cpu: this one computes with " +
                                     std::string(cpu::level().name) + "; use float32";
            if (std::string(error.code()) == "ERR_DTYPE" && error.what() == want) return;
            throw;
        }
        throw std::runtime_error("the weight was made");
    });
}

}  // namespace warpsight::test

int main(int count, char** arguments) {
    using namespace warpsight::test;
    try {
        Runner all(warpsight::make_cpu_backend(), warpsight::DType::float32);
        runner = &all;
        only = count > 1 ? arguments[1] : "";
        std::printf("cpu: %s\n", all.backend().description.c_str());
        if (warpsight::cpu::level().bfloat16)
            for (auto cases : {shape_cases, epilogue_cases, value_cases, batch_cases}) cases();
        else refusal_cases();
        std::printf("%d passed, %d failed\n", passed, failed);
        return failed || !passed ? 1 : 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
