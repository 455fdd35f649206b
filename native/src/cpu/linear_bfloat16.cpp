#include "linear_bfloat16.h"

#include "limits.h"
#include "partition.h"
#include "plan.h"

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
    parallel_if_worth(double(M) * double(K), product.blocks, [&](int64_t block) {
        const int64_t first = block * M / product.blocks, rows = (block + 1) * M / product.blocks - first;
        for (int64_t r = 0; r < rows; ++r) k.pack_row(read(first + r), K, rows, rows_at + first * padded(K) + r * kBFloat16Group);
    });
    // at least twice as fast as as many multiply-adds of floats
    const double work = double(M) * double(N) * double(std::max<int64_t>(1, K)) / 2;
    const Partition parts = partition(M, N, padded(K), {k.mr, k.nr, sizeof(uint16_t), sizeof(uint16_t), kBFloat16Group},
                                      level_2_bytes(), pool_threads());
    parallel_if_worth(work, parts.items(), [&](int64_t index) {
        const GemmPart part = parts.item(index);
        const int64_t sums = part.depth < padded(K) ? parts.rows_of(part) * k.nr * (part.last_panel - part.first_panel) : 0;
        k.tiles(product, part, sums > 0 ? thread_scratch(size_t(sums)) : nullptr);
    });
}

std::string bfloat16_gemm_name() {
    const BFloat16Kernels& k = *level().bfloat16;
    return "gemm_bfloat16_" + std::string(k.isa) + "_" + std::to_string(k.mr) + "x" + std::to_string(k.nr);
}

}  // namespace warpsight::cpu
