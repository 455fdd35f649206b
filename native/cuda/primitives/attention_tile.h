// softmax(q·kᵀ)·v on tensor cores: the queries of one warp against one tile of keys; shared by attention_mma and attention_split.
//
//   q [16·M, DH] ──┐ ldmatrix               probabilities stay where mma leaves scores: C's layout of two neighbouring 16 × 8
//   k [Keys, DH] ──┴▶ scores ─▶ exp2 ─▶ p ─┐    blocks is A's layout of one 16 × 16 (mma.h)
//   v [Keys, DH] ─── ldmatrix transposed ──┴▶ acc
//
// Rows in shared memory are an odd number of 16-byte pieces apart: the eight rows of an 8 × 8 matrix lie in different banks.
#pragma once

#include <cmath>

#include "exp2.h"
#include "mma.h"

namespace warpsight::cuda {

/// Elements from row to row in shared memory.
template <int DH>
constexpr int kAttentionPitch = DH / 8 % 2 == 0 ? DH + 8 : DH;

/// The keys j < count of a tile as bits.
__device__ __forceinline__ uint64_t first_keys(int count) {
    return count <= 0 ? 0 : count >= 64 ? ~uint64_t(0) : ~(~uint64_t(0) << count);
}

/// DH: width of a head, zeros behind it; M: blocks of 16 queries. All 32 lanes must call every function.
template <typename T, int DH, int M>
struct WarpQueries {
    static constexpr int kPitch = kAttentionPitch<DH>;
    static constexpr bool kResident = M * DH <= 128;  // the queries stay in registers, else they are read again for each tile

    float acc[M][DH / 8][4];       // sums of p·v, laid out as mma's C
    float top[M][2], total[M][2];  // of rows lane/4 and + 8: running maximum, and this lane's columns' part of the sum of p
    uint32_t fragments[kResident ? M : 1][kResident ? DH / 16 : 1][4];
    uint32_t shared_q;  // of this lane's row of the first 16 × 16 block

    __device__ __forceinline__ void reset() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int h = 0; h < 2; ++h) top[m][h] = -INFINITY, total[m][h] = 0.f;
#pragma unroll
            for (int n = 0; n < DH / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) acc[m][n][e] = 0.f;
        }
    }

    /// q: the shared address of the warp's first row.
    __device__ __forceinline__ void load(uint32_t q) {
        const int lane = threadIdx.x % 32;
        shared_q = q + 2 * (lane % 16 * kPitch + lane / 16 * 8);
        if constexpr (kResident)
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int d = 0; d < DH / 16; ++d) ldmatrix(fragments[m][d], shared_q + 2 * (m * 16 * kPitch + d * 16));
    }

    /// k and v: shared addresses of Keys rows; scale: of the scores, times log2(e). Unless `all` keys are seen by every query,
    /// seen(m, h) has bit j where row m·16 + h·8 + lane/4 sees key j.
    template <int Keys, typename F>
    __device__ __forceinline__ void attend(uint32_t k, uint32_t v, float scale, bool all, F&& seen) {
        const int lane = threadIdx.x % 32;
        float s[M][Keys / 8][4] = {};
        k += 2 * ((lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8);
#pragma unroll
        for (int d = 0; d < DH / 16; ++d) {
            uint32_t reread[kResident ? 1 : M][4];
            if constexpr (!kResident)
#pragma unroll
                for (int m = 0; m < M; ++m) ldmatrix(reread[m], shared_q + 2 * (m * 16 * kPitch + d * 16));
#pragma unroll
            for (int n = 0; n < Keys / 16; ++n) {
                uint32_t b[4];  // keys n·16 … and n·16 + 8 …
                ldmatrix(b, k + 2 * (n * 16 * kPitch + d * 16));
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    const uint32_t(&q)[4] =
                        kResident ? fragments[kResident ? m : 0][kResident ? d : 0] : reread[kResident ? 0 : m];
                    mma<T>(s[m][2 * n], q, b[0], b[1]);
                    mma<T>(s[m][2 * n + 1], q, b[2], b[3]);
                }
            }
        }

#pragma unroll
        for (int m = 0; m < M; ++m) softmax(m, s[m], scale, all, seen);

        v += 2 * (lane % 16 * kPitch + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < Keys / 16; ++n) {
            uint32_t p[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    p[m][i] = pack_pair<T>(s[m][2 * n + i / 2][i % 2 * 2], s[m][2 * n + i / 2][i % 2 * 2 + 1]);
                    const float2 rounded = unpack_pair<T>(p[m][i]);  // what meets v: so the weights' sum is one
                    total[m][i % 2] += rounded.x + rounded.y;
                }
#pragma unroll
            for (int d = 0; d < DH / 16; ++d) {
                uint32_t b[4];  // columns d·16 … and d·16 + 8 …
                ldmatrix_transposed(b, v + 2 * (n * 16 * kPitch + d * 16));
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma<T>(acc[m][2 * d], p[m], b[0], b[1]);
                    mma<T>(acc[m][2 * d + 1], p[m], b[2], b[3]);
                }
            }
        }
    }

    __device__ __forceinline__ bool has_nan() const {
        bool nan = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < DH / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) nan = nan || isnan(acc[m][n][e]);
        return nan;
    }

    /// The sums of p, complete in every lane.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) total[m][h] = quad_reduce(total[m][h], [](float x, float y) { return x + y; });
    }

private:
    /// Scores of 16 queries to probabilities relative to the running maximum; what was summed so far shrinks to it.
    template <int N, typename F>
    __device__ __forceinline__ void softmax(int m, float (&s)[N][4], float scale, bool all, F&& seen) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint64_t bits = all ? 0 : seen(m, h) >> (threadIdx.x % 4 * 2);
            float now = top[m][h];
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& score = s[n][h * 2 + e];
                    score *= scale;
                    if (!all && (bits >> (n * 8 + e) & 1) == 0) score = -INFINITY;
                    now = fmaxf(now, score);
                }
            now = quad_reduce(now, [](float x, float y) { return fmaxf(x, y); });
            const float base = now == -INFINITY ? 0.f : now;  // nothing seen yet
            const float shrink = exp2_approx(top[m][h] - base);
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) s[n][h * 2 + e] = exp2_approx(s[n][h * 2 + e] - base);
            top[m][h] = now;
            total[m][h] *= shrink;
#pragma unroll
            for (int n = 0; n < DH / 8; ++n) {
                acc[m][n][h * 2] *= shrink;
                acc[m][n][h * 2 + 1] *= shrink;
            }
        }
    }

    /// Over the four lanes that hold a row.
    template <typename F>
    __device__ __forceinline__ static float quad_reduce(float x, F f) {
        x = f(x, __shfl_xor_sync(0xffffffffu, x, 1));
        return f(x, __shfl_xor_sync(0xffffffffu, x, 2));
    }
};

}  // namespace warpsight::cuda
