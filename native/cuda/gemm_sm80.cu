// y = act(x·Wᵀ + b) + r on tensor cores, for any device from sm_80 on; also silu(x·Wgᵀ)·(x·Wuᵀ), and patches into a sequence
// shapes    x [M, K], W [N, K] rows `pitch` apart, b [N] float32, r and y [M, N]; float16 or bfloat16, row-major, sums in float32
// launch    a BM × BN tile of y per block, and where that leaves the device idle a part of k per block: then the parts meet in a
//           second kernel, in their order, so every run gives the same bits. Three or four stages of 64 columns of x and W
// roofline  2·M·N·K flops at the tensor cores' rate (A100: 312 TFLOP/s), or the bytes of W where M is small
// source    the pipeline of the CUDA programming guide's asynchronous copies; fragments as in primitives/mma.h
//
//        k ─▶ 64                     k ─▶ 64
//   x ┌──────────┐              W ┌──────────┐       a row is 128 bytes, eight pieces of 16; piece c of row r lies at place
//   m │ BM rows  │ ─ cp.async ─▶n │ BN rows  │       c ^ (r % 8), so neither copies nor ldmatrix meet in a bank
//   ▼ └──────────┘              ▼ └──────────┘       a warp multiplies WM × WN of it
#include "gemm.h"
#include "primitives/stage.h"

