// Runs operations once each, in the shapes of ViT-B/32, CLIP's text tower and Llama-7B, and prints which kernel each took:
// forward_pass <cuda:0> [times]. It compares nothing (ops_golden does): npm run report:cuda counts under gpusim what kernels do
// here.
// With `times`, products and attention over so many times the same inner size: two of them differ by turns of the main loops.
// The rows of all operands are multiples of 16 bytes, so that nothing but the kernels can spoil an access.
#include <cstdio>
#include <cstdlib>

#include "../cuda/backend.h"
#include "cases.h"

namespace warpsight::test {

using As = Value::As;

class Pass {
public:
    Pass(std::shared_ptr<Backend> backend, DType storage) : runner_(std::move(backend), storage) {}

    void run(const char* what, const Operation& op, const std::vector<Value>& inputs, std::vector<Value> outputs) {
        runner_.run(op, inputs, outputs);
        std::printf("%s | %s | %s\n", name_of(op), what, runner_.kernel.c_str());
    }

    Value tensor(Shape shape) { return activation(shape, random_.normals(shape.elements())); }
    Value matrix(int64_t N, int64_t K) {
        return weight(As::matrix, {N, K}, random_.normals(N * K, 1.f / std::sqrt(float(K))), runner_.storage);
    }
    Value table(int64_t V, int64_t D) { return weight(As::table, {V, D}, random_.normals(V * D), runner_.storage); }
    Value vector(int64_t N) { return weight(As::vector, {N}, random_.normals(N)); }
    Value pixels(int64_t n, int64_t side) { return float32({n, 3, side, side}, random_.normals(n * 3 * side * side)); }

private:
    Runner runner_;
    Random random_{1};
};

static std::vector<int32_t> counting(int64_t count) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    for (size_t i = 0; i < out.size(); ++i) out[i] = int32_t(i);
    return out;
}

static void linear(Pass& p, const char* what, int64_t M, int64_t K, int64_t N, Activation act = Activation::none,
                   bool residual = false) {
    p.run(what, Linear{act}, {p.tensor({M, K}), p.matrix(N, K), p.vector(N), residual ? p.tensor({M, N}) : absent()},
          {activation({M, N})});
}

/// Packed QKV of sequences of T tokens.
static void attention(Pass& p, const char* what, int64_t batch, int T, int heads, int Dh, bool causal) {
    int D = heads * Dh;
    Attention a{.heads = heads, .kv_heads = heads, .head_dim = Dh, .q_offset = 0, .k_offset = D, .v_offset = 2 * D};
    a.max_queries = a.max_keys = T;
    a.causal = causal;
    a.scale = 1.f / std::sqrt(float(Dh));
    Value qkv = p.tensor({batch * T, 3 * D});
    p.run(what, a, {qkv, qkv, qkv}, {activation({batch * T, D})});
}

/// S sequences, each with one query behind `keys` − 1 others in a cache of 128 rows a page.
static void decode_attention(Pass& p, const char* what, int64_t S, int keys, int heads, int kv_heads) {
    constexpr int Dh = 128, kPage = 128;
    int64_t pages = (keys + kPage - 1) / kPage;
    PagedAttention a{
        .heads = heads, .kv_heads = kv_heads, .head_dim = Dh, .q_offset = 0, .k_offset = 0, .v_offset = kv_heads * Dh};
    a.page = kPage;
    a.scale = 1.f / std::sqrt(float(Dh));
    std::vector<int32_t> sequences;
    for (int32_t s = 0; s < S; ++s) sequences.insert(sequences.end(), {s, 1, keys});
    p.run(what, a,
          {p.tensor({S, heads * Dh}), p.tensor({S * pages * kPage, 2 * kv_heads * Dh}), int32({S, pages}, counting(S * pages)),
           int32({S, 3}, sequences)},
          {activation({S, heads * Dh})});
}

static void image_tower(Pass& p) {
    p.run("ViT-B/32, batch 1", PatchEmbed{32},
          {p.pixels(1, 224), p.matrix(768, 3072), absent(), p.vector(768), p.vector(50 * 768)}, {activation({50, 768})});
    p.run("ViT-B/32, batch 1", LayerNorm{}, {p.tensor({50, 768}), p.vector(768), p.vector(768)},
          {activation({50, 768}), absent()});
    linear(p, "ViT-B/32 QKV, batch 1", 50, 768, 2304);
    attention(p, "ViT-B/32, batch 1", 1, 50, 12, 64, false);
    linear(p, "ViT-B/32 out, batch 1", 50, 768, 768, Activation::none, true);
    linear(p, "ViT-B/32 fc1, batch 1", 50, 768, 3072, Activation::quick_gelu);
    linear(p, "ViT-B/32 fc2, batch 1", 50, 3072, 768, Activation::none, true);
    linear(p, "ViT-B/32 out, batch 8", 400, 768, 768, Activation::none, true);
    linear(p, "tokens of ViT-L/14@336, 512 columns", 577, 1024, 512);
    attention(p, "ViT-L/14@336, 2 of 16 heads", 1, 577, 2, 64, false);
}

