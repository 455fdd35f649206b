// The table of everything JavaScript can call; lib/native.ts declares its type. No arithmetic and no policy here: arguments in,
// handles out, and the one place where a C++ exception becomes a WarpsightError.
#include <algorithm>
#include <cstring>

#include "arguments.h"
#include "counters.h"
#include "cpu/backend.h"
#include "environment.h"
#include "safetensors.h"
#include "weights.h"
#include "widen.h"
#ifdef WARPSIGHT_CUDA
#include "../cuda/backend.h"
#endif

namespace warpsight {

namespace {

struct CheckpointHandle : Handle {
    static constexpr Kind kKind = Kind::checkpoint;
    CheckpointHandle() : Handle(kKind) {}
    std::vector<std::shared_ptr<SafetensorsFile>> files;
    struct Entry {
        int file;
        int tensor;
    };
    std::vector<Entry> tensors;  // in the order that JavaScript was told
};

using Function = Napi::Value (*)(const Napi::CallbackInfo&);

template <Function function>
Napi::Value guarded(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto rethrow = [env](const char* code, const std::string& message) {
        throw Napi::Error(env, make_error(env, code, message));
    };
    try {
        return function(info);
    } catch (const Napi::Error&) {
        throw;
    } catch (const Error& error) {
        rethrow(error.code(), error.what());
    } catch (const std::bad_alloc&) {
        rethrow("ERR_OUT_OF_MEMORY", "out of host memory");
    } catch (const std::exception& error) {
        rethrow("ERR_INTERNAL", error.what());
    }
    return env.Undefined();
}

// ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────

// devices(): { name, description, usable, reason }[]
Napi::Value devices(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Napi::Array list = Napi::Array::New(env);
    auto add = [&](const std::string& name, const std::string& description, const std::string& reason) {
        Napi::Object device = Napi::Object::New(env);
        device.Set("name", name);
        device.Set("description", description);
        device.Set("usable", reason.empty());
        if (!reason.empty()) device.Set("reason", reason);
        list.Set(list.Length(), device);
    };
    add("cpu", Device::open("cpu")->backend().description, "");
#ifdef WARPSIGHT_CUDA
    CudaProbe probe = probe_cuda();
    for (int i = 0; i < probe.devices; ++i) add("cuda:" + std::to_string(i), probe.descriptions[size_t(i)], "");
    if (probe.devices == 0) add("cuda:0", "", probe.reason);
#else
    add("cuda:0", "", "this build of the addon has no CUDA; build it with WARPSIGHT_CUDA=1 npm run build");
#endif
    return list;
}

// openDevice(name): throws ERR_DEVICE with the reason
Napi::Value open_device(const Napi::CallbackInfo& info) {
    Environment::of(info.Env()).lanes(parse_string(info[0], "device"));
    return info.Env().Undefined();
}

// deviceMemory(name): { total, free, weights, tensors, arenas } in bytes
Napi::Value device_memory(const Napi::CallbackInfo& info) {
    std::shared_ptr<Device> device = Device::open(parse_string(info[0], "device"));
    // Arenas grow and shrink in the executor's thread meanwhile: the two numbers may be some microseconds apart.
    DeviceMemory memory = device->backend().memory();
    uint64_t arenas = std::min<uint64_t>(device->arena_bytes.load(std::memory_order_relaxed), memory.allocated);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("total", double(memory.total));
    result.Set("free", double(memory.free));
    result.Set("weights", double(memory.weights));
    result.Set("tensors", double(memory.allocated - arenas));
    result.Set("arenas", double(arenas));
    return result;
}

// limitMemory(name, bytes | null: no limit)
Napi::Value limit_memory(const Napi::CallbackInfo& info) {
    std::shared_ptr<Device> device = Device::open(parse_string(info[0], "device"));
    device->backend().limit_memory(info[1].IsNull() ? UINT64_MAX
                                                    : uint64_t(parse_integer(info[1], "bytes", 0, int64_t(1) << 53)));
    return info.Env().Undefined();
}

Napi::Value set_threads(const Napi::CallbackInfo& info) {
    set_cpu_threads(int(parse_integer(info[0], "threads", 1, 1024)));
    return info.Env().Undefined();
}

Napi::Value threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), cpu_threads()); }

