// The products that users meet: y[M, N] = x[M, K]·W[N, K]ᵀ, one row each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace warpsight::bench {

struct Row {
    std::string model, part, size;  // "ViT-B/32", "fc1", "batch 8"
    int64_t M, N, K;
    size_t index = 0;  // in its table
};

inline std::vector<Row> numbered(std::vector<Row> rows) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i].index = i;
    return rows;
}

inline std::vector<Row> gemm_table() {
    std::vector<Row> rows;
    auto tower = [&](const char* model, const std::string& size, int64_t T, int64_t pooled, int64_t D, int64_t projection) {
        rows.push_back({model, "qkv", size, T, 3 * D, D});
        rows.push_back({model, "out", size, T, D, D});
        rows.push_back({model, "fc1", size, T, 4 * D, D});
        rows.push_back({model, "fc2", size, T, D, 4 * D});
        rows.push_back({model, "projection", size, pooled, projection, D});  // of the class token or the end mark alone
    };

    // Radford et al. 2021, table 20: tokens of an image (class token included), width, width of the embeddings
    struct Vision {
        const char* model;
        int64_t T, D, projection;
    };
    for (const Vision& v : {Vision{"ViT-B/32", 50, 768, 512}, Vision{"ViT-B/16", 197, 768, 512},
                            Vision{"ViT-L/14", 257, 1024, 768}, Vision{"ViT-L/14@336", 577, 1024, 768}})
        for (int64_t batch : {1, 8, 64}) tower(v.model, "batch " + std::to_string(batch), batch * v.T, batch, v.D, v.projection);

    // a prompt ("a photo of a …") has some 10 tokens, marks included, and is not padded
    constexpr int64_t kPromptTokens = 10;
    for (int64_t D : {512, 768})
        for (int64_t prompts : {1, 80, 1000})
            tower(D == 512 ? "text of B/32, B/16" : "text of L/14", std::to_string(prompts) + " prompts", prompts * kPromptTokens,
                  prompts, D, D);

    for (int64_t D : {512, 768})
        for (int64_t images : {1, 64})
            for (int64_t classes : {1000, 10'000, 100'000})
                rows.push_back({"zero-shot head", std::to_string(classes) + " classes", std::to_string(images) + " images",
                                images, classes, D});

    // Touvron et al. 2023, table 2, and the released config: width 4096, 11008 inside the MLP, 32000 words
    for (int64_t tokens : {1, 2, 4, 8, 16, 640}) {
        std::string size = (tokens == 640 ? "prefill " : "decode ") + std::to_string(tokens);
        rows.push_back({"Llama-7B", "qkv", size, tokens, 3 * 4096, 4096});
        rows.push_back({"Llama-7B", "o", size, tokens, 4096, 4096});
        rows.push_back({"Llama-7B", "gate_up", size, tokens, 2 * 11'008, 4096});
        rows.push_back({"Llama-7B", "down", size, tokens, 4096, 11'008});
        if (tokens < 640) rows.push_back({"Llama-7B", "lm_head", size, tokens, 32'000, 4096});  // of the last token alone
    }

    for (int64_t n : {1024, 2048, 4096, 8192}) rows.push_back({"square", std::to_string(n), "", n, n, n});
    return numbered(rows);
}

/// Small enough to be computed by a simulator; the last is no multiple of any tile.
inline std::vector<Row> check_table() {
    return numbered({{"check", "one row", "", 1, 64, 48}, {"check", "tile", "", 64, 64, 64}, {"check", "odd", "", 33, 24, 40}});
}

}  // namespace warpsight::bench
