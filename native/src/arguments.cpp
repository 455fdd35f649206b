#include "arguments.h"

#include <cmath>
#include <unordered_map>

namespace warpsight {

Napi::Value wrap(Napi::Env env, std::unique_ptr<Handle> handle) {
    auto external = Napi::External<Handle>::New(env, handle.get(), [](Napi::BasicEnv env, Handle* handle) {
        if (handle->kind == Handle::Kind::tensor) {
            auto* tensor = static_cast<TensorHandle*>(handle);
            if (tensor->reported) Napi::MemoryManagement::AdjustExternalMemory(env, -tensor->reported);
        }
        delete handle;  // drops references; memory goes back to its pool
    });
    handle.release();  // only now: New() throws in an environment that is being terminated
    return external;
}

std::shared_ptr<Storage> storage_of(const Napi::Value& value) {
    std::shared_ptr<Storage> storage = unwrap<TensorHandle>(value).storage;
    if (!storage) throw Error("ERR_DISPOSED", "the tensor was disposed");
    return storage;
}

// ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────

std::string parse_string(const Napi::Value& value, const char* what) {
    if (!value.IsString()) throw Error("ERR_ARGUMENT", std::string(what) + " must be a string");
    return value.As<Napi::String>().Utf8Value();
}

double parse_number(const Napi::Value& value, const char* what) {
    if (!value.IsNumber()) throw Error("ERR_ARGUMENT", std::string(what) + " must be a number");
    return value.As<Napi::Number>().DoubleValue();
}

int64_t parse_integer(const Napi::Value& value, const char* what, int64_t min, int64_t max) {
    double number = parse_number(value, what);
    if (!(number >= double(min) && number <= double(max)) || number != std::floor(number))
        throw Error("ERR_ARGUMENT",
                    std::string(what) + " must be an integer from " + std::to_string(min) + " to " + std::to_string(max));
    return int64_t(number);
}

DType parse_dtype(const Napi::Value& value) {
    std::string name = parse_string(value, "dtype");
    for (DType dtype : {DType::float32, DType::float16, DType::bfloat16, DType::int32, DType::uint8})
        if (name == name_of(dtype)) return dtype;
    throw Error("ERR_DTYPE", "unknown dtype \"" + name + "\"");
}

WeightLayout parse_layout(const Napi::Value& value) {
    std::string name = parse_string(value, "layout");
    if (name == "matrix") return WeightLayout::matrix;
    if (name == "vector") return WeightLayout::vector;
    if (name == "table") return WeightLayout::table;
    throw Error("ERR_ARGUMENT", "unknown weight layout \"" + name + "\"");
}

Quantization parse_quantization(const Napi::Value& value) {
    std::string name = parse_string(value, "quantization");
    if (name == "none") return Quantization::none;
    if (name == "int8") return Quantization::int8;
    throw Error("ERR_DTYPE", "unknown quantization \"" + name + "\"");
}

static Napi::Array parse_array(const Napi::Value& value, const char* what) {
    if (!value.IsArray()) throw Error("ERR_ARGUMENT", std::string(what) + " must be an array");
    return value.As<Napi::Array>();
}

static Napi::Object parse_object(const Napi::Value& value, const char* what) {
    if (!value.IsObject()) throw Error("ERR_ARGUMENT", std::string(what) + " must be an object");
    return value.As<Napi::Object>();
}

constexpr int64_t kMaxElements = int64_t(1) << 40;  // far above any memory, far below what overflows in bytes

Shape parse_shape(const Napi::Value& value) {
    Napi::Array sizes = parse_array(value, "shape");
    if (sizes.Length() > uint32_t(kMaxRank))
        throw Error("ERR_SHAPE", "a tensor has at most " + std::to_string(kMaxRank) + " dimensions");
    Shape shape;
    int64_t elements = 1;
    for (uint32_t i = 0; i < sizes.Length(); ++i) {
        int64_t size = parse_integer(sizes[i], "a dimension", 0, kMaxElements);
        shape.size[shape.rank++] = size;
        if (size > 0 && elements > kMaxElements / size) throw Error("ERR_SHAPE", "the shape has too many elements");
        elements *= size;
    }
    return shape;
}

Bytes parse_bytes(const Napi::Value& value, const char* what) {
    if (!value.IsTypedArray()) throw Error("ERR_ARGUMENT", std::string(what) + " must be a typed array");
    napi_typedarray_type type;
    size_t length = 0, offset = 0;
    void* data = nullptr;
    napi_value buffer;
    if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, &buffer, &offset) != napi_ok)
        throw Error("ERR_ARGUMENT", std::string(what) + " is not a readable typed array");
    size_t element = 1;
    switch (type) {
        case napi_int8_array:
        case napi_uint8_array:
        case napi_uint8_clamped_array: element = 1; break;
        case napi_int16_array:
        case napi_uint16_array: element = 2; break;
        case napi_int32_array:
        case napi_uint32_array:
        case napi_float32_array: element = 4; break;
        default: throw Error("ERR_DTYPE", std::string(what) + " must be a Float32Array, Int32Array, Uint16Array or Uint8Array");
    }
    return {data, length * element};
}

// ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────

namespace {

/// The parameters of one operation, read by name.
class Params {
public:
    explicit Params(Napi::Object object) : object_(object) {}
    float number(const char* name) const { return float(parse_number(object_.Get(name), name)); }
    int integer(const char* name, int64_t min = 0, int64_t max = 1 << 30) const {
        return int(parse_integer(object_.Get(name), name, min, max));
    }
    bool flag(const char* name) const { return object_.Get(name).ToBoolean().Value(); }

    Activation activation() const {
        static const std::unordered_map<std::string, Activation> names = {
            {"none", Activation::none},          {"gelu", Activation::gelu},
            {"geluTanh", Activation::gelu_tanh}, {"quickGelu", Activation::quick_gelu},
            {"silu", Activation::silu},          {"relu", Activation::relu},
            {"tanh", Activation::tanh},          {"sigmoid", Activation::sigmoid},
            {"siluGate", Activation::silu_gate},
        };
        auto found = names.find(parse_string(object_.Get("activation"), "activation"));
        if (found == names.end()) throw Error("ERR_ARGUMENT", "unknown activation");
        return found->second;
    }
    Arithmetic arithmetic() const {
        static const std::unordered_map<std::string, Arithmetic> names = {
            {"add", Arithmetic::add}, {"multiply", Arithmetic::multiply}, {"maximum", Arithmetic::maximum}};
        auto found = names.find(parse_string(object_.Get("arithmetic"), "arithmetic"));
        if (found == names.end()) throw Error("ERR_ARGUMENT", "unknown arithmetic");
        return found->second;
    }

private:
    Napi::Object object_;
};

Operation parse_operation(const std::string& name, const Params& p) {
    using Make = Operation (*)(const Params&);
    static const std::unordered_map<std::string, Make> table = {
        {"linear", [](const Params& p) -> Operation { return Linear{p.activation()}; }},
        {"patchEmbed", [](const Params& p) -> Operation { return PatchEmbed{p.integer("patch", 1)}; }},
        {"embed", [](const Params&) -> Operation { return Embed{}; }},
        {"layerNorm", [](const Params& p) -> Operation { return LayerNorm{p.number("eps")}; }},
        {"rmsNorm", [](const Params& p) -> Operation { return RmsNorm{p.number("eps")}; }},
        {"attention",
         [](const Params& p) -> Operation {
             Attention a;
             a.heads = p.integer("heads", 1), a.kv_heads = p.integer("kvHeads", 1), a.head_dim = p.integer("headDim", 1);
             a.q_offset = p.integer("qOffset"), a.k_offset = p.integer("kOffset"), a.v_offset = p.integer("vOffset");
             a.max_queries = p.integer("maxQueries"), a.max_keys = p.integer("maxKeys");
             a.causal = p.flag("causal"), a.scale = p.number("scale");
             return a;
         }},
        {"l2Normalize", [](const Params&) -> Operation { return L2Normalize{}; }},
        {"scaledLogits",
         [](const Params& p) -> Operation {
             return ScaledLogits{p.number("multiplier"), p.number("bias"), p.flag("yUnit")};
         }},
        {"zeroShotHead",
         [](const Params& p) -> Operation {
             return ZeroShotHead{p.number("multiplier"), p.number("bias"), p.flag("yUnit"), p.flag("sigmoid"), p.integer("k", 1)};
         }},
        {"softmax", [](const Params&) -> Operation { return Softmax{}; }},
        {"activate", [](const Params& p) -> Operation { return Activate{p.activation()}; }},
        {"siluGate", [](const Params&) -> Operation { return SiluGate{}; }},
        {"binary", [](const Params& p) -> Operation { return Binary{p.arithmetic()}; }},
        {"argmax", [](const Params&) -> Operation { return Argmax{}; }},
        {"topK", [](const Params& p) -> Operation { return TopK{p.integer("k", 1)}; }},
        {"gatherRows", [](const Params&) -> Operation { return GatherRows{}; }},
        {"segmentMean", [](const Params&) -> Operation { return SegmentMean{}; }},
        {"rope", [](const Params& p) -> Operation { return Rope{p.integer("heads")}; }},
        {"appendRows", [](const Params& p) -> Operation { return AppendRows{p.integer("offset")}; }},
        {"ropeAppend",
         [](const Params& p) -> Operation {
             return RopeAppend{p.integer("heads", 1), p.integer("kvHeads", 1)};
         }},
        {"pagedAttention",
         [](const Params& p) -> Operation {
             PagedAttention a;
             a.heads = p.integer("heads", 1), a.kv_heads = p.integer("kvHeads", 1), a.head_dim = p.integer("headDim", 1);
             a.q_offset = p.integer("qOffset"), a.k_offset = p.integer("kOffset"), a.v_offset = p.integer("vOffset");
             a.page = p.integer("page", 1), a.max_queries = p.integer("maxQueries"), a.scale = p.number("scale");
             return a;
         }},
        {"splice", [](const Params&) -> Operation { return Splice{}; }},
        {"concat", [](const Params&) -> Operation { return Concat{}; }},
        {"sampleDistribution",
         [](const Params& p) -> Operation {
             return SampleDistribution{p.number("temperature"), p.number("topP"), p.number("repetitionPenalty"),
                                       p.integer("topK")};
         }},
        {"sample", [](const Params&) -> Operation { return Sample{}; }},
        {"resizeHorizontal", [](const Params& p) -> Operation { return ResizeHorizontal{p.integer("width", 1)}; }},
        {"resizeVertical",
         [](const Params& p) -> Operation {
             return ResizeVertical{p.integer("width", 1), p.integer("height", 1)};
         }},
        {"cast", [](const Params&) -> Operation { return Cast{}; }},
    };
    auto found = table.find(name);
    if (found == table.end()) throw Error("ERR_ARGUMENT", "unknown operation \"" + name + "\"");
    return found->second(p);
}

Leading parse_leading(const Napi::Object& object, int symbols) {
    return {int(parse_integer(object.Get("symbol"), "symbol", -1, symbols - 1)),
            parse_integer(object.Get("multiple"), "multiple", 1, kMaxElements)};
}

OperandSpec parse_operand(const Napi::Value& value, const ProgramSpec& program) {
    OperandSpec spec;
    if (value.IsNull() || value.IsUndefined()) return spec;
    spec.operand.present = true;
    if (value.IsExternal()) {
        spec.operand.weight = unwrap<WeightHandle>(value).weight;
        spec.operand.dtype = spec.operand.weight->dtype;
        return spec;
    }
    Napi::Object object = parse_object(value, "operand");
    spec.slot = int(parse_integer(object.Get("slot"), "slot", 0, int64_t(program.slots.size()) - 1));
    const SlotSpec& slot = program.slots[spec.slot];
    spec.operand.dtype = slot.dtype;
    spec.operand.shape = parse_shape(object.Get("shape"));
    spec.operand.leading = parse_leading(object, program.symbols);
    if (spec.operand.shape.elements() != slot.shape.elements())
        throw Error("ERR_SHAPE", "an operand must have as many elements as its slot");
    return spec;
}

std::vector<int> parse_slots(const Napi::Value& value, const ProgramSpec& program) {
    Napi::Array array = parse_array(value, "slots");
    std::vector<int> slots;
    for (uint32_t i = 0; i < array.Length(); ++i)
        slots.push_back(int(parse_integer(array[i], "slot", 0, int64_t(program.slots.size()) - 1)));
    return slots;
}

}  // namespace