Napi::Value read_counters(const Napi::CallbackInfo& info) {
    Counters& all = counters();
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("calls", double(all.calls.load()));
    result.Set("steps", double(all.steps.load()));
    result.Set("kernels", double(all.kernels.load()));
    result.Set("graphLaunches", double(all.graph_launches.load()));
    result.Set("deviceAllocations", double(all.device_allocations.load()));
    result.Set("multiplyAdds", double(all.multiply_adds.load()));
    return result;
}

// ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Napi::Value wrap_storage(Napi::Env env, std::shared_ptr<Storage> storage) {
    auto handle = std::make_unique<TensorHandle>();
    if (storage->lane()->backend().host_memory) {
        handle->reported = int64_t(storage->bytes());
        Napi::MemoryManagement::AdjustExternalMemory(env, handle->reported);
    }
    handle->storage = std::move(storage);
    return wrap(env, std::move(handle));
}

// createTensor(device, dtype, shape, typedArray | null): tensor. The array is copied before the call returns; without one the
// tensor holds no defined numbers until steps write them.
Napi::Value create_tensor(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::shared_ptr<Lane> lane = Environment::of(env).lanes(parse_string(info[0], "device")).interactive;
    auto storage = std::make_shared<Storage>(lane, parse_dtype(info[1]), parse_shape(info[2]));
    HostCopy copy;
    if (!info[3].IsNull()) {
        Bytes bytes = parse_bytes(info[3], "data");
        if (bytes.size != storage->bytes())
            throw Error("ERR_SHAPE", "data has " + std::to_string(bytes.size) + " bytes, " + storage->shape().text() + " " +
                                         name_of(storage->dtype()) + " needs " + std::to_string(storage->bytes()));
        copy = host_copy(bytes.data, bytes.size);
    }
    counters().calls.fetch_add(1, std::memory_order_relaxed);
    lane->submit(std::make_unique<UploadJob>(storage, std::move(copy)));
    return wrap_storage(env, std::move(storage));
}

Napi::Value array_of(Napi::Env env, DType dtype, std::unique_ptr<std::byte[]> bytes, size_t size) {
    // A copy of 1 MiB takes some 0.1 ms. What it gives can be transferred to another thread, as an external buffer can't.
    constexpr size_t kCopyBelow = size_t(1) << 20;
    napi_value buffer = nullptr;
    if (size >= kCopyBelow) {
        napi_status status = napi_create_external_arraybuffer(
            env, bytes.get(), size, [](napi_env, void* data, void*) { delete[] static_cast<std::byte*>(data); }, nullptr,
            &buffer);
        if (status == napi_ok) bytes.release();
        else buffer = nullptr;  // napi_no_external_buffers_allowed, as in Electron: copy
    }
    Napi::ArrayBuffer array = buffer ? Napi::ArrayBuffer(env, buffer) : Napi::ArrayBuffer::New(env, size);
    if (!buffer && size) std::memcpy(array.Data(), bytes.get(), size);
    switch (dtype) {
        case DType::int32: return Napi::Int32Array::New(env, size / 4, array, 0);
        case DType::uint8: return Napi::Uint8Array::New(env, size, array, 0);
        case DType::float32:
        case DType::float16:
        case DType::bfloat16: return Napi::Float32Array::New(env, size / 4, array, 0);
        case DType::int8: break;  // no tensor
    }
    return env.Undefined();
}

