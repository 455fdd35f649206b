// What the tensor-core GEMMs share: how a call is given to them, what happens to a sum on its way out, and the choice of a tile.
#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "launch.h"

#if defined(__CUDACC__)
#include "primitives/activation.h"
#include "primitives/pack.h"
#endif

namespace warpsight::cuda {

/// x·Wᵀ: M rows of x, N rows of W, K columns of both. Both are read in 16-byte pieces: K, the pitches and the addresses are
/// multiples of eight elements.
struct GemmOperands {
    const void* x = nullptr;
    int64_t x_pitch = 0;
    Matrix w;
    bool constant = false;  // no kernel writes W: it may be read before those ahead are done
    bool halves = false;    // x is the sum of two numbers: 64 columns of the larger, the same 64 of the smaller, and so on
    bool gated = false;     // y[m, n] = silu(x·Wgᵀ)·(x·Wuᵀ): W holds N/2 rows of the gate, then N/2 of what passes it
    Rows rows;

    /// Of 64 columns of x.
    __host__ __device__ int steps() const { return int((w.columns + 63) / 64) << int(halves); }
    /// The first column of W that a step multiplies with.
    __host__ __device__ int w_column(int step) const { return (step >> int(halves)) * 64; }
};

/// A tile of BM × BN sums, and in how many parts the sum over k is split between blocks.
struct GemmTile {
    int index = -1;  // of the tier's table; -1: no tile, the call takes another kernel
    int BM = 0, BN = 0, splits = 1;
    bool swapped = false;  // BM counts rows of W, BN rows of x
};

/// "gemm_sm90_128x64_split4": rows of x, rows of W and parts of k.
inline std::string name_of(const GemmTile& tile, bool hopper) {
    std::string name = hopper ? "gemm_sm90_" : "gemm_sm80_";
    name += std::to_string(tile.swapped ? tile.BN : tile.BM) + "x" + std::to_string(tile.swapped ? tile.BM : tile.BN);
    return tile.splits > 1 ? name + "_split" + std::to_string(tile.splits) : name;
}

/// One row of a tier's table. The costs are a model's, in clocks of a multiprocessor: they choose between tiles and claim nothing
/// else.
struct GemmTileCost {
    int BM, BN;
    int most_splits;
    int resident;          // blocks that a multiprocessor holds at a time
    double step;           // clocks of the tensor cores for 64 of k at this tile's rate
    double fixed;          // clocks of the way in and out
    double combine;        // clocks more where k is split
    bool swapped = false;  // BM counts rows of W
};

/// The cheapest tile of a table, from row `first` on: a multiprocessor takes its blocks in turn, each bound by its sums or by its
/// bytes, and those that it holds at a time hide each other's ways in and out.
template <size_t Count>
GemmTile choose_tile(const GemmTileCost (&table)[Count], size_t first, const GemmOperands& g, int multiprocessors) {
    constexpr double kBytesPerClock = 24;  // that one multiprocessor gets from L2 when all ask
    const int64_t M = g.rows.planned, N = g.w.rows, steps = g.steps();
    GemmTile best;
    double least = 0;
    for (size_t i = first; i < Count; ++i) {
        const GemmTileCost& t = table[i];
        const int64_t rows = t.swapped ? N : M, columns = t.swapped ? M : N;
        const int64_t tiles = ((rows + t.BM - 1) / t.BM) * ((columns + t.BN - 1) / t.BN);
        for (int splits = 1; splits <= t.most_splits && splits <= steps; ++splits) {
            const int64_t part = (steps + splits - 1) / splits;
            if ((splits - 1) * part >= steps) continue;  // the last would have nothing to sum
            const int64_t blocks = (tiles * splits + multiprocessors - 1) / multiprocessors;  // of the busiest
            const int64_t turns = (blocks + t.resident - 1) / t.resident;
            const double bytes = 128.0 * (t.BM + t.BN) / kBytesPerClock;
            const double cost =
                double(blocks * part) * std::max(t.step, bytes) + double(turns) * (t.fixed + (splits > 1 ? t.combine : 0));
            if (best.index < 0 || cost < least) {
                least = cost;
                best = {int(i), t.BM, t.BN, splits, t.swapped};
            }
        }
    }
    return best;
}

/// What patchEmbed adds to its rows, float32: bias [D], class token [D] (either may be null), positions [tokens, D] (or null).
struct PatchRows {
    const float *bias, *class_token, *positions;
    int tokens;
};

// gemm_sm80.cu
std::span<const GemmTileCost> gemm_sm80_tiles();
GemmTile plan_gemm_sm80(const Device& device, const GemmOperands& g);
size_t gemm_sm80_workspace(const GemmTile& tile, const GemmOperands& g);
void gemm_sm80(const Launch& launch, const Linear& op, const GemmTile& tile, const GemmOperands& g, const float* bias,
               const TensorView& residual, const TensorView& y, void* workspace);
/// x holds a row for each row of y, zeros for class tokens.
void gemm_sm80_patches(const Launch& launch, const GemmTile& tile, const GemmOperands& g, const PatchRows& rows,
                       const TensorView& y, void* workspace);

// gemm_sm90.cu: the same without workspace
std::span<const GemmTileCost> gemm_sm90_tiles();
GemmTile plan_gemm_sm90(const Device& device, const GemmOperands& g, Activation activation);
GemmTile plan_gemm_sm90_patches(const Device& device, const GemmOperands& g);
void gemm_sm90(const Launch& launch, const Linear& op, const GemmTile& tile, const GemmOperands& g, const float* bias,
               const TensorView& residual, const TensorView& y);
void gemm_sm90_patches(const Launch& launch, const GemmTile& tile, const GemmOperands& g, const PatchRows& rows,
                       const TensorView& y);

#if defined(__CUDACC__)

struct TileAt {
    int m, n;
};

/// The tile of a block: bands of eight rows of tiles, column by column, so that the blocks at work share what they read in L2.
__device__ __forceinline__ TileAt tile_at(int64_t index, int64_t m_tiles, int64_t n_tiles) {
    constexpr int64_t kBand = 8;
    int64_t band = index / (kBand * n_tiles), height = min(kBand, m_tiles - band * kBand),
            inside = index - band * kBand * n_tiles;
    return {int(band * kBand + inside % height), int(inside / height)};
}

/// y = act(sum + bias) + residual, by eight neighbours of a row.
template <typename T>
struct LinearOut {
    const float* bias;
    const T* residual;
    T* y;
    int64_t N;  // columns of y
    Activation activation;
    bool vector;  // 16-byte accesses: N is a multiple of eight, addresses are aligned

