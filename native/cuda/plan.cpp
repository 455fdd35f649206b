#include "plan.h"

#include "../src/picture_row.h"
#include "gemm.h"
#include "launch.h"
#include "weights.h"

namespace warpsight::cuda {
namespace {

/// What a launch of one step is given: the planned operands with the addresses of this run.
class Call {
public:
    Call(const StepSpec& spec, const Launch& launch, const StepArguments& arguments)
        : spec_(spec), arguments_(arguments), launch(launch) {}

    TensorView in(size_t i) const {
        return view(operand(spec_.inputs, i), i < arguments_.inputs.size() ? arguments_.inputs[i].data : nullptr);
    }
    TensorView out(size_t i) const {
        return view(operand(spec_.outputs, i), i < arguments_.outputs.size() ? arguments_.outputs[i].data : nullptr);
    }

    /// A weight matrix or table, or a tensor used as one.
    Matrix matrix(size_t i) const {
        const Operand& o = operand(spec_.inputs, i);
        if (o.weight) return static_cast<const CudaWeight&>(*o.weight).matrix();
        TensorView t = in(i);
        return {t.data, t.dtype, t.shape.rows(), t.shape.last(), t.shape.last()};
    }
    const float* vector(size_t i) const {
        const Operand& o = operand(spec_.inputs, i);
        return o.weight ? static_cast<const float*>(static_cast<const CudaWeight&>(*o.weight).data()) : nullptr;
    }

    /// The rows [all dimensions but the last] that an operand really has.
    Rows in_rows(size_t i) const { return units(operand(spec_.inputs, i), operand(spec_.inputs, i).shape.rows()); }
    Rows out_rows(size_t i) const { return units(operand(spec_.outputs, i), operand(spec_.outputs, i).shape.rows()); }
    /// Its elements, and its size along the first dimension.
    Rows elements(size_t i) const { return units(operand(spec_.outputs, i), operand(spec_.outputs, i).shape.elements()); }
    Rows out_size(size_t i) const { return units(operand(spec_.outputs, i), first(operand(spec_.outputs, i))); }
    Rows in_size(size_t i) const { return units(operand(spec_.inputs, i), first(operand(spec_.inputs, i))); }

    void* workspace() const { return arguments_.workspace; }

private:
    static const Operand& operand(const std::vector<Operand>& list, size_t i) {
        static const Operand absent;
        return i < list.size() ? list[i] : absent;
    }
    static int64_t first(const Operand& o) { return o.shape.rank == 0 ? 1 : o.shape[0]; }
    static TensorView view(const Operand& o, void* data) {
        return o.present && !o.weight ? TensorView{data, o.dtype, o.shape} : TensorView{};
    }
    Rows units(const Operand& o, int64_t planned) const {
        int64_t size = first(o), per = size == 0 ? 0 : planned / size;
        return {arguments_.symbols, o.leading.symbol, o.leading.multiple * per, planned};
    }

    const StepSpec& spec_;
    const StepArguments& arguments_;

public:
    const Launch& launch;
};

/// How a kernel is named after what it computes with: "gemm_simt<half>".
std::string typed(const char* kernel, DType dtype) {
    const char* type = dtype == DType::float16 ? "half" : dtype == DType::bfloat16 ? "bf16" : "float";
    return std::string(kernel) + "<" + type + ">";
}

/// Bytes of a part of a workspace, so that the next begins as memory of its own would.
size_t whole_lines(size_t bytes) { return (bytes + 255) / 256 * 256; }

class CudaStep final : public Step {
public:
    CudaStep(std::shared_ptr<Context> context, const StepSpec& spec) : spec_(spec), context_(std::move(context)) {
        for (const std::vector<Operand>* list : {&spec_.inputs, &spec_.outputs})
            for (const Operand& o : *list)
                bytes += !o.present ? 0
                         : o.weight ? double(o.weight->bytes)
                                    : double(o.shape.elements()) * double(size_of(o.dtype));
        std::visit([this](const auto& op) { plan(op); }, spec_.op);
    }

    void run(Stream& stream, const StepArguments& arguments) const override {
        context_->device.enter();
        Launch launch{context_->device, static_cast<CudaStream&>(stream).handle()};
        Call call(spec_, launch, arguments);
        std::visit([&](const auto& op) { start(op, call); }, spec_.op);
    }

private:
    const Operand& in(size_t i, const char* what) const { return need(spec_.inputs, i, what); }
    const Operand& out(size_t i) const { return need(spec_.outputs, i, "an output"); }
    bool has(size_t i) const { return i < spec_.inputs.size() && spec_.inputs[i].present; }

    const Operand& need(const std::vector<Operand>& list, size_t i, const char* what) const {
        if (i >= list.size() || !list[i].present)
            throw Error("ERR_ARGUMENT", std::string(name_of(spec_.op)) + ": " + what + " is missing");
        return list[i];
    }
    [[noreturn]] void refuse_shape(const std::string& rule) const {
        throw Error("ERR_SHAPE", std::string(name_of(spec_.op)) + ": " + rule);
    }

    /// An operand as it was planned, before it has an address.
    static TensorView planned(const Operand& o) { return {nullptr, o.dtype, o.shape}; }

