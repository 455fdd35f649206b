// The two halves of every packed product: rows into blocks, then parts of the product, both by several threads.
#pragma once

#include "limits.h"
#include "partition.h"
#include "plan.h"

namespace warpsight::cpu {

/// body(first, rows) for each of `blocks` blocks of nearly equal size, in which rows of K numbers lie packed.
template <typename Body>
void for_row_blocks(int64_t M, int64_t K, int64_t blocks, const Body& body) {
    parallel_if_worth(double(M) * double(K), blocks, [&](int64_t block) {
        const int64_t first = block * M / blocks;
        body(first, (block + 1) * M / blocks - first);
    });
}

/// run(part, sums) for the parts of a product [M, N] over K numbers, as deep as panels are: `sums` holds nr numbers of 4 bytes
/// for each row and panel of the part, or is null where one slice has all of K. `speed`: of its multiply-adds against those of
/// floats.
template <typename Run>
void multiply_parts(int64_t M, int64_t N, int64_t K, const Tile& tile, double speed, const Run& run) {
    const double work = double(M) * double(N) * double(std::max<int64_t>(1, K)) / speed;
    const Partition parts = partition(M, N, K, tile, level_2_bytes(), pool_threads());
    parallel_if_worth(work, parts.items(), [&](int64_t index) {
        const GemmPart part = parts.item(index);
        const int64_t sums = part.depth < K ? parts.rows_of(part) * tile.nr * (part.last_panel - part.first_panel) : 0;
        run(part, sums > 0 ? thread_scratch(size_t(sums), Scratch::sums) : nullptr);
    });
}

}  // namespace warpsight::cpu
