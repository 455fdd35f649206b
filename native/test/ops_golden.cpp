// Runs every operation on one backend and compares it with the fixtures and with float64: ops_golden <cpu | cuda:0> [only names
// that contain this]. Environment: WARPSIGHT_FIXTURES (default ../shared/fixtures). Prints a line per case and "N passed, N
// failed" last; exit code 1 if any failed.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "../src/counters.h"
#include "../src/cpu/backend.h"
#include "../src/cpu/isa.h"
#include "cases.h"
#include "fixtures.h"
#if defined(WARPSIGHT_CUDA)
#include "../cuda/backend.h"
#endif

namespace warpsight::test {

using As = Value::As;

class Suite {
public:
    Suite(std::shared_ptr<Backend> backend, DType storage, std::string only)
        : runner(backend, storage), storage(storage), cpu(backend->name == "cpu"), only_(std::move(only)) {}

    /// Runs the case, compares, runs it again (on the CPU at 2, 3 and 7 threads): the same bits must come out.
    void check(const std::string& name, Case c) {
        std::string full = name + (storage == DType::float32 ? "" : std::string(" ") + name_of(storage));
        if (full.find(only_) == std::string::npos) return;
        try {
            std::vector<uint8_t> first = runner.run(c.op, c.inputs, c.outputs);
            if (!cpu && !c.kernel.empty() && runner.kernel.rfind(c.kernel + "<", 0) != 0)
                throw std::runtime_error("the kernel is not " + c.kernel);
            double worst = compare(c);
            std::vector<Value> again = c.outputs;
            for (int threads : cpu ? std::vector<int>{2, 3, 7} : std::vector<int>{1}) {
                if (cpu) set_cpu_threads(threads);
                if (runner.run(c.op, c.inputs, again) != first)
                    throw std::runtime_error("other bits in a second run with " + std::to_string(threads) + " threads");
            }
            if (cpu) set_cpu_threads(1);
            report(full, true, std::to_string(worst).c_str(), worst);
        } catch (const std::exception& error) {
            report(full, false, error.what(), 0);
        }
    }

    /// A check of another kind: `act` throws if it fails.
    void check(const std::string& name, const std::function<void()>& act) {
        std::string full = name + (storage == DType::float32 ? "" : std::string(" ") + name_of(storage));
        if (full.find(only_) == std::string::npos) return;
        try {
            act();
            report(full, true, "", 0);
        } catch (const std::exception& error) {
            report(full, false, error.what(), 0);
        }
    }

    Runner runner;
    const DType storage;
    const bool cpu;
    int passed = 0, failed = 0;

private:
    double tolerance_of(const Case& c) const {
        double least = storage == DType::float16 ? 2e-3 : storage == DType::bfloat16 ? 2e-2 : 0;
        return std::max(c.tolerance, c.tolerance == 0 ? 0 : least);
    }

    double compare(const Case& c) {
        double worst = 0;
        for (size_t o = 0; o < c.outputs.size(); ++o) {
            const Value& got = c.outputs[o];
            if (got.as == As::absent) continue;
            if (got.dtype == DType::int32 || got.dtype == DType::uint8) {
                const std::vector<int32_t>& want = c.integers.at(o);
                for (size_t i = 0; i < want.size(); ++i) {
                    int32_t value = got.dtype == DType::int32 ? got.ints[i] : got.bytes[i];
                    if (value != want[i]) throw std::runtime_error(different(o, i, value, want[i]));
                }
                continue;
            }
            const Doubles& want = c.expected.at(o);
            if (want.size() != got.floats.size()) throw std::runtime_error("expected values of another length");
            double error = c.per_element ? 0 : max_rel(got.floats, want);
            for (size_t i = 0; c.per_element && i < want.size(); ++i) {
                double e = std::fabs(double(got.floats[i]) - want[i]) / std::max(1.0, std::fabs(want[i]));
                if (!(std::isnan(want[i]) && std::isnan(got.floats[i])) && double(got.floats[i]) != want[i])
                    error = std::isnan(e) ? INFINITY : std::max(error, e);
            }
            if (!(error <= tolerance_of(c))) {
                size_t bad = 0;
                double largest = -1;
                for (size_t i = 0; i < want.size(); ++i) {
                    double e = std::fabs(double(got.floats[i]) - want[i]);
                    if (std::isnan(e) && !(std::isnan(want[i]) && std::isnan(got.floats[i]))) e = INFINITY;
                    if (e > largest) largest = e, bad = i;
                }
                char text[200];
                std::snprintf(text, sizeof text, "error %.2e, allowed %.2e; worst: ", error, tolerance_of(c));
                throw std::runtime_error(text + different(o, bad, got.floats[bad], want[bad]));
            }
            worst = std::max(worst, error);
        }
        return worst;
    }

    static std::string different(size_t output, size_t index, double got, double want) {
        char text[200];
        std::snprintf(text, sizeof text, "output %zu [%zu] is %.9g, expected %.9g", output, index, got, want);
        return text;
    }

    void report(const std::string& name, bool ok, const char* text, double worst) {
        ok ? ++passed : ++failed;
        if (ok) std::printf("ok    %-58s %-26s %.1e\n", name.c_str(), runner.kernel.c_str(), worst);
        else std::printf("FAIL  %-58s %-26s %s\n", name.c_str(), runner.kernel.c_str(), text);
    }

