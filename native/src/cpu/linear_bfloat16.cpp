#include "linear_bfloat16.h"

#include "multiply_parts.h"

namespace warpsight::cpu {

static int64_t padded(int64_t K) { return ceil_div(K, kBFloat16Group) * kBFloat16Group; }

size_t bfloat16_packed_bytes(int64_t M, int64_t K) { return size_t(M * padded(K)) * sizeof(uint16_t); }

void multiply_bfloat16(const Gemm& gemm, void* packed, const std::function<const float*(int64_t row)>& read) {
    const BFloat16Kernels& k = *level().bfloat16;
    const int64_t M = gemm.M, N = gemm.N, K = gemm.K;
    if (M == 0 || N == 0) return;
    count_multiply_adds(M * N * K);
    uint16_t* rows_at = static_cast<uint16_t*>(packed);
    BFloat16Gemm product{.M = M, .N = N, .K = K, .blocks = ceil_div(M, k.mr), .a = rows_at, .end = gemm.end};
    product.panels = static_cast<const uint16_t*>(gemm.panels);
    for_row_blocks(M, K, product.blocks, [&](int64_t first, int64_t rows) {
        for (int64_t row = first; row < first + rows; ++row)
            k.pack_row(read(row), K, rows, rows_at + first * padded(K) + (row - first) * kBFloat16Group);
    });
    constexpr double kSpeed = 2;  // at least
    multiply_parts(M, N, padded(K), {k.mr, k.nr, sizeof(uint16_t), sizeof(uint16_t), kBFloat16Group}, kSpeed,
                   [&](const GemmPart& part, float* sums) { k.tiles(product, part, sums); });
}

std::string bfloat16_gemm_name() {
    const BFloat16Kernels& k = *level().bfloat16;
    return "gemm_bfloat16_" + std::string(k.isa) + "_" + std::to_string(k.mr) + "x" + std::to_string(k.nr);
}

}  // namespace warpsight::cpu
