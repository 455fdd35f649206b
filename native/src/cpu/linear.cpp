// linear and patchEmbed: rows packed into blocks, times panels of the weight.
#include <atomic>
#include <cstring>

#include "linear_bfloat16.h"
#include "linear_int8.h"
#include "multiply_parts.h"

namespace warpsight::cpu {

static int64_t padded(int64_t K) { return ceil_div(K, kGroup) * kGroup; }

/// One row of K floats into its place in a block: [ceil(K/16)][rows][16].
static void pack_row(const float* row, int64_t K, int64_t rows, float* to) {
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup, to += rows * kGroup) std::memcpy(to, row + k, kGroup * sizeof(float));
    if (k < K) std::memcpy(to, row + k, size_t(K - k) * sizeof(float));
}

/// A block of rows that stand one behind the other, written in order: of streams that it reads, a processor follows that many.
static void pack_rows(const float* x, int64_t K, int64_t rows, float* to) {
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup)
        for (int64_t r = 0; r < rows; ++r, to += kGroup) std::memcpy(to, x + r * K + k, kGroup * sizeof(float));
    for (int64_t r = 0; r < rows && k < K; ++r, to += kGroup) std::memcpy(to, x + r * K + k, size_t(K - k) * sizeof(float));
}

/// A block of gemm's rows to its place.
template <typename Read>
static void pack_block(const Gemm& gemm, int64_t first, int64_t rows, const Read& read, float* to) {
    if (gemm.a) return pack_rows(gemm.a + first * gemm.K, gemm.K, rows, to);
    for (int64_t r = 0; r < rows; ++r) pack_row(read(first + r), gemm.K, rows, to + r * kGroup);
}

/// Workspace of `multiply` with a packed copy of M rows.
static size_t packed_bytes(const CpuWeight& weight, int64_t M) {
    const int64_t K = weight.columns;
    if (weight.dtype == DType::int8) return int8_packed_bytes(M, K);
    return weight.in_pairs ? bfloat16_packed_bytes(M, K) : size_t(M * padded(K)) * sizeof(float);
}

/// Whether each thread had better pack the rows that it multiplies for itself: what another core has written or read must first
/// be fetched from there, which takes longer than a copy, and nobody waits for the last to have packed.
static bool each_packs(const Gemm& gemm, const Tile& tile) {
    const int64_t threads = pool_threads();
    return threads > 1 && gemm.N >= 256 * threads &&
           std::min(gemm.M, Partition::kMostBlocks * tile.mr) * gemm.K * tile.row_bytes <= level_2_bytes();
}

/// The product where each thread packs its rows.
template <typename Read>
static void multiply_own_rows(const Gemm& gemm, const Tile& tile, const Read& read) {
    static std::atomic<uint64_t> products{0};
    const uint64_t product = products.fetch_add(1, std::memory_order_relaxed) + 1;
    multiply_parts(gemm.M, gemm.N, gemm.K, tile, 1, [&](const GemmPart& part, float* sums) {
        static thread_local struct {
            uint64_t product = 0;
            int64_t first_block = 0;
        } packed;  // what the thread's scratch holds
        auto row_of = [&](int64_t block) { return block * gemm.M / gemm.blocks; };
        Gemm own = gemm;
        own.first_row = row_of(part.first_block);
        const int64_t size = padded(gemm.K);
        float* rows_at = thread_scratch(size_t((row_of(part.last_block) - own.first_row) * size), Scratch::packed_rows);
        if (packed.product != product || packed.first_block != part.first_block) {
            for (int64_t block = part.first_block; block < part.last_block; ++block)
                pack_block(gemm, row_of(block), row_of(block + 1) - row_of(block), read,
                           rows_at + (row_of(block) - own.first_row) * size);
            packed = {product, part.first_block};
        }
        own.a = rows_at;
        kernels().gemm_tiles(own, part, sums);
    });
}