    /// A float tensor whose kernels exist.
    DType float_of(const Operand& o, const char* what) const {
        if (o.dtype == DType::int32 || o.dtype == DType::uint8)
            throw Error("ERR_DTYPE", std::string(name_of(spec_.op)) + ": " + what + " is " + name_of(o.dtype) +
                                         "; float32, float16 and bfloat16 have a kernel");
        return o.dtype;
    }
    void same_dtype(const Operand& a, DType dtype, const char* what) const {
        if (a.present && a.dtype != dtype)
            throw Error("ERR_DTYPE", std::string(name_of(spec_.op)) + ": " + what + " is " + name_of(a.dtype) + ", it must be " +
                                         name_of(dtype));
    }
    /// Weights that this backend made, in the layout that the operation reads.
    void check_weight(size_t i, WeightLayout layout, const char* what) const {
        if (!has(i) || !spec_.inputs[i].weight) return;
        const auto* weight = dynamic_cast<const CudaWeight*>(spec_.inputs[i].weight.get());
        if (weight == nullptr)
            throw Error("ERR_DEVICE",
                        std::string(name_of(spec_.op)) + ": " + what + " lies on another device than " + context_->device.name);
        if (weight->layout != layout)
            throw Error("ERR_ARGUMENT", std::string(name_of(spec_.op)) + ": " + what + " was loaded for another use");
    }
    void check_vector(size_t i, int64_t size, const char* what) const {
        if (!has(i)) return;
        if (!spec_.inputs[i].weight)
            throw Error("ERR_ARGUMENT", std::string(name_of(spec_.op)) + ": " + what + " must be a weight");
        check_weight(i, WeightLayout::vector, what);
        if (spec_.inputs[i].weight->rows * spec_.inputs[i].weight->columns != size)
            refuse_shape(std::string(what) + " has " + std::to_string(spec_.inputs[i].weight->rows) + " elements, " +
                         std::to_string(size) + " are needed");
    }
    void check_matrix(size_t i, DType x, int64_t columns) const {
        const Operand& w = in(i, "the weight");
        check_weight(i, WeightLayout::matrix, "the weight");
        DType dtype = w.weight ? w.weight->dtype : w.dtype;
        if (dtype != x && (x != DType::float32 || !w.weight))
            throw Error("ERR_DTYPE",
                        std::string(name_of(spec_.op)) + ": x is " + name_of(x) + ", the weight was loaded as " + name_of(dtype));
        int64_t k = w.weight ? w.weight->columns : w.shape.last();
        if (k != columns)
            refuse_shape("the weight has " + std::to_string(k) + " columns, " + std::to_string(columns) + " are needed");
    }
    int64_t matrix_rows(size_t i) const {
        return spec_.inputs[i].weight ? spec_.inputs[i].weight->rows : spec_.inputs[i].shape.rows();
    }

    // In the order of ops.h: plan() names the kernel and checks what its memory accesses rely on, start() launches it.