// readTensor(tensor): Promise<Float32Array | Int32Array | Uint8Array>; 16-bit floats are widened
Napi::Value read_tensor(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::shared_ptr<Storage> storage = storage_of(info[0]);
    std::shared_ptr<Lane> lane = storage->lane();
    DType dtype = storage->dtype();
    auto completions = Environment::of(env).completions();
    auto deferred = Napi::Promise::Deferred::New(env);
    completions->wait_started(env);
    auto job = std::make_unique<ReadJob>(std::move(storage), true);
    job->on_finish = [completions, deferred, dtype](ReadJob& done) {
        auto failure = done.failure;
        auto bytes = std::make_shared<std::unique_ptr<std::byte[]>>(std::move(done.bytes));
        completions->post([completions, deferred, dtype, failure, bytes, size = done.size](Napi::Env env) {
            completions->wait_finished(env);
            if (failure) deferred.Reject(make_error(env, *failure));
            else deferred.Resolve(array_of(env, dtype, std::move(*bytes), size));
        });
    };
    lane->submit(std::move(job));
    return deferred.Promise();
}

// dispose(handle): what is queued keeps the memory until it has run. Again: nothing.
Napi::Value dispose(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (!info[0].IsExternal()) throw Error("ERR_ARGUMENT", "internal: not a native handle");
    auto* handle = info[0].As<Napi::External<Handle>>().Data();
    switch (handle->kind) {
        case Handle::Kind::tensor: {
            auto* tensor = static_cast<TensorHandle*>(handle);
            if (tensor->reported) Napi::MemoryManagement::AdjustExternalMemory(env, -tensor->reported);
            tensor->reported = 0;
            tensor->storage.reset();
            break;
        }
        case Handle::Kind::weight: static_cast<WeightHandle*>(handle)->weight.reset(); break;
        case Handle::Kind::program: static_cast<ProgramHandle*>(handle)->program.reset(); break;
        case Handle::Kind::checkpoint: static_cast<CheckpointHandle*>(handle)->files.clear(); break;
        case Handle::Kind::flag: break;
    }
    return env.Undefined();
}

// ── programs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// compile(device, description): program
Napi::Value compile(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::string device = parse_string(info[0], "device");
    Environment::of(env).lanes(device);
    auto handle = std::make_unique<ProgramHandle>();
    std::shared_ptr<Device> opened = Device::open(device);
    ProgramSpec spec = parse_program(info[1]);
    for (const BoundSlot& bound : spec.bound)
        if (bound.storage->lane()->device() != opened)
            throw Error("ERR_DEVICE", "a bound tensor lies on another device than the program's, " + device);
    handle->program = std::make_shared<Program>(std::move(opened), std::move(spec));
    return wrap(env, std::move(handle));
}

std::shared_ptr<Program> program_of(const Napi::Value& value) {
    std::shared_ptr<Program> program = unwrap<ProgramHandle>(value).program;
    if (!program) throw Error("ERR_DISPOSED", "the program was disposed");
    return program;
}

// programSteps(program): { op, kernel, flops, bytes, shapes }[]
Napi::Value program_steps(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto program = program_of(info[0]);
    Napi::Array list = Napi::Array::New(env, program->steps().size());
    for (uint32_t i = 0; i < program->steps().size(); ++i) {
        const Program::PlannedStep& planned = program->steps()[i];
        Napi::Object step = Napi::Object::New(env);
        step.Set("op", planned.op);
        step.Set("kernel", planned.step->kernel);
        step.Set("flops", planned.step->flops);
        step.Set("bytes", planned.step->bytes);
        step.Set("shapes", planned.shapes);
        list.Set(i, step);
    }
    return list;
}

int64_t leading_size(const SlotSpec& slot, const std::vector<int32_t>& symbols) {
    return slot.leading.symbol < 0 ? (slot.shape.rank ? slot.shape[0] : 1)
                                   : slot.leading.multiple * symbols[size_t(slot.leading.symbol)];
}

Shape actual_shape(const SlotSpec& slot, const std::vector<int32_t>& symbols) {
    Shape shape = slot.shape;
    if (shape.rank) shape[0] = leading_size(slot, symbols);
    return shape;
}

struct PreparedRun {
    std::unique_ptr<RunJob> job;
    std::vector<std::shared_ptr<Storage>> outputs;
    std::shared_ptr<Lane> lane;
    std::vector<Napi::Value> borrowed;
};

