#include "program.h"

#include <algorithm>
#include <cstring>

#include "counters.h"
#include "widen.h"

namespace warpsight {

Counters& counters() {
    static Counters& all = *new Counters;
    return all;
}

const char* name_of(const Operation& op) {
    static const char* const names[] = {"linear",
                                        "patchEmbed",
                                        "embed",
                                        "layerNorm",
                                        "rmsNorm",
                                        "attention",
                                        "l2Normalize",
                                        "scaledLogits",
                                        "zeroShotHead",
                                        "softmax",
                                        "activate",
                                        "siluGate",
                                        "binary",
                                        "argmax",
                                        "topK",
                                        "gatherRows",
                                        "segmentMean",
                                        "rope",
                                        "appendRows",
                                        "ropeAppend",
                                        "pagedAttention",
                                        "splice",
                                        "concat",
                                        "sampleDistribution",
                                        "sample",
                                        "resizeHorizontal",
                                        "resizeVertical",
                                        "cast"};
    static_assert(std::size(names) == std::variant_size_v<Operation>);
    return names[op.index()];
}

constexpr size_t kMaxInputs = 8, kMaxOutputs = 4;  // of one step; arguments.cpp refuses more
static constexpr size_t kAlignment = 256;
static size_t align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

static size_t bytes_of(const SlotSpec& slot) { return size_t(slot.shape.elements()) * size_of(slot.dtype); }

// "x [50, 768], weight [2304, 768]" would need names; the order of ops.h says as much: "([50, 768], [2304, 768], -)"
static std::string shapes_text(const std::vector<OperandSpec>& operands) {
    std::string text = "(";
    for (size_t i = 0; i < operands.size(); ++i) {
        const Operand& operand = operands[i].operand;
        if (i) text += ", ";
        if (!operand.present) text += "-";
        else if (operand.weight) text += Shape{operand.weight->rows, operand.weight->columns}.text();
        else text += operand.shape.text();
    }
    return text + ")";
}

// ── planning ─────────────────────────────────────────────────────────────────────────────────────────────────────────

static StepSpec request_of(const ProgramStepSpec& step) {
    StepSpec request{step.op, {}, {}};
    for (const OperandSpec& operand : step.inputs) request.inputs.push_back(operand.operand);
    for (const OperandSpec& operand : step.outputs) request.outputs.push_back(operand.operand);
    return request;
}

/// Marks what a step makes for one other alone, where the backend has an order of its own for it.
static void hand_over(const Backend& backend, const ProgramSpec& spec, std::vector<StepSpec>& requests) {
    struct Use {
        int maker = -1, reader = -1, operands = 0;
    };
    std::vector<Use> uses(spec.slots.size());
    for (int i = 0; i < int(spec.steps.size()); ++i) {
        const ProgramStepSpec& step = spec.steps[size_t(i)];
        for (const auto* operands : {&step.inputs, &step.outputs})
            for (const OperandSpec& operand : *operands)
                if (operand.slot >= 0) ++uses[size_t(operand.slot)].operands;
        if (!step.inputs.empty() && step.inputs[0].slot >= 0) uses[size_t(step.inputs[0].slot)].reader = i;
        if (!step.outputs.empty() && step.outputs[0].slot >= 0) uses[size_t(step.outputs[0].slot)].maker = i;
    }
    for (int slot : spec.inputs) ++uses[size_t(slot)].operands;
    for (int slot : spec.outputs) ++uses[size_t(slot)].operands;
    for (const BoundSlot& bound : spec.bound) ++uses[size_t(bound.slot)].operands;
    for (const Use& use : uses) {
        if (use.maker < 0 || use.reader < 0 || use.operands != 2) continue;
        StepSpec &from = requests[size_t(use.maker)], &to = requests[size_t(use.reader)];
        if (backend.hands_over(from, to)) from.outputs[0].handed_over = to.inputs[0].handed_over = true;
    }
}

Program::Program(std::shared_ptr<Device> device, ProgramSpec spec) : device_(std::move(device)), spec_(std::move(spec)) {
    std::vector<StepSpec> requests;
    for (const ProgramStepSpec& step : spec_.steps) requests.push_back(request_of(step));
    hand_over(device_->backend(), spec_, requests);
    for (size_t i = 0; i < spec_.steps.size(); ++i) {
        const ProgramStepSpec& step = spec_.steps[i];
        PlannedStep planned{nullptr, name_of(step.op), shapes_text(step.inputs), step.inputs, step.outputs};
        try {
            planned.step = device_->backend().plan(requests[i]);
        } catch (const Error& error) {
            throw Error(error.code(), planned.op + planned.shapes + ": " + error.what());
        }
        steps_.push_back(std::move(planned));
    }
    limit_symbols();
    place_slots();
}

void Program::limit_symbols() {
    symbol_limit_.assign(size_t(spec_.symbols), INT32_MAX);
    auto limit = [&](const Leading& leading, const Shape& shape) {
        if (leading.symbol < 0) return;
        if (shape.rank == 0) throw Error("ERR_SHAPE", "a scalar has no leading dimension");
        int64_t& most = symbol_limit_[size_t(leading.symbol)];
        most = std::min(most, shape[0] / leading.multiple);
    };
    for (const SlotSpec& slot : spec_.slots) limit(slot.leading, slot.shape);
    for (const ProgramStepSpec& step : spec_.steps)
        for (const auto* operands : {&step.inputs, &step.outputs})
            for (const OperandSpec& operand : *operands) limit(operand.operand.leading, operand.operand.shape);
}

// First fit over lifetimes: a slot lives from the step that makes it to the last that reads it, a workspace during its step.
void Program::place_slots() {
    struct Piece {
        size_t bytes;
        int first, last;
        size_t* offset;
    };
    inside_ = spec_.record;
    int end = int(steps_.size());
    std::vector<int> first(spec_.slots.size(), end + 1), last(spec_.slots.size(), -1);
    for (int i = 0; i < end; ++i) {
        for (const auto* operands : {&steps_[i].inputs, &steps_[i].outputs})
            for (const OperandSpec& operand : *operands)
                if (operand.slot >= 0) {
                    first[operand.slot] = std::min(first[operand.slot], i);
                    last[operand.slot] = std::max(last[operand.slot], i);
                }
    }
    std::vector<bool> outside(spec_.slots.size(), false);
    for (const BoundSlot& bound : spec_.bound) first[bound.slot] = end + 1, last[bound.slot] = -1;
    for (int slot : spec_.inputs) first[slot] = -1, last[slot] = std::max(last[slot], 0), outside[slot] = !inside_;
    for (int slot : spec_.outputs) last[slot] = end, outside[slot] = !inside_;

    slot_offset_.assign(spec_.slots.size(), kOutside);
    std::vector<Piece> pieces;
    for (size_t slot = 0; slot < spec_.slots.size(); ++slot)
        if (last[slot] >= 0)
            pieces.push_back({bytes_of(spec_.slots[slot]), outside[slot] ? -1 : first[slot], last[slot], &slot_offset_[slot]});
    // An input or output that lives outside still gets a place if it is an input: host memory is staged there.
    std::erase_if(pieces, [&](const Piece& piece) {
        size_t slot = size_t(piece.offset - slot_offset_.data());
        bool is_input = std::find(spec_.inputs.begin(), spec_.inputs.end(), int(slot)) != spec_.inputs.end();
        return outside[slot] && !is_input;
    });
    for (int i = 0; i < end; ++i) {
        steps_[i].workspace = 0;
        if (steps_[i].step->workspace_bytes) pieces.push_back({steps_[i].step->workspace_bytes, i, i, &steps_[i].workspace});
    }
    pieces.push_back({size_t(spec_.symbols) * sizeof(int32_t), -1, end, &symbols_offset_});

    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.bytes > b.bytes; });
    std::vector<const Piece*> placed;  // by offset
    for (const Piece& piece : pieces) {
        size_t offset = 0;
        for (const Piece* other : placed) {
            if (other->last < piece.first || piece.last < other->first) continue;
            if (*other->offset >= offset + piece.bytes) continue;
            offset = std::max(offset, align(*other->offset + other->bytes));
        }
        *piece.offset = offset;
        placed.insert(
            std::upper_bound(placed.begin(), placed.end(), &piece, [](auto* a, auto* b) { return *a->offset < *b->offset; }),
            &piece);
        arena_bytes_ = std::max(arena_bytes_, align(offset + piece.bytes));
    }
}

// ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────

RunJob::RunJob(std::shared_ptr<Program> program, std::vector<int32_t> symbols, std::vector<RunInput> inputs,
               std::vector<std::shared_ptr<Storage>> outputs)
    : program_(std::move(program)), symbols_(std::move(symbols)), run_inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
    for (const RunInput& input : run_inputs_)
        if (input.storage) Job::inputs.push_back(input.storage);
    for (const BoundSlot& bound : program_->spec_.bound) Job::inputs.push_back(bound.storage);
}

bool RunJob::advance(Lane& lane) {
    if (aborted && aborted->load()) {
        cancel(std::make_shared<Failure>(Failure{"ERR_ABORTED", "the operation was aborted", aborted}));
        return true;
    }
    try {
        if (!started_) {
            for (const auto& input : Job::inputs)
                if (input->failure()) {
                    cancel(input->failure());
                    return true;
                }
            started_ = true;
            if (program_->steps_.size() == 1) name_step(0);
            start(lane);
            if (next_ < program_->steps_.size()) return false;
        }
        if (next_ < program_->steps_.size()) {
            run_step(lane, next_++);
            if (next_ < program_->steps_.size()) return false;
        }
        where_.clear();
        settle(lane);
    } catch (const Error& error) {
        cancel(std::make_shared<Failure>(Failure{error.code(), where_ + error.what()}));
    } catch (const std::bad_alloc&) {
        cancel(std::make_shared<Failure>(Failure{"ERR_OUT_OF_MEMORY", where_ + "out of host memory"}));
    } catch (const std::exception& error) {
        cancel(std::make_shared<Failure>(Failure{"ERR_INTERNAL", where_ + error.what()}));
    }
    return true;
}

