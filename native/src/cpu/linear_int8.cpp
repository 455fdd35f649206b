#include "linear_int8.h"

#include "limits.h"
#include "partition.h"
#include "plan.h"

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
    parallel_if_worth(double(M) * double(K), product.blocks, [&](int64_t block) {
        const int64_t first = block * M / product.blocks, rows = (block + 1) * M / product.blocks - first;
        for (int64_t r = 0; r < rows; ++r)
            scales[first + r] = k.pack_row(read(first + r), K, rows, rows_at + first * row_bytes + r * 64);
    });
    // about a quarter of the time that as many multiply-adds of floats take
    const double work = double(M) * double(N) * double(std::max<int64_t>(1, K)) / 4;
    const int64_t depth = ceil_div(K, 8) * 8;  // as deep as panels are
    const Partition parts = partition(M, N, depth, {k.mr, k.nr, 64 / k.group, 1, k.group}, level_2_bytes(), pool_threads());
    parallel_if_worth(work, parts.items(), [&](int64_t index) {
        const GemmPart part = parts.item(index);
        const int64_t sums = part.depth < depth ? parts.rows_of(part) * k.nr * (part.last_panel - part.first_panel) : 0;
        k.tiles(product, part, sums > 0 ? reinterpret_cast<int32_t*>(thread_scratch(size_t(sums))) : nullptr);
    });
}

std::string int8_gemm_name() {
    const Int8Kernels& k = int8_kernels();
    return "gemm_int8_" + std::string(k.isa) + "_" + std::to_string(k.mr) + "x" + std::to_string(k.nr);
}

}  // namespace warpsight::cpu
