// Operations of language models: rope, the cache's rows, spliced rows, sampling.
#include <cmath>
#include <limits>
#include <numeric>

#include "plan.h"
#include "top_k.h"

namespace warpsight::cpu {

/// cosine and sine [half] of a token's angles.
static void angles(int32_t position, const float* frequencies, int64_t half, float* cosine, float* sine) {
    for (int64_t i = 0; i < half; ++i) {
        double angle = double(position) * double(frequencies[i]);
        cosine[i] = float(std::cos(angle));
        sine[i] = float(std::sin(angle));
    }
}

/// y = heads of d from x, turned.
static void turn(const float* x, int64_t heads, int64_t d, const float* cosine, const float* sine, float* y) {
    const int64_t half = d / 2;
    for (int64_t h = 0; h < heads; ++h, x += d, y += d)
        for (int64_t i = 0; i < half; ++i) {
            const float low = x[i], high = x[i + half];
            y[i] = low * cosine[i] - high * sine[i];
            y[i + half] = high * cosine[i] + low * sine[i];
        }
}

std::unique_ptr<Step> plan(const Rope& op, const StepSpec& spec) {
    require_float32("rope", spec);
    WeightHandle frequencies = weight_input(spec, 2, WeightLayout::vector);
    return make_step("rope", spec, 3.0 * double(input(spec, 0).shape.elements()), 0, [=](const StepArguments& a) {
        const int64_t T = a.inputs[0].shape[0], H = a.inputs[0].shape[1], d = a.inputs[0].shape[2], half = d / 2;
        const int64_t turned = op.heads > 0 ? std::min<int64_t>(op.heads, H) : H;
        for_rows(T, H * d, [&](int64_t first, int64_t last) {
            float *cosine = thread_scratch(size_t(2 * half)), *sine = cosine + half;
            for (int64_t t = first; t < last; ++t) {
                angles(a.inputs[1].as<int32_t>()[t], floats_of(frequencies), half, cosine, sine);
                turn(floats_at(a.inputs, 0) + t * H * d, turned, d, cosine, sine, floats_at(a.outputs, 0) + t * H * d);
                const int64_t rest = (t * H + turned) * d;
                std::copy_n(floats_at(a.inputs, 0) + rest, (H - turned) * d, floats_at(a.outputs, 0) + rest);
            }
        });
    });
}

std::unique_ptr<Step> plan(const AppendRows& op, const StepSpec& spec) {
    require_float32("appendRows", spec);
    return make_step("append_rows", spec, 0, 0, [op](const StepArguments& a) {
        const TensorView &x = a.inputs[0], &to = a.inputs[2];
        const int32_t* rows = a.inputs[1].as<int32_t>();
        const int64_t width = to.shape.last(), stride = x.shape.last();
        for_rows(x.shape.rows(), width, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r)
                if (rows[r] >= 0 && rows[r] < to.shape.rows())
                    std::copy_n(x.as<float>() + r * stride + op.offset, width, to.as<float>() + int64_t(rows[r]) * width);
        });
    });
}

std::unique_ptr<Step> plan(const RopeAppend& op, const StepSpec& spec) {
    require_float32("ropeAppend", spec);
    WeightHandle frequencies = weight_input(spec, 2, WeightLayout::vector);
    return make_step("rope_append", spec, 3.0 * double(input(spec, 0).shape.elements()), 0, [=](const StepArguments& a) {
        const TensorView& cache = a.inputs[4];
        const int64_t T = a.inputs[0].shape[0], H = a.inputs[0].shape[1], d = a.inputs[0].shape[2], half = d / 2;
        const int64_t width = op.kv_heads * d;
        const int32_t *positions = a.inputs[1].as<int32_t>(), *rows = a.inputs[3].as<int32_t>();
        for_rows(T, H * d, [&](int64_t first, int64_t last) {
            float *cosine = thread_scratch(size_t(2 * half)), *sine = cosine + half;
            for (int64_t t = first; t < last; ++t) {
                const float *q = floats_at(a.inputs, 0) + t * H * d, *k = q + op.heads * d, *v = k + width;
                angles(positions[t], floats_of(frequencies), half, cosine, sine);
                turn(q, op.heads, d, cosine, sine, floats_at(a.outputs, 0) + t * op.heads * d);
                if (rows[t] < 0 || rows[t] >= cache.shape.rows()) continue;
                float* row = cache.as<float>() + int64_t(rows[t]) * 2 * width;
                turn(k, op.kv_heads, d, cosine, sine, row);
                std::copy_n(v, width, row + width);
            }
        });
    });
}

std::unique_ptr<Step> plan(const Splice&, const StepSpec& spec) {
    require_float32("splice", spec);
    return make_step("splice", spec, 0, 0, [](const StepArguments& a) {
        const TensorView &x = a.inputs[0], &features = a.inputs[1], &y = a.outputs[0];
        const int32_t* index = a.inputs[2].as<int32_t>();
        const int64_t D = x.shape.last(), F = features.shape.rows();
        for_rows(x.shape.rows(), D, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                float* to = y.as<float>() + r * D;
                if (index[r] >= F) std::fill_n(to, D, std::numeric_limits<float>::quiet_NaN());
                else std::copy_n(index[r] < 0 ? x.as<float>() + r * D : features.as<float>() + index[r] * D, D, to);
            }
        });
    });
}

std::unique_ptr<Step> plan(const Concat&, const StepSpec& spec) {
    require_float32("concat", spec);
    return make_step("concat", spec, 0, 0, [](const StepArguments& a) {
        const TensorView& y = a.outputs[0];
        const int64_t D = y.shape.last();
        for_rows(y.shape.rows(), D, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                float* to = y.as<float>() + r * D;
                for (const TensorView& x : a.inputs) {
                    const int64_t width = x.shape.last();
                    to = std::copy_n(x.as<float>() + r * width, width, to);
                }
            }
        });
    });
}