namespace warpsight::cuda {
namespace {

constexpr int BK = kStageColumns, kRowBytes = kStageRowBytes;

template <int M, int N, int WarpM, int WarpN, int Stages>
struct MmaTile {
    static constexpr int BM = M, BN = N, WM = WarpM, WN = WarpN, kStages = Stages;
    static constexpr int kWarpsN = BN / WN, kThreads = BM / WM * kWarpsN * 32;
    static constexpr int kStageBytes = (BM + BN) * kRowBytes;
    static constexpr int kOutPitch = BN + 8;  // floats: eight rows of a fragment start eight banks apart
    static constexpr size_t kShared = std::max(Stages * kStageBytes, BM* kOutPitch * 4);
    static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 16 == 0);
};

using Tile128x128 = MmaTile<128, 128, 64, 32, 3>;
using Tile64x128 = MmaTile<64, 128, 32, 32, 4>;
using Tile64x64 = MmaTile<64, 64, 32, 32, 4>;
using Tile32x64 = MmaTile<32, 64, 16, 32, 6>;
using Tile16x64 = MmaTile<16, 64, 16, 16, 8>;

// Tensor cores of sm_80 take 1024 multiply-adds a clock: BM · BN · 64 / 1024 clocks for a step, more where a warp multiplies
// little.
constexpr GemmTileCost kTiles[] = {
    {.BM = 128, .BN = 128, .most_splits = 8, .resident = 1, .step = 1100, .fixed = 2500, .combine = 5500},
    {.BM = 64, .BN = 128, .most_splits = 8, .resident = 1, .step = 600, .fixed = 2000, .combine = 2800},
    {.BM = 64, .BN = 64, .most_splits = 8, .resident = 2, .step = 340, .fixed = 1800, .combine = 1400},
    {.BM = 32, .BN = 64, .most_splits = 8, .resident = 2, .step = 200, .fixed = 1700, .combine = 800},
    {.BM = 16, .BN = 64, .most_splits = 8, .resident = 2, .step = 120, .fixed = 1600, .combine = 500},
};

/// Columns of y as parts of k are kept: rounded up to packs.
__host__ __device__ inline int64_t partial_half(const GemmOperands& g) {
    return ceil_div(g.gated ? g.w.rows / 2 : g.w.rows, 8) * 8;
}

template <typename T, class Tile, class Out>
__global__ __launch_bounds__(Tile::kThreads) void gemm_sm80_kernel(GemmOperands g, int splits, float* partial, Out out) {
    constexpr int BM = Tile::BM, BN = Tile::BN, WM = Tile::WM, WN = Tile::WN, S = Tile::kStages;
    extern __shared__ __align__(128) char shared[];
    const uint32_t stages = shared_address(shared);
    const int64_t M = g.rows.count(), N = g.w.rows, up = g.gated ? N / 2 : 0;  // first row of the second half
    const int width = g.gated ? BN / 2 : BN;                                   // columns of y per tile
    const int64_t n_end = g.gated ? up : N;
    const TileAt at = tile_at(int(blockIdx.x), int(ceil_div(g.rows.planned, BM)), int(ceil_div(n_end, width)));
    const int64_t m0 = int64_t(at.m) * BM, n0 = int64_t(at.n) * width;
    let_next_start();
    if (m0 >= M) return wait_for_previous();
    const int steps = g.steps(), part = (steps + splits - 1) / splits, first = int(blockIdx.y) * part;
    const int count = min(part, steps - first);  // of 64 columns of k

    const T *x = static_cast<const T*>(g.x), *w = static_cast<const T*>(g.w.data);
    auto load_x = [&](int step, int stage) {
        stage_rows<BM, Tile::kThreads>(stages + stage * Tile::kStageBytes, int64_t(first + step) * BK,
                                       g.halves ? g.x_pitch : g.w.columns, x,
                                       [&](int row) { return m0 + row < M ? x + (m0 + row) * g.x_pitch : nullptr; });
    };
    auto load_w = [&](int step, int stage) {
        uint32_t to = stages + stage * Tile::kStageBytes + BM * kRowBytes;
        stage_rows<BN, Tile::kThreads>(to, g.w_column(first + step), g.w.columns, w, [&](int row) {
            int64_t n = n0 + (row < width ? row : row - width);
            return n < n_end ? w + (row < width ? n : up + n) * g.w.pitch : nullptr;
        });
    };
    if (!g.constant) wait_for_previous();
    for (int s = 0; s < S - 1 && s < count; ++s) load_w(s, s);
    if (g.constant) wait_for_previous();
    for (int s = 0; s < S - 1; ++s) {
        if (s < count) load_x(s, s);
        cp_async_commit();
    }

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, wm = warp / Tile::kWarpsN * WM, wn = warp % Tile::kWarpsN * WN;
    float c[WM / 16][WN / 8][4] = {};
    for (int step = 0; step < count; ++step) {
        cp_async_wait<S - 2>();
        __syncthreads();  // this stage has landed, and all warps are done with the one that is filled next
        if (int next = step + S - 1; next < count) {
            load_w(next, next % S);
            load_x(next, next % S);
        }
        cp_async_commit();
        const uint32_t a0 = stages + step % S * Tile::kStageBytes, b0 = a0 + BM * kRowBytes;
#pragma unroll
        for (int k = 0; k < BK / 16; ++k) {
            uint32_t a[WM / 16][4], b[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; ++i) ldmatrix(a[i], a0 + staged(wm + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < WN / 16; ++j)
                ldmatrix(b[j], b0 + staged(wn + j * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < WM / 16; ++i)
#pragma unroll
                for (int j = 0; j < WN / 8; ++j) mma<T>(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }

    // Through shared memory, so that a thread has eight neighbours of a row.
    cp_async_wait<0>();
    __syncthreads();
    float* sums = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int i = 0; i < WM / 16; ++i)
#pragma unroll
        for (int j = 0; j < WN / 8; ++j) {
            float* at = sums + (wm + i * 16 + lane / 4) * Tile::kOutPitch + wn + j * 8 + lane % 4 * 2;
            *reinterpret_cast<float2*>(at) = make_float2(c[i][j][0], c[i][j][1]);
            *reinterpret_cast<float2*>(at + 8 * Tile::kOutPitch) = make_float2(c[i][j][2], c[i][j][3]);
        }
    __syncthreads();
    const int64_t half = partial_half(g), pitch = g.gated ? 2 * half : half;
    if (splits > 1) partial += int64_t(blockIdx.y) * g.rows.planned * pitch;
    for (int q = threadIdx.x; q < BM * width / 8; q += Tile::kThreads) {
        const int row = q / (width / 8), column = q % (width / 8) * 8;
        const int64_t m = m0 + row, n = n0 + column;
        if (m >= M || n >= n_end) continue;
        Pack<8> p = load<8>(sums + row * Tile::kOutPitch + column), u = zeros<8>();
        if (g.gated) u = load<8>(sums + row * Tile::kOutPitch + width + column);
        if (splits > 1) {
            store(partial + m * pitch + n, p);
            if (g.gated) store(partial + m * pitch + half + n, u);
        } else {
            if (g.gated) gate(p, u);
            out(m, n, p);
        }
    }
}

/// The parts of k in their order, then the way out.
template <class Out>
__global__ void gemm_combine_kernel(GemmOperands g, int splits, const float* partial, Out out) {
    follow_previous();
    const int64_t half = partial_half(g), pitch = g.gated ? 2 * half : half, packs = half / 8;
    const int64_t q = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, m = q / packs, n = q % packs * 8;
    if (m >= g.rows.count()) return;
    auto sum = [&](int64_t column) {
        const float* from = partial + m * pitch + column;
        Pack<8> p = load<8>(from);
        for (int s = 1; s < splits; ++s) {
            Pack<8> next = load<8>(from + s * g.rows.planned * pitch);
#pragma unroll
            for (int j = 0; j < 8; ++j) p.v[j] += next.v[j];
        }
        return p;
    };
    Pack<8> p = sum(n);
    if (g.gated) gate(p, sum(half + n));
    out(m, n, p);
}

template <typename T, class Tile, class Out>
void launch_tile(const Launch& launch, const char* op, const GemmOperands& g, int splits, float* partial, const Out& out) {
    const int width = g.gated ? Tile::BN / 2 : Tile::BN;
    const int64_t columns = g.gated ? g.w.rows / 2 : g.w.rows;
    dim3 grid(unsigned(ceil_div(g.rows.planned, Tile::BM) * ceil_div(columns, width)), unsigned(splits));
    start_kernel(launch, op, gemm_sm80_kernel<T, Tile, Out>, {grid, Tile::kThreads, Tile::kShared}, g, splits, partial, out);
    if (splits > 1) {
        int64_t packs = g.rows.planned * (partial_half(g) / 8);
        start_kernel(launch, op, gemm_combine_kernel<Out>, {unsigned(ceil_div(packs, 128)), 128}, g, splits, partial, out);
    }
}

template <typename T, class Out>
void launch_any(const Launch& launch, const char* op, const GemmTile& tile, const GemmOperands& g, void* workspace,
                const Out& out) {
    float* partial = static_cast<float*>(workspace);
    switch (tile.index) {
        case 0: return launch_tile<T, Tile128x128>(launch, op, g, tile.splits, partial, out);
        case 1: return launch_tile<T, Tile64x128>(launch, op, g, tile.splits, partial, out);
        case 2: return launch_tile<T, Tile64x64>(launch, op, g, tile.splits, partial, out);
        case 3: return launch_tile<T, Tile32x64>(launch, op, g, tile.splits, partial, out);
        default: return launch_tile<T, Tile16x64>(launch, op, g, tile.splits, partial, out);
    }
}

}  // namespace

std::span<const GemmTileCost> gemm_sm80_tiles() { return kTiles; }

GemmTile plan_gemm_sm80(const Device& device, const GemmOperands& g) { return choose_tile(kTiles, 0, g, device.multiprocessors); }

size_t gemm_sm80_workspace(const GemmTile& tile, const GemmOperands& g) {
    if (tile.splits == 1) return 0;
    return size_t(tile.splits) * size_t(g.rows.planned) * size_t(partial_half(g)) * (g.gated ? 2 : 1) * sizeof(float);
}

void gemm_sm80(const Launch& launch, const Linear& op, const GemmTile& tile, const GemmOperands& g, const float* bias,
               const TensorView& residual, const TensorView& y, void* workspace) {
    by_dtype16("linear", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        launch_any<T>(launch, "linear", tile, g, workspace, linear_out<T>(op, bias, residual, y));
    });
}

void gemm_sm80_patches(const Launch& launch, const GemmTile& tile, const GemmOperands& g, const PatchRows& rows,
                       const TensorView& y, void* workspace) {
    by_dtype16("patchEmbed", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        launch_any<T>(launch, "patchEmbed", tile, g, workspace, patch_out<T>(rows, y));
    });
}

}  // namespace warpsight::cuda