// (program, bulk, symbols, inputs: (tensor | typed array, copied | array of typed arrays, borrowed)[],
//  out: tensor[] | null, flag | null)
PreparedRun prepare_run(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    auto program = program_of(info[0]);
    const ProgramSpec& spec = program->spec();
    LanePair& pair = Environment::of(env).lanes(program->device()->backend().name);
    PreparedRun run;
    run.lane = info[1].ToBoolean().Value() ? pair.bulk : pair.interactive;

    Napi::Array symbol_values = info[2].As<Napi::Array>(), input_values = info[3].As<Napi::Array>();
    if (!info[2].IsArray() || symbol_values.Length() != uint32_t(spec.symbols))
        throw Error("ERR_ARGUMENT", "a value for each symbol is needed");
    if (!info[3].IsArray() || input_values.Length() != spec.inputs.size())
        throw Error("ERR_ARGUMENT", "the program takes " + std::to_string(spec.inputs.size()) + " inputs");
    std::vector<int32_t> symbols;
    for (int i = 0; i < spec.symbols; ++i)
        symbols.push_back(int32_t(parse_integer(symbol_values[uint32_t(i)], "a size", 0, program->symbol_limit(i))));

    std::vector<RunInput> inputs(spec.inputs.size());
    for (uint32_t i = 0; i < inputs.size(); ++i) {
        const SlotSpec& slot = spec.slots[size_t(spec.inputs[i])];
        size_t expected = size_t(actual_shape(slot, symbols).elements()) * size_of(slot.dtype), given = 0;
        Napi::Value value = input_values[i];
        if (value.IsExternal()) {
            inputs[i].storage = storage_of(value);
            if (inputs[i].storage->dtype() != slot.dtype)
                throw Error("ERR_DTYPE", std::string("an input is ") + name_of(inputs[i].storage->dtype()) +
                                             ", the program takes " + name_of(slot.dtype));
            if (inputs[i].storage->lane()->device() != program->device())
                throw Error("ERR_DEVICE",
                            "an input lies on another device than the program's, " + program->device()->backend().name);
            given = inputs[i].storage->bytes();
        } else if (value.IsArray()) {
            Napi::Array pieces = value.As<Napi::Array>();
            for (uint32_t j = 0; j < pieces.Length(); ++j) {
                Napi::Value piece = pieces[j];
                Bytes bytes = parse_bytes(piece, "an input");
                inputs[i].pieces.push_back({bytes.data, bytes.size});
                run.borrowed.push_back(piece);
                given += bytes.size;
            }
        } else {
            Bytes bytes = parse_bytes(value, "an input");
            given = bytes.size;
            if (given == expected) inputs[i].owned = host_copy(bytes.data, bytes.size);
            inputs[i].pieces.push_back({inputs[i].owned.get(), bytes.size});
        }
        if (given != expected)
            throw Error("ERR_SHAPE", "input " + std::to_string(i) + " has " + std::to_string(given) + " bytes, " +
                                         actual_shape(slot, symbols).text() + " " + name_of(slot.dtype) + " needs " +
                                         std::to_string(expected));
    }

    // What waits for bulk work is bulk work: in the interactive lane short calls would wait behind it.
    for (const RunInput& input : inputs)
        if (input.storage && input.storage->lane() == pair.bulk && !input.storage->settled()) run.lane = pair.bulk;

    bool given = info[4].IsArray();
    if (given && info[4].As<Napi::Array>().Length() != spec.outputs.size())
        throw Error("ERR_ARGUMENT", "out needs a tensor for each output");
    for (uint32_t i = 0; i < spec.outputs.size(); ++i) {
        const SlotSpec& slot = spec.slots[size_t(spec.outputs[i])];
        Shape shape = actual_shape(slot, symbols);
        if (!given) {
            run.outputs.push_back(std::make_shared<Storage>(run.lane, slot.dtype, shape));
            continue;
        }
        std::shared_ptr<Storage> out = storage_of(Napi::Value(info[4].As<Napi::Array>()[i]));
        if (out->dtype() != slot.dtype || out->shape().elements() != shape.elements() ||
            out->lane()->device() != program->device())
            throw Error("ERR_SHAPE", "out " + std::to_string(i) + " is " + out->shape().text() + " " + name_of(out->dtype()) +
                                         " on " + out->lane()->backend().name + ", the output is " + shape.text() + " " +
                                         name_of(slot.dtype) + " on " + program->device()->backend().name);
        run.outputs.push_back(std::move(out));
    }
    if (given)
        for (const auto& out : run.outputs) {
            for (const RunInput& input : inputs)
                if (input.storage == out) throw Error("ERR_ARGUMENT", "out must not be an input of the same run");
            out->expect_new_value();
        }
    run.job = std::make_unique<RunJob>(program, std::move(symbols), std::move(inputs), run.outputs);
    return run;
}

