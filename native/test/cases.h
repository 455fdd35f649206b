// One case: an operation, its inputs and what must come out. The builders compute the expectation in float64 from the inputs as
// the device will see them, that is rounded to the activation dtype; a fixture's own expectation takes its place in float32.
#pragma once

#include "reference.h"
#include "runner.h"

namespace warpsight::test {

struct Case {
    Operation op;
    std::vector<Value> inputs, outputs;
    std::vector<Doubles> expected;               // per output; empty for integer outputs
    std::vector<std::vector<int32_t>> integers;  // per output; must be equal; uint8 outputs as well
    double tolerance = 1e-5;                     // max |a − b| / max |b|, in float32
    bool per_element = false;                    // |a − b| <= tolerance·max(1, |b|) instead
    std::string kernel;                          // the one that CUDA must take, without its dtype; empty: any
};

/// Seeded values, roughly normal (the sum of four uniform ones), the same on every machine.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int32_t below(int64_t bound) { return int32_t(next() % uint64_t(bound)); }
    float uniform() { return float(next() >> 40) * (1.f / 16777216.f); }
    float normal() { return (uniform() + uniform() + uniform() + uniform() - 2.f) * 1.7320508f; }
    std::vector<float> normals(int64_t count, float scale = 1.f) {
        std::vector<float> out(static_cast<size_t>(count));
        for (float& value : out) value = scale * normal();
        return out;
    }

private:
    uint64_t state_;
};

inline float round_to(float value, DType dtype) {
    if (dtype == DType::float16) return from_float16(to_float16(value));
    return dtype == DType::bfloat16 ? from_bfloat16(to_bfloat16(value)) : value;
}

/// The numbers of a float input as the device sees them. Vectors are float32 there (after having been stored in their own type).
inline Doubles seen(const Value& value, DType storage) {
    Doubles out;
    for (float f : value.floats) {
        DType dtype = value.storage ? storage : value.dtype;
        out.push_back(round_to(f, dtype));
    }
    if (value.as == Value::As::matrix || value.as == Value::As::table)
        for (double& d : out) d = storage == DType::float32 ? d : round_to(float(d), storage);
    return out;
}

inline Case linear_case(DType storage, Activation act, Value x, Value w, Value bias, Value residual) {
    int64_t M = x.shape.rows(), K = x.shape.last(), N = w.shape[0];
    if (act == Activation::silu_gate) {
        Doubles both = linear64(seen(x, storage), seen(w, storage), seen(bias, storage), {}, M, N, K, Activation::none), y;
        for (int64_t m = 0; m < M; ++m)
            for (int64_t n = 0; n < N / 2; ++n)
                y.push_back(activate64(Activation::silu, both[size_t(m * N + n)]) * both[size_t(m * N + N / 2 + n)]);
        Case c{.op = Linear{act}, .outputs = {activation({M, N / 2})}, .expected = {std::move(y)}};
        c.inputs = {std::move(x), std::move(w), std::move(bias)};
        return c;
    }
    Case c{.op = Linear{act}};
    c.expected = {linear64(seen(x, storage), seen(w, storage), seen(bias, storage), seen(residual, storage), M, N, K, act)};
    c.inputs = {std::move(x), std::move(w), std::move(bias), std::move(residual)};
    c.outputs = {activation({M, N})};
    return c;
}

