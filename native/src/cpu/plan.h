// How the CPU backend plans: one function per operation, in the file of its kind. A planned step is a lambda that knows its
// parameters and weights and is given the tensors of a run.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "../backend.h"
#include "../counters.h"
#include "isa.h"
#include "kernels.h"
#include "pool.h"
#include "packed_weight.h"

namespace warpsight::cpu {

std::unique_ptr<Step> plan(const Linear& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const PatchEmbed& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Embed& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const LayerNorm& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const RmsNorm& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Attention& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const L2Normalize& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const ScaledLogits& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const ZeroShotHead& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Softmax& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Activate& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const SiluGate& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Binary& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Argmax& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const TopK& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const GatherRows& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const SegmentMean& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Rope& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const AppendRows& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const RopeAppend& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const PagedAttention& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Splice& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Concat& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const SampleDistribution& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Sample& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const ResizeHorizontal& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const ResizeVertical& op, const StepSpec& spec);
std::unique_ptr<Step> plan(const Cast& op, const StepSpec& spec);

/// Whether `from` can write the rows that `to` multiplies packed, as a Gemm has them, and `to` read them so.
bool takes_packed_rows(const StepSpec& from, const StepSpec& to);

template <typename Run>
class LambdaStep final : public Step {
public:
    explicit LambdaStep(Run run) : run_(std::move(run)) {}
    void run(Stream&, const StepArguments& arguments) const override { run_(arguments); }

private:
    Run run_;
};

/// `run` is called with the StepArguments. Bytes are those of all operands once.
template <typename Run>
std::unique_ptr<Step> make_step(std::string kernel, const StepSpec& spec, double flops, size_t workspace_bytes, Run run) {
    auto step = std::make_unique<LambdaStep<Run>>(std::move(run));
    step->kernel = std::move(kernel);
    step->flops = flops;
    step->workspace_bytes = workspace_bytes;
    for (auto* operands : {&spec.inputs, &spec.outputs})
        for (const Operand& operand : *operands) {
            if (!operand.present) continue;
            step->bytes += operand.weight ? double(operand.weight->bytes)
                                          : double(operand.shape.elements()) * double(size_of(operand.dtype));
        }
    return step;
}

/// The operand at `index`; those left out at the end of the list are absent.
const Operand& input(const StepSpec& spec, size_t index);
const Operand& output(const StepSpec& spec, size_t index);
inline bool has_input(const StepSpec& spec, size_t index) { return input(spec, index).present; }
inline bool has_output(const StepSpec& spec, size_t index) { return output(spec, index).present; }

/// Throws ERR_DTYPE unless every float tensor among the operands is float32: the CPU backend computes in nothing else.
void require_float32(const char* name, const StepSpec& spec);

/// The vector at `index` as floats, or null where it is absent. `weight` keeps it alive.
using WeightHandle = std::shared_ptr<const CpuWeight>;
WeightHandle weight_input(const StepSpec& spec, size_t index, WeightLayout layout);
inline const float* floats_of(const WeightHandle& weight) { return weight ? static_cast<const float*>(weight->data) : nullptr; }

inline float* floats_at(std::span<const TensorView> views, size_t index) {
    return index < views.size() ? views[index].as<float>() : nullptr;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// parallel_for where there is work for several threads (about 10 µs of it), in this thread where not. `work` counts
/// multiply-adds or the like.
template <typename Body>
void parallel_if_worth(double work, int64_t count, const Body& body) {
    if (work < 65536) {
        for (int64_t i = 0; i < count; ++i) body(i);
    } else {
        parallel_for(count, body);
    }
}

/// body(first, last) over rows of D elements, in chunks worth a thread's while.
template <typename Body>
void for_rows(int64_t rows, int64_t D, const Body& body) {
    int64_t chunk = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, D));
    parallel_if_worth(double(rows) * double(D), ceil_div(rows, chunk),
                      [&](int64_t i) { body(i * chunk, std::min(rows, (i + 1) * chunk)); });
}

inline void count_multiply_adds(int64_t count) { counters().multiply_adds.fetch_add(uint64_t(count), std::memory_order_relaxed); }

}  // namespace warpsight::cpu
