// From JavaScript values to the core's plain data. lib/ops has checked what users gave; here every number is still bounded before
// memory depends on it.
#pragma once

#include "environment.h"
#include "program.h"

namespace warpsight {

/// What JavaScript holds: an External that points to one of these.
struct Handle {
    enum class Kind { tensor, weight, program, checkpoint, flag };
    explicit Handle(Kind kind) : kind(kind) {}
    virtual ~Handle() = default;
    const Kind kind;
};

struct TensorHandle : Handle {
    static constexpr Kind kKind = Kind::tensor;
    TensorHandle() : Handle(kKind) {}
    std::shared_ptr<Storage> storage;  // null once disposed
    int64_t reported = 0;              // bytes that V8 knows of
};

struct WeightHandle : Handle {
    static constexpr Kind kKind = Kind::weight;
    WeightHandle() : Handle(kKind) {}
    std::shared_ptr<const Weight> weight;
};

struct ProgramHandle : Handle {
    static constexpr Kind kKind = Kind::program;
    ProgramHandle() : Handle(kKind) {}
    std::shared_ptr<Program> program;
};

struct FlagHandle : Handle {
    static constexpr Kind kKind = Kind::flag;
    FlagHandle() : Handle(kKind) {}
    std::shared_ptr<AbortFlag> flag = std::make_shared<AbortFlag>(false);
};

Napi::Value wrap(Napi::Env env, std::unique_ptr<Handle> handle);

template <typename T>
T& unwrap(const Napi::Value& value) {
    if (value.IsExternal()) {
        auto* handle = value.As<Napi::External<Handle>>().Data();
        if (handle && handle->kind == T::kKind) return static_cast<T&>(*handle);
    }
    throw Error("ERR_ARGUMENT", "internal: a native handle of another kind was given");
}

/// The storage of a tensor handle; ERR_DISPOSED if it is gone.
std::shared_ptr<Storage> storage_of(const Napi::Value& value);

std::string parse_string(const Napi::Value& value, const char* what);
int64_t parse_integer(const Napi::Value& value, const char* what, int64_t min, int64_t max);
double parse_number(const Napi::Value& value, const char* what);
DType parse_dtype(const Napi::Value& value);
WeightLayout parse_layout(const Napi::Value& value);
Quantization parse_quantization(const Napi::Value& value);
Shape parse_shape(const Napi::Value& value);

/// The bytes of a typed array of any realm (an ArrayBuffer view; a SharedArrayBuffer is copied like any other).
struct Bytes {
    const void* data;
    size_t size;
};
Bytes parse_bytes(const Napi::Value& value, const char* what);

/// { symbols, slots: [{ dtype, shape, symbol, multiple }], inputs, outputs, record,
///   steps: [{ op, params, inputs: (null | weight | { slot, shape, symbol, multiple })[], outputs }] }
ProgramSpec parse_program(const Napi::Value& value);

}  // namespace warpsight