/// pixels [n, C, H, W], w [D, C·p·p]; class token [D] and positions [T·D] may be absent.
inline Case patch_embed_case(DType storage, int patch, Value pixels, Value w, Value bias, Value token, Value positions) {
    int64_t n = pixels.shape[0], C = pixels.shape[1], H = pixels.shape[2], W = pixels.shape[3], D = w.shape[0];
    int64_t rows = H / patch, columns = W / patch, first = token.as == Value::As::absent ? 0 : 1, T = first + rows * columns;
    Doubles p = seen(pixels, storage), weights = seen(w, storage), b = seen(bias, storage), cls = seen(token, storage),
            at = seen(positions, storage);
    Doubles out;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t t = 0; t < T; ++t)
            for (int64_t d = 0; d < D; ++d) {
                double sum = t < first ? cls[size_t(d)] : b.empty() ? 0 : b[size_t(d)];
                int64_t y = t < first ? 0 : (t - first) / columns, x = t < first ? 0 : (t - first) % columns;
                for (int64_t c = 0; t >= first && c < C; ++c)
                    for (int64_t v = 0; v < patch; ++v)
                        for (int64_t u = 0; u < patch; ++u)
                            sum += p[size_t(((i * C + c) * H + y * patch + v) * W + x * patch + u)] *
                                   weights[size_t(((d * C + c) * patch + v) * patch + u)];
                out.push_back(sum + (at.empty() ? 0 : at[size_t(t * D + d)]));
            }
    Case c{.op = PatchEmbed{patch}, .expected = {std::move(out)}};
    c.inputs = {std::move(pixels), std::move(w), std::move(bias), std::move(token), std::move(positions)};
    c.outputs = {activation({n * T, D})};
    return c;
}

/// LayerNorm where bias may be present, RmsNorm where `rms`. The second output is asked for with `sum`.
inline Case norm_case(DType storage, bool rms, float eps, Value x, Value weight, Value bias, Value residual, bool sum) {
    int64_t D = x.shape.last();
    Doubles total = seen(x, storage), r = seen(residual, storage), w = seen(weight, storage), b = seen(bias, storage);
    for (size_t i = 0; i < r.size(); ++i) total[i] += r[i];
    Doubles y(total.size());
    for (size_t row = 0; D && row < total.size(); row += size_t(D)) {
        if (!rms) {
            layer_norm64(&total[row], w, b, eps, D, &y[row]);
            continue;
        }
        double squares = std::inner_product(&total[row], &total[row] + D, &total[row], 0.0) / double(D);
        for (int64_t d = 0; d < D; ++d) y[row + size_t(d)] = total[row + size_t(d)] / std::sqrt(squares + eps) * w[size_t(d)];
    }
    Case c{.op = rms ? Operation(RmsNorm{eps}) : Operation(LayerNorm{eps})};
    c.outputs = {activation(x.shape), sum ? activation(x.shape) : absent()};
    c.expected = {std::move(y), sum ? std::move(total) : Doubles{}};
    if (rms) c.inputs = {std::move(x), std::move(weight), std::move(residual)};
    else c.inputs = {std::move(x), std::move(weight), std::move(bias), std::move(residual)};
    return c;
}

/// q, k, v may be the same packed tensor with offsets; without segments sequences of max_queries and max_keys rows follow one
/// another.
inline Case attention_case(DType storage, const Attention& a, Value q, Value k, Value v, Value segments, Value mask) {
    std::vector<int32_t> rows = segments.ints;
    if (segments.as == Value::As::absent)
        for (int64_t s = 0; s < q.shape.rows() / a.max_queries; ++s)
            rows.insert(rows.end(), {int32_t(s * a.max_queries), a.max_queries, int32_t(s * a.max_keys), a.max_keys, 0, 0});
    Case c{.op = a};
    c.expected = {attention64(a, seen(q, storage), q.shape.last(), seen(k, storage), k.shape.last(), seen(v, storage),
                              v.shape.last(), rows, mask.ints)};
    c.outputs = {activation({q.shape.rows(), int64_t(a.heads) * a.head_dim})};
    c.inputs = {std::move(q), std::move(k), std::move(v), std::move(segments), std::move(mask)};
    return c;
}

