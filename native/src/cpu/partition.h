// How a matrix product is divided among threads: over rows and columns, never over k.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels.h"

namespace warpsight::cpu {

/// Blocks of at most `mr` rows times panels of `nr` columns, k in slices. The panels of a group of rows are handed out in runs:
/// to each thread first a long one, then shorter ones, so that all end together. A thread keeps to neighbouring panels: where
/// two threads take turns, each loads what the other one is about to read.
struct Partition {
    static constexpr int64_t kMostBlocks = 16;  // of a group of rows

    int64_t M = 0, blocks = 0, panels = 0;
    int64_t depth = 0;                 // k of a slice, a multiple of the tile's group where it is less than K
    int64_t longest = 1;               // panels of a run
    int64_t row_groups = 0, runs = 0;  // runs: of a group of rows
    int64_t threads = 1;

    int64_t items() const { return row_groups * runs; }
    GemmPart item(int64_t index) const {
        const int64_t rows = index / runs, run = index % runs;
        // The threads take items in turn.
        const int64_t next = index + threads;
        return {.first_block = rows * blocks / row_groups,
                .last_block = (rows + 1) * blocks / row_groups,
                .first_panel = first_panel(run),
                .last_panel = first_panel(run + 1),
                .depth = depth,
                .next_panel = next < items() ? first_panel(next % runs) : -1};
    }
    /// Where run `run` begins; `panels` behind the last.
    int64_t first_panel(int64_t run) const {
        int64_t first = 0;
        for (; first < panels && run >= threads; run -= threads) first += threads * length_at(first);
        return std::min(panels, first + run * length_at(first));
    }
    /// Panels of each of the next `threads` runs: three quarters of what is left.
    int64_t length_at(int64_t first) const {
        const int64_t left = panels - first;
        return std::clamp<int64_t>(threads > 1 ? left * 3 / (4 * threads) : left, 1, longest);
    }
    int64_t rows_of(const GemmPart& part) const { return part.last_block * M / blocks - part.first_block * M / blocks; }
};

/// What the kernel's tile and operands are like.
struct Tile {
    int64_t mr, nr;
    int64_t row_bytes, column_bytes;  // of one k in a row of x and in a row of W
    int64_t group;                    // k of a cache line of a packed row
};

/// @param level_2 bytes of a processor's second-level cache
inline Partition partition(int64_t M, int64_t N, int64_t K, const Tile& tile, int64_t level_2, int64_t threads) {
    constexpr int64_t kSliceBytes = 4096, kMostSums = 96 << 10;  // a row's slice, and sums between slices
    auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
    Partition parts{.M = M, .blocks = ceil_div(M, tile.mr), .panels = ceil_div(N, tile.nr), .threads = threads};
    const int64_t slices = std::max<int64_t>(1, ceil_div(K, kSliceBytes / std::max(tile.row_bytes, tile.column_bytes)));
    parts.depth = slices == 1 ? K : ceil_div(ceil_div(K, slices), tile.group) * tile.group;
    // A slice of the rows stays in L2 beside three of panels: the one at work, the one before and the next.
    const int64_t k = std::max<int64_t>(1, parts.depth);
    const int64_t block_bytes = tile.mr * tile.row_bytes * k, panel_bytes = tile.nr * tile.column_bytes * k;
    int64_t group = std::clamp<int64_t>((level_2 - 3 * panel_bytes) / block_bytes, 1, Partition::kMostBlocks);
    while (group > 1 && threads > 1 && ceil_div(parts.blocks, group) * parts.panels < 4 * threads) group = (group + 1) / 2;
    parts.row_groups = ceil_div(parts.blocks, group);
    // Where slices of k take turns, as many panels as share a visit of the rows' slice, their sums in what is left of L2.
    const int64_t most_sums = std::max(kMostSums, level_2 - group * block_bytes - 3 * panel_bytes);
    const int64_t sums = std::min<int64_t>(M, group * tile.mr) * tile.nr * int64_t(sizeof(float));
    parts.longest = slices > 1 ? std::max<int64_t>(1, most_sums / sums) : std::max<int64_t>(1, parts.panels);
    for (int64_t first = 0; first < parts.panels;) {
        const int64_t length = parts.length_at(first), count = std::min(threads, ceil_div(parts.panels - first, length));
        parts.runs += count;
        first += count * length;
    }
    return parts;
}

}  // namespace warpsight::cpu