/// Packs rows 0 … M − 1, of which read(row) gives the floats, into `workspace` and multiplies. gemm has M, the epilogue and,
/// where the rows stand in memory, the first one as `a`; without a workspace they are packed there already.
template <typename Read>
static void multiply(const CpuWeight& weight, Gemm gemm, void* workspace, const Read& read) {
    gemm.N = weight.rows;
    gemm.K = weight.columns;
    gemm.panels = weight.data;
    gemm.dtype = weight.dtype;
    if (weight.dtype == DType::int8) return multiply_int8(gemm, workspace, read);
    if (weight.in_pairs) return multiply_bfloat16(gemm, workspace, read);
    float* packed = static_cast<float*>(workspace);
    const Kernels& k = kernels();
    if (gemm.M == 0 || gemm.N == 0) return;
    count_multiply_adds(gemm.M * gemm.N * gemm.K);
    gemm.blocks = ceil_div(gemm.M, k.mr);
    const Tile tile{k.mr, k.nr, sizeof(float), int64_t(size_of(gemm.dtype)), kGroup};
    if (packed && each_packs(gemm, tile)) return multiply_own_rows(gemm, tile, read);
    if (packed) {
        for_row_blocks(gemm.M, gemm.K, gemm.blocks, [&](int64_t first, int64_t rows) {
            pack_block(gemm, first, rows, read, packed + first * padded(gemm.K));
        });
        gemm.a = packed;
    }
    multiply_parts(gemm.M, gemm.N, gemm.K, tile, 1, [&](const GemmPart& part, float* sums) { k.gemm_tiles(gemm, part, sums); });
}

static bool multiplies_floats(const CpuWeight& weight) { return weight.dtype != DType::int8 && !weight.in_pairs; }

bool takes_packed_rows(const StepSpec& from, const StepSpec& to) {
    auto weight_of = [](const StepSpec& spec) {
        return std::holds_alternative<Linear>(spec.op) ? dynamic_cast<const CpuWeight*>(input(spec, 1).weight.get()) : nullptr;
    };
    const CpuWeight *reader = weight_of(to), *maker = weight_of(from);
    const Shape x = input(to, 0).shape, y = output(from, 0).shape;
    if (!reader || !multiplies_floats(*reader) || x.last() % kGroup != 0 || x.last() != y.last() || x.rows() != y.rows())
        return false;
    if (maker) return multiplies_floats(*maker) && std::get<Linear>(from.op).activation != Activation::silu_gate;
    if (const auto* attention = std::get_if<Attention>(&from.op)) return attention->head_dim % kGroup == 0;
    const size_t residual = std::holds_alternative<LayerNorm>(from.op) ? 3 : std::holds_alternative<RmsNorm>(from.op) ? 2 : 0;
    return residual > 0 && (!has_input(from, residual) || has_output(from, 1));  // else y is where the sum is kept meanwhile
}

static std::string gemm_name(const CpuWeight& weight) {
    if (weight.dtype == DType::int8) return int8_gemm_name();
    if (weight.in_pairs) return bfloat16_gemm_name();
    return "gemm_" + std::string(kernels().isa) + "_" + std::to_string(kernels().mr) + "x" + std::to_string(kernels().nr);
}

/// A tensor as weight is used as it stands: dot products of rows.
static std::unique_ptr<Step> plan_rows_times_rows(const Linear& op, const StepSpec& spec) {
    WeightHandle bias = weight_input(spec, 2, WeightLayout::vector);
    const Shape x = input(spec, 0).shape, w = input(spec, 1).shape;
    double flops = 2.0 * double(x.rows()) * double(w.rows()) * double(x.last());
    return make_step("dot_" + std::string(kernels().isa), spec, flops, 0, [=](const StepArguments& a) {
        const TensorView &x = a.inputs[0], &w = a.inputs[1], &y = a.outputs[0];
        const int64_t M = x.shape.rows(), K = x.shape.last(), N = w.shape.rows();
        if (M == 0 || N == 0) return;
        count_multiply_adds(M * N * K);
        Epilogue end{.activation = op.activation,
                     .bias = floats_of(bias),
                     .residual = floats_at(a.inputs, 3),
                     .y = y.as<float>(),
                     .residual_stride = N,
                     .y_stride = N};
        constexpr int64_t kRows = 64, kColumns = 64;
        const int64_t across = ceil_div(N, kColumns), down = ceil_div(M, kRows);
        parallel_if_worth(double(M) * double(N) * double(K), across * down, [&](int64_t item) {
            int64_t m = item / across * kRows, n = item % across * kColumns;
            kernels().dot_tile(x.as<float>(), w.as<float>(), K, m, std::min(M, m + kRows), n, std::min(N, n + kColumns), end);
        });
    });
}

