// Runs one operation on a backend as the core would: weights through make_weight, tensors in the backend's memory, outputs that
// start as NaN with a guard band behind them, workspace of exactly the planned size. Used by ops_golden.cpp for every backend.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../src/backend.h"
#include "numbers.h"

namespace warpsight::test {

/// A tensor or weight on the host. Floats are kept as float32 and rounded to `dtype` on their way to the device.
struct Value {
    enum class As { absent, tensor, matrix, vector, table } as = As::absent;
    DType dtype = DType::float32;
    Quantization quantization = Quantization::none;  // of a matrix
    std::optional<DType> compute;                    // that a matrix is multiplied in, where not the activation dtype of the run
    bool storage = false;                            // dtype gives way to the activation dtype of the run
    Shape shape;
    std::vector<float> floats;
    std::vector<int32_t> ints;
    std::vector<uint8_t> bytes;
};

inline Value absent() { return {}; }

/// A float tensor that follows the activation dtype.
inline Value activation(Shape shape, std::vector<float> values = {}) {
    values.resize(size_t(shape.elements()));
    return {.as = Value::As::tensor, .storage = true, .shape = shape, .floats = std::move(values)};
}
/// A float32 tensor in every run: pixels, logits, scores.
inline Value float32(Shape shape, std::vector<float> values = {}) {
    Value value = activation(shape, std::move(values));
    value.storage = false;
    return value;
}
inline Value int32(Shape shape, std::vector<int32_t> values = {}) {
    values.resize(size_t(shape.elements()));
    return {.as = Value::As::tensor, .dtype = DType::int32, .shape = shape, .ints = std::move(values)};
}
inline Value uint8(Shape shape, std::vector<uint8_t> values = {}) {
    values.resize(size_t(shape.elements()));
    return {.as = Value::As::tensor, .dtype = DType::uint8, .shape = shape, .bytes = std::move(values)};
}
inline Value weight(Value::As as, Shape shape, std::vector<float> values, DType dtype = DType::float32) {
    return {.as = as, .dtype = dtype, .shape = shape, .floats = std::move(values)};
}

inline std::vector<uint8_t> encode(const std::vector<float>& values, DType dtype) {
    std::vector<uint8_t> out(values.size() * size_of(dtype));
    for (size_t i = 0; i < values.size(); ++i) {
        if (dtype == DType::float32) {
            std::memcpy(&out[4 * i], &values[i], 4);
        } else {
            uint16_t half = dtype == DType::float16 ? to_float16(values[i]) : to_bfloat16(values[i]);
            std::memcpy(&out[2 * i], &half, 2);
        }
    }
    return out;
}

inline std::vector<float> decode(const std::vector<uint8_t>& bytes, DType dtype) {
    std::vector<float> out(bytes.size() / size_of(dtype));
    for (size_t i = 0; i < out.size(); ++i) {
        uint16_t half = 0;
        if (dtype == DType::float32) {
            std::memcpy(&out[i], &bytes[4 * i], 4);
        } else {
            std::memcpy(&half, &bytes[2 * i], 2);
            out[i] = dtype == DType::float16 ? from_float16(half) : from_bfloat16(half);
        }
    }
    return out;
}

class MemorySource : public RowSource {
public:
    MemorySource(std::vector<uint8_t> bytes, size_t row_bytes) : bytes_(std::move(bytes)), row_bytes_(row_bytes) {}
    void read_rows(int64_t row, int64_t count, void* destination) override {
        if (row < 0 || count < 0 || size_t(row + count) * row_bytes_ > bytes_.size())
            throw std::runtime_error("rows read past the end of a weight");
        if (count > 0 && row_bytes_ > 0)
            std::memcpy(destination, bytes_.data() + size_t(row) * row_bytes_, size_t(count) * row_bytes_);
    }

private:
    std::vector<uint8_t> bytes_;
    size_t row_bytes_;
};

class Runner {
public:
    Runner(std::shared_ptr<Backend> backend, DType storage)
        : storage(storage), backend_(std::move(backend)), stream_(backend_->make_stream(true)) {}

    /// Fills `outputs` and returns the raw bytes of all of them, one after the other. Throws if a guard band was written to.
    /// `changed`, one of the float tensors in `inputs`, gets what the operation made of it.
    std::vector<uint8_t> run(const Operation& op, const std::vector<Value>& inputs, std::vector<Value>& outputs,
                             Value* changed = nullptr) {
        StepSpec spec{.op = op};
        std::vector<Block> blocks;
        std::vector<TensorView> in, out;
        Block in_place;
        for (auto& value : inputs) {
            spec.inputs.push_back(operand(value));
            in.push_back(place(value, blocks));
            if (&value == changed) in_place = blocks.back();
        }
        for (auto& value : outputs) {
            spec.outputs.push_back(operand(value));
            out.push_back(place_output(value, blocks));
        }
        std::unique_ptr<Step> step = backend_->plan(spec);
        kernel = step->kernel;
        Block workspace = allocate(step->workspace_bytes);
        fill(workspace);
        step->run(*stream_, {.inputs = in, .outputs = out, .workspace = workspace.memory()});
        stream_->synchronize();

        std::vector<uint8_t> raw;
        check_guard(workspace, "workspace");
        size_t first_output = blocks.size() - count_present(outputs);
        for (auto& value : outputs) {
            if (value.as == Value::As::absent) continue;
            Block& block = blocks[first_output++];
            std::vector<uint8_t> bytes = check_guard(block, "output");
            DType dtype = dtype_of(value);
            if (dtype == DType::int32) {
                if (!bytes.empty()) std::memcpy(value.ints.data(), bytes.data(), bytes.size());
            } else if (dtype == DType::uint8) {
                value.bytes = bytes;
            } else {
                value.floats = decode(bytes, dtype);
            }
            raw.insert(raw.end(), bytes.begin(), bytes.end());
        }
        if (changed) changed->floats = decode(check_guard(in_place, "input", kNumbers), dtype_of(*changed));
        return raw;
    }

