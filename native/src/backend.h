// What the core asks of a backend (native/src/cpu, native/cuda). A backend is a device of this process: it owns memory and
// weights, plans operations into steps and runs them in order on a stream. Nothing here names a thread pool or a cudaStream_t.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dtype.h"
#include "error.h"
#include "ops.h"

namespace warpsight {

/// A leading dimension that is known only when the program runs: size[0] = multiple · symbols[symbol], at most the planned
/// size[0].
struct Leading {
    int symbol = -1;  // -1: fixed
    int64_t multiple = 1;
};

enum class WeightLayout : uint8_t {
    matrix,  // [N, K], multiplied from the right as x·Wᵀ: packed as the backend's GEMM wants it
    vector,  // float32 [N]: biases, norms, class token, positions
    table,   // [V, D] rows that are gathered
};

/// What a matrix is kept as: its stored numbers, or one byte each with a scale for each row of W.
enum class Quantization : uint8_t { none, int8 };

/// A weight in the layout that the backend's kernels want. Immutable, shared by all environments of the process.
class Weight {
public:
    virtual ~Weight() = default;
    WeightLayout layout{};
    DType dtype{};                  // as stored on the device
    int64_t rows = 0, columns = 0;  // [N, K], [N, 1] or [V, D]
    size_t bytes = 0;               // on the device, padding included
};

/// Where a weight's numbers come from: a row-major matrix [rows, columns] of `dtype`, read in any order.
class RowSource {
public:
    virtual ~RowSource() = default;
    virtual void read_rows(int64_t row, int64_t count, void* destination) = 0;
};

/// An input or output of a step as it is planned: shape holds the largest sizes.
struct Operand {
    bool present = false;
    DType dtype = DType::float32;
    Shape shape;
    Leading leading;
    std::shared_ptr<const Weight> weight;  // set: this input is a weight, not a tensor
    bool handed_over = false;              // see Backend::hands_over()
};

struct StepSpec {
    Operation op;
    std::vector<Operand> inputs, outputs;
};

/// What a step gets when it runs. Absent operands and weights have data = nullptr.
/// On the CPU shapes are the actual ones. On CUDA, where one recorded launch serves all sizes up to the planned ones, shapes are
/// the planned ones and kernels read the actual symbol values from `symbols` on the device (null in a program without symbols).
struct StepArguments {
    std::span<const TensorView> inputs, outputs;
    void* workspace = nullptr;
    const int32_t* symbols = nullptr;
};

class Stream;

/// One planned operation: kernel chosen, workspace sized.
class Step {
public:
    virtual ~Step() = default;
    virtual void run(Stream& stream, const StepArguments& arguments) const = 0;

    std::string kernel;           // which kernel was chosen, e.g. "gemm_avx512_14x32", "gemm_simt<half>"
    double flops = 0, bytes = 0;  // at the planned sizes: 2 per multiply-add; each operand counted once
    size_t workspace_bytes = 0;   // scratch that lives during the step only
};

/// A point in the work of a stream.
class Mark {
public:
    virtual ~Mark() = default;
    /// Milliseconds of the device from an earlier mark of the same stream to this one; both have been passed.
    virtual double since(const Mark& earlier) const = 0;
};

/// Order of execution on a device. CPU: steps run in the caller's thread with the pool's help. CUDA: a cudaStream_t.
class Stream {
public:
    virtual ~Stream() = default;
    virtual void upload(void* device, const void* host, size_t bytes) = 0;    // the host memory may be reused at once
    virtual void download(void* host, const void* device, size_t bytes) = 0;  // complete after fence()
    virtual void copy(void* to, const void* from, size_t bytes) = 0;
    virtual void zero(void* device, size_t bytes) = 0;
    /// Waits until all work given so far is done; throws Error if the device failed.
    virtual void synchronize() = 0;
    /// Later work of this stream waits for work given to `other` so far.
    virtual void wait_for(Stream& other) = 0;
    /// A function that waits (in any thread) for the work given so far; empty if it is done already (CPU).
    virtual std::function<void()> fence() = 0;
    /// Marks the end of the work given so far.
    virtual std::unique_ptr<Mark> mark() = 0;
    /// Work given from here on starts so much later, and then without gaps if it was given meanwhile. Nothing on the CPU.
    virtual void delay(std::chrono::microseconds time) = 0;
};

/// A recorded sequence of launches, replayed as one (a CUDA graph).
class Recording {
public:
    virtual ~Recording() = default;
    virtual void launch(Stream& stream) = 0;
};

struct DeviceMemory {
    uint64_t total = 0, free = 0, weights = 0;  // bytes
    uint64_t allocated = 0;                     // by allocate() and not yet released: tensors and the arenas of lanes
};

class Backend {
public:
    virtual ~Backend() = default;

    std::string name;          // "cpu", "cuda:0"
    bool host_memory = false;  // true on the CPU: a host buffer can be an operand where it lies
    std::string description;   // "NVIDIA H100 80GB HBM3 (compute capability 9.0)", "avx512, 2 threads"

    /// Memory for tensors and arenas, from a pool that reuses freed blocks in stream order. Throws ERR_OUT_OF_MEMORY. Zero bytes
    /// are allowed. Called from any thread, like release(): a tensor is dropped by whoever held it last.
    virtual void* allocate(size_t bytes, Stream& stream) = 0;
    virtual void release(void* memory, size_t bytes, Stream& stream) noexcept = 0;
    virtual DeviceMemory memory() = 0;
    /// At most so many bytes of the device from here on, weights included; beyond it is ERR_OUT_OF_MEMORY.
    virtual void limit_memory(uint64_t bytes) = 0;

    virtual std::unique_ptr<Stream> make_stream(bool interactive) = 0;

    /// Throws ERR_DTYPE, ERR_SHAPE where this backend has no kernel for it.
    virtual std::unique_ptr<Step> plan(const StepSpec& spec) = 0;
    /// Of a tensor that is the first output of one step and the first input of another, and of nothing else: whether its numbers
    /// had better lie in the order that `to` works in. Both operands are planned as `handed_over` then.
    virtual bool hands_over(const StepSpec& from, const StepSpec& to) const {
        (void)from, (void)to;
        return false;
    }

    /// Null: this backend replays by running the steps (CPU). Otherwise `record` launches the steps while the stream records
    /// them.
    virtual std::unique_ptr<Recording> record(Stream& stream, const std::function<void()>& launches) = 0;

    /// `dtype` is the type that `source` delivers; `compute` the dtype of the activations it will meet (design.md, "dtype,
    /// exactly"), on the CPU the one that a matrix is multiplied in. A row of the source is `columns` wide. Called from loader
    /// threads, several at once. Throws ERR_DTYPE where this backend has no kernel for `compute` or the quantization, or a layout
    /// to be quantised is no matrix.
    virtual std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, DType compute, Quantization quantization,
                                                      int64_t rows, int64_t columns, RowSource& source) = 0;
};

}  // namespace warpsight