// The typed arrays that a queued run reads where they lie must stay alive until it is done; JavaScript code does not see them
// meanwhile. `done` is a function that is told then, and for which the event loop stays alive, or nothing.
void hold_borrowed(Napi::Env env, PreparedRun& run, const Napi::Value& done) {
    if (run.borrowed.empty()) return;
    Napi::Array owners = Napi::Array::New(env, run.borrowed.size());
    for (uint32_t i = 0; i < run.borrowed.size(); ++i) owners.Set(i, run.borrowed[i]);
    owners.Set("done", done);
    Environment& environment = Environment::of(env);
    uint64_t id = environment.hold(owners);
    if (done.IsFunction()) environment.completions()->wait_started(env);
    run.job->on_finish = [completions = environment.completions(), id, told = done.IsFunction()](RunJob&) {
        completions->post([completions, id, told](Napi::Env env) {
            if (told) completions->wait_finished(env);
            Napi::Object owners = Environment::of(env).let_go(id);
            if (told) owners.Get("done").As<Napi::Function>().Call({});
        });
    };
}

// run(…, done: function | null): output tensors, at once; the work is queued
Napi::Value run(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    PreparedRun run = prepare_run(info);
    if (info[5].IsExternal()) run.job->aborted = unwrap<FlagHandle>(info[5]).flag;
    hold_borrowed(env, run, info[6]);
    counters().calls.fetch_add(1, std::memory_order_relaxed);
    run.lane->submit(std::move(run.job));
    if (info[4].IsArray()) return env.Undefined();
    Napi::Array handles = Napi::Array::New(env, run.outputs.size());
    for (uint32_t i = 0; i < run.outputs.size(); ++i) handles.Set(i, wrap_storage(env, std::move(run.outputs[i])));
    return handles;
}

// profile(program, bulk, symbols, inputs): Promise<number[]>, milliseconds that the device took for each step
Napi::Value profile(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    PreparedRun run = prepare_run(info);
    auto times = std::make_shared<std::vector<double>>(program_of(info[0])->steps().size());
    auto completions = Environment::of(env).completions();
    auto deferred = Napi::Promise::Deferred::New(env);
    completions->wait_started(env);
    Napi::Array owners = Napi::Array::New(env, run.borrowed.size());
    for (uint32_t i = 0; i < run.borrowed.size(); ++i) owners.Set(i, run.borrowed[i]);
    uint64_t id = Environment::of(env).hold(owners);
    run.job->step_ms = times.get();
    run.job->on_finish = [completions, deferred, times, id](RunJob& done) {
        completions->post([completions, deferred, times, id, failure = done.failure](Napi::Env env) {
            completions->wait_finished(env);
            Environment::of(env).let_go(id);
            if (failure) return deferred.Reject(make_error(env, *failure));
            Napi::Array list = Napi::Array::New(env, times->size());
            for (uint32_t i = 0; i < times->size(); ++i) list.Set(i, (*times)[i]);
            deferred.Resolve(list);
        });
    };
    run.lane->submit(std::move(run.job));
    return deferred.Promise();
}

