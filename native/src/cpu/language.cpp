// Operations of language models: rope and the distribution that is sampled from.
#include <cmath>
#include <numeric>

#include "plan.h"
#include "top_k.h"

namespace warpsight::cpu {

std::unique_ptr<Step> plan(const Rope&, const StepSpec& spec) {
    require_float32("rope", spec);
    WeightHandle frequencies = weight_input(spec, 2, WeightLayout::vector);
    return make_step("rope", spec, 3.0 * double(input(spec, 0).shape.elements()), 0, [=](const StepArguments& a) {
        const int64_t T = a.inputs[0].shape[0], H = a.inputs[0].shape[1], d = a.inputs[0].shape[2], half = d / 2;
        for_rows(T, H * d, [&](int64_t first, int64_t last) {
            float *cosine = thread_scratch(size_t(2 * half)), *sine = cosine + half;
            for (int64_t t = first; t < last; ++t) {
                for (int64_t i = 0; i < half; ++i) {
                    double angle = double(a.inputs[1].as<int32_t>()[t]) * double(floats_of(frequencies)[i]);
                    cosine[i] = float(std::cos(angle));
                    sine[i] = float(std::sin(angle));
                }
                for (int64_t h = 0; h < H; ++h) {
                    const float* x = floats_at(a.inputs, 0) + (t * H + h) * d;
                    float* y = floats_at(a.outputs, 0) + (t * H + h) * d;
                    for (int64_t i = 0; i < half; ++i) {
                        const float low = x[i], high = x[i + half];
                        y[i] = low * cosine[i] - high * sine[i];
                        y[i + half] = high * cosine[i] + low * sine[i];
                    }
                    if (d % 2) y[d - 1] = x[d - 1];
                }
            }
        });
    });
}

std::unique_ptr<Step> plan(const SampleDistribution& op, const StepSpec& spec) {
    require_float32("sampleDistribution", spec);
    const int64_t most = input(spec, 0).shape.elements();
    return make_step("sample_distribution", spec, 10.0 * double(most), size_t(most) * (sizeof(float) + sizeof(int32_t)),
                     [op](const StepArguments& a) {
                         const int64_t V = a.inputs[0].shape.elements();
                         if (V == 0) return;
                         const float* logits = floats_at(a.inputs, 0);
                         float *x = static_cast<float*>(a.workspace), *y = floats_at(a.outputs, 0);
                         int32_t* order = reinterpret_cast<int32_t*>(x + V);
                         std::copy_n(logits, V, x);
                         if (a.inputs.size() > 1 && a.inputs[1].data)
                             for (int64_t i = 0; i < a.inputs[1].shape.elements(); ++i) {
                                 const int64_t id = a.inputs[1].as<int32_t>()[i];
                                 if (id < 0 || id >= V) continue;
                                 x[id] = logits[id] > 0 ? logits[id] / op.repetition_penalty
                                                        : logits[id] * op.repetition_penalty;  // once, however often it was seen
                             }
                         for (int64_t i = 0; i < V; ++i) x[i] /= op.temperature;

                         const bool nucleus = op.top_p<1.f, limited = op.top_k> 0 && op.top_k < V;
                         if (nucleus || limited) {
                             std::iota(order, order + V, 0);
                             std::sort(order, order + V, [&](int32_t i, int32_t j) {
                                 return before(x[i], x[j]) || (!before(x[j], x[i]) && i < j);
                             });
                         }
                         if (limited) {
                             const float smallest = x[order[op.top_k - 1]];
                             for (int64_t i = 0; i < V; ++i)
                                 if (x[i] < smallest) x[i] = -INFINITY;
                         }
                         kernels().softmax(x, y, 1, V);
                         if (!nucleus) return;
                         double sum = 0;
                         int64_t kept = 0;
                         while (kept < V && (kept == 0 || sum < double(op.top_p))) sum += double(y[order[kept++]]);
                         for (int64_t i = kept; i < V; ++i) y[order[i]] = 0.f;
                         for (int64_t i = 0; i < kept; ++i) y[order[i]] = float(double(y[order[i]]) / sum);
                     });
}

}  // namespace warpsight::cpu
