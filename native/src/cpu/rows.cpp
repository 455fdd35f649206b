// Operations on rows and elements: norms, softmax, activations, sums and products, casts.
#include <cstring>

#include "multiply_parts.h"

namespace warpsight::cpu {

static std::string name_with_isa(const char* name) { return std::string(name) + "_" + kernels().isa; }

/// normalize(first, last, y_step) over rows of D, whose results the next product has packed if it was agreed.
template <typename Normalize>
static void for_normalized_rows(bool packed, int64_t M, int64_t D, const Normalize& normalize) {
    if (!packed) return for_rows(M, D, [&](int64_t first, int64_t last) { normalize(first, last, kGroup); });
    for_row_blocks(M, D, ceil_div(M, kernels().mr),
                   [&](int64_t first, int64_t rows) { normalize(first, first + rows, rows * kGroup); });
}

std::unique_ptr<Step> plan(const LayerNorm& op, const StepSpec& spec) {
    require_float32("layerNorm", spec);
    WeightHandle weight = weight_input(spec, 1, WeightLayout::vector), bias = weight_input(spec, 2, WeightLayout::vector);
    const bool packed = output(spec, 0).handed_over;
    return make_step(name_with_isa("layer_norm"), spec, 8.0 * double(input(spec, 0).shape.elements()), 0,
                     [=](const StepArguments& a) {
                         const float *x = floats_at(a.inputs, 0), *residual = floats_at(a.inputs, 3);
                         float *y = floats_at(a.outputs, 0), *sum = floats_at(a.outputs, 1);
                         const int64_t M = a.inputs[0].shape.rows(), D = a.inputs[0].shape.last();
                         for_normalized_rows(packed, M, D, [&](int64_t first, int64_t last, int64_t y_step) {
                             const int64_t at = first * D;
                             kernels().layer_norm(x + at, residual ? residual + at : nullptr, floats_of(weight), floats_of(bias),
                                                  sum ? sum + at : nullptr, y + at, y_step, last - first, D, op.eps);
                         });
                     });
}

std::unique_ptr<Step> plan(const RmsNorm& op, const StepSpec& spec) {
    require_float32("rmsNorm", spec);
    WeightHandle weight = weight_input(spec, 1, WeightLayout::vector);
    const bool packed = output(spec, 0).handed_over;
    return make_step(name_with_isa("rms_norm"), spec, 5.0 * double(input(spec, 0).shape.elements()), 0,
                     [=](const StepArguments& a) {
                         const float *x = floats_at(a.inputs, 0), *residual = floats_at(a.inputs, 2);
                         float *y = floats_at(a.outputs, 0), *sum = floats_at(a.outputs, 1);
                         const int64_t M = a.inputs[0].shape.rows(), D = a.inputs[0].shape.last();
                         for_normalized_rows(packed, M, D, [&](int64_t first, int64_t last, int64_t y_step) {
                             const int64_t at = first * D;
                             kernels().rms_norm(x + at, residual ? residual + at : nullptr, floats_of(weight),
                                                sum ? sum + at : nullptr, y + at, y_step, last - first, D, op.eps);
                         });
                     });
}

/// A kernel over whole rows of one input and one output.
static std::unique_ptr<Step> plan_rows(const char* name, const StepSpec& spec, double flops,
                                       void (*kernel)(const float*, float*, int64_t, int64_t)) {
    return make_step(name_with_isa(name), spec, flops * double(input(spec, 0).shape.elements()), 0,
                     [kernel](const StepArguments& a) {
                         const float* x = floats_at(a.inputs, 0);
                         float* y = floats_at(a.outputs, 0);
                         const int64_t D = a.inputs[0].shape.last();
                         for_rows(a.inputs[0].shape.rows(), D,
                                  [&](int64_t first, int64_t last) { kernel(x + first * D, y + first * D, last - first, D); });
                     });
}

std::unique_ptr<Step> plan(const L2Normalize&, const StepSpec& spec) {
    require_float32("l2Normalize", spec);
    return plan_rows("l2_normalize", spec, 3, kernels().l2_normalize);
}

std::unique_ptr<Step> plan(const Softmax&, const StepSpec& spec) {
    require_float32("softmax", spec);
    return plan_rows("softmax", spec, 5, kernels().softmax);
}

/// body(first, count) over the elements of the first input.
template <typename Body>
static void for_elements(const StepArguments& a, const Body& body) {
    for_rows(a.inputs[0].shape.elements(), 1, [&](int64_t first, int64_t last) { body(first, last - first); });
}

std::unique_ptr<Step> plan(const Activate& op, const StepSpec& spec) {
    require_float32("activate", spec);
    return make_step(
        name_with_isa("activate"), spec, 10.0 * double(input(spec, 0).shape.elements()), 0, [op](const StepArguments& a) {
            for_elements(a, [&](int64_t first, int64_t count) {
                kernels().activate(op.activation, floats_at(a.inputs, 0) + first, floats_at(a.outputs, 0) + first, count);
            });
        });
}

std::unique_ptr<Step> plan(const SiluGate&, const StepSpec& spec) {
    require_float32("siluGate", spec);
    return make_step(name_with_isa("silu_gate"), spec, 10.0 * double(input(spec, 0).shape.elements()), 0,
                     [](const StepArguments& a) {
                         if (a.inputs.size() < 2 || !a.inputs[1].data) {
                             const int64_t D = a.inputs[0].shape.last() / 2;
                             for_rows(a.inputs[0].shape.rows(), D, [&](int64_t first, int64_t last) {
                                 for (int64_t r = first; r < last; ++r) {
                                     const float* row = floats_at(a.inputs, 0) + r * 2 * D;
                                     kernels().silu_gate(row, row + D, floats_at(a.outputs, 0) + r * D, D);
                                 }
                             });
                             return;
                         }
                         for_elements(a, [&](int64_t first, int64_t count) {
                             kernels().silu_gate(floats_at(a.inputs, 0) + first, floats_at(a.inputs, 1) + first,
                                                 floats_at(a.outputs, 0) + first, count);
                         });
                     });
}

std::unique_ptr<Step> plan(const Binary& op, const StepSpec& spec) {
    require_float32("binary", spec);
    const Shape &x_shape = input(spec, 0).shape, &y_shape = input(spec, 1).shape;
    const bool number_each = x_shape.rank == y_shape.rank && y_shape.last() == 1 && x_shape.last() != 1;
    const bool same = !number_each && x_shape.elements() == y_shape.elements();
    return make_step(name_with_isa("binary"), spec, double(x_shape.elements()), 0, [=](const StepArguments& a) {
        const float *x = floats_at(a.inputs, 0), *y = floats_at(a.inputs, 1);
        float* out = floats_at(a.outputs, 0);
        if (same) {
            for_elements(a, [&](int64_t first, int64_t n) {
                kernels().binary(op.arithmetic, x + first, y + first, false, out + first, n);
            });
            return;
        }
        const int64_t D = a.inputs[0].shape.last();
        for_rows(a.inputs[0].shape.rows(), D, [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; ++row)
                kernels().binary(op.arithmetic, x + row * D, number_each ? y + row : y, number_each, out + row * D, D);
        });
    });
}