// abortFlag(): a flag that queued runs look at between steps;  abort(flag, options: of the errors that it causes)
Napi::Value abort_flag(const Napi::CallbackInfo& info) { return wrap(info.Env(), std::make_unique<FlagHandle>()); }

Napi::Value abort(const Napi::CallbackInfo& info) {
    auto& flag = unwrap<FlagHandle>(info[0]).flag;
    Environment::of(info.Env()).keep_abort_options(flag, info[1].As<Napi::Object>());
    flag->store(true);
    return info.Env().Undefined();
}

// ── checkpoints and weights ──────────────────────────────────────────────────────────────────────────────────────────

// openCheckpoint(paths): Promise<{ handle, tensors: { name, dtype, shape, file }[] }>; file is the index into paths
Napi::Value open_checkpoint(const Napi::CallbackInfo& info) {
    std::vector<std::string> paths;
    if (!info[0].IsArray()) throw Error("ERR_ARGUMENT", "paths must be an array");
    Napi::Array list = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) paths.push_back(parse_string(list[i], "a path"));
    return Environment::of(info.Env()).background(info.Env(), [paths]() -> std::function<Napi::Value(Napi::Env)> {
        auto handle = std::make_shared<std::unique_ptr<CheckpointHandle>>(std::make_unique<CheckpointHandle>());
        for (const std::string& path : paths) {
            (*handle)->files.push_back(SafetensorsFile::open(path));
            int count = int((*handle)->files.back()->tensors().size());
            for (int i = 0; i < count; ++i) (*handle)->tensors.push_back({int((*handle)->files.size()) - 1, i});
        }
        return [handle](Napi::Env env) -> Napi::Value {
            const CheckpointHandle& checkpoint = **handle;
            Napi::Array tensors = Napi::Array::New(env, checkpoint.tensors.size());
            for (uint32_t i = 0; i < checkpoint.tensors.size(); ++i) {
                const auto& entry = checkpoint.tensors[i];
                const SafetensorsFile::Tensor& tensor = checkpoint.files[size_t(entry.file)]->tensors()[size_t(entry.tensor)];
                Napi::Object item = Napi::Object::New(env);
                item.Set("name", tensor.name);
                item.Set("dtype", tensor.dtype);
                Napi::Array shape = Napi::Array::New(env, tensor.shape.size());
                for (uint32_t j = 0; j < tensor.shape.size(); ++j) shape.Set(j, double(tensor.shape[j]));
                item.Set("shape", shape);
                item.Set("file", entry.file);
                tensors.Set(i, item);
            }
            Napi::Object result = Napi::Object::New(env);
            result.Set("handle", wrap(env, std::move(*handle)));
            result.Set("tensors", tensors);
            return result;
        };
    });
}

// readStored(checkpoint, tensor): Promise<Float32Array>, the numbers of a stored float tensor
Napi::Value read_stored(const Napi::CallbackInfo& info) {
    const CheckpointHandle& checkpoint = unwrap<CheckpointHandle>(info[0]);
    const auto& entry =
        checkpoint.tensors.at(size_t(parse_integer(info[1], "tensor", 0, int64_t(checkpoint.tensors.size()) - 1)));
    CheckpointRows::Part part{checkpoint.files.at(size_t(entry.file)), entry.tensor, 0, 0};
    return Environment::of(info.Env()).background(info.Env(), [part]() mutable -> std::function<Napi::Value(Napi::Env)> {
        part.rows = part.file->tensors()[size_t(part.tensor)].elements();
        CheckpointRows rows({part}, 1);
        size_t count = size_t(rows.rows());
        std::vector<std::byte> stored(count * size_of(rows.dtype()));
        rows.read_rows(0, int64_t(count), stored.data());
        auto numbers = std::make_shared<std::vector<float>>(count);
        widen(rows.dtype(), stored.data(), count, numbers->data());
        return [numbers](Napi::Env env) -> Napi::Value {
            Napi::Float32Array array = Napi::Float32Array::New(env, numbers->size());
            std::copy(numbers->begin(), numbers->end(), array.Data());
            return array;
        };
    });
}