static void text_tower(Pass& p) {
    p.run("4 prompts", Embed{}, {int32({308}, counting(308)), p.table(308, 512), int32({308}, counting(308)), p.table(308, 512)},
          {activation({308, 512})});
    attention(p, "4 prompts of 77 tokens", 4, 77, 8, 64, true);
    p.run("4 prompts", GatherRows{}, {p.tensor({308, 512}), int32({4}, {76, 153, 230, 307})}, {activation({4, 512})});
}

static void head(Pass& p) {
    p.run("64 x 512", L2Normalize{}, {p.tensor({64, 512})}, {activation({64, 512})});
    p.run("64 images, 256 classes", ScaledLogits{100.f}, {p.tensor({64, 512}), p.tensor({256, 512})}, {float32({64, 256})});
    p.run("64 images, 1000 classes", ZeroShotHead{.multiplier = 100.f, .k = 5}, {p.tensor({64, 512}), p.tensor({1000, 512})},
          {float32({64, 5}), int32({64, 5})});
    p.run("64 x 1000", Softmax{}, {p.tensor({64, 1000})}, {activation({64, 1000})});
}

static void language(Pass& p) {
    p.run("Llama-7B, 8 tokens", RmsNorm{}, {p.tensor({8, 4096}), p.vector(4096), p.tensor({8, 4096})},
          {activation({8, 4096}), activation({8, 4096})});
    p.run("Llama-7B, 8 tokens", Rope{}, {p.tensor({8, 32, 128}), int32({8}, counting(8)), p.vector(64)},
          {activation({8, 32, 128})});
    p.run("Llama-7B, 8 tokens", AppendRows{.offset = 4096},
          {p.tensor({8, 12288}), int32({8}, counting(8)), p.tensor({128, 8192})}, {});
    attention(p, "Llama-7B prefill, 128 tokens, 4 of 32 heads", 1, 128, 4, 128, true);
    decode_attention(p, "Llama-7B decode, 640 keys", 1, 640, 32, 32);
    decode_attention(p, "grouped query decode, 4 x 640 keys", 4, 640, 16, 4);
    linear(p, "Llama-7B decode, 1 token", 1, 4096, 4096, Activation::none, true);
    linear(p, "Llama-7B decode, 8 tokens, 1024 columns", 8, 4096, 1024, Activation::none, true);
    p.run("Llama-7B, 8 tokens", SiluGate{}, {p.tensor({8, 22016})}, {activation({8, 11008})});
    p.run("Llama-7B, 8 tokens", Binary{}, {p.tensor({8, 4096}), p.tensor({8, 4096})}, {activation({8, 4096})});
    p.run("32000 logits", Argmax{}, {p.tensor({1, 32000})}, {int32({1})});
}

static void plain(Pass& p) {
    linear(p, "ViT-B/32 out, batch 1, float32", 50, 768, 768, Activation::none, true);
    attention(p, "ViT-B/32, batch 1, float32", 1, 50, 12, 64, false);
}

static void main_loops(Pass& p, int64_t times) {
    linear(p, "1024 x k x 2048", 1024, 512 * times, 2048);
    linear(p, "64 x k x 768", 64, 16384 * times, 768);
    linear(p, "16 x k x 768", 16, 16384 * times, 768);
    for (int Dh : {64, 128}) {
        int keys = int(256 * times), D = 2 * Dh;
        Attention a{.heads = 2, .kv_heads = 2, .head_dim = Dh, .max_queries = 64, .max_keys = keys, .scale = 0.125f};
        p.run(Dh == 64 ? "64 queries, heads of 64" : "64 queries, heads of 128", a,
              {p.tensor({64, D}), p.tensor({keys, D}), p.tensor({keys, D})}, {activation({64, D})});
    }
}

static int run(const std::string& name, int64_t times) {
    if (name.rfind("cuda:", 0) != 0) throw std::runtime_error("forward_pass is for cuda:N, not \"" + name + "\"");
    std::shared_ptr<Backend> backend = make_cuda_backend(std::atoi(name.c_str() + 5));
    Pass half(backend, DType::float16), single(backend, DType::float32);
    if (times > 0) return main_loops(half, times), 0;
    for (auto part : {image_tower, text_tower, head, language}) part(half);
    plain(single);
    return 0;
}

}  // namespace warpsight::test

int main(int count, char** arguments) {
    try {
        return warpsight::test::run(count > 1 ? arguments[1] : "cuda:0", count > 2 ? std::atoi(arguments[2]) : 0);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
