#include "linear_bfloat16.h"

#include "multiply_parts.h"

namespace warpsight::cpu {

size_t bfloat16_packed_bytes(int64_t M, int64_t K) {
    return size_t(M * bfloat16_padded(K)) * size_t(level().bfloat16->row_bytes);
}

void multiply_bfloat16(const Gemm& gemm, void* packed, const std::function<const float*(int64_t row)>& read) {
    const BFloat16Kernels& k = *level().bfloat16;
    const int64_t M = gemm.M, N = gemm.N, K = gemm.K;
    if (M == 0 || N == 0) return;
    count_multiply_adds(M * N * K);
    BFloat16Gemm product{.M = M, .N = N, .K = K, .blocks = ceil_div(M, k.mr), .a = packed, .end = gemm.end};
    product.panels = static_cast<const uint16_t*>(gemm.panels);
    for_row_blocks(M, K, product.blocks, [&](int64_t first, int64_t rows) {
        char* const block = static_cast<char*>(packed) + first * bfloat16_padded(K) * k.row_bytes;
        constexpr int64_t kLine = 64;
        for (int64_t row = 0; row < rows; ++row) k.pack_row(read(first + row), K, rows, block + row * kLine);
    });
    const double speed = k.row_bytes == sizeof(float) ? 1 : 2;  // at least
    multiply_parts(M, N, bfloat16_padded(K), {k.mr, k.nr, k.row_bytes, sizeof(uint16_t), kBFloat16Group}, speed,
                   [&](const GemmPart& part, float* sums) { k.tiles(product, part, sums); });
}

std::string bfloat16_gemm_name() {
    const BFloat16Kernels& k = *level().bfloat16;
    return "gemm_bfloat16_" + std::string(k.isa) + "_" + std::to_string(k.mr) + "x" + std::to_string(k.nr);
}

}  // namespace warpsight::cpu