    std::string only_;
};

static Activation activation_named(const std::string& name) {
    if (name == "gelu") return Activation::gelu;
    if (name == "gelu_tanh") return Activation::gelu_tanh;
    if (name == "quick_gelu") return Activation::quick_gelu;
    if (name == "silu") return Activation::silu;
    if (name == "relu") return Activation::relu;
    if (name == "none") return Activation::none;
    throw std::runtime_error("an activation that ops.h does not have: " + name);
}

/// The case of one fixture; `data` holds its tensors, named <case>.<tensor>.
static Case fixture_case(const std::string& op, const std::string& name, const Json& meta, const SafeTensors& data,
                         DType storage) {
    auto tensor = [&](const char* part) {
        return data.has(name + "." + part) ? data.as_activation(name + "." + part) : absent();
    };
    auto plain = [&](const char* part) { return data.has(name + "." + part) ? data.get(name + "." + part) : absent(); };
    auto weights = [&](const char* part, As as) { return data.as_weight(name + "." + part, as); };
    auto rows_of = [](Value value) {  // [T, H, d] as rows of H·d
        value.shape = {value.shape[0], value.shape.elements() / std::max<int64_t>(1, value.shape[0])};
        return value;
    };
    if (op == "linear") {
        return linear_case(storage, activation_named(meta.at("act").string), tensor("x"), weights("weight", As::matrix),
                           weights("bias", As::vector), tensor("residual"));
    }
    if (op == "activation") {
        if (name == "silu_gate") return silu_gate_case(storage, tensor("gate"), tensor("up"));
        return activate_case(storage, activation_named(name), tensor("x"));
    }
    if (op == "l2norm") return unit_case(storage, tensor("x"));
    if (op == "softmax") return softmax_case(storage, tensor("x"));
    if (op == "argmax") return argmax_case(storage, tensor("x"));
    if (op == "topK") return top_k_case(storage, int(meta.at("k").number), tensor("x"));
    if (op == "layerNorm" || op == "rmsNorm") {
        Value bias = op == "layerNorm" ? weights("bias", As::vector) : absent();
        return norm_case(storage, op == "rmsNorm", float(meta.at("eps").number), tensor("x"), weights("weight", As::vector), bias,
                         tensor("residual"), data.has(name + ".sum"));
    }
    if (op == "rope") return rope_case(storage, tensor("x"), plain("positions"), weights("frequencies", As::vector));
    if (op == "attention") {
        Value q = tensor("q"), k = tensor("k");
        Attention a{.heads = int(q.shape[1]), .kv_heads = int(k.shape[1]), .head_dim = int(q.shape[2])};
        a.max_queries = int(q.shape[0]);
        a.max_keys = int(k.shape[0]);
        a.causal = meta.true_at("causal");
        a.scale = 1.f / std::sqrt(float(a.head_dim));
        return attention_case(storage, a, rows_of(q), rows_of(k), rows_of(tensor("v")), absent(), plain("mask"));
    }
    if (op == "patchEmbed") {
        return patch_embed_case(storage, int(meta.at("patch").number), plain("pixels"), weights("weight", As::matrix),
                                weights("bias", As::vector), absent(), absent());
    }
    if (op == "sample") {
        SampleDistribution s{.temperature = float(meta.at("temperature").number), .top_p = float(meta.at("topP").number)};
        s.repetition_penalty = float(meta.at("repetitionPenalty").number);
        s.top_k = int(meta.at("topK").number);
        return sample_case(storage, s, tensor("logits"), plain("seen"));
    }
    if (op == "scaledLogits") {
        float multiplier = std::exp(data.scalar(name + ".scale", 0));
        return logits_case(storage, multiplier, data.scalar(name + ".bias", 0), false, tensor("x"), tensor("y"));
    }
    throw std::runtime_error("an operation without a case: " + op);
}

static void fixture_cases(Suite& suite, const std::string& folder) {
    Json meta = JsonReader(read_file(folder + "/ops/meta.json")).read();
    for (auto& [op, about] : meta.at("ops").members) {
        SafeTensors data(folder + "/ops/" + op + ".safetensors");
        for (auto& [name, entry] : about.at("cases").members) {
            if (entry.true_at("wide") && suite.storage == DType::float16) continue;  // its values leave float16
            Case c = fixture_case(op, name, entry, data, suite.storage);
            c.tolerance = entry.number_or("tolerance", about.at("tolerance").number);
            if (op == "argmax" || op == "topK") c.tolerance = 0;
            if (suite.storage == DType::float32) {
                const char* outputs[2] = {op == "topK" ? "values" : "out", op == "topK" ? "indices" : "sum"};
                for (size_t o = 0; o < c.outputs.size(); ++o) {
                    if (c.outputs[o].as == As::absent) continue;
                    Value want = data.get(name + "." + outputs[o]);
                    if (want.dtype == DType::int32) c.integers[o] = want.ints;
                    else c.expected[o] = widen(want.floats);
                }
            }
            suite.check(op + "/" + name, std::move(c));
            if (op != "scaledLogits") continue;
            Value x = data.as_activation(name + ".x"), y = data.as_activation(name + ".y");
            ZeroShotHead head{.multiplier = std::exp(data.scalar(name + ".scale", 0)), .bias = data.scalar(name + ".bias", 0)};
            head.sigmoid = entry.true_at("sigmoid");
            head.k = int(std::min<int64_t>(5, y.shape[0]));
            Case h = head_case(suite.storage, head, x, y);
            if (suite.storage == DType::float32) {
                std::vector<float> probabilities = data.get(name + ".probs").floats;
                std::vector<int32_t> best = data.get(name + ".best").ints;
                for (size_t i = 0; i < best.size(); ++i) h.integers[1][i * size_t(head.k)] = best[i];
                for (size_t i = 0; i < h.expected[0].size(); ++i)
                    h.expected[0][i] = probabilities[i / size_t(head.k) * size_t(y.shape[0]) + size_t(h.integers[1][i])];
            }
            suite.check("zeroShotHead/" + name, std::move(h));
        }
    }
}

static std::string shape_name(std::initializer_list<int64_t> sizes) {
    std::string out;
    for (int64_t size : sizes) out += (out.empty() ? "" : "x") + std::to_string(size);
    return out;
}

static void linear_cases(Suite& s) {
    Random random(11);
    auto weights = [&](int64_t N, int64_t K, DType dtype) {
        return weight(As::matrix, {N, K}, random.normals(N * K, 1.f / std::sqrt(float(K))), dtype);
    };
    // empty, one, odd, one around the tiles of every instruction set, several blocks of K
    const int64_t shapes[][3] = {{0, 8, 8},     {1, 1, 1},      {1, 15, 17},     {3, 31, 33},   {4, 32, 16},
                                 {5, 33, 15},   {6, 64, 64},    {7, 65, 1},      {8, 63, 100},  {13, 96, 48},
                                 {14, 32, 65},  {15, 16, 128},  {29, 97, 31},    {57, 40, 130}, {300, 70, 24},
                                 {2, 24, 3000}, {31, 33, 4200}, {50, 128, 1537}, {4, 0, 8}};
    for (auto& [M, N, K] : shapes)
        for (DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
            bool both = (M + N) % 2 == 0;
            Value bias = both ? weight(As::vector, {N}, random.normals(N)) : absent();
            Value residual = both ? activation({M, N}, random.normals(M * N)) : absent();
            s.check("linear/random-" + shape_name({M, K, N}) + "-" + name_of(dtype),
                    linear_case(s.storage, Activation::none, activation({M, K}, random.normals(M * K)), weights(N, K, dtype),
                                bias, residual));
        }
    for (Activation act : {Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu, Activation::relu,
                           Activation::tanh, Activation::sigmoid})
        s.check("linear/random-activation-" + std::to_string(int(act)),
                linear_case(s.storage, act, activation({9, 40}, random.normals(360)), weights(37, 40, DType::float32),
                            weight(As::vector, {37}, random.normals(37)), activation({9, 37}, random.normals(333))));
    for (auto& [M, N, K] : {std::array<int64_t, 3>{1, 1, 1}, {5, 7, 33}, {50, 65, 100}, {9, 3, 0}})
        s.check("linear/random-tensor-weight-" + shape_name({M, K, N}),
                linear_case(s.storage, Activation::gelu, activation({M, K}, random.normals(M * K)),
                            activation({N, K}, random.normals(N * K)), weight(As::vector, {N}, random.normals(N)), absent()));
    std::vector<float> with_nan = random.normals(4 * 20);
    with_nan[25] = NAN;
    s.check("linear/random-nan", linear_case(s.storage, Activation::relu, activation({4, 20}, with_nan),
                                             weights(18, 20, DType::float32), absent(), absent()));
}

/// Few rows, as in decoding, and gate and up in one weight.
static void decode_linear_cases(Suite& s) {
    Random random(22);
    const bool wide = s.storage == DType::float32;
    for (int64_t M : {1, 2, 3, 4, 5, 8, 9, 10})
        for (auto& [N, K] : {std::array<int64_t, 2>{6, 8}, {70, 264}, {130, 1031}}) {
            Value w = weight(As::matrix, {N, K}, random.normals(N * K, 1.f / std::sqrt(float(K))), s.storage);
            Value bias = M % 2 ? absent() : weight(As::vector, {N}, random.normals(N));
            std::string name = shape_name({M, K, N}), few = M == 1 ? "gemv" : wide || M > 8 ? "" : "gemv_rows";
            auto x = [&] { return activation({M, K}, random.normals(M * K)); };
            Case plain = linear_case(s.storage, Activation::tanh, x(), w, bias, activation({M, N}, random.normals(M * N)));
            plain.kernel = few;
            s.check("linear/decode-" + name, plain);
            Case gated = linear_case(s.storage, Activation::silu_gate, x(), w, bias, absent());
            gated.kernel = few.empty() ? "" : few + "_silu_gate";
            s.check("linear/decode-silu-gate-" + name, gated);
        }
    s.check("linear/decode-same-bits", [&] {
        if (s.storage == DType::float32) return;
        const int64_t N = 70, K = 1000, M = 8;
        Value w = weight(As::matrix, {N, K}, random.normals(N * K, 0.05f), s.storage),
              x = activation({M, K}, random.normals(M * K));
        for (Activation act : {Activation::gelu, Activation::silu_gate}) {
            const int64_t columns = act == Activation::silu_gate ? N / 2 : N;
            std::vector<Value> whole = {activation({M, columns})};
            s.runner.run(Linear{act}, {x, w}, whole);
            for (int64_t rows = 1; rows < M; ++rows) {
                Value some = activation({rows, K}, {x.floats.end() - rows * K, x.floats.end()});
                std::vector<Value> y = {activation({rows, columns})};
                s.runner.run(Linear{act}, {some, w}, y);
                if (!std::equal(y[0].floats.begin(), y[0].floats.end(), whole[0].floats.end() - rows * columns))
                    throw std::runtime_error("a row has other bits among " + std::to_string(rows) + " than among 8");
            }
        }
    });
    s.check("linear/silu-gate-refused", [&] {
        auto refused = [&](std::vector<Value> inputs) {
            std::vector<Value> y = {activation({2, 3})};
            try {
                s.runner.run(Linear{Activation::silu_gate}, inputs, y);
            } catch (const Error&) {
                return;
            }
            throw std::runtime_error("a gate without its half, with a residual or without a weight was taken");
        };
        refused({activation({2, 4}), weight(As::matrix, {7, 4}, random.normals(28))});
        refused({activation({2, 4}), weight(As::matrix, {6, 4}, random.normals(24)), absent(), activation({2, 3})});
        refused({activation({2, 4}), activation({6, 4})});
    });
}

/// What an int8 weight [N, K] stands for: kernels_int8.h's rule, number by number.
static Doubles int8_weight(const std::vector<float>& w, int64_t N, int64_t K) {
    const float most_of_pair = cpu::int8_kernels().most_of_pair;
    Doubles out;
    for (int64_t n = 0; n < N; ++n) {
        const float* row = w.data() + n * K;
        float largest = 0;
        for (int64_t k = 0; k < K; ++k)
            largest = !std::isfinite(row[k]) ? NAN : std::fabs(row[k]) <= largest ? largest : std::fabs(row[k]);
        float scale = largest / 127, halves = 0;
        for (int64_t k = 0; k < K; k += 2)
            halves = std::max(halves, std::fabs(row[k]) / 2 + (k + 1 < K ? std::fabs(row[k + 1]) / 2 : 0));
        if (most_of_pair > 0) scale = std::max(scale, halves / (most_of_pair / 2));
        const float inverse = scale >= 0x1p-126f ? 1.f / scale : 0.f;
        const bool finite = std::all_of(row, row + K, [](float f) { return std::isfinite(f); });
        for (int64_t k = 0; k < K; ++k) out.push_back(finite ? double(scale) * std::nearbyint(row[k] * inverse) : double(NAN));
    }
    return out;
}

/// What the rows of x [M, K] are multiplied as.
static Doubles int8_rows(const std::vector<float>& x, int64_t M, int64_t K) {
    const float most = float(cpu::int8_kernels().most);
    Doubles out;
    for (int64_t m = 0; m < M; ++m) {
        const float* row = x.data() + m * K;
        const bool finite = std::all_of(row, row + K, [](float f) { return std::isfinite(f); });
        float low = 0, high = 0;
        for (int64_t k = 0; k < K; ++k) low = std::min(low, row[k]), high = std::max(high, row[k]);
        const float scale = high / most - low / most, inverse = finite && scale >= 0x1p-126f ? 1.f / scale : 0.f;
        const float zero = inverse > 0 ? std::floor(-low * inverse + 0.5f) : 0.f;
        for (int64_t k = 0; k < K; ++k) {
            const float q = std::clamp(std::nearbyint(row[k] * inverse + zero), 0.f, most);
            out.push_back(finite ? double(inverse > 0 ? scale : 0.f) * double(q - zero) : double(NAN));
        }
    }
    return out;
}

static Case int8_case(Activation act, int64_t M, int64_t N, int64_t K, std::vector<float> x, std::vector<float> w, Value bias,
                      Value residual) {
    const Doubles b(bias.floats.begin(), bias.floats.end()), r(residual.floats.begin(), residual.floats.end());
    const bool gated = act == Activation::silu_gate;
    Doubles y = linear64(int8_rows(x, M, K), int8_weight(w, N, K), b, r, M, N, K, gated ? Activation::none : act);
    if (gated) {
        Doubles both = std::move(y);
        y.clear();
        for (int64_t m = 0; m < M; ++m)
            for (int64_t n = 0; n < N / 2; ++n)
                y.push_back(activate64(Activation::silu, both[size_t(m * N + n)]) * both[size_t(m * N + N / 2 + n)]);
    }
    Case c{.op = Linear{act}, .expected = {std::move(y)}, .tolerance = act == Activation::none ? 1e-6 : 3e-6};
    Value matrix = weight(As::matrix, {N, K}, std::move(w));
    matrix.quantization = Quantization::int8;
    c.inputs = {activation({M, K}, std::move(x)), std::move(matrix), std::move(bias), std::move(residual)};
    c.outputs = {activation({M, gated ? N / 2 : N})};
    return c;
}

/// Weights that are kept as int8: every size of a block of rows, ragged columns and depths, numbers at the ends of their ranges.
static void int8_cases(Suite& s) {
    if (!s.cpu) return;
    Random random(31);
    auto bias = [&](int64_t N) { return weight(As::vector, {N}, random.normals(N)); };
    for (int64_t M = 1; M <= 40; ++M)
        for (auto& [N, K] : {std::array<int64_t, 2>{17, 30 + M}, {70, 8 * M}, {33, 1029}})
            s.check("int8/random-" + shape_name({M, K, N}),
                    int8_case(Activation::none, M, N, K, random.normals(M * K), random.normals(N * K, 0.05f),
                              M % 2 ? bias(N) : absent(), M % 3 ? absent() : activation({M, N}, random.normals(M * N))));
    for (auto& [M, N, K] :
         {std::array<int64_t, 3>{0, 8, 8}, {3, 5, 0}, {1, 1, 1}, {300, 20, 65}, {2, 3000, 24}, {130, 130, 64}, {47, 70, 4101}})
        s.check("int8/shape-" + shape_name({M, K, N}),
                int8_case(Activation::none, M, N, K, random.normals(M * K), random.normals(N * K), absent(), absent()));
    for (Activation act : {Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu, Activation::relu,
                           Activation::tanh, Activation::sigmoid, Activation::silu_gate})
        for (int64_t M : {1, 9})
            s.check("int8/activation-" + std::to_string(int(act)) + "-" + std::to_string(M),
                    int8_case(act, M, 38, 72, random.normals(M * 72), random.normals(38 * 72, 0.1f), bias(38),
                              act == Activation::silu_gate ? absent() : activation({M, 38}, random.normals(M * 38))));

    // the largest sums there can be, and of both signs; a zero point at either end
    auto all = [](int64_t count, float value) { return std::vector<float>(static_cast<size_t>(count), value); };
    for (float x : {1.f, -1.f})
        for (float w : {1.f, -1.f})
            s.check("int8/largest" + std::string(x < 0 ? "-" : "+") + (w < 0 ? "-" : "+"),
                    int8_case(Activation::none, 3, 5, 65536, all(3 * 65536, x), all(5 * 65536, w), absent(), absent()));
    // neighbours that are as large together as 16 bits allow, and rounded up where they can be
    const float pair = cpu::int8_kernels().most_of_pair > 0 ? cpu::int8_kernels().most_of_pair : 254;
    std::vector<float> pairs;
    for (int n = 0; n < 18; ++n)
        for (int k = 0; k < 32; ++k) {
            const float larger = pair / 2 + float(k) - 0.5f * float(n % 3), sign = n % 2 ? -1.f : 1.f;
            pairs.insert(pairs.end(), {sign * larger, sign * (pair - larger)});
        }
    s.check("int8/pairs", int8_case(Activation::none, 7, 18, 64, all(7 * 64, 1), pairs, absent(), absent()));
    s.check("int8/too-deep", [&] {
        try {
            std::vector<Value> y = {activation({1, 1})};
            Case c = int8_case(Activation::none, 1, 1, 65537, all(65537, 1), all(65537, 1), absent(), absent());
            s.runner.run(c.op, c.inputs, y);
        } catch (const Error& error) {
            if (std::string(error.code()) == "ERR_SHAPE") return;
            throw;
        }
        throw std::runtime_error("a sum that could overflow was taken on");
    });
    // rows of x: zeros, huge, tiny, too small for a step, one sign only, a single number among zeros, NaN, infinity
    const int64_t K = 75, N = 21;
    std::vector<std::vector<float>> kinds(9, random.normals(K));
    kinds[0] = all(K, 0);
    for (float& f : kinds[1]) f *= 1e37f;
    for (float& f : kinds[2]) f *= 1e-30f;
    for (float& f : kinds[3]) f *= 1e-40f;
    for (float& f : kinds[4]) f = std::fabs(f) + 3;
    for (float& f : kinds[5]) f = -std::fabs(f) - 3;
    kinds[6] = all(K, 0), kinds[6][70] = -2.5f;
    kinds[7][74] = NAN;
    kinds[8][11] = -INFINITY;
    for (size_t i = 0; i < kinds.size(); ++i) {
        Case c = int8_case(Activation::none, 1, N, K, kinds[i], random.normals(N * K), absent(), absent());
        if (i == 0 || i == 3) c.tolerance = 0;  // nothing at all comes out
        s.check("int8/row-" + std::to_string(i), std::move(c));
    }
    for (size_t i : {0, 7, 8}) {  // one among ordinary ones
        std::vector<float> x = random.normals(9 * K);
        std::copy(kinds[i].begin(), kinds[i].end(), x.begin() + 4 * K);
        s.check("int8/row-among-" + std::to_string(i),
                int8_case(Activation::none, 9, N, K, x, random.normals(N * K), bias(N), absent()));
    }
    std::vector<float> w = random.normals(9 * K);
    for (size_t i = 0; i < kinds.size(); ++i)
        if (i != 1) std::copy(kinds[i].begin(), kinds[i].end(), w.begin() + int64_t(i) * K);
    s.check("int8/weight-rows", int8_case(Activation::none, 7, 9, K, random.normals(7 * K), w, absent(), absent()));

    s.check("int8/embed", [&] {
        Value table = weight(As::matrix, {N, K}, random.normals(N * K));
        table.quantization = Quantization::int8;
        std::vector<Value> y = {activation({3, K})};
        s.runner.run(Embed{}, {int32({3}, {20, 0, 21}), table}, y);
        const Doubles want = int8_weight(table.floats, N, K);
        for (int64_t k = 0; k < K; ++k)
            if (y[0].floats[size_t(k)] != float(want[size_t(20 * K + k)]) ||
                y[0].floats[size_t(K + k)] != float(want[size_t(k)]) || !std::isnan(y[0].floats[size_t(2 * K + k)]))
                throw std::runtime_error("column " + std::to_string(k) + " is another");
    });
    s.check("int8/patchEmbed", [&] {
        const int64_t patch = 4, D = 19;
        Value pixels = float32({2, 3, 9, 12}, random.normals(648)), table = weight(As::matrix, {D, 48}, random.normals(D * 48));
        table.quantization = Quantization::int8;
        std::vector<Value> got = {activation({12, D})};
        s.runner.run(PatchEmbed{int(patch)}, {pixels, table}, got);
        std::vector<float> rows;
        for (int64_t i = 0; i < 12; ++i)
            for (int64_t c = 0; c < 3; ++c)
                for (int64_t v = 0; v < patch; ++v)
                    for (int64_t u = 0; u < patch; ++u)
                        rows.push_back(
                            pixels.floats[size_t(((i / 6 * 3 + c) * 9 + i % 6 / 3 * patch + v) * 12 + i % 3 * patch + u)]);
        Case c = int8_case(Activation::none, 12, D, 48, rows, table.floats, absent(), absent());
        std::vector<Value> want = c.outputs;
        s.runner.run(c.op, c.inputs, want);
        if (want[0].floats != got[0].floats)
            throw std::runtime_error("patches are multiplied otherwise than rows of their numbers");
    });
}

/// Queries, keys and values: the bits of rope and of append_rows behind it, and rows that lie outside.
static void rope_append_cases(Suite& s) {
    Random random(23);
    const int64_t T = 7, heads = 4, kv_heads = 2, d = 10, H = heads + 2 * kv_heads, R = 9, width = 2 * kv_heads * d;
    Value x = activation({T, H, d}, random.normals(T * H * d)), positions = int32({T}, {0, 1, 100000, 77, 3, -4, 5});
    Value frequencies = weight(As::vector, {d / 2}, random.normals(d / 2, 0.3f));
    Value rows = int32({T}, {8, 0, -1, 9, 3, 1 << 30, 4});
    auto changed = [&](const Operation& op, std::vector<Value> inputs, size_t cache, std::vector<Value> outputs) {
        s.runner.run(op, inputs, outputs, &inputs[cache]);
        outputs.push_back(inputs[cache]);
        return outputs;
    };
    s.check("ropeAppend/random", [&] {
        Value cache = activation({R, width}, random.normals(R * width));
        std::vector<Value> turned = {activation({T, H, d})};
        s.runner.run(Rope{int(heads + kv_heads)}, {x, positions, frequencies}, turned);
        Value packed = turned[0];
        packed.shape = {T, H * d};
        Value want = changed(AppendRows{int(heads * d)}, {packed, rows, cache}, 2, {})[0];
        std::vector<Value> got = changed(RopeAppend{int(heads), int(kv_heads)}, {x, positions, frequencies, rows, cache}, 4,
                                         {activation({T, heads * d})});
        for (int64_t t = 0; t < T; ++t)
            if (!std::equal(got[0].floats.begin() + t * heads * d, got[0].floats.begin() + (t + 1) * heads * d,
                            packed.floats.begin() + t * H * d))
                throw std::runtime_error("queries have other bits than after rope");
        if (got[1].floats != want.floats) throw std::runtime_error("the cache has other bits than after appendRows");
    });
}

static void patch_embed_cases(Suite& s) {
    Random random(12);
    for (auto& [n, H, W, patch, D] :
         {std::array<int64_t, 5>{2, 8, 12, 4, 33}, {0, 8, 8, 4, 8}, {1, 7, 5, 7, 3}, {3, 30, 47, 14, 40}}) {
        int64_t T = 1 + (H / patch) * (W / patch);
        for (bool token : {false, true}) {
            int64_t rows = token ? T : T - 1;
            s.check("patchEmbed/random-" + shape_name({n, H, W, patch, D}) + (token ? "-class" : ""),
                    patch_embed_case(s.storage, int(patch), float32({n, 3, H, W}, random.normals(n * 3 * H * W)),
                                     weight(As::matrix, {D, 3 * patch * patch}, random.normals(D * 3 * patch * patch, 0.1f)),
                                     token ? absent() : weight(As::vector, {D}, random.normals(D)),
                                     token ? weight(As::vector, {D}, random.normals(D)) : absent(),
                                     weight(As::vector, {rows * D}, random.normals(rows * D))));
        }
    }
}

/// The case with the kernel that it must take in 16 bits; float32 has no tensor cores.
static Case with_kernel(DType storage, std::string kernel, Case c) {
    if (storage == DType::float32)
        for (std::string form : {"_mma", "_split"})
            if (kernel.ends_with(form)) kernel.replace(kernel.size() - form.size(), form.size(), "_simt");
    c.kernel = kernel;
    return c;
}

static void attention_cases(Suite& s) {
    Random random(13);
    for (int head_dim : {1, 8, 16, 20, 33, 40, 64, 72, 80, 96, 128, 160, 256, 257})
        for (bool causal : {false, true}) {
            int tokens = head_dim == 64 ? 77 : 19;
            Attention a{.heads = 2, .kv_heads = 2, .head_dim = head_dim};
            int64_t D = 2 * head_dim;
            a.k_offset = int(D);
            a.v_offset = int(2 * D);
            a.max_queries = a.max_keys = tokens;
            a.causal = causal;
            a.scale = 1.f / std::sqrt(float(head_dim));
            Value packed = activation({3 * tokens, 3 * D}, random.normals(3 * tokens * 3 * D));
            s.check("attention/packed-d" + std::to_string(head_dim) + (causal ? "-causal" : ""),
                    with_kernel(s.storage,
                                head_dim > 256      ? "attention_wide"
                                : head_dim % 8 != 0 ? "attention_simt"
                                                    : "attention_mma",
                                attention_case(s.storage, a, packed, packed, packed, absent(), absent())));
        }
    // one query, one key, around tiles of 16 queries and 16, 32 and 64 keys, and the tokens of ViT-B/32 to L/14@336
    for (auto& [queries, keys] : {std::array<int, 2>{1, 1},
                                  {1, 128},
                                  {3, 200},
                                  {16, 16},
                                  {17, 33},
                                  {50, 50},
                                  {64, 64},
                                  {65, 65},
                                  {40, 129},
                                  {197, 197},
                                  {70, 577}})
        for (int head_dim : {64, 128}) {
            Attention a{.heads = 1, .kv_heads = 1, .head_dim = head_dim, .max_queries = queries, .max_keys = keys, .scale = 0.1f};
            auto rows = [&](int64_t R) { return activation({R, head_dim}, random.normals(R * head_dim)); };
            s.check("attention/cross-" + shape_name({queries, keys, head_dim}),
                    with_kernel(s.storage, "attention_mma",
                                attention_case(s.storage, a, rows(queries), rows(keys), rows(keys), absent(), absent())));
        }
    // so many blocks that each warp takes 32 queries
    Attention many{.heads = 67, .kv_heads = 67, .head_dim = 64, .max_queries = 70, .max_keys = 70, .causal = true, .scale = 0.1f};
    Value packed = activation({280, 67 * 64}, random.normals(280 * 67 * 64));
    if (s.storage == DType::float16)
        s.check("attention/many", with_kernel(s.storage, "attention_mma",
                                              attention_case(s.storage, many, packed, packed, packed, absent(), absent())));
    // heads that do not begin on 16 bytes
    Attention odd{.heads = 2, .kv_heads = 1, .head_dim = 16, .q_offset = 4, .k_offset = 1, .v_offset = 17};
    odd.max_queries = odd.max_keys = 20;
    s.check("attention/offsets", with_kernel(s.storage, "attention_simt",
                                             attention_case(s.storage, odd, activation({40, 36}, random.normals(40 * 36)),
                                                            activation({40, 33}, random.normals(40 * 33)),
                                                            activation({40, 33}, random.normals(40 * 33)), absent(), absent())));
    // scores whose exponentials leave every dtype
    if (s.storage != DType::float32) {
        Attention large{
            .heads = 1, .kv_heads = 1, .head_dim = 64, .max_queries = 70, .max_keys = 70, .causal = true, .scale = 1.f};
        auto rows = [&] { return activation({70, 64}, random.normals(70 * 64, 20.f)); };
        s.check("attention/large", with_kernel(s.storage, "attention_mma",
                                               attention_case(s.storage, large, rows(), rows(), rows(), absent(), absent())));
    }
    // one query over many keys: parts of the keys, and over so many that a warp takes several tiles of its part
    Attention long_one{.heads = 2, .kv_heads = 1, .head_dim = 64, .max_queries = 1, .max_keys = 5000, .scale = 0.125f};
    Value long_keys = activation({5000, 64}, random.normals(5000 * 64)),
          long_values = activation({5000, 64}, random.normals(5000 * 64));
    s.check("attention/one-query-5000", with_kernel(s.storage, "attention_split",
                                                    attention_case(s.storage, long_one, activation({1, 128}, random.normals(128)),
                                                                   long_keys, long_values, absent(), absent())));
    for (int head_dim : {64, 80, 128, 256})
        for (int group : {1, 4, 20}) {
            Attention one{.heads = 2 * group, .kv_heads = 2, .head_dim = head_dim, .max_queries = 1, .max_keys = 600};
            one.scale = 1.f / std::sqrt(float(head_dim));
            const int64_t D = one.heads * head_dim, Dk = 2 * head_dim;
            Value segments = int32(
                {5, 6}, {0, 1, 0, 577, 0, 0, 1, 1, 600, 1, 0, 0, 2, 1, 100, 170, 500, 40, 3, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0});
            Value hidden = int32({610});
            for (size_t i = 0; i < 610; ++i) hidden.ints[i] = i >= 64 && random.below(4) > 0;
            auto rows = [&](int64_t R, int64_t width) { return activation({R, width}, random.normals(R * width)); };
            s.check("attention/one-query-" + shape_name({head_dim, group}),
                    with_kernel(s.storage, "attention_split",
                                attention_case(s.storage, one, rows(4, D), rows(610, Dk), rows(610, Dk), segments,
                                               group == 4 ? hidden : absent())));
        }

    Attention ragged{.heads = 4, .kv_heads = 2, .head_dim = 16};
    ragged.max_queries = 40;
    ragged.max_keys = 60;
    ragged.causal = true;
    ragged.scale = 0.25f;
    Value q = activation({89, 64}, random.normals(89 * 64)), k = activation({100, 32}, random.normals(100 * 32)),
          v = activation({100, 32}, random.normals(100 * 32));
    // own keys only; more keys than queries; a shared prefix; prefix only; no query; one query that sees no key; fewer keys than
    // queries
    Value segments = int32({7, 6}, {0, 5,  0,  5,  0, 0, 5, 7, 5, 40, 0, 0, 12, 33, 45, 33, 80, 17, 45, 3, 0,
                                    0, 80, 17, 48, 0, 3, 4, 0, 0, 48, 1, 9, 0,  0,  0,  49, 40, 60, 25, 0, 0});
    s.check("attention/ragged-prefix-causal", attention_case(s.storage, ragged, q, k, v, segments, absent()));
    Value mask = int32({100});
    for (int32_t& seen : mask.ints) seen = random.below(3) > 0;
    for (int i = 0; i < 5; ++i) mask.ints[size_t(i)] = 0;
    s.check("attention/ragged-prefix-causal-mask", attention_case(s.storage, ragged, q, k, v, segments, mask));
    ragged.causal = false;
    s.check("attention/ragged-prefix-mask", attention_case(s.storage, ragged, q, k, v, segments, mask));
    s.check("attention/empty", attention_case(s.storage, ragged, activation({0, 64}), activation({0, 32}), activation({0, 32}),
                                              int32({0, 6}), absent()));

    // what is not finite of a key that a query does not see stays out of its row
    for (auto& [T, d] : {std::array<int, 2>{12, 8}, {80, 64}, {40, 128}}) {
        std::vector<float> keys = random.normals(T * d), values = random.normals(T * d);
        for (int j : {T - 1, T - 2, T - 3})
            for (int e = 0; e < d; ++e) values[size_t(j * d + e)] = j == T - 2 ? INFINITY : NAN;
        Attention a{.heads = 1, .kv_heads = 1, .head_dim = d, .max_queries = T, .max_keys = T, .causal = true, .scale = 0.3f};
        auto attend = [&](Value mask) {
            Value q = activation({T, d}, random.normals(T * d));
            Case c = attention_case(s.storage, a, q, activation({T, d}, keys), activation({T, d}, values), absent(), mask);
            c.per_element = true;
            return with_kernel(s.storage, "attention_mma", c);
        };
        s.check("attention/nan-of-a-later-key-" + shape_name({T, d}), attend(absent()));
        Value hidden = int32({T}, std::vector<int32_t>(size_t(T), 1));
        for (int j : {T - 1, T - 2, T - 3}) hidden.ints[size_t(j)] = 0;
        a.causal = false;
        s.check("attention/nan-of-a-masked-key-" + shape_name({T, d}), attend(hidden));
    }

    // alone, with its neighbours, behind a prefix that lies elsewhere: the same bits
    s.check("attention/bits", [&] {
        const int T = 77, prefix = 17, own = T - prefix, D = 2 * 64;
        Attention a{.heads = 2, .kv_heads = 2, .head_dim = 64, .max_queries = T, .max_keys = T, .causal = true, .scale = 0.2f};
        std::vector<float> q = random.normals(T * D), k = random.normals(T * D), v = random.normals(T * D);
        auto attend = [&](std::vector<float> queries, std::vector<float> keys, std::vector<float> values, Value segments) {
            int64_t R = int64_t(queries.size()) / D;
            std::vector<Value> out = {activation({R, D})};
            s.runner.run(a, {activation({R, D}, queries), activation({T, D}, keys), activation({T, D}, values), segments}, out);
            return out[0].floats;
        };
        std::vector<float> whole = attend(q, k, v, absent());
        auto moved = [&](std::vector<float> rows) {  // the prefix behind the others
            std::rotate(rows.begin(), rows.begin() + prefix * D, rows.end());
            return rows;
        };
        std::vector<float> parts = attend(moved(q), moved(k), moved(v), int32({1, 6}, {0, own, 0, own, own, prefix}));
        if (!std::equal(parts.begin(), parts.begin() + own * D, whole.begin() + prefix * D))
            throw std::runtime_error("a prefix that lies elsewhere changes bits");
        a.max_queries = 1;
        for (int row : {0, 16, 50, 76}) {
            std::vector<float> alone =
                attend({q.begin() + row * D, q.begin() + (row + 1) * D}, k, v, int32({1, 6}, {0, 1, 0, row + 1, 0, 0}));
            if (!std::equal(alone.begin(), alone.end(), whole.begin() + row * D))
                throw std::runtime_error("query " + std::to_string(row) + " has other bits alone");
        }
    });

    // segments that leave q or k, and rows that nobody names
    for (int max_keys : {20, 200})
        s.check("attention/bad-segments-" + std::to_string(max_keys), [&, max_keys] {
            Attention a{.heads = 2, .kv_heads = 1, .head_dim = 64, .max_queries = max_keys > 128 ? 1 : 3, .max_keys = max_keys};
            const int n = a.max_queries;
            Value bad = int32({6, 6}, {0,     n, 0, 3, 0,  0, n,     n, 198, 3, 0,   0, 2 * n, n, -1, 3, 0, 0,
                                       3 * n, n, 0, 1, -1, 1, 4 * n, n, 0,   1, 199, 2, 7 * n, n, 0,  1, 0, 0});
            std::vector<Value> out = {activation({7 * n, 128})};
            s.runner.run(a,
                         {activation({7 * n, 128}, random.normals(7 * n * 128)), activation({200, 64}, random.normals(200 * 64)),
                          activation({200, 64}, random.normals(200 * 64)), bad},
                         out);
            for (int row = 0; row < 7 * n; ++row)
                for (int d = 0; d < 128; ++d) {
                    bool nan = std::isnan(out[0].floats[size_t(row * 128 + d)]);
                    if (nan != (row >= n)) throw std::runtime_error("row " + std::to_string(row) + " is wrong");
                }
        });
}

static void paged_attention_cases(Suite& s) {
    Random random(21);
    const int page = 16, P = 45;
    for (auto& [heads, kv_heads, d] :
         {std::array<int, 3>{2, 2, 64}, {8, 2, 128}, {3, 1, 80}, {20, 1, 64}, {2, 1, 256}, {2, 2, 33}}) {
        const int64_t D = int64_t(heads) * d, width = 2 * int64_t(kv_heads) * d;
        PagedAttention op{.heads = heads, .kv_heads = kv_heads, .head_dim = d, .v_offset = kv_heads * d, .page = page};
        op.scale = 1.f / std::sqrt(float(d));
        auto run = [&](const std::string& name, const char* kernel, std::vector<std::array<int, 2>> counts) {
            std::vector<int32_t> free, table, rows;  // pages in no order, one more than are used
            const int S = int(counts.size());
            for (auto& [queries, keys] : counts)
                for (int p = 0; p * page < keys; ++p) free.push_back(int32_t(free.size()));
            const int64_t cache_rows = (int64_t(free.size()) + 1) * page;
            for (size_t i = free.size(); i-- > 1;) std::swap(free[i], free[size_t(random.below(int64_t(i) + 1))]);
            int first = 0;
            for (auto& [queries, keys] : counts) {
                rows.insert(rows.end(), {first, queries, keys});
                first += queries;
                for (int p = 0; p < P; ++p) {
                    table.push_back(p * page < keys ? free.back() : -1);
                    if (p * page < keys) free.pop_back();
                }
            }
            s.check("pagedAttention/" + name + "-" + shape_name({heads, kv_heads, d}),
                    with_kernel(s.storage, d % 8 != 0 ? "paged_attention_simt" : kernel,
                                paged_case(s.storage, op, activation({first, D}, random.normals(first * D)),
                                           activation({cache_rows, width}, random.normals(cache_rows * width)),
                                           int32({S, P}, table), int32({S, 3}, rows))));
        };
        op.max_queries = 40;
        run("prefill", "paged_attention_mma", {{40, 40}, {1, 70}, {0, 0}, {33, 128}, {7, 7}});
        op.max_queries = 1;
        run("decode", "paged_attention_split",
            {{1, 1},
             {1, 2},
             {1, 15},
             {1, 16},
             {1, 17},
             {0, 9},
             {1, 63},
             {1, 64},
             {1, 65},
             {1, 127},
             {1, 129},
             {1, 500},
             {1, 700}});
    }
    s.check("pagedAttention/bad", [&] {
        for (int queries : {1, 3}) {
            PagedAttention op{.heads = 2, .kv_heads = 1, .head_dim = 64, .v_offset = 64, .page = 4, .max_queries = queries};
            // good; a page that is not there, the last of several; more keys than pages; fewer keys than queries; outside q
            Value table = int32({5, 3}, {0, queries, 12, queries, queries, 12, 2 * queries, queries, 13, 3 * queries, queries, 0,
                                         4 * queries, queries, 3});
            Value pages = int32({5, 3}, {0, 1, 2, 0, 1, 3, 0, 1, 2, 0, 1, 2, 0, -1, -1});
            table.ints[12] = 5 * queries;
            std::vector<Value> out = {activation({5 * queries, 128})};
            s.runner.run(op,
                         {activation({5 * queries, 128}, random.normals(5 * queries * 128)),
                          activation({12, 128}, random.normals(12 * 128)), pages, table},
                         out);
            for (size_t i = 0; i < out[0].floats.size(); ++i)
                if (std::isnan(out[0].floats[i]) != (i >= size_t(queries) * 128))
                    throw std::runtime_error("element " + std::to_string(i) + " is wrong");
        }
    });
}

static void norm_cases(Suite& s) {
    Random random(14);
    // around the widths of a warp, of a block, and of what a block keeps in registers
    const std::array<int64_t, 2> wide[] = {{2, 1024}, {3, 1032}, {2, 1030}, {1, 4096}, {2, 8192}, {2, 8200}};
    std::vector<std::array<int64_t, 2>> shapes = {{0, 8}, {1, 1}, {1, 768}, {7, 509}, {33, 64}, {200, 48}};
    shapes.insert(shapes.end(), std::begin(wide), std::end(wide));
    for (auto& [R, D] : shapes)
        for (bool sum : {false, true}) {
            auto x = [&] { return activation({R, D}, random.normals(R * D)); };
            auto w = [&] { return weight(As::vector, {D}, random.normals(D)); };
            std::string name = shape_name({R, D}) + (sum ? "-sum" : "");
            s.check("layerNorm/random-" + name,
                    norm_case(s.storage, false, 1e-5f, x(), w(), sum ? absent() : w(), sum ? x() : absent(), sum));
            s.check("layerNorm/random-residual-" + name, norm_case(s.storage, false, 1e-5f, x(), w(), w(), x(), sum));
            s.check("rmsNorm/random-" + name, norm_case(s.storage, true, 1e-5f, x(), w(), absent(), sum ? x() : absent(), sum));
        }
    shapes = {{0, 8}, {1, 1}, {1, 768}, {7, 509}, {8, 512}, {9, 512}, {4096, 24}};
    shapes.insert(shapes.end(), std::begin(wide), std::end(wide));
    for (auto& [R, D] : shapes)
        s.check("l2Normalize/random-" + shape_name({R, D}), unit_case(s.storage, activation({R, D}, random.normals(R * D))));
    // squares that are below float32, or too near to its end to be exact, or above it
    for (float scale : {1e-30f, 1e-21f, 1e-19f, 1e25f}) {
        if (s.storage == DType::float16) continue;
        s.check("l2Normalize/scale-" + std::to_string(int(std::log10(scale))),
                unit_case(s.storage, activation({2, 32}, random.normals(64, scale))));
    }
    std::vector<float> nan = random.normals(64);
    nan[3] = NAN;
    s.check("l2Normalize/nan", [&] {
        std::vector<Value> out = {activation({2, 32})};
        s.runner.run(L2Normalize{}, {activation({2, 32}, nan)}, out);
        for (size_t i = 0; i < 64; ++i)
            if (std::isnan(out[0].floats[i]) != (i < 32))
                throw std::runtime_error("NaN belongs in the whole first row and nowhere else");
    });
    for (auto& [R, D] : {std::array<int64_t, 2>{0, 8}, {5, 1}, {3, 17}, {70, 129}, {2, 49408}})
        s.check("softmax/random-" + shape_name({R, D}), softmax_case(s.storage, activation({R, D}, random.normals(R * D, 5.f))));
    std::vector<float> row = {-INFINITY, -INFINITY, -INFINITY, 1, NAN, 2, 1, -INFINITY, 3};
    Case special = softmax_case(s.storage, activation({3, 3}, row));
    special.expected = {{NAN, NAN, NAN, NAN, NAN, NAN, std::exp(-2.0) / (1 + std::exp(-2.0)), 0, 1 / (1 + std::exp(-2.0))}};
    s.check("softmax/nan-and-infinite", special);
}

static void head_cases(Suite& s) {
    Random random(15);
    for (auto& [n, m, D] :
         {std::array<int64_t, 3>{1, 1, 1}, {0, 5, 8}, {3, 4, 5}, {5, 7, 33}, {9, 1025, 64}, {33, 130, 96}, {2, 5000, 16}}) {
        auto x = [&] { return activation({n, D}, random.normals(n * D)); };
        Value y = activation({m, D}, random.normals(m * D));
        Value unit = y;
        Doubles rows = unit_rows64(widen(y.floats), D);
        for (size_t i = 0; i < rows.size(); ++i) unit.floats[i] = float(rows[i]);
        std::string name = shape_name({n, m, D});
        s.check("scaledLogits/random-" + name, logits_case(s.storage, 20.f, 0.f, false, x(), y));
        if (s.storage == DType::float32)
            s.check("scaledLogits/random-unit-" + name, logits_case(s.storage, 4.f, -3.f, true, x(), unit));
        for (int k : {1, 3, 64}) {
            if (k > m) continue;
            ZeroShotHead head{.multiplier = 10.f, .k = k};
            s.check("zeroShotHead/random-" + name + "-k" + std::to_string(k), head_case(s.storage, head, x(), y));
            head.sigmoid = true;
            head.bias = -2.f;
            s.check("zeroShotHead/random-sigmoid-" + name + "-k" + std::to_string(k), head_case(s.storage, head, x(), y));
        }
    }
    std::vector<float> same;
    for (int j = 0; j < 6; ++j) same.insert(same.end(), {1.f, 2.f, j == 0 ? -3.f : 3.f});
    s.check("zeroShotHead/ties",
            head_case(s.storage, {.multiplier = 2.f, .k = 6}, activation({1, 3}, {1, 2, 3}), activation({6, 3}, same)));
    if (s.storage == DType::float32)
        s.check("scaledLogits/wide", logits_case(s.storage, 2.f, 0.f, false, activation({1, 3}, {1e25f, -2e25f, 3e20f}),
                                                 activation({2, 3}, {1e-30f, 2e-30f, 0, 3e30f, 1e30f, 1.f})));
}

/// What tensor cores take: rows of 16 bits, a multiple of 8 wide.
static void head_mma_cases(Suite& s) {
    if (s.storage == DType::float32) return;
    Random random(21);
    auto rows = [&](int64_t R, int64_t D) { return activation({R, D}, random.normals(R * D)); };
    auto logits = [&](const std::string& name, Value x, Value y, bool unit = false) {
        Case c = logits_case(s.storage, 20.f, -1.f, unit, std::move(x), std::move(y));
        c.kernel = "scaled_logits_mma";
        s.check("scaledLogits/mma-" + name, std::move(c));
    };
    auto head = [&](const std::string& name, const ZeroShotHead& op, Value x, Value y) {
        Case c = head_case(s.storage, op, std::move(x), std::move(y));
        c.kernel = op.k <= 32 ? "zero_shot_head_mma" : "zero_shot_head_logits_in_memory";
        s.check("zeroShotHead/mma-" + name, std::move(c));
    };
    // around the tiles of 16 × 32 and their steps of 64; k of all classes; a k that the lanes of a warp don't hold
    for (auto& [n, m, D, k] : {std::array<int64_t, 4>{1, 1, 8, 1},
                               {1, 17, 8, 17},
                               {15, 31, 56, 5},
                               {16, 32, 64, 32},
                               {17, 33, 72, 32},
                               {70, 100, 136, 5},
                               {1, 5000, 512, 5},
                               {3, 40, 40, 33}}) {
        std::string name = shape_name({n, m, D, k});
        Value x = rows(n, D), y = rows(m, D);
        logits(name, x, y);
        head(name, {.multiplier = 10.f, .bias = 1.f, .k = int(k)}, x, y);
        head(name + "-sigmoid", {.multiplier = 10.f, .bias = -2.f, .sigmoid = true, .k = int(k)}, x, y);
    }
    // more tiles of 64 × 128 than multiprocessors: strips of several, ragged; images of one fragment, of some, of all
    for (auto& [n, m, D] : {std::array<int64_t, 3>{1, 17000, 16}, {40, 17500, 72}, {129, 8600, 8}}) {
        Value x = rows(n, D), y = rows(m, D);
        head("wide-" + shape_name({n, m, D}), {.multiplier = 5.f, .k = 3}, x, y);
        if (n == 1) logits("wide-" + shape_name({n, m, D}), x, y);
    }
    // images that shared memory can't keep come by again with each tile: 16 or 64 rows
    head("streamed-images", {.multiplier = 5.f, .k = 3}, rows(3, 7000), rows(70, 7000));
    head("streamed-images-wide", {.multiplier = 5.f, .k = 2}, rows(1, 1032), rows(17000, 1032));

    // classes whose length is exactly one in 16 bits
    std::vector<float> halves(70 * 40);
    for (int64_t j = 0; j < 70; ++j)
        for (int64_t d = 0; d < 4; ++d) halves[size_t(j * 40 + (7 * j + 9 * d) % 40)] = random.below(2) ? 0.5f : -0.5f;
    logits("unit", rows(9, 40), activation({70, 40}, halves), true);
    head("unit", {.multiplier = 3.f, .y_unit = true, .k = 1}, rows(2, 40), activation({70, 40}, halves));

    // equal logits, over tiles and strips: the first index; rows of zeros; NaN first
    Value same = rows(1, 24), repeated = activation({4000, 24});
    for (int64_t j = 0; j < 4000; ++j)
        for (int64_t d = 0; d < 24; ++d) repeated.floats[size_t(j * 24 + d)] = j % 5 == 2 ? same.floats[size_t(d)] : -1.f;
    for (int k : {4, 32}) head("ties-k" + std::to_string(k), {.multiplier = 3.f, .k = k}, same, repeated);
    Value x = rows(20, 24), y = rows(90, 24);
    std::fill_n(x.floats.begin() + 3 * 24, 24, 0.f);
    head("zero-image", {.multiplier = 3.f, .k = 9}, x, y);
    std::fill_n(y.floats.begin() + 40 * 24, 24, 0.f);
    logits("zero-rows", x, y);
    y.floats[41 * 24 + 5] = y.floats[80 * 24 + 1] = NAN;
    logits("nan", x, y);
    head("nan-classes", {.multiplier = 3.f, .sigmoid = true, .k = 4}, x, y);
    x.floats[24 + 3] = NAN;
    head("nan-image", {.multiplier = 3.f, .k = 4}, x, rows(90, 24));

    if (s.storage != DType::bfloat16) return;  // the others have no length that float32 can't hold
    auto spread = [&](Value v) {
        const int64_t D = v.shape.last();
        for (auto& [row, scale] : {std::pair{0, 1e-30f}, {2, 1e25f}, {5, 1e-21f}, {19, 1e30f}})
            for (int64_t d = 0; d < D; ++d) v.floats[size_t(row * D + d)] *= scale;
        return v;
    };
    Value far = spread(rows(20, 24)), wide = spread(rows(90, 24));
    logits("out-of-range", far, wide);
    logits("out-of-range-unit", spread(rows(20, 40)), activation({70, 40}, halves), true);
    head("out-of-range", {.multiplier = 3.f, .k = 5}, far, wide);
}

static void elementwise_cases(Suite& s) {
    Random random(16);
    std::vector<float> range;
    for (float x = -110; x <= 110; x += 0.0625f) range.push_back(x);
    for (float x : {-0.f, 1e-30f, -1e-30f, 1e-6f, -1e-6f, 3e38f, NAN}) range.push_back(x);
    for (Activation act : {Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu,
                           Activation::relu, Activation::tanh, Activation::sigmoid}) {
        std::vector<float> values = range;
        if (s.storage == DType::float16) values[values.size() - 2] = 6e4f;
        s.check("activation/range-" + std::to_string(int(act)),
                activate_case(s.storage, act, activation({int64_t(values.size())}, values)));
    }
    for (auto& [R, D] : {std::array<int64_t, 2>{0, 8}, {1, 1}, {7, 33}, {300, 129}}) {
        auto x = [&] { return activation({R, D}, random.normals(R * D)); };
        std::string name = shape_name({R, D});
        for (auto& [arithmetic, what] :
             {std::pair{Arithmetic::add, "-add"}, {Arithmetic::multiply, "-multiply"}, {Arithmetic::maximum, "-maximum"}}) {
            s.check("binary/" + name + what, binary_case(s.storage, arithmetic, x(), x()));
            s.check("binary/row-" + name + what, binary_case(s.storage, arithmetic, x(), activation({D}, random.normals(D))));
            s.check("binary/number-" + name + what,
                    binary_case(s.storage, arithmetic, x(), activation({R, 1}, random.normals(R))));
        }
        s.check("siluGate/" + name, silu_gate_case(s.storage, x(), x()));
    }
    std::vector<float> left = {NAN, 1.f, NAN, -INFINITY, 3.f, -2.f, 0.f, INFINITY},
                       right = {1.f, NAN, NAN, -5.f, INFINITY, -2.f, 1e-3f, NAN};
    s.check("binary/maximum-of-nan",
            binary_case(s.storage, Arithmetic::maximum, activation({1, 8}, left), activation({1, 8}, right)));
    s.check("binary/maximum-of-nan-number",
            binary_case(s.storage, Arithmetic::maximum, activation({2, 4}, left), activation({2, 1}, {NAN, 0.5f})));
    s.check("binary/number-wide", binary_case(s.storage, Arithmetic::multiply, activation({5, 64}, random.normals(5 * 64)),
                                              activation({5, 1}, random.normals(5))));
    std::vector<float> numbers = {0.f,      -0.f,          1.f,           65504.f,       65519.f,     65520.f,        -1e6f,
                                  1e-8f,    2.9802322e-8f, 2.9802326e-8f, 5.9604645e-8f, 6.1e-5f,     1.00048828125f, 1.0014648f,
                                  INFINITY, -INFINITY,     NAN,           1.00390625f,   1.01171875f, 3.4e38f,        1e-40f};
    for (float f : random.normals(2000, 100.f)) numbers.push_back(f);
    if (s.storage == DType::float32)
        for (DType from : {DType::float32, DType::float16, DType::bfloat16})
            for (DType to : {DType::float32, DType::float16, DType::bfloat16})
                s.check(std::string("cast/") + name_of(from) + "-to-" + name_of(to), cast_case(from, to, numbers));
}

static void selection_cases(Suite& s) {
    Random random(17);
    for (auto& [R, D] : {std::array<int64_t, 2>{1, 1}, {0, 5}, {5, 7}, {3, 1000}, {1, 4096}, {2, 49408}, {300, 3}}) {
        std::vector<float> values = random.normals(R * D);
        for (float& value : values) value = std::round(value * 8) / 8;  // ties
        if (R == 5) values[9] = values[11] = NAN, values[20] = INFINITY, values[30] = -INFINITY;
        s.check("argmax/random-" + shape_name({R, D}), argmax_case(s.storage, activation({R, D}, values)));
        for (int k : {1, 3, 32, 40, int(D)})
            if (k <= D && k <= 4096)
                s.check("topK/random-" + shape_name({R, D, k}), top_k_case(s.storage, k, activation({R, D}, values)));
    }
    Case none = argmax_case(s.storage, activation({2, 3}, {-INFINITY, -INFINITY, -INFINITY, -1, -INFINITY, NAN}));
    s.check("argmax/infinite", none);
    const std::vector<float> nan_first = {NAN, 1, INFINITY, NAN, 2, 3, -1, 0, NAN};
    s.check("argmax/nan-first", argmax_case(s.storage, activation({3, 3}, nan_first)));
    for (int k : {1, 3}) s.check("topK/nan-first-" + std::to_string(k), top_k_case(s.storage, k, activation({3, 3}, nan_first)));
    s.check("gatherRows/some", gather_case(s.storage, activation({7, 33}, random.normals(231)), int32({6}, {6, 0, 3, 3, -1, 7})));
    s.check("gatherRows/none", gather_case(s.storage, activation({7, 33}, random.normals(231)), int32({0})));
    for (DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
        Value table = weight(As::table, {11, 37}, random.normals(11 * 37), dtype),
              places = weight(As::table, {5, 37}, random.normals(5 * 37), dtype);
        Value ids = int32({8}, {0, 10, 5, 5, 11, -1, 3, 2}), positions = int32({8}, {0, 4, 1, 2, 3, 0, 5, -2});
        s.check(std::string("embed/positions-") + name_of(dtype), embed_case(s.storage, ids, table, positions, places));
        s.check(std::string("embed/plain-") + name_of(dtype), embed_case(s.storage, ids, table, absent(), absent()));
    }
    s.check("embed/none", embed_case(s.storage, int32({0}), weight(As::table, {3, 4}, random.normals(12)), absent(), absent()));
    s.check("segmentMean/some", segment_mean_case(s.storage, activation({20, 19}, random.normals(380)),
                                                  int32({6, 2}, {0, 20, 3, 1, 7, 0, 19, 1, 18, 3, -1, 2})));
    s.check("rope/random", rope_case(s.storage, activation({5, 3, 34}, random.normals(510)), int32({5}, {0, 1, 4095, 77, 3}),
                                     weight(As::vector, {17}, random.normals(17, 0.3f))));
    for (auto& [k, p] : {std::pair<int, float>{0, 1.f}, {7, 1.f}, {0, 0.5f}, {50, 0.9f}, {5000, 0.99f}}) {
        std::vector<float> logits = random.normals(997, 3.f);
        for (float& value : logits) value = std::round(value * 16) / 16;
        for (size_t i = 0; i < logits.size(); ++i) logits[i] += float(i) * 1e-3f;
        SampleDistribution sample{.temperature = 0.8f, .top_p = p, .repetition_penalty = 1.3f, .top_k = k};
        if (s.storage == DType::float32)
            s.check("sampleDistribution/random-k" + std::to_string(k),
                    sample_case(s.storage, sample, float32({997}, logits), int32({4}, {3, 900, -1, 997})));
    }
}

/// Two pictures of other sizes through both passes, with random taps. Bit for bit.
static void resize_cases(Suite& s) {
    if (s.storage != DType::float32) return;
    Random random(18);
    const int width = 21, height = 13;
    struct Picture {
        int width, height, first_row, rows;
    };
    const Picture pictures[] = {{40, 30, 2, 25}, {7, 50, 0, 50}};
    std::vector<int32_t> images, taps;
    std::vector<uint8_t> pixels;
    int64_t scratch_bytes = 0;
    auto table = [&](int outputs, int inputs, int first, int stride) {
        int at = int(taps.size());
        for (int i = 0; i < outputs; ++i) {
            int count = i == 3 ? 0 : 1 + random.below(std::min(stride - 2, inputs));
            taps.push_back(first + random.below(inputs - count + 1));
            taps.push_back(count);
            for (int t = 0; t < stride - 2; ++t)
                taps.push_back(t < count ? int32_t((random.uniform() * 2.6f - 0.8f) * 4194304.f / float(count)) : 0);
        }
        return at;
    };
    for (auto& p : pictures) {
        int x_table = table(width, p.width, 0, 8), y_table = table(height, p.rows, p.first_row, 9);
        images.insert(images.end(), {int32_t(pixels.size()), p.width, p.height, x_table, 8, y_table, 9, int32_t(scratch_bytes),
                                     p.first_row, p.rows, 0, 0});
        for (int i = 0; i < p.width * p.height * 3; ++i) pixels.push_back(uint8_t(random.below(256)));
        scratch_bytes += int64_t(p.rows) * width * 3;
    }
    std::vector<float> lut = random.normals(768);
    std::vector<int32_t> scratch(static_cast<size_t>(scratch_bytes));
    Doubles out;
    for (size_t i = 0; i < 2; ++i) {
        const int32_t* m = &images[i * 12];
        for (int r = 0; r < m[9]; ++r)
            for (int x = 0; x < width; ++x)
                for (int c = 0; c < 3; ++c) {
                    const int32_t* tap = &taps[size_t(m[3] + x * m[4])];
                    int64_t sum = 0;
                    for (int t = 0; t < tap[1]; ++t)
                        sum += int64_t(tap[2 + t]) * pixels[size_t(m[0] + ((m[8] + r) * m[1] + tap[0] + t) * 3 + c)];
                    scratch[size_t(m[7] + (r * width + x) * 3 + c)] = clip8(sum);
                }
        for (int c = 0; c < 3; ++c)
            for (int y = 0; y < height; ++y)
                for (int x = 0; x < width; ++x) {
                    const int32_t* tap = &taps[size_t(m[5] + y * m[6])];
                    int64_t sum = 0;
                    for (int t = 0; t < tap[1]; ++t)
                        sum += int64_t(tap[2 + t]) * scratch[size_t(m[7] + ((tap[0] + t - m[8]) * width + x) * 3 + c)];
                    out.push_back(lut[size_t(c * 256 + clip8(sum))]);
                }
    }
    Value table_of_images = int32({2, 12}, images), table_of_taps = int32({int64_t(taps.size())}, taps);
    Case horizontal{.op = ResizeHorizontal{width}, .outputs = {uint8({scratch_bytes})}, .expected = {{}}, .integers = {scratch}};
    horizontal.inputs = {uint8({int64_t(pixels.size())}, pixels), table_of_images, table_of_taps};
    s.check("resizeHorizontal/two", horizontal);
    Case vertical{
        .op = ResizeVertical{width, height}, .outputs = {float32({2, 3, height, width})}, .expected = {out}, .tolerance = 0};
    vertical.inputs = {uint8({scratch_bytes}, std::vector<uint8_t>(scratch.begin(), scratch.end())), table_of_images,
                       table_of_taps, weight(As::vector, {768}, lut)};
    s.check("resizeVertical/two", vertical);
}

/// Rows `row` … `row + count − 1` of each tensor in `values` alone.
static std::vector<Value> one_row(const std::vector<Value>& values, int64_t row, int64_t count = 1) {
    std::vector<Value> out = values;
    for (Value& value : out) {
        if (value.as != As::tensor) continue;
        int64_t D = value.shape.elements() / value.shape[0];
        value.shape[0] = count;
        if (value.dtype == DType::int32) value.ints = {value.ints.begin() + row * D, value.ints.begin() + (row + count) * D};
        else value.floats = {value.floats.begin() + row * D, value.floats.begin() + (row + count) * D};
    }
    return out;
}

/// A batch gives each item the bits that it gets alone: in float32 exactly.
static void batch_cases(Suite& s) {
    if (s.storage != DType::float32) return;
    Random random(19);
    auto same_rows = [&](const std::string& name, const Case& c, std::vector<size_t> batched, int64_t count = 1) {
        s.check("batch/" + name, [&, c, batched, count] {
            if (s.cpu) set_cpu_threads(3);
            std::vector<Value> whole = c.outputs;
            s.runner.run(c.op, c.inputs, whole);
            for (int64_t row : {int64_t(0), int64_t(13), c.outputs[0].shape[0] - count}) {
                std::vector<Value> inputs = c.inputs;
                for (size_t i : batched) inputs[i] = one_row({c.inputs[i]}, row, count)[0];
                std::vector<Value> alone = one_row(c.outputs, row, count), want = one_row(whole, row, count);
                s.runner.run(c.op, inputs, alone);
                for (size_t o = 0; o < alone.size(); ++o)
                    if (encode(alone[o].floats, DType::float32) != encode(want[o].floats, DType::float32) ||
                        alone[o].ints != want[o].ints)
                        throw std::runtime_error("row " + std::to_string(row) + " has other bits alone than in a batch");
            }
            if (s.cpu) set_cpu_threads(1);
        });
    };
    // On CUDA a weight times a row count that is fixed to one is a decode step, with an order of its own; a batch that happens
    // to be one is not (test/cuda/language.test.ts).
    const int64_t lone = s.cpu ? 1 : 2;
    for (DType dtype : {DType::float32, DType::float16, DType::bfloat16})
        for (int64_t K : {33, 768, 3072}) {
            Value w = weight(As::matrix, {70, K}, random.normals(70 * K, 0.05f), dtype);
            same_rows("linear-" + std::to_string(K) + "-" + name_of(dtype),
                      linear_case(s.storage, Activation::gelu, activation({50, K}, random.normals(50 * K)), w,
                                  weight(As::vector, {70}, random.normals(70)), activation({50, 70}, random.normals(3500))),
                      {0, 3}, lone);
        }
    if (s.cpu)
        for (int64_t K : {33, 768, 3072})
            same_rows("linear-" + std::to_string(K) + "-int8",
                      int8_case(Activation::gelu, 50, 70, K, random.normals(50 * K), random.normals(70 * K, 0.05f),
                                weight(As::vector, {70}, random.normals(70)), activation({50, 70}, random.normals(3500))),
                      {0, 3}, 1);
    same_rows("linear-tensor",
              linear_case(s.storage, Activation::none, activation({50, 100}, random.normals(5000)),
                          activation({70, 100}, random.normals(7000)), absent(), absent()),
              {0});
    same_rows("layerNorm",
              norm_case(s.storage, false, 1e-5f, activation({50, 768}, random.normals(50 * 768)),
                        weight(As::vector, {768}, random.normals(768)), weight(As::vector, {768}, random.normals(768)), absent(),
                        false),
              {0});
    same_rows("l2Normalize", unit_case(s.storage, activation({50, 513}, random.normals(50 * 513))), {0});
    same_rows("softmax", softmax_case(s.storage, activation({50, 100}, random.normals(5000))), {0});
    same_rows("scaledLogits",
              logits_case(s.storage, 100.f, 0.f, false, activation({50, 64}, random.normals(3200)),
                          activation({90, 64}, random.normals(90 * 64))),
              {0});
    same_rows("zeroShotHead",
              head_case(s.storage, {.multiplier = 10.f, .k = 3}, activation({50, 64}, random.normals(3200)),
                        activation({3000, 64}, random.normals(3000 * 64))),
              {0});

    s.check("batch/patchEmbed", [&] {
        Value pixels = float32({20, 3, 16, 16}, random.normals(20 * 768)),
              w = weight(As::matrix, {33, 48}, random.normals(33 * 48)),
              positions = weight(As::vector, {16 * 33}, random.normals(16 * 33));
        std::vector<Value> whole = {activation({20 * 16, 33})}, alone = {activation({16, 33})};
        s.runner.run(PatchEmbed{4}, {pixels, w, absent(), absent(), positions}, whole);
        s.runner.run(PatchEmbed{4}, {one_row({pixels}, 7)[0], w, absent(), absent(), positions}, alone);
        if (!std::equal(alone[0].floats.begin(), alone[0].floats.end(), whole[0].floats.begin() + 7 * 16 * 33))
            throw std::runtime_error("a picture has other bits alone than in a batch");
    });

    // one query row alone, a segment alone, and a shared prefix: all as in one contiguous sequence
    const int tokens = 50, prefix = 17, d = 24, heads = 2, D = heads * d;
    std::vector<float> q = random.normals(tokens * D), k = random.normals(tokens * D), v = random.normals(tokens * D);
    Attention a{.heads = heads,
                .kv_heads = heads,
                .head_dim = d,
                .max_queries = tokens,
                .max_keys = tokens,
                .causal = true,
                .scale = 0.2f};
    auto attend = [&](const Attention& op, Value queries, Value keys, Value values, Value segments) {
        std::vector<Value> out = {activation({queries.shape[0], D})};
        s.runner.run(op, {queries, keys, values, segments}, out);
        return out[0].floats;
    };
    s.check("batch/attention-prefix", [&] {
        std::vector<float> whole =
            attend(a, activation({tokens, D}, q), activation({tokens, D}, k), activation({tokens, D}, v), absent());
        auto moved = [&](const std::vector<float>& rows) {  // own rows first, prefix behind them
            std::vector<float> out(rows.begin() + prefix * D, rows.end());
            out.insert(out.end(), rows.begin(), rows.begin() + prefix * D);
            return activation({tokens, D}, out);
        };
        const int own = tokens - prefix;
        std::vector<float> split = attend(a, moved(q), moved(k), moved(v), int32({1, 6}, {0, own, 0, own, own, prefix}));
        if (!std::equal(split.begin(), split.begin() + own * D, whole.begin() + prefix * D))
            throw std::runtime_error("a shared prefix gives other bits than a contiguous sequence");
        for (int row : {0, 20, 49}) {
            Value query = activation({1, D}, {q.begin() + row * D, q.begin() + (row + 1) * D});
            std::vector<float> alone =
                attend(a, query, activation({tokens, D}, k), activation({tokens, D}, v), int32({1, 6}, {0, 1, 0, row + 1, 0, 0}));
            if (!std::equal(alone.begin(), alone.end(), whole.begin() + row * D))
                throw std::runtime_error("a query has other bits alone than with its neighbours");
        }
    });
}

/// Multiply-adds are counted exactly: over real lengths, whatever was padded or planned.
static void counter_cases(Suite& s) {
    if (!s.cpu) return;
    Random random(20);
    auto counted = [&](const Operation& op, const std::vector<Value>& inputs, std::vector<Value> outputs, uint64_t want) {
        uint64_t before = counters().multiply_adds;
        s.runner.run(op, inputs, outputs);
        uint64_t got = counters().multiply_adds - before;
        if (got != want)
            throw std::runtime_error("counted " + std::to_string(got) + " multiply-adds, expected " + std::to_string(want));
    };
    s.check("counters/linear", [&] {
        counted(Linear{}, {activation({5, 7}, random.normals(35)), weight(As::matrix, {11, 7}, random.normals(77))},
                {activation({5, 11})}, 5 * 7 * 11);
    });
    s.check("counters/patchEmbed", [&] {
        counted(PatchEmbed{4}, {float32({2, 3, 9, 8}, random.normals(432)), weight(As::matrix, {5, 48}, random.normals(240))},
                {activation({8, 5})}, 8 * 48 * 5);
    });
    s.check("counters/attention", [&] {
        Attention a{.heads = 2, .kv_heads = 1, .head_dim = 8, .max_queries = 9, .max_keys = 20, .causal = true};
        // 3 queries over 4 prefix and 3 own keys: 5 + 6 + 7; 2 over 6: 5 + 6
        counted(a,
                {activation({5, 16}, random.normals(80)), activation({13, 8}, random.normals(104)),
                 activation({13, 8}, random.normals(104)), int32({2, 6}, {0, 3, 0, 3, 9, 4, 3, 2, 3, 6, 0, 0})},
                {activation({5, 16})}, (18 + 11) * 2 * 8 * 2);
    });
    s.check("counters/heads", [&] {
        counted(ScaledLogits{}, {activation({3, 8}, random.normals(24)), activation({5, 8}, random.normals(40))},
                {float32({3, 5})}, 120);
        counted(ZeroShotHead{}, {activation({3, 8}, random.normals(24)), activation({5, 8}, random.normals(40))},
                {float32({3, 1}), int32({3, 1})}, 120);
    });
}

static void refusal_cases(Suite& s) {
    if (s.storage != DType::float32) return;
    s.check("memory/absurd", [&] {
        try {
            s.runner.backend().allocate(size_t(1) << 50, s.runner.stream());
        } catch (const Error& error) {
            if (std::string(error.code()) == "ERR_OUT_OF_MEMORY") return;
            throw;
        }
        throw std::runtime_error("an allocation of a pebibyte succeeded");
    });
}

static int run(const std::string& name, const std::string& only) {
    const char* given = std::getenv("WARPSIGHT_FIXTURES");
    std::string folder = given ? given : "../shared/fixtures";
    std::shared_ptr<Backend> backend;
    if (name == "cpu") backend = make_cpu_backend();
#if defined(WARPSIGHT_CUDA)
    if (name.rfind("cuda:", 0) == 0) backend = make_cuda_backend(std::atoi(name.c_str() + 5));
#endif
    if (!backend) throw std::runtime_error("no backend \"" + name + "\" in this build");
    std::printf("%s: %s\n", backend->name.c_str(), backend->description.c_str());
    int passed = 0, failed = 0;
    for (DType storage : {DType::float32, DType::float16, DType::bfloat16}) {
        if (name == "cpu" && storage != DType::float32) break;  // the CPU computes in float32 only
        Suite suite(backend, storage, only);
        if (suite.cpu) set_cpu_threads(1);
        fixture_cases(suite, folder);
        for (auto cases : {linear_cases, decode_linear_cases, int8_cases, rope_append_cases, patch_embed_cases, attention_cases,
                           paged_attention_cases, norm_cases, head_cases, head_mma_cases, elementwise_cases, selection_cases,
                           resize_cases, batch_cases, counter_cases, refusal_cases})
            cases(suite);
        passed += suite.passed;
        failed += suite.failed;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}

}  // namespace warpsight::test

int main(int count, char** arguments) {
    try {
        return warpsight::test::run(count > 1 ? arguments[1] : "cpu", count > 2 ? arguments[2] : "");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