/// Keys and values of each sequence gathered from their pages, one sequence after the other: that is attention_case's causal one.
inline Case paged_case(DType storage, const PagedAttention& op, Value q, Value cache, Value pages, Value sequences) {
    const Doubles rows = seen(cache, storage);
    const int64_t width = cache.shape.last(), P = pages.shape.last();
    Doubles gathered;
    std::vector<int32_t> segments;
    for (size_t s = 0; s < sequences.ints.size() / 3; ++s) {
        const int32_t* sequence = &sequences.ints[3 * s];
        segments.insert(segments.end(), {sequence[0], sequence[1], int32_t(gathered.size() / size_t(width)), sequence[2], 0, 0});
        for (int j = 0; j < sequence[2]; ++j) {
            int64_t row = int64_t(pages.ints[s * size_t(P) + size_t(j / op.page)]) * op.page + j % op.page;
            gathered.insert(gathered.end(), rows.begin() + row * width, rows.begin() + (row + 1) * width);
        }
    }
    Attention a{.heads = op.heads, .kv_heads = op.kv_heads, .head_dim = op.head_dim};
    a.q_offset = op.q_offset;
    a.k_offset = op.k_offset;
    a.v_offset = op.v_offset;
    a.causal = true;
    a.scale = op.scale;
    Case c{.op = op, .outputs = {activation({q.shape.rows(), int64_t(op.heads) * op.head_dim})}};
    c.expected = {attention64(a, seen(q, storage), q.shape.last(), gathered, width, gathered, width, segments, {})};
    c.inputs = {std::move(q), std::move(cache), std::move(pages), std::move(sequences)};
    return c;
}

inline Case unit_case(DType storage, Value x) {
    Case c{.op = L2Normalize{},
           .outputs = {activation(x.shape)},
           .expected = {unit_rows64(seen(x, storage), x.shape.last())},
           .tolerance = 1e-6};
    c.inputs = {std::move(x)};
    return c;
}

inline Case logits_case(DType storage, float multiplier, float bias, bool y_unit, Value x, Value y) {
    int64_t n = x.shape.rows(), m = y.shape.rows(), D = x.shape.last();
    Case c{.op = ScaledLogits{multiplier, bias, y_unit}, .outputs = {float32({n, m})}};
    c.expected = {scaled_logits64(seen(x, storage), seen(y, storage), n, m, D, multiplier, bias)};
    c.inputs = {std::move(x), std::move(y)};
    return c;
}

inline Case head_case(DType storage, const ZeroShotHead& head, Value x, Value classes) {
    int64_t n = x.shape.rows(), m = classes.shape.rows(), D = x.shape.last();
    Doubles logits = scaled_logits64(seen(x, storage), seen(classes, storage), n, m, D, head.multiplier, head.bias), scores;
    std::vector<int32_t> indices;
    for (int64_t i = 0; i < n; ++i) {
        double* row = &logits[size_t(i * m)];
        if (head.sigmoid) std::transform(row, row + m, row, [](double x) { return 1 / (1 + std::exp(-x)); });
        else softmax64(row, m);
        for (int32_t index : top_k64(row, m, head.k)) {
            indices.push_back(index);
            scores.push_back(row[index]);
        }
    }
    Case c{.op = head,
           .outputs = {float32({n, head.k}), int32({n, head.k})},
           .expected = {std::move(scores), {}},
           .integers = {{}, std::move(indices)}};
    c.inputs = {std::move(x), std::move(classes)};
    return c;
}

inline Case softmax_case(DType storage, Value x) {
    int64_t D = x.shape.last();
    Case c{.op = Softmax{}, .outputs = {activation(x.shape)}, .expected = {seen(x, storage)}, .tolerance = 1e-6};
    for (size_t row = 0; D && row < c.expected[0].size(); row += size_t(D)) softmax64(&c.expected[0][row], D);
    c.inputs = {std::move(x)};
    return c;
}

inline Case activate_case(DType storage, Activation act, Value x) {
    Case c{.op = Activate{act},
           .outputs = {activation(x.shape)},
           .expected = {seen(x, storage)},
           .tolerance = 2e-6,
           .per_element = true};
    for (double& value : c.expected[0]) value = activate64(act, value);
    c.inputs = {std::move(x)};
    return c;
}