std::unique_ptr<Step> plan(const Linear& op, const StepSpec& spec) {
    require_float32("linear", spec);
    const bool gated = op.activation == Activation::silu_gate;
    if (!input(spec, 1).weight && !gated) return plan_rows_times_rows(op, spec);
    WeightHandle weight = weight_input(spec, 1, WeightLayout::matrix), bias = weight_input(spec, 2, WeightLayout::vector);
    if (gated && (!weight || weight->rows % 2 != 0 || has_input(spec, 3)))
        throw Error("ERR_ARGUMENT", "linear: silu_gate takes a weight of gate and up, and no residual");
    const Shape x = input(spec, 0).shape;
    const int64_t N = weight->rows, K = weight->columns;
    // a single row of floats is its own packed form
    auto packs = [packed = input(spec, 0).handed_over, floats = multiplies_floats(*weight)](int64_t M) {
        return !packed && (M > 1 || !floats);
    };
    const size_t packed = packs(x.rows()) ? packed_bytes(*weight, x.rows()) : 0, both = gated ? size_t(x.rows() * N) : 0;
    const std::string name = gemm_name(*weight);
    const bool hands_over = output(spec, 0).handed_over;
    return make_step(gated ? name + "+silu_gate" : name, spec, 2.0 * double(x.rows()) * double(N) * double(K),
                     packed + both * sizeof(float), [=](const StepArguments& a) {
                         const float* x = floats_at(a.inputs, 0);
                         float* y = floats_at(a.outputs, 0);
                         char* workspace = static_cast<char*>(a.workspace);
                         float* product =
                             gated ? reinterpret_cast<float*>(workspace + packed) : y;  // [M, N], rows of gate and up if gated
                         Gemm gemm{.M = a.inputs[0].shape.rows(), .a = x};
                         gemm.end = {.activation = op.activation,
                                     .bias = floats_of(bias),
                                     .residual = floats_at(a.inputs, 3),
                                     .y = product,
                                     .residual_stride = N,
                                     .y_stride = N,
                                     .packed = hands_over};
                         multiply(*weight, gemm, packs(gemm.M) ? workspace : nullptr, [&](int64_t row) { return x + row * K; });
                         if (!gated) return;
                         for_rows(gemm.M, N, [&](int64_t first, int64_t last) {
                             for (int64_t r = first; r < last; ++r)
                                 kernels().silu_gate(product + r * N, product + r * N + N / 2, y + r * (N / 2), N / 2);
                         });
                     });
}

std::unique_ptr<Step> plan(const PatchEmbed& op, const StepSpec& spec) {
    require_float32("patchEmbed", spec);
    WeightHandle weight = weight_input(spec, 1, WeightLayout::matrix), bias = weight_input(spec, 2, WeightLayout::vector);
    WeightHandle token = weight_input(spec, 3, WeightLayout::vector), positions = weight_input(spec, 4, WeightLayout::vector);
    const int64_t patch = op.patch, D = weight->rows, K = weight->columns;
    const Shape s = input(spec, 0).shape;
    const int64_t most_rows = s[0] * (s[2] / patch) * (s[3] / patch);
    if (s[1] * patch * patch != K)
        throw Error("ERR_SHAPE", "patchEmbed: weight must be [D, " + std::to_string(s[1] * patch * patch) + "], its rows are " +
                                     std::to_string(K));
    const size_t workspace = packed_bytes(*weight, most_rows);
    const std::string name = gemm_name(*weight);
    return make_step(name, spec, 2.0 * double(most_rows) * double(D) * double(K), workspace, [=](const StepArguments& a) {
        const TensorView& pixels = a.inputs[0];
        const int64_t n = pixels.shape[0], C = pixels.shape[1], H = pixels.shape[2], W = pixels.shape[3];
        const int64_t across = W / patch, patches = (H / patch) * across, first = token ? 1 : 0, tokens = first + patches;
        float* y = floats_at(a.outputs, 0);
        const float *place = floats_of(positions), *front = floats_of(token);
        for (int64_t i = 0; front && i < n; ++i) {
            float* row = y + i * tokens * D;
            if (place) kernels().add(front, place, row, D);
            else std::memcpy(row, front, size_t(D) * sizeof(float));
        }
        Gemm gemm{.M = n * patches};
        gemm.end = {.bias = floats_of(bias),
                    .residual = place,
                    .y = y,
                    .residual_stride = D,
                    .y_stride = D,
                    .patches = patches,
                    .tokens = tokens,
                    .first = first};
        multiply(*weight, gemm, a.workspace, [&](int64_t row) {
            const float* corner = pixels.as<float>() + row / patches * C * H * W + (row % patches / across * patch) * W +
                                  row % patches % across * patch;
            float* out = thread_scratch(size_t(K));
            for (int64_t c = 0; c < C; ++c)
                for (int64_t v = 0; v < patch; ++v)
                    std::memcpy(out + (c * patch + v) * patch, corner + (c * H + v) * W, size_t(patch) * sizeof(float));
            return out;
        });
    });
}

}  // namespace warpsight::cpu