void RunJob::start(Lane& lane) {
    for (const auto& input : Job::inputs)
        if (input->lane().get() != &lane && input->lane()->device() == lane.device())
            lane.stream().wait_for(input->lane()->stream());

    arena_ = lane.arena(program_->arena_bytes_);
    slot_data_.assign(program_->spec_.slots.size(), nullptr);
    for (size_t slot = 0; slot < slot_data_.size(); ++slot)
        if (program_->slot_offset_[slot] != Program::kOutside) slot_data_[slot] = arena_ + program_->slot_offset_[slot];
    for (const BoundSlot& bound : program_->spec_.bound) slot_data_[bound.slot] = bound.storage->data();
    if (!program_->inside_) {
        for (size_t i = 0; i < outputs_.size(); ++i) slot_data_[program_->spec_.outputs[i]] = outputs_[i]->allocate();
    } else {
        for (const auto& output : outputs_) output->allocate();
    }
    stage_inputs(lane, arena_);
    if (program_->spec_.symbols && program_->inside_)
        lane.stream().upload(arena_ + program_->symbols_offset_, symbols_.data(), symbols_.size() * sizeof(int32_t));

    if (program_->inside_ && !step_ms) {
        Program::Recorded& recorded = program_->recordings_[&lane];
        if (!recorded.recording || recorded.arena != arena_) {
            recorded.recording = lane.backend().record(lane.stream(), [&] {
                for (size_t i = 0; i < program_->steps_.size(); ++i) run_step(lane, i);
            });
            recorded.arena = arena_;
            where_.clear();
        }
        recorded.recording->launch(lane.stream());
        next_ = program_->steps_.size();
    }
    // A launch takes some microseconds of this thread, more than a small kernel: while the device waits, all are queued.
    if (step_ms) lane.stream().delay(std::chrono::microseconds(20) * program_->steps_.size());
}

void RunJob::stage_inputs(Lane& lane, std::byte*) {
    // On a device of host memory a single borrowed or owned piece is used where it lies.
    bool host = lane.backend().host_memory;
    for (size_t i = 0; i < run_inputs_.size(); ++i) {
        RunInput& input = run_inputs_[i];
        void*& data = slot_data_[program_->spec_.inputs[i]];
        if (input.storage) {
            if (program_->inside_) lane.stream().copy(data, input.storage->data(), input.storage->bytes());
            else data = input.storage->data();
        } else if (host && input.pieces.size() == 1) {
            data = const_cast<void*>(input.pieces[0].data);
        } else {
            std::byte* to = static_cast<std::byte*>(data);
            for (const RunInput::Piece& piece : input.pieces) {
                lane.stream().upload(to, piece.data, piece.bytes);
                to += piece.bytes;
            }
        }
    }
}

TensorView RunJob::view(const OperandSpec& operand) const {
    if (!operand.operand.present || operand.slot < 0) return {};
    TensorView view{slot_data_[operand.slot], operand.operand.dtype, operand.operand.shape};
    const Leading& leading = operand.operand.leading;
    if (leading.symbol >= 0 && !program_->inside_) view.shape[0] = leading.multiple * symbols_[leading.symbol];
    return view;
}

