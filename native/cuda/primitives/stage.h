// Rows of 64 16-bit elements of k in shared memory, as cp.async brings them and ldmatrix reads them: 128 bytes a row, in eight
// pieces of 16. Piece c of row r lies at place c ^ (r % 8), so that eight rows' same piece, and eight pieces of a row, fall into
// all banks.
#pragma once

#include "cp_async.h"
#include "mma.h"

namespace warpsight::cuda {

constexpr int kStageColumns = 64, kStageRowBytes = kStageColumns * 2;

/// The byte of a stage where piece `piece` of row `row` lies.
__device__ __forceinline__ uint32_t staged(int row, int piece) { return uint32_t(row * kStageRowBytes + (piece ^ row % 8) * 16); }

/// Starts copying `Rows` rows into a stage, by `Threads` threads: columns k0 … k0 + 63 of the row at source(row), zeros from
/// column K on and where that is null. `any` is some address that may be read.
template <int Rows, int Threads, typename T, typename Source>
__device__ __forceinline__ void stage_rows(uint32_t to, int64_t k0, int64_t K, const T* any, Source&& source) {
#pragma unroll
    for (int i = 0; i < (Rows * 8 + Threads - 1) / Threads; ++i) {
        int q = threadIdx.x + i * Threads, row = q / 8, piece = q % 8;
        if (Rows * 8 % Threads != 0 && q >= Rows * 8) break;
        const T* from = source(row);
        int64_t k = k0 + piece * 8;
        bool present = from != nullptr && k < K;
        cp_async16(to + staged(row, piece), present ? from + k : any, present);
    }
}

}  // namespace warpsight::cuda