    void plan(const Linear& op) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        check_matrix(1, dtype, x.shape.last());
        check_vector(2, matrix_rows(1), "bias");
        if (gated(op) && (!spec_.inputs[1].weight || matrix_rows(1) % 2 != 0 || has(3)))
            refuse_shape("silu_gate takes a weight of gate and up, and no residual");
        int64_t M = x.shape.rows(), N = matrix_rows(1) / (gated(op) ? 2 : 1);
        if (has(3)) same_dtype(spec_.inputs[3], dtype, "residual");
        same_dtype(out(0), dtype, "y");
        if (out(0).shape.elements() != M * N) refuse_shape("y is " + out(0).shape.text() + " for x " + x.shape.text());
        if (has(3) && spec_.inputs[3].shape.elements() != M * N) refuse_shape("residual is " + spec_.inputs[3].shape.text());
        flops = 2.0 * double(M) * double(matrix_rows(1)) * double(x.shape.last());
        std::string name = one_row() ? "gemv" : "gemv_rows";
        if (!one_row() && !few_rows()) {
            GemmOperands g{.x_pitch = x.shape.last(),
                           .w = {.rows = matrix_rows(1), .columns = x.shape.last(), .pitch = x.shape.last()},
                           .gated = gated(op) && !has(2),
                           .rows = {.planned = M}};
            if (spec_.inputs[1].weight) g.w = static_cast<const CudaWeight&>(*spec_.inputs[1].weight).matrix();
            name = plan_product(dtype, g, gated(op) ? Activation::none : op.activation);
            if (gated(op) && !gates_itself()) workspace_bytes += gate_and_up_bytes();
        }
        if (gated(op)) name += gates_itself() ? "_silu_gate" : "+silu_gate";
        kernel = typed(name.c_str(), dtype);
    }
    /// The kernel for a product of many rows, and what it needs: its name without the dtype.
    std::string plan_product(DType dtype, const GemmOperands& g, Activation activation) {
        if (!tensor_cores(dtype, g)) return "gemm_simt";
        Device& device = context_->device;
        tile_ = device.hopper ? plan_gemm_sm90(device, g, activation) : plan_gemm_sm80(device, g);
        if (!device.hopper) workspace_bytes = gemm_sm80_workspace(tile_, g);
        return name_of(tile_, device.hopper);
    }
    /// Whether the tensor-core kernels can read this product: 16-bit numbers in rows of whole 16-byte pieces.
    static bool tensor_cores(DType dtype, const GemmOperands& g) {
        return size_of(dtype) == 2 && g.w.rows > 0 && g.w.columns > 0 && g.x_pitch % 8 == 0 && g.w.pitch % 8 == 0;
    }
    static bool gated(const Linear& op) { return op.activation == Activation::silu_gate; }
    /// One row whatever the program is given: a batch that happens to be one must have the bits that it has in a larger one.
    bool one_row() const {
        const Operand& x = spec_.inputs[0];
        return x.shape.rows() == 1 && x.leading.symbol < 0 && spec_.inputs[1].weight != nullptr;
    }
    bool few_rows() const {
        const Operand& x = spec_.inputs[0];
        return x.dtype != DType::float32 && x.shape.rows() <= kMostGemvRows && spec_.inputs[1].weight != nullptr;
    }
    /// Whether the kernel joins gate and up before it writes; the tensor-core kernels can't where each has a bias. Else the
    /// product goes to workspace, and silu_gate follows.
    bool gates_itself() const { return one_row() || few_rows() || (tile_.index >= 0 && !has(2)); }
    size_t gate_and_up_bytes() const {
        return whole_lines(size_t(spec_.inputs[0].shape.rows() * matrix_rows(1)) * size_of(out(0).dtype));
    }
    void start(const Linear& op, const Call& c) const {
        if (one_row() || few_rows())
            return gemv(c.launch, op, c.in(0), c.matrix(1), c.vector(2), c.in(3), c.out(0), c.out_rows(0));
        if (!gated(op)) return product(op, false, c, c.out(0), c.workspace());
        if (gates_itself()) return product({}, true, c, c.out(0), c.workspace());
        TensorView both{c.workspace(), out(0).dtype, {out(0).shape.rows(), matrix_rows(1)}};
        product({}, false, c, both, static_cast<char*>(c.workspace()) + gate_and_up_bytes());
        silu_gate(c.launch, both, {}, c.out(0), c.elements(0));
    }
    void product(const Linear& op, bool gated, const Call& c, const TensorView& y, void* workspace) const {
        const TensorView x = c.in(0);
        const Matrix w = c.matrix(1);
        if (tile_.index < 0) return gemm_simt(c.launch, op, x, w, c.vector(2), c.in(3), y, c.out_rows(0));
        if (x.shape.rows() == 0) return;
        GemmOperands g{.x = x.data, .x_pitch = x.shape.last(), .w = w, .constant = spec_.inputs[1].weight != nullptr};
        g.gated = gated;
        g.rows = c.out_rows(0);
        if (context_->device.hopper) gemm_sm90(c.launch, op, tile_, g, c.vector(2), c.in(3), y);
        else gemm_sm80(c.launch, op, tile_, g, c.vector(2), c.in(3), y, workspace);
    }

    void plan(const PatchEmbed& op) {
        const Operand& pixels = in(0, "pixels");
        same_dtype(pixels, DType::float32, "pixels");
        if (pixels.shape.rank != 4 || op.patch < 1) refuse_shape("pixels must be [n, C, H, W], they are " + pixels.shape.text());
        int64_t K = pixels.shape[1] * op.patch * op.patch, patches = (pixels.shape[2] / op.patch) * (pixels.shape[3] / op.patch);
        DType dtype = float_of(out(0), "y");
        check_matrix(1, dtype, K);
        int64_t D = matrix_rows(1), T = patches + (has(3) ? 1 : 0);
        check_vector(2, D, "bias");
        check_vector(3, D, "the class token");
        check_vector(4, T * D, "positions");
        if (out(0).shape.elements() != pixels.shape[0] * T * D)
            refuse_shape("y is " + out(0).shape.text() + " for pixels " + pixels.shape.text());
        kernel = typed("patch_embed_simt", dtype);
        flops = 2.0 * double(pixels.shape[0] * patches) * double(D) * double(K);
        if (!spec_.inputs[1].weight) return;
        GemmOperands g = patches_times_weight({.planned = pixels.shape[0] * T});
        if (!tensor_cores(dtype, g)) return;
        Device& device = context_->device;
        tile_ = device.hopper ? plan_gemm_sm90_patches(device, g) : plan_gemm_sm80(device, g);
        kernel = typed(("patches+" + name_of(tile_, device.hopper)).c_str(), dtype);
        workspace_bytes = patches_bytes(g) + (device.hopper ? 0 : gemm_sm80_workspace(tile_, g));
    }
    /// Patches as rows of the weight's padded width, zeros behind and in the rows of class tokens. Pixels keep their float32 as
    /// two bfloat16: rounded to one they would cost more than the rest of a tower.
    GemmOperands patches_times_weight(Rows rows) const {
        Matrix w = static_cast<const CudaWeight&>(*spec_.inputs[1].weight).matrix();
        w.columns = w.pitch;
        const bool halves = w.dtype == DType::bfloat16;
        return {
            .x_pitch = halves ? (w.pitch + 63) / 64 * 128 : w.pitch, .w = w, .constant = true, .halves = halves, .rows = rows};
    }
    static size_t patches_bytes(const GemmOperands& g) { return whole_lines(size_t(g.rows.planned * g.x_pitch) * 2); }
    void start(const PatchEmbed& op, const Call& c) const {
        if (tile_.index >= 0) {
            GemmOperands g = patches_times_weight(c.out_rows(0));
            if (g.rows.planned == 0) return;
            g.x = c.workspace();
            const TensorView pixels = c.in(0), y = c.out(0);
            const int tokens = int(y.shape.rows() / std::max<int64_t>(1, pixels.shape[0]));
            const PatchRows rows{c.vector(2), c.vector(3), c.vector(4), tokens};
            patches(c.launch, op, pixels, has(3), {c.workspace(), y.dtype, {g.rows.planned, g.x_pitch}}, g.rows);
            if (context_->device.hopper) return gemm_sm90_patches(c.launch, tile_, g, rows, y);
            return gemm_sm80_patches(c.launch, tile_, g, rows, y, static_cast<char*>(c.workspace()) + patches_bytes(g));
        }
        patch_embed(c.launch, op, c.in(0), c.matrix(1), c.vector(2), c.vector(3), c.vector(4), c.out(0), c.out_rows(0));
    }