void RunJob::name_step(size_t index) { where_ = program_->steps_[index].op + program_->steps_[index].shapes + ": "; }

void RunJob::run_step(Lane& lane, size_t index) {
    const Program::PlannedStep& step = program_->steps_[index];
    name_step(index);
    TensorView inputs[kMaxInputs], outputs[kMaxOutputs];
    for (size_t i = 0; i < step.inputs.size(); ++i) inputs[i] = view(step.inputs[i]);
    for (size_t i = 0; i < step.outputs.size(); ++i) outputs[i] = view(step.outputs[i]);
    StepArguments arguments;
    arguments.inputs = {inputs, step.inputs.size()};
    arguments.outputs = {outputs, step.outputs.size()};
    arguments.workspace = step.step->workspace_bytes ? arena_ + step.workspace : nullptr;
    if (program_->spec_.symbols && program_->inside_)
        arguments.symbols = reinterpret_cast<const int32_t*>(arena_ + program_->symbols_offset_);
    counters().steps.fetch_add(1, std::memory_order_relaxed);
    if (step_ms && index == 0) marks_.push_back(lane.stream().mark());
    step.step->run(lane.stream(), arguments);
    if (step_ms) marks_.push_back(lane.stream().mark());
}

void RunJob::settle(Lane& lane) {
    if (program_->inside_)
        for (size_t i = 0; i < outputs_.size(); ++i) {
            const void* from = slot_data_[program_->spec_.outputs[i]];
            if (from != outputs_[i]->data()) lane.stream().copy(outputs_[i]->data(), from, outputs_[i]->bytes());
        }
    // Memory of another lane may be reused there only after this run has read it.
    for (const auto& input : Job::inputs)
        if (input->lane().get() != &lane && input->lane()->device() == lane.device())
            input->lane()->stream().wait_for(lane.stream());
    for (const auto& output : outputs_) output->set_ready();
    if (step_ms) fence = lane.stream().fence();
}

void RunJob::cancel(const std::shared_ptr<const Failure>& why) {
    failure = why;
    for (const auto& output : outputs_)
        if (!output->settled()) output->poison(why);
}

void RunJob::finish() {
    try {
        for (size_t i = 1; i < marks_.size() && !failure; ++i) (*step_ms)[i - 1] = marks_[i]->since(*marks_[i - 1]);
    } catch (const Error& error) {
        failure = std::make_shared<Failure>(Failure{error.code(), error.what()});
    }
    if (on_finish) on_finish(*this);
}

// ── reading and filling ──────────────────────────────────────────────────────────────────────────────────────────────

ReadJob::ReadJob(std::shared_ptr<Storage> storage, bool widen) : widen_(widen && size_of(storage->dtype()) == 2) {
    inputs.push_back(std::move(storage));
}

bool ReadJob::advance(Lane& lane) {
    const std::shared_ptr<Storage>& storage = inputs[0];
    if (storage->failure()) {
        failure = storage->failure();
        return true;
    }
    try {
        size = storage->bytes();
        bytes.reset(new std::byte[std::max<size_t>(size, 1)]);
        lane.stream().download(bytes.get(), storage->data(), size);
        fence = lane.stream().fence();
    } catch (const Error& error) {
        failure = std::make_shared<Failure>(Failure{error.code(), error.what()});
    } catch (const std::bad_alloc&) {
        failure = std::make_shared<Failure>(
            Failure{"ERR_OUT_OF_MEMORY", "read: " + std::to_string(size) + " bytes of host memory are not free"});
    }
    return true;
}

void ReadJob::finish() {
    if (widen_ && !failure) {
        size_t count = size / 2;
        std::unique_ptr<std::byte[]> wide(new std::byte[std::max<size_t>(count * 4, 1)]);
        widen(inputs[0]->dtype(), bytes.get(), count, reinterpret_cast<float*>(wide.get()));
        bytes = std::move(wide);
        size = count * 4;
    }
    if (on_finish) on_finish(*this);
}

bool UploadJob::advance(Lane& lane) {
    try {
        void* data = storage_->allocate();
        if (bytes_) lane.stream().upload(data, bytes_.get(), storage_->bytes());
        storage_->set_ready();
    } catch (const Error& error) {
        storage_->poison(std::make_shared<Failure>(
            Failure{error.code(), std::string("tensor ") + storage_->shape().text() + ": " + error.what()}));
    }
    return true;
}

}  // namespace warpsight