inline Case silu_gate_case(DType storage, Value gate, Value up) {
    Case c{.op = SiluGate{},
           .outputs = {activation(gate.shape)},
           .expected = {seen(gate, storage)},
           .tolerance = 2e-6,
           .per_element = true};
    Doubles u = seen(up, storage);
    for (size_t i = 0; i < u.size(); ++i) c.expected[0][i] = activate64(Activation::silu, c.expected[0][i]) * u[i];
    c.inputs = {std::move(gate), std::move(up)};
    return c;
}

inline Case binary_case(DType storage, Arithmetic arithmetic, Value x, Value y) {
    Doubles a = seen(x, storage), b = seen(y, storage);
    for (size_t i = 0; i < a.size(); ++i) {
        bool number_each = x.shape.rank == y.shape.rank && y.shape.last() == 1;
        double other = b[number_each ? i / size_t(x.shape.last()) : i % b.size()];
        switch (arithmetic) {
            case Arithmetic::add: a[i] += other; break;
            case Arithmetic::multiply: a[i] *= other; break;
            case Arithmetic::maximum: a[i] = std::isnan(a[i]) || std::isnan(other) ? NAN : std::max(a[i], other); break;
        }
    }
    Case c{.op = Binary{arithmetic}, .outputs = {activation(x.shape)}, .expected = {std::move(a)}, .tolerance = 1e-7};
    c.inputs = {std::move(x), std::move(y)};
    return c;
}

inline Case argmax_case(DType storage, Value x) {
    int64_t rows = x.shape.rows(), D = x.shape.last();
    Doubles values = seen(x, storage);
    std::vector<int32_t> best;
    for (int64_t r = 0; r < rows; ++r) best.push_back(top_k64(&values[size_t(r * D)], D, 1)[0]);
    Case c{.op = Argmax{}, .outputs = {int32({rows})}, .expected = {{}}, .integers = {std::move(best)}};
    c.inputs = {std::move(x)};
    return c;
}

inline Case top_k_case(DType storage, int k, Value x) {
    int64_t rows = x.shape.rows(), D = x.shape.last();
    Doubles values = seen(x, storage), largest;
    std::vector<int32_t> indices;
    for (int64_t r = 0; r < rows; ++r)
        for (int32_t index : top_k64(&values[size_t(r * D)], D, k)) {
            indices.push_back(index);
            largest.push_back(values[size_t(r * D + index)]);
        }
    Case c{.op = TopK{k},
           .outputs = {activation({rows, k}), int32({rows, k})},
           .expected = {std::move(largest), {}},
           .integers = {{}, std::move(indices)}};
    c.tolerance = 0;
    c.inputs = {std::move(x)};
    return c;
}

inline Case gather_case(DType storage, Value x, Value rows) {
    int64_t D = x.shape.last(), R = x.shape.rows();
    Doubles values = seen(x, storage), out;
    for (int32_t row : rows.ints)
        for (int64_t d = 0; d < D; ++d) out.push_back(row < 0 || row >= R ? NAN : values[size_t(row * D + d)]);
    Case c{.op = GatherRows{},
           .outputs = {activation({int64_t(rows.ints.size()), D})},
           .expected = {std::move(out)},
           .tolerance = 0};
    c.inputs = {std::move(x), std::move(rows)};
    return c;
}

inline Case embed_case(DType storage, Value ids, Value table, Value positions, Value position_table) {
    int64_t D = table.shape.last(), R = ids.shape.elements();
    Doubles words = seen(table, storage), places = seen(position_table, storage), out;
    for (int64_t r = 0; r < R; ++r) {
        int32_t id = ids.ints[size_t(r)];
        int32_t position = positions.as == Value::As::absent ? 0 : positions.ints[size_t(r)];
        bool outside =
            id < 0 || id >= table.shape[0] || (!places.empty() && (position < 0 || position >= position_table.shape[0]));
        for (int64_t d = 0; d < D; ++d)
            out.push_back(outside ? NAN : words[size_t(id * D + d)] + (places.empty() ? 0 : places[size_t(position * D + d)]));
    }
    Case c{.op = Embed{}, .outputs = {activation({R, D})}, .expected = {std::move(out)}, .tolerance = 1e-7};
    c.inputs = {std::move(ids), std::move(table), std::move(positions), std::move(position_table)};
    return c;
}

