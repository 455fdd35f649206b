// cpu_loops: lists the steps below, a line each: name, kernel, units, what a unit is, tabs between them.
// cpu_loops INDEX RUNS: plans that step and runs it so often, on one thread. Under callgrind two runs less one are what a run
// executes (npm run report:cpu). A step more is a line in `cases()`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../native/src/cpu/backend.h"

namespace warpsight {

struct Input {
    Shape shape;
    bool weight = false;
    WeightLayout layout = WeightLayout::matrix;
    DType dtype = DType::float32;
};

static Input tensor(Shape shape) { return {shape}; }
static Input matrix(int64_t N, int64_t K, DType dtype = DType::float32) { return {{N, K}, true, WeightLayout::matrix, dtype}; }
static Input vector(int64_t N) { return {{N, 1}, true, WeightLayout::vector}; }

struct Case {
    std::string name;
    Operation op;
    std::vector<Input> inputs;
    Shape output;
    double units;
    const char* unit;
};

static Case linear(int64_t M, int64_t N, int64_t K, DType dtype = DType::float32) {
    std::string name = "linear, " + std::to_string(M) + " rows, " + std::to_string(K) + " to " + std::to_string(N);
    if (dtype != DType::float32) name += std::string(", weight ") + name_of(dtype);
    return {name, Linear{}, {tensor({M, K}), matrix(N, K, dtype), vector(N)}, {M, N}, double(M * N * K), "multiply-add"};
}

/// What a number of the activation costs beyond the product that it is part of.
static Case activate(const char* name, Activation activation) {
    return {name, Activate{activation}, {tensor({50, 3072})}, {50, 3072}, 50 * 3072, "number"};
}

static Case attention(int T, int heads, int head_dim, bool causal) {
    Attention op{.heads = heads, .kv_heads = heads, .head_dim = head_dim, .max_queries = T, .max_keys = T, .causal = causal};
    op.k_offset = heads * head_dim;
    op.v_offset = 2 * op.k_offset;
    op.scale = 0.125f;
    const Input qkv = tensor({T, 3 * heads * head_dim});
    double pairs = causal ? 0.5 * T * (T + 1) : double(T) * T;
    std::string name = "attention, " + std::to_string(T) + " tokens, " + std::to_string(heads) + " heads of " +
                       std::to_string(head_dim) + (causal ? ", causal" : "");
    return {name, op, {qkv, qkv, qkv}, {T, heads * head_dim}, 2 * pairs * heads * head_dim, "multiply-add"};
}

static std::vector<Case> cases() {
    return {
        linear(50, 768, 768),
        linear(50, 2304, 768),
        linear(50, 3072, 768),
        linear(50, 768, 3072),
        linear(77, 2048, 512),
        linear(257, 1024, 1024),
        linear(1, 768, 768),
        linear(50, 3072, 768, DType::float16),
        linear(50, 3072, 768, DType::bfloat16),
        {"patchEmbed, 224 x 224, patches of 32",
         PatchEmbed{32},
         {tensor({1, 3, 224, 224}), matrix(768, 3072)},
         {49, 768},
         49.0 * 768 * 3072,
         "multiply-add"},
        attention(50, 12, 64, false),
        attention(257, 16, 64, false),
        attention(77, 8, 64, true),
        {"layerNorm, 50 rows of 768", LayerNorm{}, {tensor({50, 768}), vector(768), vector(768)}, {50, 768}, 50 * 768, "number"},
        activate("quickGelu, 50 rows of 3072", Activation::quick_gelu),
        activate("gelu, 50 rows of 3072", Activation::gelu),
        {"softmax, 64 rows of 1000", Softmax{}, {tensor({64, 1000})}, {64, 1000}, 64 * 1000, "number"},
        {"l2Normalize, 64 rows of 512", L2Normalize{}, {tensor({64, 512})}, {64, 512}, 64 * 512, "number"},
        {"scaledLogits, 64 rows with 1000 of 512",
         ScaledLogits{},
         {tensor({64, 512}), tensor({1000, 512})},
         {64, 1000},
         64.0 * 1000 * 512,
         "multiply-add"},
    };
}

/// Numbers between −1 and 1: whatever branches on them sees ordinary ones.
static float number(size_t i) { return float(int(i * 40503u >> 4 & 2047) - 1024) / 1024; }

class Numbers final : public RowSource {
public:
    Numbers(int64_t columns, DType dtype) : columns_(size_t(columns)), dtype_(dtype) {}
    void read_rows(int64_t row, int64_t count, void* to) override {
        for (size_t i = 0; i < size_t(count) * columns_; ++i) {
            const float value = number(size_t(row) * columns_ + i);
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            if (dtype_ == DType::float32) static_cast<float*>(to)[i] = value;
            else if (dtype_ == DType::bfloat16) static_cast<uint16_t*>(to)[i] = uint16_t(bits >> 16);
            else static_cast<uint16_t*>(to)[i] = uint16_t(0x3000 + i % 0x800);  // 0.125 … 0.5
        }
    }

private:
    size_t columns_;
    DType dtype_;
};

/// A planned case with its memory.
class Planned {
public:
    explicit Planned(const Case& c) {
        StepSpec spec{.op = c.op};
        for (const Input& input : c.inputs) {
            Operand operand{.present = true, .dtype = input.dtype, .shape = input.shape};
            if (input.weight) {
                Numbers source(input.shape.last(), input.dtype);
                operand.weight = backend_->make_weight(input.layout, input.dtype, DType::float32, Quantization::none,
                                                       input.shape[0], input.shape[1], source);
            }
            spec.inputs.push_back(operand);
            inputs_.push_back(input.weight ? TensorView{} : place(input.shape));
        }
        spec.outputs = {Operand{.present = true, .shape = c.output}};
        outputs_ = {place(c.output)};
        step_ = backend_->plan(spec);
        workspace_ = backend_->allocate(step_->workspace_bytes, *stream_);
    }
    Planned(const Planned&) = delete;
    Planned& operator=(const Planned&) = delete;
    ~Planned() {
        for (auto* views : {&inputs_, &outputs_})
            for (const TensorView& view : *views)
                if (view.data) backend_->release(view.data, size_t(view.shape.elements()) * 4, *stream_);
        backend_->release(workspace_, step_->workspace_bytes, *stream_);
    }

    void run() { step_->run(*stream_, {.inputs = inputs_, .outputs = outputs_, .workspace = workspace_}); }
    const std::string& kernel() const { return step_->kernel; }

private:
    TensorView place(Shape shape) {
        const size_t count = size_t(shape.elements());
        auto* data = static_cast<float*>(backend_->allocate(count * sizeof(float), *stream_));
        for (size_t i = 0; i < count; ++i) data[i] = number(i);
        return {data, DType::float32, shape};
    }

    std::shared_ptr<Backend> backend_ = make_cpu_backend();
    std::unique_ptr<Stream> stream_ = backend_->make_stream(true);
    std::vector<TensorView> inputs_, outputs_;
    std::unique_ptr<Step> step_;
    void* workspace_ = nullptr;
};

}  // namespace warpsight

int main(int count, char** arguments) {
    using namespace warpsight;
    set_cpu_threads(1);
    const std::vector<Case> all = cases();
    if (count == 1) {
        for (const Case& c : all) std::printf("%s\t%s\t%.0f\t%s\n", c.name.c_str(), Planned(c).kernel().c_str(), c.units, c.unit);
        return 0;
    }
    if (count != 3) return 2;
    Planned planned(all.at(size_t(std::atoi(arguments[1]))));
    for (int runs = std::atoi(arguments[2]); runs > 0; --runs) planned.run();
    return 0;
}
