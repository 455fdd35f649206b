#include "linear_int8.h"

#include "multiply_parts.h"

namespace warpsight::cpu {

static int64_t round_up_64(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

size_t int8_packed_bytes(int64_t M, int64_t K) {
    return size_t(round_up_64(M * int64_t(sizeof(RowScale))) + M * int8_kernels().row_bytes(K));
}

void multiply_int8(const Gemm& gemm, void* packed, const std::function<const float*(int64_t row)>& read) {
    const Int8Kernels& k = int8_kernels();
    const int64_t M = gemm.M, N = gemm.N, K = gemm.K;
    if (M == 0 || N == 0) return;
    count_multiply_adds(M * N * K);
    Int8Gemm product{.M = M, .N = N, .K = K, .blocks = ceil_div(M, k.mr), .panels = gemm.panels, .end = gemm.end};
    RowScale* scales = static_cast<RowScale*>(packed);
    const int64_t row_bytes = k.row_bytes(K);
    char* rows_at = static_cast<char*>(packed) + round_up_64(M * int64_t(sizeof(RowScale)));
    product.rows = scales;
    product.a = rows_at;
    for_row_blocks(M, K, product.blocks, [&](int64_t first, int64_t rows) {
        for (int64_t row = first; row < first + rows; ++row)
            scales[row] = k.pack_row(read(row), K, rows, rows_at + first * row_bytes + (row - first) * 64);
    });
    constexpr double kSpeed = 4;  // about
    multiply_parts(M, N, ceil_div(K, 8) * 8, {k.mr, k.nr, 1, 1, 64}, kSpeed,
                   [&](const GemmPart& part, float* sums) { k.tiles(product, part, reinterpret_cast<int32_t*>(sums)); });
}

std::string int8_gemm_name() {
    const Int8Kernels& k = int8_kernels();
    return "gemm_int8_" + std::string(k.isa) + "_" + std::to_string(k.mr) + "x" + std::to_string(k.nr);
}

}  // namespace warpsight::cpu
