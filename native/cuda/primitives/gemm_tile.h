// One tile of A·Bᵀ in float32 on the ordinary multiply-add units: the main loop and the way out, shared by gemm_simt, patch_embed
// and logits.
//
//        k ─▶               k ─▶                 each thread: RM × RN blocks of 4 × 4 outputs, a tile's half apart
//   A ┌───────┐        B ┌───────┐
//   m │ BM×BK │        n │ BN×BK │  ─▶ shared memory, [k][m] and [k][n] as float32, two stages: while one is multiplied
//   ▼ └───────┘        ▼ └───────┘     the next is on its way through registers
//
// An output is one thread's sum over k = 0, 1, 2 … by fused multiply-adds, whatever the tile: the bits do not depend on M.
#pragma once

#include <algorithm>

#include "pack.h"

namespace warpsight::cuda {

template <int M, int N, int K, int ThreadM, int ThreadN>
struct Tile {
    static constexpr int BM = M, BN = N, BK = K, TM = ThreadM, TN = ThreadN;
    static constexpr int kColumns = BN / TN;  // threads across
    static constexpr int kThreads = (BM / TM) * kColumns;
    static constexpr int kPhases = TM / 4;                                           // of the way out: BM / kPhases rows each
    static constexpr int kFloats = std::max(2 * BK * (BM + BN), BM / kPhases * BN);  // shared memory
    static_assert(BM % 32 == 0 && BN % 32 == 0 && TM % 4 == 0 && TN % 4 == 0);
};

/// The k packs of one operand's tile that a thread carries from global to shared memory.
/// A warp takes 16 rows × 2 packs: whole 32-byte sectors; the two packs go to different halves of the banks (the exclusive or).
template <class Operand, int Rows, int BK, int Threads>
struct Carrier {
    static constexpr int V = Operand::V, kPerRow = BK / V, kPacks = Rows * kPerRow, kMine = (kPacks + Threads - 1) / Threads;
    Pack<V> packs[kMine];

    __device__ __forceinline__ static int row_of(int q) { return q / (16 * kPerRow) * 16 + q % 16; }
    __device__ __forceinline__ static int k_of(int q) { return q / 16 % kPerRow * V; }
    __device__ __forceinline__ static int column(int row, int k) { return row ^ (k / V % 2 * 16); }

    __device__ __forceinline__ void load(const Operand& operand, int64_t row0, int k0) {
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
            int q = threadIdx.x + i * Threads;
            if (kPacks % Threads == 0 || q < kPacks) packs[i] = operand.pack(row0 + row_of(q), k0 + k_of(q));
        }
    }
    __device__ __forceinline__ void store(float* shared) const {  // [BK][Rows]
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
            int q = threadIdx.x + i * Threads;
            if (kPacks % Threads != 0 && q >= kPacks) continue;
            int row = row_of(q), k = k_of(q);
#pragma unroll
            for (int j = 0; j < V; ++j) shared[(k + j) * Rows + column(row, k)] = packs[i].v[j];
        }
    }
};

/// Computes the tile with first row m0 and first column n0, then calls out(row, column, Pack<4>) for each four neighbouring
/// outputs of it, inside the matrix or not. An operand has V and pack(row, k): V elements of a row from k on as float32, zeros
/// outside. All threads of the block must call.
template <class T, class A, class B, class Out>
__device__ __forceinline__ void gemm_tile(const A& a, const B& b, int64_t m0, int64_t n0, int K, Out&& out) {
    __shared__ alignas(16) float shared[T::kFloats];
    float* sa[2] = {shared, shared + T::BK * T::BM};
    float* sb[2] = {shared + 2 * T::BK * T::BM, shared + 2 * T::BK * T::BM + T::BK * T::BN};
    Carrier<A, T::BM, T::BK, T::kThreads> carry_a;
    Carrier<B, T::BN, T::BK, T::kThreads> carry_b;
    const int ty = threadIdx.x / T::kColumns * 4, tx = threadIdx.x % T::kColumns * 4;
    constexpr int kStepM = T::BM / (T::TM / 4), kStepN = T::BN / (T::TN / 4);

    float c[T::TM][T::TN] = {};
    carry_a.load(a, m0, 0);
    carry_b.load(b, n0, 0);
    carry_a.store(sa[0]);
    carry_b.store(sb[0]);
    __syncthreads();
    for (int k0 = 0; k0 < K; k0 += T::BK) {
        const bool stage = k0 / T::BK % 2;
        bool more = k0 + T::BK < K;
        if (more) {
            carry_a.load(a, m0, k0 + T::BK);
            carry_b.load(b, n0, k0 + T::BK);
        }
        const float* now_a = stage ? sa[1] : sa[0];
        const float* now_b = stage ? sb[1] : sb[0];
#pragma unroll
        for (int k = 0; k < T::BK; ++k) {
            float fa[T::TM], fb[T::TN];
#pragma unroll
            for (int i = 0; i < T::TM; i += 4)
                *reinterpret_cast<float4*>(fa + i) =
                    *reinterpret_cast<const float4*>(now_a + k * T::BM + decltype(carry_a)::column(i / 4 * kStepM + ty, k));
#pragma unroll
            for (int j = 0; j < T::TN; j += 4)
                *reinterpret_cast<float4*>(fb + j) =
                    *reinterpret_cast<const float4*>(now_b + k * T::BN + decltype(carry_b)::column(j / 4 * kStepN + tx, k));
#pragma unroll
            for (int i = 0; i < T::TM; ++i)
#pragma unroll
                for (int j = 0; j < T::TN; ++j) c[i][j] = fmaf(fa[i], fb[j], c[i][j]);
        }
        if (more) {
            carry_a.store(stage ? sa[0] : sa[1]);
            carry_b.store(stage ? sb[0] : sb[1]);
        }
        __syncthreads();
    }

    // Through shared memory, so that a warp writes whole lines and the epilogue is a short loop over few registers.
#pragma unroll
    for (int phase = 0; phase < T::kPhases; ++phase) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < T::TN; j += 4)
                *reinterpret_cast<float4*>(shared + (ty + i) * T::BN + j / 4 * kStepN + tx) =
                    make_float4(c[phase * 4 + i][j], c[phase * 4 + i][j + 1], c[phase * 4 + i][j + 2], c[phase * 4 + i][j + 3]);
        __syncthreads();
#pragma unroll 1
        for (int q = threadIdx.x * 4; q < kStepM * T::BN; q += T::kThreads * 4)
            out(m0 + phase * kStepM + q / T::BN, n0 + q % T::BN, load<4>(shared + q));
        __syncthreads();
    }
}

/// A row-major matrix [rows, columns] as an operand, read by packs of `Elements`.
template <typename T, int Elements = kPack<T>>
struct RowMajor {
    static constexpr int V = Elements;
    const T* data;
    int64_t rows, pitch;
    int columns;
    bool vector;  // 16-byte loads: data and pitch are aligned, a row's last pack is inside the pitch, zeros behind `columns`

    __device__ __forceinline__ Pack<V> pack(int64_t row, int k) const {
        Pack<V> p = zeros<V>();
        if (row >= rows) return p;
        const T* from = data + row * pitch + k;
        if (vector) return k < columns ? load<V>(from) : p;
#pragma unroll
        for (int i = 0; i < V; ++i)
            if (k + i < columns) p.v[i] = to_float(from[i]);
        return p;
    }
};

}  // namespace warpsight::cuda
