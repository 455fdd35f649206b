// float64 formulas of the operations, as plain as they can be written: the judge of cases that the fixtures don't have.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../src/ops.h"

namespace warpsight::test {

using Doubles = std::vector<double>;

inline Doubles widen(const std::vector<float>& values) { return {values.begin(), values.end()}; }

inline double activate64(Activation activation, double x) {
    switch (activation) {
        case Activation::none:
        case Activation::silu_gate: return x;  // see linear_case
        case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        case Activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case Activation::quick_gelu: return x / (1 + std::exp(-1.702 * x));
        case Activation::silu: return x / (1 + std::exp(-x));
        case Activation::relu: return x < 0 ? 0 : x;
        case Activation::tanh: return std::tanh(x);
        case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    }
    return 0;
}

/// act(x·wᵀ + b) + r: x [M, K], w [N, K]; bias and residual may be empty.
inline Doubles linear64(const Doubles& x, const Doubles& w, const Doubles& bias, const Doubles& residual, int64_t M, int64_t N,
                        int64_t K, Activation act) {
    Doubles y(size_t(M * N));
    for (int64_t m = 0; m < M; ++m)
        for (int64_t n = 0; n < N; ++n) {
            double sum = bias.empty() ? 0 : bias[size_t(n)];
            for (int64_t k = 0; k < K; ++k) sum += x[size_t(m * K + k)] * w[size_t(n * K + k)];
            y[size_t(m * N + n)] = activate64(act, sum) + (residual.empty() ? 0 : residual[size_t(m * N + n)]);
        }
    return y;
}

inline void softmax64(double* row, int64_t count) {
    double largest = *std::max_element(row, row + count), sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += row[i] = std::exp(row[i] - largest);
    for (int64_t i = 0; i < count; ++i) row[i] /= sum;
}

/// Attention's doc comment in ops.h, literally. segments: six numbers each; mask may be empty. Rows of the output that no segment
/// names are NaN.
inline Doubles attention64(const Attention& a, const Doubles& q, int64_t q_stride, const Doubles& k, int64_t k_stride,
                           const Doubles& v, int64_t v_stride, const std::vector<int32_t>& segments,
                           const std::vector<int32_t>& mask) {
    int64_t rows = q_stride ? int64_t(q.size()) / q_stride : 0;
    Doubles out(size_t(rows * a.heads * a.head_dim), NAN);
    for (size_t s = 0; s + 5 < segments.size(); s += 6) {
        const int32_t* segment = &segments[s];
        for (int i = 0; i < segment[1]; ++i)
            for (int h = 0; h < a.heads; ++h) {
                int kv = h / (a.heads / a.kv_heads);
                std::vector<int64_t> keys;
                for (int j = 0; j < segment[5]; ++j) keys.push_back(segment[4] + j);
                for (int j = 0; j < segment[3]; ++j)
                    if (!a.causal || j <= i + segment[3] - segment[1]) keys.push_back(segment[2] + j);
                if (!mask.empty()) std::erase_if(keys, [&](int64_t row) { return mask[size_t(row)] == 0; });
                const double* query = &q[size_t((segment[0] + i) * q_stride + a.q_offset + h * a.head_dim)];
                Doubles scores;
                for (int64_t row : keys) {
                    const double* key = &k[size_t(row * k_stride + a.k_offset + kv * a.head_dim)];
                    scores.push_back(a.scale * std::inner_product(query, query + a.head_dim, key, 0.0));
                }
                if (!scores.empty()) softmax64(scores.data(), int64_t(scores.size()));
                for (int d = 0; d < a.head_dim; ++d) {
                    double sum = 0;
                    for (size_t j = 0; j < keys.size(); ++j)
                        sum += scores[j] * v[size_t(keys[j] * v_stride + a.v_offset + kv * a.head_dim + d)];
                    out[size_t(((segment[0] + i) * a.heads + h) * a.head_dim + d)] = sum;
                }
            }
    }
    return out;
}

/// (x − mean) / sqrt(var + eps)·weight + bias of one row of D.
inline void layer_norm64(const double* x, const Doubles& weight, const Doubles& bias, double eps, int64_t D, double* y) {
    double mean = 0, variance = 0;
    for (int64_t d = 0; d < D; ++d) mean += x[d] / double(D);
    for (int64_t d = 0; d < D; ++d) variance += (x[d] - mean) * (x[d] - mean) / double(D);
    for (int64_t d = 0; d < D; ++d)
        y[d] = (x[d] - mean) / std::sqrt(variance + eps) * weight[size_t(d)] + (bias.empty() ? 0 : bias[size_t(d)]);
}

inline Doubles unit_rows64(Doubles x, int64_t D) {
    for (size_t row = 0; D && row < x.size(); row += size_t(D)) {
        double norm = std::sqrt(std::inner_product(&x[row], &x[row] + D, &x[row], 0.0));
        for (int64_t d = 0; d < D && norm > 0; ++d) x[row + size_t(d)] /= norm;
    }
    return x;
}

/// multiplier·cos(x_i, y_j) + bias: [n, m].
inline Doubles scaled_logits64(const Doubles& x, const Doubles& y, int64_t n, int64_t m, int64_t D, double multiplier,
                               double bias) {
    Doubles out = linear64(unit_rows64(x, D), unit_rows64(y, D), {}, {}, n, m, D, Activation::none);
    for (double& value : out) value = multiplier * value + bias;
    return out;
}

/// Positions of the k largest of a row, falling; equal values: the smaller first; NaN before everything.
template <typename T>
std::vector<int32_t> top_k64(const T* row, int64_t count, int64_t k) {
    std::vector<int32_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        if (std::isnan(row[a]) || std::isnan(row[b])) return std::isnan(row[a]) && !std::isnan(row[b]);
        return row[a] > row[b];
    });
    order.resize(size_t(k));
    return order;
}

/// One picture through both passes of PIL's integer resampling; see ResizeHorizontal in ops.h for the tables.
inline uint8_t clip8(int64_t sum) { return uint8_t(std::clamp<int64_t>((sum + (1 << 21)) >> 22, 0, 255)); }

inline double max_rel(const std::vector<float>& got, const Doubles& want) {
    double largest = 0, error = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        if (std::isnan(want[i]) && std::isnan(got[i])) continue;
        if (std::isinf(want[i]) && double(got[i]) == want[i]) continue;
        largest = std::max(largest, std::fabs(want[i]));
        double difference = std::fabs(double(got[i]) - want[i]);
        error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    }
    return error == 0 ? 0 : error / (largest > 0 ? largest : 1);
}

}  // namespace warpsight::test