static uint16_t to_bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);  // NaN stays one
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static uint16_t to_float16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and more round to infinity
    if (magnitude < 0x33000001) return uint16_t(sign);            // 2^-25 and less round to zero
    uint32_t exponent = magnitude >> 23, fraction = (magnitude & 0x7fffff) | 0x800000;
    uint32_t shift = exponent < 113 ? 126 - exponent : 13;  // below 2^-14 the steps stay 2^-24 wide
    uint32_t half = fraction >> shift, rest = fraction & ((1u << shift) - 1), middle = 1u << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1));
    return uint16_t(sign | (exponent < 113 ? half : half + ((exponent - 113) << 10)));
}

std::unique_ptr<Step> plan(const Cast&, const StepSpec& spec) {
    for (const Operand& operand : {input(spec, 0), output(spec, 0)})
        if (operand.dtype == DType::int32 || operand.dtype == DType::uint8)
            throw Error("ERR_DTYPE", std::string("cast: float dtypes only, got ") + name_of(operand.dtype));
    return make_step("cast", spec, 0, 0, [](const StepArguments& a) {
        const DType from = a.inputs[0].dtype, to = a.outputs[0].dtype;
        for_elements(a, [&](int64_t first, int64_t count) {
            const char* x = a.inputs[0].as<char>() + size_t(first) * size_of(from);
            char* y = a.outputs[0].as<char>() + size_t(first) * size_of(to);
            if (from == to) {
                std::memcpy(y, x, size_t(count) * size_of(to));
                return;
            }
            constexpr int64_t kChunk = 256;
            float floats[kChunk];
            for (int64_t i = 0; i < count; i += kChunk) {
                const int64_t n = std::min(kChunk, count - i);
                kernels().widen(x + size_t(i) * size_of(from), from, floats, n);
                if (to == DType::float32) std::memcpy(y + i * 4, floats, size_t(n) * 4);
                for (int64_t j = 0; to != DType::float32 && j < n; ++j) {
                    uint16_t half = to == DType::float16 ? to_float16(floats[j]) : to_bfloat16(floats[j]);
                    std::memcpy(y + (i + j) * 2, &half, 2);
                }
            }
        });
    });
}

}  // namespace warpsight::cpu