// A weight as it is asked for: rows of one or more tensors, one below the other.
struct WeightRequest {
    WeightLayout layout;
    DType compute;
    Quantization quantization;
    int64_t columns;
    std::vector<CheckpointRows::Part> parts;
    std::string key;
};

WeightRequest parse_request(const Napi::Object& object, const CheckpointHandle& checkpoint, const std::string& device) {
    WeightRequest request{parse_layout(object.Get("layout")),
                          parse_dtype(object.Get("compute")),
                          parse_quantization(object.Get("quantization")),
                          parse_integer(object.Get("columns"), "columns", 1, INT32_MAX),
                          {},
                          device};
    request.key += "|" + std::to_string(int(request.layout)) + "|" + name_of(request.compute) + "|" +
                   std::to_string(int(request.quantization)) + "|" + std::to_string(request.columns);
    Napi::Array parts = object.Get("parts").As<Napi::Array>();
    for (uint32_t i = 0; i < parts.Length(); ++i) {
        Napi::Object part = Napi::Value(parts[i]).As<Napi::Object>();
        int64_t tensor = parse_integer(part.Get("tensor"), "tensor", -1, int64_t(checkpoint.tensors.size()) - 1);
        int64_t first = parse_integer(part.Get("firstRow"), "firstRow", 0, INT32_MAX),
                rows = parse_integer(part.Get("rows"), "rows", 0, INT32_MAX);
        CheckpointRows::Part spec;
        spec.rows = rows;
        if (tensor >= 0) {
            const auto& entry = checkpoint.tensors[size_t(tensor)];
            spec.file = checkpoint.files.at(size_t(entry.file));
            spec.tensor = entry.tensor;
            spec.first_row = first;
            request.key += "|" + spec.file->identity() + ":" + std::to_string(entry.tensor) + ":" + std::to_string(first) + "+" +
                           std::to_string(rows);
        } else {
            request.key += "|zeros+" + std::to_string(rows);
        }
        request.parts.push_back(std::move(spec));
    }
    return request;
}

std::vector<WeightRequest> parse_requests(const Napi::Value& value, const CheckpointHandle& checkpoint,
                                          const std::string& device) {
    if (!value.IsArray()) throw Error("ERR_ARGUMENT", "requests must be an array");
    Napi::Array list = value.As<Napi::Array>();
    std::vector<WeightRequest> requests;
    for (uint32_t i = 0; i < list.Length(); ++i)
        requests.push_back(parse_request(Napi::Value(list[i]).As<Napi::Object>(), checkpoint, device));
    return requests;
}

// hasWeights(device, checkpoint, requests): boolean[], whether each is in the process already
Napi::Value has_weights(const Napi::CallbackInfo& info) {
    std::vector<WeightRequest> requests =
        parse_requests(info[2], unwrap<CheckpointHandle>(info[1]), parse_string(info[0], "device"));
    Napi::Array result = Napi::Array::New(info.Env(), requests.size());
    for (uint32_t i = 0; i < requests.size(); ++i)
        result.Set(i, Napi::Boolean::New(info.Env(), has_shared_weight(requests[i].key)));
    return result;
}

