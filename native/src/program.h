// Programs: a flat array of planned steps over slots, run with one call. An operation called by itself is a program of one step.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend.h"
#include "host_copy.h"
#include "queue.h"
#include "tensor.h"

namespace warpsight {

/// A tensor inside a program: given by the caller, made by a step, or both made and returned.
struct SlotSpec {
    DType dtype = DType::float32;
    Shape shape;  // the largest
    Leading leading;
};

/// An input or output of a step: a slot seen in a shape (the same elements, perhaps grouped otherwise), a weight, or absent.
struct OperandSpec {
    int slot = -1;
    Operand operand;
};

struct ProgramStepSpec {
    Operation op;
    std::vector<OperandSpec> inputs, outputs;
};

/// A slot that is a tensor of its own in every run, where it lies: a constant, or a cache that steps change in place.
struct BoundSlot {
    int slot = 0;
    std::shared_ptr<Storage> storage;
};

struct ProgramSpec {
    int symbols = 0;
    std::vector<SlotSpec> slots;
    std::vector<int> inputs, outputs;  // slots
    std::vector<BoundSlot> bound;
    std::vector<ProgramStepSpec> steps;
    bool record = false;  // replay as one launch where the backend can
};

/// One input of a run: a tensor, or host memory. Host memory is `owned` (freed with the run) or borrowed (alive and unchanged
/// until the run's job is destroyed: the binding keeps its JavaScript owner).
struct RunInput {
    std::shared_ptr<Storage> storage;
    struct Piece {
        const void* data;
        size_t bytes;
    };
    std::vector<Piece> pieces;  // one after the other
    HostCopy owned;
};

class Program : public std::enable_shared_from_this<Program> {
public:
    /// Plans every step; throws what a step's plan throws, naming operation and shapes.
    Program(std::shared_ptr<Device> device, ProgramSpec spec);

    struct PlannedStep {
        std::unique_ptr<Step> step;
        std::string op, shapes;
        std::vector<OperandSpec> inputs, outputs;
        size_t workspace = 0;  // offset in the arena
    };

    const ProgramSpec& spec() const { return spec_; }
    const std::vector<PlannedStep>& steps() const { return steps_; }
    size_t arena_bytes() const { return arena_bytes_; }
    const std::shared_ptr<Device>& device() const { return device_; }
    /// The largest value a symbol may take: beyond it a slot would be too small.
    int64_t symbol_limit(int symbol) const { return symbol_limit_[size_t(symbol)]; }

private:
    friend class RunJob;
    void limit_symbols();
    void place_slots();

    std::shared_ptr<Device> device_;
    ProgramSpec spec_;
    std::vector<PlannedStep> steps_;
    std::vector<int64_t> symbol_limit_;

    // Where a slot lives: at an offset of the lane's arena, or in the storage or host memory that the caller gave.
    static constexpr size_t kOutside = ~size_t(0);
    std::vector<size_t> slot_offset_;
    size_t symbols_offset_ = 0;
    size_t arena_bytes_ = 0;
    // inputs and outputs too live in the arena: addresses are the same in every run, so that it can be recorded
    bool inside_ = false;

    struct Recorded {
        const std::byte* arena = nullptr;
        std::unique_ptr<Recording> recording;
    };
    std::unordered_map<const Lane*, Recorded> recordings_;  // executor's thread only
};

/// One run of a program on a lane.
class RunJob : public Job {
public:
    RunJob(std::shared_ptr<Program> program, std::vector<int32_t> symbols, std::vector<RunInput> inputs,
           std::vector<std::shared_ptr<Storage>> outputs);

    bool advance(Lane& lane) override;
    void finish() override;
    void cancel(const std::shared_ptr<const Failure>& why) override;

    std::shared_ptr<const AbortFlag> aborted;  // optional: read between steps
    std::vector<double>* step_ms = nullptr;    // filled if given: what the device took for each step, not replayed
    std::shared_ptr<const Failure> failure;    // once finished
    std::function<void(RunJob&)> on_finish;

private:
    void start(Lane& lane);
    void stage_inputs(Lane& lane, std::byte* arena);
    void name_step(size_t index);
    void run_step(Lane& lane, size_t index);
    void settle(Lane& lane);
    TensorView view(const OperandSpec& operand) const;

    std::shared_ptr<Program> program_;
    std::vector<int32_t> symbols_;
    std::vector<RunInput> run_inputs_;
    std::vector<std::shared_ptr<Storage>> outputs_;
    std::vector<void*> slot_data_;
    std::byte* arena_ = nullptr;
    size_t next_ = 0;
    bool started_ = false;
    std::string where_;                         // in front of an error: the step that it comes from
    std::vector<std::unique_ptr<Mark>> marks_;  // with step_ms: before the first step and behind each
};

/// Copies a tensor's bytes to host memory, 16-bit floats widened to float32 on request.
class ReadJob : public Job {
public:
    ReadJob(std::shared_ptr<Storage> storage, bool widen);
    bool advance(Lane& lane) override;
    void finish() override;
    void cancel(const std::shared_ptr<const Failure>& why) override { failure = why; }

    std::shared_ptr<const Failure> failure;
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
    std::function<void(ReadJob&)> on_finish;

private:
    bool widen_;
};

/// Fills a new tensor from host memory; without any it gets memory only.
class UploadJob : public Job {
public:
    UploadJob(std::shared_ptr<Storage> storage, HostCopy bytes) : storage_(std::move(storage)), bytes_(std::move(bytes)) {}
    bool advance(Lane& lane) override;
    void finish() override {}
    void cancel(const std::shared_ptr<const Failure>& why) override { storage_->poison(why); }

private:
    std::shared_ptr<Storage> storage_;
    HostCopy bytes_;
};

}  // namespace warpsight
