#include "backend.h"

#include <chrono>
#include <cstring>

#include "isa.h"
#include "limits.h"
#include "memory.h"
#include "plan.h"
#include "pool.h"
#include "packed_weight.h"

namespace warpsight::cpu {

const Operand& input(const StepSpec& spec, size_t index) {
    static const Operand absent;
    return index < spec.inputs.size() ? spec.inputs[index] : absent;
}

const Operand& output(const StepSpec& spec, size_t index) {
    static const Operand absent;
    return index < spec.outputs.size() ? spec.outputs[index] : absent;
}

void require_float32(const char* name, const StepSpec& spec) {
    for (auto* operands : {&spec.inputs, &spec.outputs})
        for (const Operand& operand : *operands)
            if (operand.present && !operand.weight && (operand.dtype == DType::float16 || operand.dtype == DType::bfloat16))
                throw Error("ERR_DTYPE", std::string(name) + ": the cpu computes in float32, got " + name_of(operand.dtype));
}

WeightHandle weight_input(const StepSpec& spec, size_t index, WeightLayout layout) {
    const Operand& operand = input(spec, index);
    if (!operand.present) return nullptr;
    auto weight = std::dynamic_pointer_cast<const CpuWeight>(operand.weight);
    if (!weight || weight->layout != layout)
        throw Error("ERR_SHAPE", "operand " + std::to_string(index) +
                                     " must be a weight of this device in the layout that the operation multiplies with");
    return weight;
}

namespace {

class CpuMark final : public Mark {
public:
    double since(const Mark& earlier) const override {
        return std::chrono::duration<double, std::milli>(at_ - static_cast<const CpuMark&>(earlier).at_).count();
    }

private:
    std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};

class CpuStream final : public Stream {
public:
    void upload(void* device, const void* host, size_t bytes) override { move(device, host, bytes); }
    void download(void* host, const void* device, size_t bytes) override { move(host, device, bytes); }
    void copy(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
    void zero(void* device, size_t bytes) override {
        if (bytes > 0) std::memset(device, 0, bytes);
    }
    void synchronize() override {}
    void wait_for(Stream&) override {}
    std::function<void()> fence() override { return {}; }
    std::unique_ptr<Mark> mark() override { return std::make_unique<CpuMark>(); }
    void delay(std::chrono::microseconds) override {}

private:
    static void move(void* to, const void* from, size_t bytes) {
        if (bytes > 0) std::memmove(to, from, bytes);
    }
};

class CpuBackend final : public Backend {
public:
    CpuBackend() {
        name = "cpu";
        host_memory = true;
        int threads = pool_threads();
        description = std::string(level().name) + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
    }

    void* allocate(size_t bytes, Stream&) override { return pool_allocate(bytes); }
    void release(void* memory, size_t bytes, Stream&) noexcept override { pool_release(memory, bytes); }

    DeviceMemory memory() override {
        MachineMemory machine = machine_memory();
        return {.total = machine.total, .free = machine.available, .weights = weight_bytes(), .allocated = pool_bytes()};
    }

    void limit_memory(uint64_t) override {
        throw Error("ERR_DEVICE", "cpu: its memory is that of the process, which the system limits");
    }

    std::unique_ptr<Stream> make_stream(bool) override { return std::make_unique<CpuStream>(); }

    std::unique_ptr<Step> plan(const StepSpec& spec) override {
        return std::visit([&](const auto& op) { return cpu::plan(op, spec); }, spec.op);
    }

    bool hands_over(const StepSpec& from, const StepSpec& to) const override { return takes_packed_rows(from, to); }

    std::unique_ptr<Recording> record(Stream&, const std::function<void()>&) override { return nullptr; }

    std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, DType compute, Quantization quantization,
                                              int64_t rows, int64_t columns, RowSource& source) override {
        return cpu::make_weight(layout, dtype, compute, quantization, rows, columns, source);
    }
};

}  // namespace

}  // namespace warpsight::cpu

namespace warpsight {

std::shared_ptr<Backend> make_cpu_backend() { return std::make_shared<cpu::CpuBackend>(); }

}  // namespace warpsight
