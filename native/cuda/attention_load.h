// Rows of one head into shared memory by cp.async, DH columns wide and kAttentionPitch<DH> apart, zeros behind the head's width.
// Eight lanes take a row: 128 neighbouring bytes of global memory, and no two of them the same bank.
#pragma once

#include "attention.h"
#include "primitives/attention_tile.h"
#include "primitives/cp_async.h"

namespace warpsight::cuda {

/// Row row(r) of `from` for r = 0 … rows − 1; zeros where it is negative. By the whole block.
template <typename T, int DH, typename F>
__device__ __forceinline__ void load_queries(const T* from, int width, int head_dim, int rows, uint32_t to, F&& row) {
    for (int r = int(threadIdx.x) / 8; r < rows; r += int(blockDim.x) / 8) {
        const int64_t at = row(r);
        const T* source = from + max(at, int64_t(0)) * width;
#pragma unroll
        for (int d = int(threadIdx.x) % 8 * 8; d < DH; d += 64)
            cp_async16(to + 2 * (r * kAttentionPitch<DH> + d), source + d, at >= 0 && d < head_dim);
    }
}

/// Keys key0 … end − 1 and their values, then zeros, `rows` rows of each; zeros also for a key that the mask hides. By `threads`
/// threads, of which this is number `thread`.
template <typename T, int DH>
__device__ __forceinline__ void load_keys(const AttentionArguments& a, const Segment& s, const T* k, const T* v, int key0,
                                          int end, int rows, uint32_t to_k, uint32_t to_v, int thread, int threads) {
#pragma unroll 1  // the sums take most of the registers
    for (int r = thread / 8; r < rows; r += threads / 8) {
        const int64_t row = key0 + r < end ? s.key_row(key0 + r) : 0;
        const bool present = key0 + r < end && (a.mask == nullptr || a.mask[row] != 0);
        const T *from_k = k + row * a.k_width, *from_v = v + row * a.v_width;
#pragma unroll
        for (int d = thread % 8 * 8; d < DH; d += 64) {
            const int at = 2 * (r * kAttentionPitch<DH> + d);
            cp_async16(to_k + at, from_k + d, present && d < a.head_dim);
            cp_async16(to_v + at, from_v + d, present && d < a.head_dim);
        }
    }
}

/// Bit j: the mask shows key key0 + j, j < count <= 64. The whole warp must call.
__device__ __forceinline__ uint64_t shown_keys(const AttentionArguments& a, const Segment& s, int key0, int count) {
    if (a.mask == nullptr) return ~uint64_t(0);
    const int lane = threadIdx.x % 32;
    auto shown = [&](int j) { return __ballot_sync(0xffffffffu, j < count && a.mask[s.key_row(key0 + j)] != 0); };
    return shown(lane) | uint64_t(shown(lane + 32)) << 32;
}

}  // namespace warpsight::cuda
