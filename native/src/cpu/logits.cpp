// scaledLogits and zeroShotHead: cosines of rows. Rows are brought to unit length first, so that no product leaves float32.
#include <cmath>

#include "plan.h"
#include "top_k.h"

namespace warpsight::cpu {

/// Rows of unit length: x itself where it has that already, else written to `memory`, which moves on.
static const float* unit_rows(const float* x, int64_t rows, int64_t D, bool already, float*& memory) {
    if (already) return x;
    float* out = memory;
    memory += rows * D;
    for_rows(rows, D,
             [&](int64_t first, int64_t last) { kernels().l2_normalize(x + first * D, out + first * D, last - first, D); });
    return out;
}

std::unique_ptr<Step> plan(const ScaledLogits& op, const StepSpec& spec) {
    require_float32("scaledLogits", spec);
    const Shape x = input(spec, 0).shape, y = input(spec, 1).shape;
    const int64_t floats = x.elements() + (op.y_unit ? 0 : y.elements());
    const double flops = 2.0 * double(x.rows()) * double(y.elements());
    return make_step("logits_" + std::string(kernels().isa), spec, flops, size_t(floats) * sizeof(float),
                     [op](const StepArguments& a) {
                         const int64_t n = a.inputs[0].shape.rows(), m = a.inputs[1].shape.rows(), D = a.inputs[0].shape.last();
                         if (n == 0 || m == 0) return;
                         float* memory = static_cast<float*>(a.workspace);
                         const float* x = unit_rows(floats_at(a.inputs, 0), n, D, false, memory);
                         const float* y = unit_rows(floats_at(a.inputs, 1), m, D, op.y_unit, memory);
                         count_multiply_adds(n * m * D);
                         constexpr int64_t kRows = 64, kClasses = 256;
                         const int64_t across = ceil_div(m, kClasses), down = ceil_div(n, kRows);
                         parallel_if_worth(double(n) * double(m) * double(D), across * down, [&](int64_t item) {
                             const int64_t i = item / across * kRows, j = item % across * kClasses;
                             kernels().scaled_dots(x + i * D, y + j * D, D, std::min(kRows, n - i), std::min(kClasses, m - j),
                                                   op.multiplier, op.bias, floats_at(a.outputs, 0) + i * m + j, m);
                         });
                     });
}

// The classes are taken in chunks whose bounds depend on nothing, and chunks are joined in order: the same bits at any thread
// count and in any batch.
constexpr int64_t kChunk = 1024, kRows = 16;

namespace {
/// Of one row and one chunk: its largest logit, Σ exp(logit − largest), and its k best.
struct Partial {
    float *largest, *sum, *values;
    int32_t* indices;
};

struct HeadLayout {
    int64_t chunks, kept;
    int64_t floats(int64_t rows) const { return rows * chunks * (2 + 2 * kept); }
    HeadLayout(int64_t classes, int64_t k) : chunks(std::max<int64_t>(1, ceil_div(classes, kChunk))), kept(std::min(k, kChunk)) {}
    Partial at(float* memory, int64_t row, int64_t chunk) const {
        float* p = memory + (row * chunks + chunk) * (2 + 2 * kept);
        return {p, p + 1, p + 2, reinterpret_cast<int32_t*>(p + 2 + kept)};
    }
};
}  // namespace

std::unique_ptr<Step> plan(const ZeroShotHead& op, const StepSpec& spec) {
    require_float32("zeroShotHead", spec);
    const Shape x = input(spec, 0).shape, classes = input(spec, 1).shape;
    const int64_t floats =
        x.elements() + (op.y_unit ? 0 : classes.elements()) + HeadLayout(classes.rows(), op.k).floats(x.rows());
    const double flops = 2.0 * double(x.rows()) * double(classes.elements());
    return make_step(
        "zero_shot_" + std::string(kernels().isa), spec, flops, size_t(floats) * sizeof(float), [op](const StepArguments& a) {
            const int64_t n = a.inputs[0].shape.rows(), m = a.inputs[1].shape.rows(), D = a.inputs[0].shape.last(), k = op.k;
            if (n == 0) return;
            float* memory = static_cast<float*>(a.workspace);
            const float* x = unit_rows(floats_at(a.inputs, 0), n, D, false, memory);
            const float* y = unit_rows(floats_at(a.inputs, 1), m, D, op.y_unit, memory);
            count_multiply_adds(n * m * D);
            const HeadLayout layout(m, k);
            parallel_if_worth(double(n) * double(m) * double(D), ceil_div(n, kRows) * layout.chunks, [&](int64_t item) {
                const int64_t i = item / layout.chunks * kRows, chunk = item % layout.chunks, j = chunk * kChunk;
                const int64_t rows = std::min(kRows, n - i), count = std::min(kChunk, m - j);
                float* logits = thread_scratch(size_t(kRows * kChunk));
                kernels().scaled_dots(x + i * D, y + j * D, D, rows, count, op.multiplier, op.bias, logits, kChunk);
                for (int64_t r = 0; r < rows; ++r) {
                    const float* row = logits + r * kChunk;
                    Partial partial = layout.at(memory, i + r, chunk);
                    if (!op.sigmoid) kernels().exp_sum(row, count, partial.largest, partial.sum);
                    TopList best(std::min(k, count), partial.values, partial.indices);
                    for (int64_t c = 0; c < count; ++c) best.add(row[c], int32_t(j + c));
                }
            });
            float* scores = floats_at(a.outputs, 0);
            int32_t* indices = a.outputs[1].as<int32_t>();
            for (int64_t i = 0; i < n; ++i) {
                float largest = -INFINITY, sum = 0;
                TopList best(k, scores + i * k, indices + i * k);
                for (int64_t chunk = 0; chunk < layout.chunks; ++chunk) {
                    Partial partial = layout.at(memory, i, chunk);
                    if (!op.sigmoid) largest = std::max(largest, *partial.largest);
                    const int64_t count = std::min(k, std::min(kChunk, m - chunk * kChunk));
                    for (int64_t c = 0; c < count; ++c) best.add(partial.values[c], partial.indices[c]);
                }
                for (int64_t chunk = 0; !op.sigmoid && chunk < layout.chunks; ++chunk) {
                    Partial partial = layout.at(memory, i, chunk);
                    sum += *partial.sum * std::exp(*partial.largest - largest);
                }
                for (int64_t c = 0; c < k; ++c) {
                    float& score = scores[i * k + c];
                    score = op.sigmoid ? 1.f / (1.f + std::exp(-score)) : std::exp(score - largest) / sum;
                }
            }
        });
}

}  // namespace warpsight::cpu