    __device__ __forceinline__ void operator()(int64_t m, int64_t n, Pack<8> p) const {
        const int64_t at = m * N + n;
        if (vector) {
            if (bias != nullptr) {
                Pack<8> b = load<8>(bias + n);
#pragma unroll
                for (int j = 0; j < 8; ++j) p.v[j] += b.v[j];
            }
            activate_all(p, activation);
            if (residual != nullptr) {
                Pack<8> r = load<8>(residual + at);
#pragma unroll
                for (int j = 0; j < 8; ++j) p.v[j] += r.v[j];
            }
            store(y + at, p);
            return;
        }
#pragma unroll
        for (int j = 0; j < 8; ++j)
            if (bias != nullptr && n + j < N) p.v[j] += bias[n + j];
        activate_all(p, activation);
#pragma unroll
        for (int j = 0; j < 8; ++j)
            if (n + j < N) y[at + j] = from_float<T>(p.v[j] + (residual != nullptr ? to_float(residual[at + j]) : 0.f));
    }
};

/// Rows of patches on their way into a sequence: y[m] = (m is a class token ? class : sum + bias) + positions.
template <typename T>
struct PatchOut {
    PatchRows rows;
    T* y;
    int64_t N;  // columns of y

    __device__ __forceinline__ void operator()(int64_t m, int64_t n, const Pack<8>& p) const {
        const auto& [bias, class_token, positions, tokens] = rows;
        const int64_t t = m % tokens;
        const bool is_class = class_token != nullptr && t == 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            if (n + j >= N) break;
            float v = is_class ? class_token[n + j] : bias != nullptr ? p.v[j] + bias[n + j] : p.v[j];
            if (positions != nullptr) v += positions[t * N + n + j];
            y[m * N + n + j] = from_float<T>(v);
        }
    }
};

template <typename T>
LinearOut<T> linear_out(const Linear& op, const float* bias, const TensorView& residual, const TensorView& y) {
    return {bias,          residual.as<const T>(),
            y.as<T>(),     y.shape.last(),
            op.activation, y.shape.last() % 8 == 0 && aligned(bias) && aligned(residual.data) && aligned(y.data)};
}

template <typename T>
PatchOut<T> patch_out(const PatchRows& rows, const TensorView& y) {
    return {rows, y.as<T>(), y.shape.last()};
}

/// What a gated sum is: silu of the gate times what it is for.
__device__ __forceinline__ void gate(Pack<8>& p, const Pack<8>& up) {
#pragma unroll
    for (int j = 0; j < 8; ++j) p.v[j] = activate(p.v[j], Activation::silu) * up.v[j];
}

/// Calls f with a zero of the C++ type of a 16-bit dtype.
template <typename F>
void by_dtype16(const char* op, DType dtype, F&& f) {
    by_dtype(op, dtype, [&](auto zero) {
        if constexpr (sizeof(zero) == 2) f(zero);
    });
}

#endif

}  // namespace warpsight::cuda