inline Case segment_mean_case(DType storage, Value x, Value segments) {
    int64_t D = x.shape.last(), R = x.shape.rows();
    Doubles values = seen(x, storage), out;
    for (size_t s = 0; s + 1 < segments.ints.size(); s += 2) {
        int64_t start = segments.ints[s], count = segments.ints[s + 1];
        bool outside = start < 0 || count <= 0 || start + count > R;
        for (int64_t d = 0; d < D; ++d) {
            double sum = 0;
            for (int64_t r = start; !outside && r < start + count; ++r) sum += values[size_t(r * D + d)];
            out.push_back(outside ? NAN : sum / double(count));
        }
    }
    Case c{.op = SegmentMean{}, .outputs = {activation({segments.shape[0], D})}, .expected = {std::move(out)}, .tolerance = 1e-6};
    c.inputs = {std::move(x), std::move(segments)};
    return c;
}

inline Case rope_case(DType storage, Value x, Value positions, Value frequencies) {
    int64_t T = x.shape[0], H = x.shape[1], d = x.shape[2];
    Doubles values = seen(x, storage), f = seen(frequencies, storage), out = values;
    for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < H; ++h)
            for (int64_t i = 0; i < d / 2; ++i) {
                double angle = positions.ints[size_t(t)] * f[size_t(i)];
                size_t low = size_t((t * H + h) * d + i), high = low + size_t(d / 2);
                out[low] = values[low] * std::cos(angle) - values[high] * std::sin(angle);
                out[high] = values[high] * std::cos(angle) + values[low] * std::sin(angle);
            }
    Case c{.op = Rope{}, .outputs = {activation(x.shape)}, .expected = {std::move(out)}, .tolerance = 1e-4};
    c.inputs = {std::move(x), std::move(positions), std::move(frequencies)};
    return c;
}

inline Case sample_case(DType storage, const SampleDistribution& s, Value logits, Value ids) {
    Doubles x = seen(logits, storage);
    int64_t V = int64_t(x.size());
    std::vector<bool> penalised(x.size());
    for (int32_t id : ids.ints)
        if (id >= 0 && id < V) penalised[size_t(id)] = true;
    for (size_t i = 0; i < x.size(); ++i) {
        if (penalised[i]) x[i] = x[i] > 0 ? x[i] / s.repetition_penalty : x[i] * s.repetition_penalty;
        x[i] /= s.temperature;
    }
    std::vector<int32_t> order = top_k64(x.data(), V, V);
    if (s.top_k > 0 && s.top_k < V) {
        double smallest = x[size_t(order[size_t(s.top_k - 1)])];
        for (double& value : x) value = value < smallest ? -INFINITY : value;
    }
    softmax64(x.data(), V);
    double sum = 0;
    for (int32_t index : order) {
        if (s.top_p < 1 && sum >= s.top_p) x[size_t(index)] = 0;
        else sum += x[size_t(index)];
    }
    for (double& value : x) value /= s.top_p < 1 ? sum : 1;
    Case c{.op = s, .outputs = {float32({V})}, .expected = {std::move(x)}};
    c.inputs = {std::move(logits), std::move(ids)};
    return c;
}

inline Case cast_case(DType from, DType to, std::vector<float> values) {
    const int64_t count = int64_t(values.size());
    Value x = float32({count}, std::move(values)), y = x;
    x.dtype = from;
    y.dtype = to;
    y.floats.assign(x.floats.size(), 0.f);
    Case c{.op = Cast{}, .outputs = {y}, .expected = {{}}, .tolerance = 0};
    for (float f : x.floats) c.expected[0].push_back(round_to(round_to(f, from), to));
    c.inputs = {std::move(x)};
    return c;
}

}  // namespace warpsight::test
