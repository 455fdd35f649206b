// Attention: one item per segment or sequence, key/value head and run of queries.
#include <cmath>
#include <limits>

#include "plan.h"

namespace warpsight::cpu {

/// Segment `index` of the table, or a sequence of its own where there is none.
static Segment segment_of(const Attention& op, const int32_t* table, int64_t index) {
    if (!table) return {index * op.max_queries, op.max_queries, index * op.max_keys, op.max_keys, 0, 0};
    const int32_t* s = table + index * 6;
    return {s[0], std::max(0, s[1]), s[2], std::max(0, s[3]), s[4], std::max(0, s[5])};
}

static bool inside(int64_t start, int64_t count, int64_t rows) { return count == 0 || (start >= 0 && start + count <= rows); }

/// Products of a query with a key that the segment asks for.
static int64_t pairs_of(const Segment& s, bool causal) {
    if (!causal) return s.q_count * (s.prefix_count + s.own_count);
    int64_t pairs = s.q_count * s.prefix_count;
    for (int64_t i = 0; i < s.q_count; ++i) pairs += std::clamp<int64_t>(i + 1 + s.own_count - s.q_count, 0, s.own_count);
    return pairs;
}

std::unique_ptr<Step> plan(const Attention& op, const StepSpec& spec) {
    require_float32("attention", spec);
    const Shape q = input(spec, 0).shape;
    const bool table = has_input(spec, 3);
    const double sequences = table ? double(input(spec, 3).shape[0]) : op.max_queries > 0 ? double(q.rows()) / op.max_queries : 0;
    const double flops =
        4.0 * sequences * op.max_queries * op.max_keys * op.heads * op.head_dim * (op.causal && op.max_queries > 1 ? 0.5 : 1);
    const bool packed = output(spec, 0).handed_over;
    return make_step("attention_" + std::string(kernels().isa), spec, flops, 0, [op, table, packed](const StepArguments& a) {
        const TensorView &q = a.inputs[0], &k = a.inputs[1], &v = a.inputs[2], &y = a.outputs[0];
        const int64_t query_rows = q.shape.rows(), key_rows = std::min(k.shape.rows(), v.shape.rows()),
                      width = int64_t(op.heads) * op.head_dim;
        const int32_t* segments = table ? a.inputs[3].as<int32_t>() : nullptr;
        const int64_t count = table ? a.inputs[3].shape[0] : op.max_queries > 0 ? query_rows / op.max_queries : 0;

        Attend at{.q = q.as<float>() + op.q_offset, .k = k.as<float>() + op.k_offset, .v = v.as<float>() + op.v_offset};
        at.q_stride = q.shape.last();
        at.k_stride = k.shape.last();
        at.v_stride = v.shape.last();
        at.y = {y.as<float>(), width};
        if (packed) at.y.M = query_rows, at.y.blocks = ceil_div(query_rows, kernels().mr);
        at.mask = a.inputs.size() > 4 ? a.inputs[4].as<int32_t>() : nullptr;
        at.head_dim = op.head_dim;
        at.group = op.heads / op.kv_heads;
        at.causal = op.causal;
        at.scale = op.scale;

        int64_t pairs = 0, most_queries = 0;
        for (int64_t s = 0; s < count; ++s) {
            Segment segment = segment_of(op, segments, s);
            if (!inside(segment.q_start, segment.q_count, query_rows)) continue;
            most_queries = std::max(most_queries, segment.q_count);
            if (inside(segment.own_start, segment.own_count, key_rows) &&
                inside(segment.prefix_start, segment.prefix_count, key_rows))
                pairs += pairs_of(segment, op.causal);
        }
        const int64_t multiply_adds = pairs * width * 2;
        count_multiply_adds(multiply_adds);

        // All queries of a head together, so that its keys are packed once, unless threads would go without work.
        const Kernels& kernel = kernels();
        int64_t runs = 1;
        if (int64_t items = count * op.kv_heads, wanted = 2 * pool_threads(); items < wanted && items > 0)
            runs = std::clamp<int64_t>(ceil_div(wanted, items), 1, std::max<int64_t>(1, most_queries / (2 * kernel.mr)));
        if (runs == 1) at.next = pool_threads() * int64_t(op.head_dim);  // threads take heads in turn
        parallel_if_worth(double(multiply_adds), count * op.kv_heads * runs, [&](int64_t item) {
            const Segment s = segment_of(op, segments, item / (op.kv_heads * runs));
            if (!inside(s.q_start, s.q_count, query_rows)) return;
            const int head = int(item / runs % op.kv_heads);
            const int64_t run = item % runs, first = run * s.q_count / runs, last = (run + 1) * s.q_count / runs;
            if (first == last) return;
            if (!inside(s.own_start, s.own_count, key_rows) || !inside(s.prefix_start, s.prefix_count, key_rows)) {
                const int64_t columns = int64_t(at.group) * op.head_dim;
                for (int64_t row = s.q_start + first; row < s.q_start + last; ++row) {
                    const PackedRow place = place_row(at.y, row);
                    for (int64_t c = head * columns; c < (head + 1) * columns; ++c)
                        place.at[c / kGroup * place.step + c % kGroup] = std::numeric_limits<float>::quiet_NaN();
                }
                return;
            }
            kernel.attend(at, s, head, first, last,
                          thread_scratch(size_t(kernel.attend_scratch(s.prefix_count + s.own_count, op.head_dim))));
        });
    });
}

std::unique_ptr<Step> plan(const PagedAttention& op, const StepSpec& spec) {
    require_float32("pagedAttention", spec);
    const Shape sequences = input(spec, 3).shape;
    const double keys = double(input(spec, 2).shape.last()) * op.page;
    const double flops = 4.0 * double(sequences[0]) * op.max_queries * keys * op.heads * op.head_dim;
    return make_step("paged_attention_" + std::string(kernels().isa), spec, flops, 0, [op](const StepArguments& a) {
        const TensorView &q = a.inputs[0], &cache = a.inputs[1], &pages = a.inputs[2], &table = a.inputs[3], &y = a.outputs[0];
        const int64_t query_rows = q.shape.rows(), cache_rows = cache.shape.rows(), cache_width = cache.shape.last();
        const int64_t table_pages = pages.shape.last(), count = table.shape[0], width = int64_t(op.heads) * op.head_dim;
        const int group = op.heads / op.kv_heads;
        const Kernels& kernel = kernels();

        struct Sequence {
            int64_t q_start, q_count, k_count;
            const int32_t* pages;
            bool good;
        };
        auto sequence_of = [&](int64_t index) {
            const int32_t* s = table.as<int32_t>() + index * 3;
            Sequence sequence{s[0], std::max(0, s[1]), s[2], pages.as<int32_t>() + index * table_pages, false};
            sequence.good = sequence.k_count >= sequence.q_count && ceil_div(sequence.k_count, op.page) <= table_pages;
            for (int64_t p = 0; sequence.good && p < ceil_div(sequence.k_count, op.page); ++p)
                sequence.good = sequence.pages[p] >= 0 && (int64_t(sequence.pages[p]) + 1) * op.page <= cache_rows;
            return sequence;
        };
        int64_t pairs = 0, most_queries = 0;
        for (int64_t s = 0; s < count; ++s) {
            const Sequence sequence = sequence_of(s);
            if (!sequence.good || !inside(sequence.q_start, sequence.q_count, query_rows)) continue;
            pairs += pairs_of({0, sequence.q_count, 0, sequence.k_count, 0, 0}, true);
            most_queries = std::max(most_queries, sequence.q_count);
        }
        const int64_t multiply_adds = pairs * width * 2;
        count_multiply_adds(multiply_adds);

        int64_t runs = 1;
        if (int64_t items = count * op.kv_heads, wanted = 2 * pool_threads(); items < wanted && items > 0)
            runs = std::clamp<int64_t>(ceil_div(wanted, items), 1, std::max<int64_t>(1, most_queries / (2 * kernel.mr)));
        parallel_if_worth(double(multiply_adds), count * op.kv_heads * runs, [&](int64_t item) {
            const Sequence s = sequence_of(item / (op.kv_heads * runs));
            if (!inside(s.q_start, s.q_count, query_rows)) return;
            const int64_t kv_head = item / runs % op.kv_heads, run = item % runs;
            const int64_t first = run * s.q_count / runs, last = (run + 1) * s.q_count / runs;
            if (first == last) return;
            const int64_t column = kv_head * group * op.head_dim;  // of the group's first query head
            if (!s.good) {
                for (int64_t row = s.q_start + first; row < s.q_start + last; ++row)
                    std::fill_n(y.as<float>() + row * width + column, int64_t(group) * op.head_dim,
                                std::numeric_limits<float>::quiet_NaN());
                return;
            }
            // The head's keys and values side by side, in order: what attend() reads.
            const int64_t d = op.head_dim, attend_floats = kernel.attend_scratch(s.k_count, op.head_dim);
            float* scratch = thread_scratch(size_t(attend_floats + 2 * s.k_count * d));
            float *k = scratch + attend_floats, *v = k + s.k_count * d;
            for (int64_t j = 0; j < s.k_count; ++j) {
                const float* row = cache.as<float>() + (int64_t(s.pages[j / op.page]) * op.page + j % op.page) * cache_width;
                std::copy_n(row + op.k_offset + kv_head * d, d, k + j * d);
                std::copy_n(row + op.v_offset + kv_head * d, d, v + j * d);
            }
            Attend at{.q = q.as<float>() + op.q_offset + column, .k = k, .v = v};
            at.q_stride = q.shape.last();
            at.k_stride = at.v_stride = d;
            at.y = {y.as<float>() + column, width};
            at.head_dim = op.head_dim;
            at.group = group;
            at.causal = true;
            at.scale = op.scale;
            kernel.attend(at, {s.q_start, s.q_count, 0, s.k_count, 0, 0}, 0, first, last, scratch);
        });
    });
}

}  // namespace warpsight::cpu
