// Operations that choose rows or elements: argmax, topK, gatherRows, segmentMean, embed. Indices out of range read as NaN.
#include <cmath>
#include <cstring>
#include <limits>

#include "plan.h"
#include "top_k.h"

namespace warpsight::cpu {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::unique_ptr<Step> plan(const Argmax&, const StepSpec& spec) {
    require_float32("argmax", spec);
    return make_step("argmax", spec, double(input(spec, 0).shape.elements()), 0, [](const StepArguments& a) {
        const int64_t D = a.inputs[0].shape.last();
        for_rows(D > 0 ? a.inputs[0].shape.rows() : 0, D, [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; ++row) {
                const float* x = floats_at(a.inputs, 0) + row * D;
                int64_t best = 0;
                for (int64_t d = 1; d < D && !std::isnan(x[best]); ++d)
                    if (!(x[d] <= x[best])) best = d;
                a.outputs[0].as<int32_t>()[row] = int32_t(best);
            }
        });
    });
}

std::unique_ptr<Step> plan(const TopK& op, const StepSpec& spec) {
    require_float32("topK", spec);
    const int64_t k = op.k;
    return make_step("top_k", spec, double(input(spec, 0).shape.elements()), 0, [k](const StepArguments& a) {
        const int64_t D = a.inputs[0].shape.last();
        for_rows(a.inputs[0].shape.rows(), D, [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; ++row) {
                const float* x = floats_at(a.inputs, 0) + row * D;
                TopList best(k, floats_at(a.outputs, 0) + row * k, a.outputs[1].as<int32_t>() + row * k);
                for (int64_t d = 0; k > 0 && d < D; ++d) best.add(x[d], int32_t(d));
            }
        });
    });
}

std::unique_ptr<Step> plan(const GatherRows&, const StepSpec& spec) {
    require_float32("gatherRows", spec);
    return make_step("gather_rows", spec, 0, 0, [](const StepArguments& a) {
        const int64_t D = a.inputs[0].shape.last(), R = a.inputs[0].shape.rows();
        for_rows(a.inputs[1].shape.elements(), D, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t row = a.inputs[1].as<int32_t>()[i];
                float* y = floats_at(a.outputs, 0) + i * D;
                if (row < 0 || row >= R) std::fill_n(y, D, kNaN);
                else std::memcpy(y, floats_at(a.inputs, 0) + row * D, size_t(D) * sizeof(float));
            }
        });
    });
}

std::unique_ptr<Step> plan(const SegmentMean&, const StepSpec& spec) {
    require_float32("segmentMean", spec);
    return make_step("segment_mean", spec, double(input(spec, 0).shape.elements()), 0, [](const StepArguments& a) {
        const int64_t D = a.inputs[0].shape.last(), R = a.inputs[0].shape.rows();
        for_rows(a.inputs[1].shape[0], D, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t start = a.inputs[1].as<int32_t>()[2 * i], count = a.inputs[1].as<int32_t>()[2 * i + 1];
                const bool good = start >= 0 && count > 0 && start + count <= R;
                float* y = floats_at(a.outputs, 0) + i * D;
                std::fill_n(y, D, good ? 0.f : kNaN);
                for (int64_t row = start; good && row < start + count; ++row)
                    kernels().add(y, floats_at(a.inputs, 0) + row * D, y, D);
                for (int64_t d = 0; d < D; ++d) y[d] /= float(count);
            }
        });
    });
}

/// Row `row` of a matrix in panels, as floats.
static void widen_packed(const CpuWeight& matrix, int64_t row, float* y) {
    if (matrix.dtype == DType::int8) {
        const Int8Kernels& k = int8_kernels();
        k.unpack_weight(static_cast<const char*>(matrix.data) + row / k.nr * k.panel_bytes(matrix.columns), matrix.columns,
                        row % k.nr, y);
        return;
    }
    const int64_t D = matrix.columns;
    if (matrix.in_pairs) {
        const BFloat16Kernels& k = *level().bfloat16;
        const int64_t padded = bfloat16_padded(D);
        const uint16_t* from = static_cast<const uint16_t*>(matrix.data) + row / k.nr * padded * k.nr + row % k.nr * 2;
        uint16_t* bits = reinterpret_cast<uint16_t*>(thread_scratch(size_t(D)));
        for (int64_t d = 0; d < D; ++d) bits[d] = from[d / 2 * 2 * k.nr + d % 2];
        return kernels().widen(bits, DType::bfloat16, y, D);
    }
    const int64_t nr = kernels().nr, first = row / nr * D * nr + row % nr;
    if (matrix.dtype == DType::float32) {
        const float* from = static_cast<const float*>(matrix.data) + first;
        for (int64_t d = 0; d < D; ++d) y[d] = from[d * nr];
        return;
    }
    const uint16_t* from = static_cast<const uint16_t*>(matrix.data) + first;
    uint16_t* bits = reinterpret_cast<uint16_t*>(thread_scratch(size_t(D)));
    for (int64_t d = 0; d < D; ++d) bits[d] = from[d * nr];
    kernels().widen(bits, matrix.dtype, y, D);
}

std::unique_ptr<Step> plan(const Embed&, const StepSpec& spec) {
    require_float32("embed", spec);
    const bool packed = input(spec, 1).weight && input(spec, 1).weight->layout == WeightLayout::matrix;
    WeightHandle table = weight_input(spec, 1, packed ? WeightLayout::matrix : WeightLayout::table);
    WeightHandle places = weight_input(spec, 3, WeightLayout::table);
    if (places && places->columns != table->columns) throw Error("ERR_SHAPE", "embed: both tables must be equally wide");
    return make_step("embed", spec, double(output(spec, 0).shape.elements()), 0, [=](const StepArguments& a) {
        const int64_t D = table->columns;
        auto row_of = [D](const CpuWeight& weight, int64_t row) {
            return static_cast<const char*>(weight.data) + size_t(row * D) * size_of(weight.dtype);
        };
        for_rows(a.inputs[0].shape.elements(), D, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t id = a.inputs[0].as<int32_t>()[i], position = places ? a.inputs[2].as<int32_t>()[i] : 0;
                float* y = floats_at(a.outputs, 0) + i * D;
                if (id < 0 || id >= table->rows || position < 0 || (places && position >= places->rows)) {
                    std::fill_n(y, D, kNaN);
                    continue;
                }
                if (packed) widen_packed(*table, id, y);
                else kernels().widen(row_of(*table, id), table->dtype, y, D);
                if (!places) continue;
                float* place = thread_scratch(size_t(D));
                kernels().widen(row_of(*places, position), places->dtype, place, D);
                kernels().add(y, place, y, D);
            }
        });
    });
}

}  // namespace warpsight::cpu