/// What sampling is told; see ops.h.
struct SampleSettings {
    float temperature, top_p;
    int64_t top_k;
};

/// x[V] = the logits, with the penalty where seen(i) < V is an id that was seen; once, however often it was.
template <typename Seen>
static void penalise(const float* logits, int64_t V, float penalty, int64_t seen_count, const Seen& seen, float* x) {
    std::copy_n(logits, V, x);
    for (int64_t i = 0; i < seen_count; ++i)
        if (int64_t id = seen(i); id >= 0 && id < V) x[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
}

/// y[V] = the distribution over ids of penalised logits x; order [V] is scratch. temperature > 0
static void distribution(const SampleSettings& settings, int64_t V, float* x, int32_t* order, float* y) {
    for (int64_t i = 0; i < V; ++i) x[i] /= settings.temperature;

    const bool nucleus = settings.top_p<1.f, limited = settings.top_k> 0 && settings.top_k < V;
    if (nucleus || limited) {
        std::iota(order, order + V, 0);
        std::sort(order, order + V, [&](int32_t i, int32_t j) { return before(x[i], x[j]) || (!before(x[j], x[i]) && i < j); });
    }
    if (limited) {
        const float smallest = x[order[settings.top_k - 1]];
        for (int64_t i = 0; i < V; ++i)
            if (x[i] < smallest) x[i] = -INFINITY;
    }
    kernels().softmax(x, y, 1, V);
    if (!nucleus) return;
    double sum = 0;
    int64_t kept = 0;
    while (kept < V && (kept == 0 || sum < double(settings.top_p))) sum += double(y[order[kept++]]);
    for (int64_t i = kept; i < V; ++i) y[order[i]] = 0.f;
    for (int64_t i = 0; i < kept; ++i) y[order[i]] = float(double(y[order[i]]) / sum);
}

std::unique_ptr<Step> plan(const SampleDistribution& op, const StepSpec& spec) {
    require_float32("sampleDistribution", spec);
    const int64_t most = input(spec, 0).shape.elements();
    return make_step(
        "sample_distribution", spec, 10.0 * double(most), size_t(most) * (sizeof(float) + sizeof(int32_t)),
        [op](const StepArguments& a) {
            const int64_t V = a.inputs[0].shape.elements();
            if (V == 0) return;
            const bool some = a.inputs.size() > 1 && a.inputs[1].data;
            float* x = static_cast<float*>(a.workspace);
            penalise(
                floats_at(a.inputs, 0), V, op.repetition_penalty, some ? a.inputs[1].shape.elements() : 0,
                [&](int64_t i) { return int64_t(a.inputs[1].as<int32_t>()[i]); }, x);
            distribution({op.temperature, op.top_p, op.top_k}, V, x, reinterpret_cast<int32_t*>(x + V), floats_at(a.outputs, 0));
        });
}

/// The first word of Philox4x32-10 for counter (draw, 0, 0, 0), as a number in [0, 1).
static double uniform(uint32_t seed_low, uint32_t seed_high, uint32_t draw) {
    uint32_t c[4] = {draw, 0, 0, 0};
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
        const uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ seed_low, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ seed_high,
                                  uint32_t(a)};
        std::copy_n(next, 4, c);
        seed_low += 0x9E3779B9u;
        seed_high += 0xBB67AE85u;
    }
    return double(c[0]) / 4294967296.0;
}

std::unique_ptr<Step> plan(const Sample&, const StepSpec& spec) {
    require_float32("sample", spec);
    const int64_t most = input(spec, 0).shape.last();
    return make_step("sample", spec, 12.0 * double(input(spec, 0).shape.elements()),
                     size_t(most) * (2 * sizeof(float) + sizeof(int32_t)), [](const StepArguments& a) {
                         const TensorView& logits = a.inputs[0];
                         const int64_t V = logits.shape.last();
                         const bool some = a.inputs.size() > 3 && a.inputs[3].data;
                         const int64_t seen_count = some ? a.inputs[3].shape[0] : 0;
                         float *x = static_cast<float*>(a.workspace), *y = x + V;
                         int32_t* order = reinterpret_cast<int32_t*>(y + V);
                         for (int64_t row = 0; row < logits.shape.rows() && V > 0; ++row) {
                             const float* numbers = a.inputs[1].as<float>() + row * 3;
                             const int32_t* integers = a.inputs[2].as<int32_t>() + row * 4;
                             penalise(
                                 logits.as<float>() + row * V, V, numbers[2], seen_count,
                                 [&](int64_t i) {
                                     const int32_t* pair = a.inputs[3].as<int32_t>() + 2 * i;
                                     return pair[0] == row ? int64_t(pair[1]) : -1;
                                 },
                                 x);
                             int64_t id = 0;
                             if (!(numbers[0] > 0)) {
                                 for (int64_t i = 1; i < V; ++i)
                                     if (before(x[i], x[id])) id = i;
                             } else {
                                 distribution({numbers[0], numbers[1], integers[0]}, V, x, order, y);
                                 double sum = 0, running = 0;
                                 for (int64_t i = 0; i < V; ++i) sum += double(y[i]);
                                 const double u =
                                     sum * uniform(uint32_t(integers[1]), uint32_t(integers[2]), uint32_t(integers[3]));
                                 for (int64_t i = 0; i < V; ++i) {
                                     if (y[i] > 0) id = i;
                                     running += double(y[i]);
                                     if (running > u) break;
                                 }
                             }
                             a.outputs[0].as<int32_t>()[row] = int32_t(id);
                         }
                     });
}

}  // namespace warpsight::cpu