    void plan(const Embed&) {
        same_dtype(in(0, "ids"), DType::int32, "ids");
        in(1, "table");
        const auto& tokens = spec_.inputs[1].weight;  // a matrix is a table whose rows are padded
        check_weight(1, tokens && tokens->layout == WeightLayout::matrix ? WeightLayout::matrix : WeightLayout::table, "table");
        if (has(2)) same_dtype(spec_.inputs[2], DType::int32, "positions");
        if (has(2)) in(3, "the position table");
        check_weight(3, WeightLayout::table, "the position table");
        const Operand& table = spec_.inputs[1];
        int64_t D = table.weight ? table.weight->columns : table.shape.last();
        if (has(3) && (spec_.inputs[3].weight ? spec_.inputs[3].weight->columns : spec_.inputs[3].shape.last()) != D)
            refuse_shape("the position table must have the table's " + std::to_string(D) + " columns");
        if (out(0).shape.elements() != spec_.inputs[0].shape.elements() * D) refuse_shape("y is " + out(0).shape.text());
        kernel = typed("embed", float_of(out(0), "y"));
        bytes = double(out(0).shape.elements()) * double(size_of(out(0).dtype)) * (has(3) ? 3 : 2);
    }
    void start(const Embed&, const Call& c) const {
        embed(c.launch, c.in(0), c.matrix(1), c.in(2), c.matrix(3), c.out(0), c.out_rows(0));
    }

    void plan_norm(const char* name, size_t residual) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        in(1, "weight");
        check_vector(1, x.shape.last(), "weight");
        if (residual == 3) check_vector(2, x.shape.last(), "bias");
        for (const Operand* o : {has(residual) ? &spec_.inputs[residual] : nullptr, &out(0),
                                 spec_.outputs.size() > 1 ? &spec_.outputs[1] : nullptr}) {
            if (o == nullptr || !o->present) continue;
            same_dtype(*o, dtype, "residual, y or sum");
            if (o->shape.elements() != x.shape.elements())
                refuse_shape("x is " + x.shape.text() + ", residual, y or sum " + o->shape.text());
        }
        kernel = typed(name, dtype);
        flops = 8.0 * double(x.shape.elements());
    }
    void plan(const LayerNorm&) { plan_norm("layer_norm", 3); }
    void start(const LayerNorm& op, const Call& c) const {
        layer_norm(c.launch, op.eps, c.in(0), c.vector(1), c.vector(2), c.in(3), c.out(0), c.out(1), c.out_rows(0));
    }
    void plan(const RmsNorm&) { plan_norm("rms_norm", 2); }
    void start(const RmsNorm& op, const Call& c) const {
        rms_norm(c.launch, op.eps, c.in(0), c.vector(1), c.in(2), c.out(0), c.out(1), c.out_rows(0));
    }