// loadWeights(device, checkpoint, requests, flag | null): Promise<weight[]>
Napi::Value load_weights(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::string name = parse_string(info[0], "device");
    Environment::of(env).lanes(name);
    std::shared_ptr<Device> device = Device::open(name);
    const CheckpointHandle& checkpoint = unwrap<CheckpointHandle>(info[1]);
    auto requests = std::make_shared<std::vector<WeightRequest>>(parse_requests(info[2], checkpoint, name));
    std::shared_ptr<const AbortFlag> aborted = info[3].IsExternal() ? unwrap<FlagHandle>(info[3]).flag : nullptr;

    return Environment::of(env).background(env, [device, requests, aborted]() -> std::function<Napi::Value(Napi::Env)> {
        auto weights = std::make_shared<std::vector<std::shared_ptr<const Weight>>>();
        for (const WeightRequest& request : *requests) {
            if (aborted && aborted->load()) throw Error("ERR_ABORTED", "loading was aborted");
            weights->push_back(shared_weight(request.key, [&] {
                CheckpointRows rows(request.parts, request.columns);
                return device->backend().make_weight(request.layout, rows.dtype(), request.compute, request.quantization,
                                                     rows.rows(), request.columns, rows);
            }));
        }
        return [weights](Napi::Env env) -> Napi::Value {
            Napi::Array handles = Napi::Array::New(env, weights->size());
            for (uint32_t i = 0; i < weights->size(); ++i) {
                auto handle = std::make_unique<WeightHandle>();
                handle->weight = (*weights)[i];
                handles.Set(i, wrap(env, std::move(handle)));
            }
            return handles;
        };
    });
}

// createWeight(device, layout, dtype, compute, quantization, rows, columns, typedArray): weight, made before the call returns
Napi::Value create_weight(const Napi::CallbackInfo& info) {
    std::string name = parse_string(info[0], "device");
    Environment::of(info.Env()).lanes(name);
    WeightLayout layout = parse_layout(info[1]);
    DType dtype = parse_dtype(info[2]), compute = parse_dtype(info[3]);
    Quantization quantization = parse_quantization(info[4]);
    int64_t rows = parse_integer(info[5], "rows", 0, INT32_MAX), columns = parse_integer(info[6], "columns", 0, INT32_MAX);
    Bytes bytes = parse_bytes(info[7], "data");
    if (bytes.size != size_t(rows) * size_t(columns) * size_of(dtype))
        throw Error("ERR_SHAPE", "data does not have rows · columns elements");
    MemoryRows source(static_cast<const std::byte*>(bytes.data), size_t(columns) * size_of(dtype));
    auto handle = std::make_unique<WeightHandle>();
    handle->weight = Device::open(name)->backend().make_weight(layout, dtype, compute, quantization, rows, columns, source);
    return wrap(info.Env(), std::move(handle));
}

// weightInfo(weight): { dtype, bytes }
Napi::Value weight_info(const Napi::CallbackInfo& info) {
    const Weight& weight = *unwrap<WeightHandle>(info[0]).weight;
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("dtype", name_of(weight.dtype));
    result.Set("bytes", double(weight.bytes));
    return result;
}

// setErrorClass(WarpsightError)
Napi::Value set_error_class(const Napi::CallbackInfo& info) {
    Environment::of(info.Env()).error_class = Napi::Persistent(info[0].As<Napi::Function>());
    return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(new Environment(env));
    auto add = [&]<Function function>(const char* name) { exports.Set(name, Napi::Function::New<guarded<function>>(env, name)); };
    add.operator()<set_error_class>("setErrorClass");
    add.operator()<devices>("devices");
    add.operator()<open_device>("openDevice");
    add.operator()<device_memory>("deviceMemory");
    add.operator()<limit_memory>("limitMemory");
    add.operator()<limit_memory>("limitMemory");
    add.operator()<set_threads>("setThreads");
    add.operator()<threads>("threads");
    add.operator()<read_counters>("counters");
    add.operator()<create_tensor>("createTensor");
    add.operator()<read_tensor>("readTensor");
    add.operator()<dispose>("dispose");
    add.operator()<compile>("compile");
    add.operator()<program_steps>("programSteps");
    add.operator()<run>("run");
    add.operator()<profile>("profile");
    add.operator()<abort_flag>("abortFlag");
    add.operator()<abort>("abort");
    add.operator()<open_checkpoint>("openCheckpoint");
    add.operator()<read_stored>("readStored");
    add.operator()<has_weights>("hasWeights");
    add.operator()<load_weights>("loadWeights");
    add.operator()<create_weight>("createWeight");
    add.operator()<weight_info>("weightInfo");
    return exports;
}

}  // namespace

}  // namespace warpsight

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return warpsight::init(env, exports); }

NODE_API_MODULE(warpsight, init_addon)