    Backend& backend() { return *backend_; }
    Stream& stream() { return *stream_; }

    const DType storage;
    std::string kernel;  // of the last run

private:
    static constexpr size_t kGuard = 256;
    static constexpr uint8_t kNothing = 0xff, kNumbers = 0x3f;

    struct Block {
        std::shared_ptr<void> owner;
        size_t bytes = 0;
        void* memory() const { return owner.get(); }
    };

    DType dtype_of(const Value& value) const { return value.storage ? storage : value.dtype; }

    static size_t count_present(const std::vector<Value>& values) {
        size_t count = 0;
        for (auto& value : values) count += value.as != Value::As::absent;
        return count;
    }

    Operand operand(const Value& value) {
        if (value.as == Value::As::absent) return {};
        Operand out{.present = true, .dtype = dtype_of(value), .shape = value.shape};
        if (value.as == Value::As::tensor) return out;
        WeightLayout layout = value.as == Value::As::matrix   ? WeightLayout::matrix
                              : value.as == Value::As::vector ? WeightLayout::vector
                                                              : WeightLayout::table;
        int64_t rows = value.shape.rank == 1 ? value.shape[0] : value.shape.rows();
        int64_t columns = value.shape.rank == 1 ? 1 : value.shape.last();
        MemorySource source(encode(value.floats, value.dtype), size_t(columns) * size_of(value.dtype));
        out.weight = backend_->make_weight(layout, value.dtype, value.compute.value_or(storage), value.quantization, rows,
                                           columns, source);
        return out;
    }

    Block allocate(size_t bytes) {
        auto release = [this, bytes](void* memory) { backend_->release(memory, bytes + kGuard, *stream_); };
        return {{backend_->allocate(bytes + kGuard, *stream_), release}, bytes};
    }

    /// Outputs and workspaces are filled with kNothing, NaN in every float type; inputs are followed by ordinary numbers, so that
    /// a read past their end does not look like one that was refused.
    void fill(const Block& block, uint8_t with = kNothing) {
        std::vector<uint8_t> bytes(block.bytes + kGuard, with);
        stream_->upload(block.memory(), bytes.data(), bytes.size());
    }

    TensorView place(const Value& value, std::vector<Block>& blocks) {
        if (value.as != Value::As::tensor) return {};
        DType dtype = dtype_of(value);
        std::vector<uint8_t> bytes = value.bytes;
        if (dtype == DType::int32) {
            bytes.resize(value.ints.size() * 4);
            if (!bytes.empty()) std::memcpy(bytes.data(), value.ints.data(), bytes.size());
        } else if (dtype != DType::uint8) {
            bytes = encode(value.floats, dtype);
        }
        if (bytes.size() != size_t(value.shape.elements()) * size_of(dtype))
            throw std::runtime_error("a value of the wrong length for " + value.shape.text());
        blocks.push_back(allocate(bytes.size()));
        fill(blocks.back(), kNumbers);
        if (!bytes.empty()) stream_->upload(blocks.back().memory(), bytes.data(), bytes.size());
        return {blocks.back().memory(), dtype, value.shape};
    }

    TensorView place_output(const Value& value, std::vector<Block>& blocks) {
        if (value.as == Value::As::absent) return {};
        blocks.push_back(allocate(size_t(value.shape.elements()) * size_of(dtype_of(value))));
        fill(blocks.back());
        return {blocks.back().memory(), dtype_of(value), value.shape};
    }

    std::vector<uint8_t> check_guard(const Block& block, const char* what, uint8_t filled = kNothing) {
        std::vector<uint8_t> bytes(block.bytes + kGuard);
        stream_->download(bytes.data(), block.memory(), bytes.size());
        stream_->synchronize();
        for (size_t i = block.bytes; i < bytes.size(); ++i)
            if (bytes[i] != filled)
                throw std::runtime_error(std::string(what) + ": written " + std::to_string(i - block.bytes) +
                                         " bytes past its end");
        bytes.resize(block.bytes);
        return bytes;
    }

    std::shared_ptr<Backend> backend_;
    std::unique_ptr<Stream> stream_;
};

}  // namespace warpsight::test