    void plan(const Attention& op) {
        const Operand &q = in(0, "q"), &k = in(1, "k"), &v = in(2, "v");
        DType dtype = float_of(q, "q");
        for (const Operand* o : {&k, &v, &out(0)}) same_dtype(*o, dtype, "k, v or out");
        if (op.heads < 1 || op.kv_heads < 1 || op.heads % op.kv_heads != 0 || op.head_dim < 1)
            refuse_shape(std::to_string(op.heads) + " heads of " + std::to_string(op.head_dim) + " over " +
                         std::to_string(op.kv_heads) + " key heads");
        auto fits = [](const Operand& o, int offset, int heads, int width) {
            return offset >= 0 && offset + int64_t(heads) * width <= o.shape.last();
        };
        if (!fits(q, op.q_offset, op.heads, op.head_dim) || !fits(k, op.k_offset, op.kv_heads, op.head_dim) ||
            !fits(v, op.v_offset, op.kv_heads, op.head_dim))
            refuse_shape("heads leave their rows: q " + q.shape.text() + ", k " + k.shape.text() + ", v " + v.shape.text());
        if (v.shape.rows() != k.shape.rows()) refuse_shape("k is " + k.shape.text() + ", v " + v.shape.text());
        if (out(0).shape.elements() != q.shape.rows() * op.heads * op.head_dim) refuse_shape("out is " + out(0).shape.text());
        if (has(3)) same_dtype(spec_.inputs[3], DType::int32, "segments");
        if (has(3) && spec_.inputs[3].shape.last() != 6)
            refuse_shape("segments must be [S, 6], they are " + spec_.inputs[3].shape.text());
        if (has(4)) same_dtype(spec_.inputs[4], DType::int32, "mask");
        if (has(4) && spec_.inputs[4].shape.elements() != k.shape.rows()) refuse_shape("mask is " + spec_.inputs[4].shape.text());
        int64_t sequences = has(3) ? spec_.inputs[3].shape[0] : op.max_queries > 0 ? q.shape.rows() / op.max_queries : 0;
        AttentionPlan chosen = plan_attention(op, planned(q), planned(k), planned(v), sequences);
        kernel = typed(chosen.kernel, dtype);
        workspace_bytes = chosen.workspace_bytes;
        flops = 4.0 * double(sequences) * double(op.max_queries) * double(op.max_keys) * op.heads * op.head_dim;
        double element = double(size_of(dtype));
        bytes = (2.0 * double(q.shape.rows()) * op.heads + 2.0 * double(k.shape.rows()) * op.kv_heads) * op.head_dim * element;
    }
    void start(const Attention& op, const Call& c) const {
        attention(c.launch, op, c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), c.out(0), c.workspace(), c.in_rows(0), c.in_rows(1),
                  c.in_rows(3));
    }

    void plan_map(const char* name, double flops_per_element) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        same_dtype(out(0), dtype, "y");
        if (out(0).shape.elements() != x.shape.elements()) refuse_shape("x is " + x.shape.text() + ", y " + out(0).shape.text());
        kernel = typed(name, dtype);
        flops = flops_per_element * double(x.shape.elements());
    }
    void plan(const L2Normalize&) { plan_map("l2_normalize", 3); }
    void start(const L2Normalize&, const Call& c) const { l2_normalize(c.launch, c.in(0), c.out(0), c.out_rows(0)); }

    void plan_logits(const char* name, bool to_memory) {
        const Operand &x = in(0, "x"), &y = in(1, "the other side");
        DType dtype = float_of(x, "x");
        same_dtype(y, dtype, "the other side");
        same_dtype(out(0), DType::float32, "out");
        if (x.shape.last() != y.shape.last()) refuse_shape("x is " + x.shape.text() + ", the other side " + y.shape.text());
        int64_t n = x.shape.rows(), m = y.shape.rows();
        if (to_memory && out(0).shape.elements() != n * m)
            refuse_shape("out is " + out(0).shape.text() + " for " + std::to_string(n) + " and " + std::to_string(m) + " rows");
        kernel = typed(name, dtype);
        flops = 2.0 * double(n) * double(m) * double(x.shape.last());
        workspace_bytes = logits_workspace(n, m);
    }
    bool logits_on_tensor_cores() const { return has_logits_mma(spec_.inputs[0].dtype, spec_.inputs[0].shape.last()); }
    void plan(const ScaledLogits&) {
        plan_logits("scaled_logits_simt", true);
        if (!logits_on_tensor_cores()) return;
        kernel = typed("scaled_logits_mma", spec_.inputs[0].dtype);
        workspace_bytes = 0;
    }
    void start(const ScaledLogits& op, const Call& c) const {
        if (logits_on_tensor_cores()) return scaled_logits_mma(c.launch, op, c.in(0), c.in(1), c.out(0), c.out_rows(0));
        scaled_logits(c.launch, op, c.in(0), c.in(1), c.out(0), c.workspace(), c.out_rows(0));
    }

    void plan(const ZeroShotHead& op) {
        plan_logits("zero_shot_head_logits_in_memory", false);
        const Shape& x = spec_.inputs[0].shape;
        int64_t n = x.rows(), m = spec_.inputs[1].shape.rows();
        if (op.k < 1 || (n > 0 && op.k > m))
            refuse_shape("k is " + std::to_string(op.k) + " of " + std::to_string(m) + " classes");
        if (out(0).shape.elements() != n * op.k || out(1).shape.elements() != n * op.k)
            refuse_shape("scores are " + out(0).shape.text());
        same_dtype(out(1), DType::int32, "indices");
        workspace_bytes = norms_bytes() + size_t(n * m) * sizeof(float);
        if (!head_on_tensor_cores(op)) return;
        kernel = typed("zero_shot_head_mma", spec_.inputs[0].dtype);
        workspace_bytes = zero_shot_head_workspace(context_->device, n, m, int(x.last()), op.k);
    }
    bool head_on_tensor_cores(const ZeroShotHead& op) const { return logits_on_tensor_cores() && op.k <= kMostBest; }
    size_t norms_bytes() const {
        return whole_lines(logits_workspace(spec_.inputs[0].shape.rows(), spec_.inputs[1].shape.rows()));
    }
    void start(const ZeroShotHead& op, const Call& c) const {
        if (head_on_tensor_cores(op))
            return zero_shot_head_mma(c.launch, op, c.in(0), c.in(1), c.out(0), c.out(1), c.workspace(), c.out_rows(0));
        int64_t n = spec_.inputs[0].shape.rows(), m = spec_.inputs[1].shape.rows();
        TensorView logits{static_cast<char*>(c.workspace()) + norms_bytes(), DType::float32, {n, m}};
        ScaledLogits scaled{op.multiplier, op.bias, op.y_unit};
        if (logits_on_tensor_cores()) scaled_logits_mma(c.launch, scaled, c.in(0), c.in(1), logits, c.out_rows(0));
        else scaled_logits(c.launch, scaled, c.in(0), c.in(1), logits, c.workspace(), c.out_rows(0));
        top_k_scores(c.launch, op.sigmoid, logits, c.out(0), c.out(1), c.out_rows(0));
    }

    void plan(const Softmax&) { plan_map("softmax", 5); }
    void start(const Softmax&, const Call& c) const { softmax(c.launch, c.in(0), c.out(0), c.out_rows(0)); }

    void plan(const Activate&) { plan_map("activate", 10); }
    void start(const Activate& op, const Call& c) const { activate(c.launch, op, c.in(0), c.out(0), c.elements(0)); }

    void plan(const SiluGate&) {
        if (!has(1)) {
            const Operand& x = in(0, "gate");
            DType dtype = float_of(x, "gate");
            same_dtype(out(0), dtype, "y");
            if (x.shape.last() != 2 * out(0).shape.last() || x.shape.rows() != out(0).shape.rows())
                refuse_shape("gate is " + x.shape.text() + ", y " + out(0).shape.text());
            kernel = typed("silu_gate_packed", dtype);
            flops = 8.0 * double(out(0).shape.elements());
            return;
        }
        plan_map("silu_gate", 8);
        same_dtype(in(1, "up"), in(0, "gate").dtype, "up");
        if (in(1, "up").shape.elements() != in(0, "gate").shape.elements())
            refuse_shape("gate is " + in(0, "gate").shape.text() + ", up " + in(1, "up").shape.text());
    }
    void start(const SiluGate&, const Call& c) const { silu_gate(c.launch, c.in(0), c.in(1), c.out(0), c.elements(0)); }

    void plan(const Binary&) {
        plan_map("binary", 1);
        const Operand &x = in(0, "x"), &y = in(1, "y");
        same_dtype(y, x.dtype, "y");
        bool fits = y.shape.elements() == x.shape.elements() || y.shape.elements() == x.shape.last();
        if (number_for_each_row(x.shape, y.shape)) fits = y.shape.elements() == x.shape.rows();
        if (!fits) refuse_shape("x is " + x.shape.text() + ", y " + y.shape.text());
    }
    void start(const Binary& op, const Call& c) const { binary(c.launch, op, c.in(0), c.in(1), c.out(0), c.elements(0)); }

    void plan(const Argmax&) {
        const Operand& x = in(0, "x");
        same_dtype(out(0), DType::int32, "y");
        if (out(0).shape.elements() != x.shape.rows() || (x.shape.last() == 0 && x.shape.rows() > 0))
            refuse_shape("x is " + x.shape.text() + ", y " + out(0).shape.text());
        kernel = typed("argmax", float_of(x, "x"));
    }
    void start(const Argmax&, const Call& c) const { argmax(c.launch, c.in(0), c.out(0), c.in_rows(0)); }

    void plan(const TopK& op) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        same_dtype(out(0), dtype, "values");
        same_dtype(out(1), DType::int32, "indices");
        int64_t R = x.shape.rows();
        if (op.k < 1 || (R > 0 && op.k > x.shape.last())) refuse_shape("k is " + std::to_string(op.k) + ", x " + x.shape.text());
        for (size_t i : {0, 1})
            if (out(i).shape.elements() != R * op.k || out(i).shape.last() != op.k)
                refuse_shape("values or indices are " + out(i).shape.text());
        kernel = typed("top_k", dtype);
    }
    void start(const TopK&, const Call& c) const { top_k(c.launch, c.in(0), c.out(0), c.out(1), c.out_rows(0)); }

    void plan(const GatherRows&) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        same_dtype(in(1, "rows"), DType::int32, "rows");
        same_dtype(out(0), dtype, "y");
        if (out(0).shape.elements() != in(1, "rows").shape.elements() * x.shape.last())
            refuse_shape("y is " + out(0).shape.text());
        kernel = typed("gather_rows", dtype);
        bytes = 2.0 * double(out(0).shape.elements()) * double(size_of(dtype));
    }
    void start(const GatherRows&, const Call& c) const {
        gather_rows(c.launch, c.in(0), c.in(1), c.out(0), c.in_rows(0), c.out_rows(0));
    }

    void plan(const SegmentMean&) {
        const Operand& x = in(0, "x");
        DType dtype = float_of(x, "x");
        same_dtype(in(1, "segments"), DType::int32, "segments");
        same_dtype(out(0), dtype, "y");
        if (in(1, "segments").shape.last() != 2 || out(0).shape.elements() != in(1, "segments").shape.rows() * x.shape.last())
            refuse_shape("segments are " + in(1, "segments").shape.text() + ", y " + out(0).shape.text());
        kernel = typed("segment_mean", dtype);
    }
    void start(const SegmentMean&, const Call& c) const {
        segment_mean(c.launch, c.in(0), c.in(1), c.out(0), c.in_rows(0), c.out_rows(0));
    }

    void plan(const Rope&) {
        plan_map("rope", 6);
        const Operand& x = in(0, "x");
        same_dtype(in(1, "positions"), DType::int32, "positions");
        in(2, "frequencies");
        if (x.shape.rank != 3 || x.shape[2] % 2 != 0 || in(1, "positions").shape.elements() != x.shape[0])
            refuse_shape("x is " + x.shape.text());
        check_vector(2, x.shape[2] / 2, "frequencies");
    }
    void start(const Rope& op, const Call& c) const {
        rope(c.launch, op, c.in(0), c.in(1), c.vector(2), c.out(0), c.out_size(0));
    }

    void plan(const AppendRows& op) {
        const Operand &x = in(0, "x"), &to = in(2, "to");
        DType dtype = float_of(x, "x");
        same_dtype(in(1, "rows"), DType::int32, "rows");
        same_dtype(to, dtype, "to");
        if (op.offset < 0 || op.offset + to.shape.last() > x.shape.last() || in(1, "rows").shape.elements() != x.shape.rows())
            refuse_shape("x is " + x.shape.text() + ", to " + to.shape.text());
        kernel = typed("append_rows", dtype);
        bytes = 2.0 * double(x.shape.rows()) * double(to.shape.last()) * double(size_of(dtype));
    }
    void start(const AppendRows& op, const Call& c) const { append_rows(c.launch, op, c.in(0), c.in(1), c.in(2), c.in_rows(0)); }

    void plan(const RopeAppend& op) {
        const Operand &x = in(0, "x"), &cache = in(4, "cache");
        DType dtype = float_of(x, "x");
        for (size_t i : {1, 3}) same_dtype(in(i, "positions or rows"), DType::int32, "positions or rows");
        for (const Operand* o : {&cache, &out(0)}) same_dtype(*o, dtype, "cache or queries");
        in(2, "frequencies");
        if (x.shape.rank != 3 || x.shape[2] % 2 != 0 || op.heads < 1 || op.kv_heads < 1 ||
            x.shape[1] != op.heads + 2 * int64_t(op.kv_heads) || spec_.inputs[1].shape.elements() != x.shape[0] ||
            spec_.inputs[3].shape.elements() != x.shape[0])
            refuse_shape("x is " + x.shape.text());
        check_vector(2, x.shape[2] / 2, "frequencies");
        if (cache.shape.last() != 2 * op.kv_heads * x.shape[2] || out(0).shape.elements() != x.shape[0] * op.heads * x.shape[2])
            refuse_shape("cache is " + cache.shape.text() + ", queries " + out(0).shape.text());
        kernel = typed("rope_append", dtype);
        flops = 6.0 * double(x.shape.elements());
        bytes = 2.0 * double(x.shape.elements()) * double(size_of(dtype));
    }
    void start(const RopeAppend& op, const Call& c) const {
        rope_append(c.launch, op, c.in(0), c.in(1), c.vector(2), c.in(3), c.in(4), c.out(0), c.in_size(0));
    }

    void plan(const PagedAttention& op) {
        const Operand &q = in(0, "q"), &cache = in(1, "cache"), &pages = in(2, "pages"), &sequences = in(3, "sequences");
        DType dtype = float_of(q, "q");
        for (const Operand* o : {&cache, &out(0)}) same_dtype(*o, dtype, "cache or out");
        for (const Operand* o : {&pages, &sequences}) same_dtype(*o, DType::int32, "pages or sequences");
        if (op.heads < 1 || op.kv_heads < 1 || op.heads % op.kv_heads != 0 || op.head_dim < 1 || op.page < 1)
            refuse_shape(std::to_string(op.heads) + " heads over " + std::to_string(op.kv_heads) + " key heads");
        auto fits = [&](const Operand& o, int offset, int heads) {
            return offset >= 0 && offset + int64_t(heads) * op.head_dim <= o.shape.last();
        };
        if (!fits(q, op.q_offset, op.heads) || !fits(cache, op.k_offset, op.kv_heads) || !fits(cache, op.v_offset, op.kv_heads))
            refuse_shape("heads leave their rows: q " + q.shape.text() + ", cache " + cache.shape.text());
        if (sequences.shape.last() != 3 || pages.shape.rank != 2 || pages.shape[0] != sequences.shape[0])
            refuse_shape("pages are " + pages.shape.text() + ", sequences " + sequences.shape.text());
        if (out(0).shape.elements() != q.shape.rows() * op.heads * op.head_dim) refuse_shape("out is " + out(0).shape.text());
        AttentionPlan chosen = plan_paged_attention(op, planned(q), planned(cache), planned(pages));
        kernel = typed(chosen.kernel, dtype);
        workspace_bytes = chosen.workspace_bytes;
        double keys = double(pages.shape[1]) * op.page;
        flops = 4.0 * double(sequences.shape[0]) * double(op.max_queries) * keys * op.heads * op.head_dim;
    }
    void start(const PagedAttention& op, const Call& c) const {
        paged_attention(c.launch, op, c.in(0), c.in(1), c.in(2), c.in(3), c.out(0), c.workspace(), c.in_rows(0), c.in_rows(3));
    }

    void plan(const Splice&) {
        plan_map("splice", 0);
        same_dtype(in(1, "features"), in(0, "x").dtype, "features");
        same_dtype(in(2, "index"), DType::int32, "index");
        if (in(1, "features").shape.last() != in(0, "x").shape.last() ||
            in(2, "index").shape.elements() != in(0, "x").shape.rows())
            refuse_shape("x is " + in(0, "x").shape.text() + ", features " + in(1, "features").shape.text());
    }
    void start(const Splice&, const Call& c) const {
        splice(c.launch, c.in(0), c.in(1), c.in(2), c.out(0), c.out_rows(0), c.in_rows(1));
    }

    void plan(const SampleDistribution& op) {
        const Operand& logits = in(0, "logits");
        if (has(1)) same_dtype(spec_.inputs[1], DType::int32, "seen");
        same_dtype(out(0), DType::float32, "y");
        if (out(0).shape.elements() != logits.shape.elements())
            refuse_shape("logits are " + logits.shape.text() + ", y " + out(0).shape.text());
        if (!(op.temperature > 0.f)) throw Error("ERR_ARGUMENT", "sampleDistribution: temperature must be positive");
        kernel = typed("sample_distribution", float_of(logits, "logits"));
    }
    void start(const SampleDistribution& op, const Call& c) const {
        sample_distribution(c.launch, op, c.in(0), c.in(1), c.out(0), c.in_size(1));
    }

    void plan(const Concat&) {
        const Operand& y = out(0);
        DType dtype = float_of(y, "y");
        int64_t width = 0;
        for (const Operand& x : spec_.inputs) {
            same_dtype(x, dtype, "x");
            if (!x.present || x.shape.rows() != y.shape.rows()) refuse_shape("x is " + x.shape.text() + ", y " + y.shape.text());
            width += x.shape.last();
        }
        if (width != y.shape.last())
            refuse_shape("the inputs have " + std::to_string(width) + " columns, y is " + y.shape.text());
        kernel = typed("concat", dtype);
    }
    void start(const Concat&, const Call& c) const {
        int64_t offset = 0;
        for (size_t i = 0; i < spec_.inputs.size(); ++i) {
            copy_columns(c.launch, c.in(i), c.out(0), offset, c.out_rows(0));
            offset += spec_.inputs[i].shape.last();
        }
    }

    void plan(const Sample&) {
        const Operand& logits = in(0, "logits");
        int64_t n = logits.shape.rows();
        same_dtype(in(1, "numbers"), DType::float32, "numbers");
        same_dtype(in(2, "integers"), DType::int32, "integers");
        if (has(3)) same_dtype(spec_.inputs[3], DType::int32, "seen");
        same_dtype(out(0), DType::int32, "ids");
        if (in(1, "numbers").shape.elements() != 3 * n || in(2, "integers").shape.elements() != 4 * n ||
            out(0).shape.elements() != n)
            refuse_shape("logits are " + logits.shape.text() + ", ids " + out(0).shape.text());
        kernel = typed("sample", float_of(logits, "logits"));
        workspace_bytes = sample_workspace(n, logits.shape.last());
    }
    void start(const Sample&, const Call& c) const {
        sample(c.launch, c.in(0), c.in(1), c.in(2), c.in(3), c.out(0), c.workspace(), c.in_rows(0), c.in_size(3));
    }

    void plan_resize(size_t images, DType from, DType to) {
        same_dtype(in(0, "the source"), from, "the source");
        same_dtype(in(images, "images"), DType::int32, "images");
        same_dtype(in(images + 1, "taps"), DType::int32, "taps");
        same_dtype(out(0), to, "out");
        if (in(images, "images").shape.last() != PictureRow::kFields)
            refuse_shape("images must be [n, 12], they are " + in(images, "images").shape.text());
    }
    void plan(const ResizeHorizontal&) {
        plan_resize(1, DType::uint8, DType::uint8);
        kernel = "resize_horizontal";
    }
    void start(const ResizeHorizontal& op, const Call& c) const {
        resize_horizontal(c.launch, op, c.in(0), c.in(1), c.in(2), c.out(0), c.in_rows(1));
    }

    void plan(const ResizeVertical& op) {
        plan_resize(1, DType::uint8, DType::float32);
        in(3, "lut");
        check_vector(3, 768, "lut");
        if (out(0).shape.elements() != in(1, "images").shape[0] * 3 * op.width * op.height)
            refuse_shape("out is " + out(0).shape.text());
        kernel = "resize_vertical";
    }
    void start(const ResizeVertical& op, const Call& c) const {
        resize_vertical(c.launch, op, c.in(0), c.in(1), c.in(2), c.vector(3), c.out(0), c.in_rows(1));
    }

    void plan(const Cast&) {
        const Operand& x = in(0, "x");
        float_of(out(0), "y");
        if (out(0).shape.elements() != x.shape.elements()) refuse_shape("x is " + x.shape.text() + ", y " + out(0).shape.text());
        kernel = typed("cast", float_of(x, "x"));
    }
    void start(const Cast&, const Call& c) const { cast(c.launch, c.in(0), c.out(0), c.elements(0)); }

    const StepSpec spec_;
    const std::shared_ptr<Context> context_;
    GemmTile tile_;
};

}  // namespace

std::unique_ptr<Step> plan_step(const std::shared_ptr<Context>& context, const StepSpec& spec) {
    return std::make_unique<CudaStep>(context, spec);
}

}  // namespace warpsight::cuda