ProgramSpec parse_program(const Napi::Value& value) {
    Napi::Object object = parse_object(value, "program");
    ProgramSpec program;
    program.symbols = int(parse_integer(object.Get("symbols"), "symbols", 0, 64));
    program.record = object.Get("record").ToBoolean().Value();

    Napi::Array slots = parse_array(object.Get("slots"), "slots");
    for (uint32_t i = 0; i < slots.Length(); ++i) {
        Napi::Object slot = parse_object(slots[i], "slot");
        program.slots.push_back(
            {parse_dtype(slot.Get("dtype")), parse_shape(slot.Get("shape")), parse_leading(slot, program.symbols)});
    }
    program.inputs = parse_slots(object.Get("inputs"), program);
    program.outputs = parse_slots(object.Get("outputs"), program);
    Napi::Array bound = parse_array(object.Get("bound"), "bound");
    for (uint32_t i = 0; i < bound.Length(); ++i) {
        Napi::Object entry = parse_object(bound[i], "bound");
        BoundSlot slot{int(parse_integer(entry.Get("slot"), "slot", 0, int64_t(program.slots.size()) - 1)),
                       storage_of(entry.Get("tensor"))};
        const SlotSpec& spec = program.slots[size_t(slot.slot)];
        if (slot.storage->dtype() != spec.dtype || slot.storage->shape().elements() != spec.shape.elements())
            throw Error("ERR_SHAPE", "a bound tensor is " + slot.storage->shape().text() + ", its slot " + spec.shape.text());
        program.bound.push_back(std::move(slot));
    }

    Napi::Array steps = parse_array(object.Get("steps"), "steps");
    for (uint32_t i = 0; i < steps.Length(); ++i) {
        Napi::HandleScope scope(value.Env());
        Napi::Object step = parse_object(steps[i], "step");
        ProgramStepSpec spec{
            parse_operation(parse_string(step.Get("op"), "op"), Params(parse_object(step.Get("params"), "params"))), {}, {}};
        Napi::Array inputs = parse_array(step.Get("inputs"), "inputs"), outputs = parse_array(step.Get("outputs"), "outputs");
        if (inputs.Length() > 8 || outputs.Length() > 4) throw Error("ERR_ARGUMENT", "a step has at most 8 inputs and 4 outputs");
        for (uint32_t j = 0; j < inputs.Length(); ++j) spec.inputs.push_back(parse_operand(inputs[j], program));
        for (uint32_t j = 0; j < outputs.Length(); ++j) spec.outputs.push_back(parse_operand(outputs[j], program));
        program.steps.push_back(std::move(spec));
    }
    return program;
}

}  // namespace warpsight
