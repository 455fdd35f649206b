// gemv            y = act(x·Wᵀ + b) + r for M = 1 to 8 rows: a decode step
// gemv_silu_gate  y = silu(x·Wgᵀ + bg)·(x·Wuᵀ + bu), rows 0 … N − 1 of W being Wg and the other N Wu
// shapes    x [M, K], W [N, K] or [2·N, K] rows `pitch` apart, b [N] or [2·N], r and y [M, N]
//           M = 1: x, r, y float32 with W float32, float16 or bfloat16; or all float16; or all bfloat16. M > 1: the last two.
//           Sums, b and act are float32
// launch    R = 2 (M > 1: 4) rows of W per warp, half of them gates and half up where gated, eight warps per block; a lane keeps
//           eight 16-byte loads of W in flight; grid ceil(rows of W / 8·R)
// roofline  the elements of W, once: at most M multiply-adds per 2 bytes, so the bandwidth of the memory is the bound; x is read
//           by every warp, from L1 after the first
// source    lanes sum strided parts of k, then meet in a tree: the same bits in every run and for a row whatever M, but not those
//           of gemm_simt
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/gemm_tile.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32, kLoads = 8;

/// Rows of W that a warp takes.
template <int M>
constexpr int kRowsOfWarp = M == 1 ? 2 : 4;

/// sums[m][r] = x_m · row n[r] of W, in every lane; all 32 lanes must call. W comes from no kernel: its first packs are on their
/// way before the kernels ahead are done.
template <int M, int R, typename X, typename W>
__device__ __forceinline__ void dot_rows(const RowMajor<X, kPack<W>>& x, const RowMajor<W>& w, const int64_t (&n)[R],
                                         float (&sums)[M][R]) {
    constexpr int V = kPack<W>, kStep = 32 * V, kUnroll = kLoads / R;
    const int first = threadIdx.x % 32 * V;
    Pack<V> packs[kUnroll][R];
    auto load_w = [&](int k0) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
#pragma unroll
            for (int r = 0; r < R; ++r) packs[u][r] = w.pack(n[r], k0 + u * kStep);
    };
    load_w(first);
    wait_for_previous();
    for (int k0 = first; k0 < w.columns; k0 += kUnroll * kStep) {
        if (k0 > first) load_w(k0);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
#pragma unroll
            for (int m = 0; m < M; ++m) {
                Pack<V> p = x.pack(m, k0 + u * kStep);
#pragma unroll
                for (int r = 0; r < R; ++r)
#pragma unroll
                    for (int i = 0; i < V; ++i) sums[m][r] = fmaf(p.v[i], packs[u][r].v[i], sums[m][r]);
            }
    }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < R; ++r) sums[m][r] = warp_sum(sums[m][r]);
}

template <int M, typename X, typename W>
__global__ __launch_bounds__(kThreads, M > 2 ? 1 : 2) void gemv_kernel(RowMajor<X, kPack<W>> x, RowMajor<W> w, const float* bias,
                                                                       const X* residual, X* y, Rows rows,
                                                                       Activation activation) {
    let_next_start();
    constexpr int R = kRowsOfWarp<M>;
    const int64_t n0 = (int64_t(blockIdx.x) * kWarps + threadIdx.x / 32) * R;
    if (n0 >= w.rows) return wait_for_previous();
    x.rows = rows.count();
    int64_t n[R];
#pragma unroll
    for (int r = 0; r < R; ++r) n[r] = n0 + r;
    float sums[M][R] = {};
    dot_rows(x, w, n, sums);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < R; ++r) {
            if (threadIdx.x % 32 != m * R + r || m >= x.rows || n[r] >= w.rows) continue;
            const int64_t at = m * w.rows + n[r];
            float value = activate(sums[m][r] + (bias != nullptr ? bias[n[r]] : 0.f), activation);
            y[at] = from_float<X>(value + (residual != nullptr ? to_float(residual[at]) : 0.f));
        }
}

template <int M, typename X, typename W>
__global__ __launch_bounds__(kThreads, M > 2 ? 1 : 2) void gemv_silu_gate_kernel(RowMajor<X, kPack<W>> x, RowMajor<W> w,
                                                                                 const float* bias, X* y, Rows rows) {
    let_next_start();
    constexpr int R = kRowsOfWarp<M>, kOut = R / 2;
    const int64_t N = w.rows / 2, n0 = (int64_t(blockIdx.x) * kWarps + threadIdx.x / 32) * kOut;
    if (n0 >= N) return wait_for_previous();
    x.rows = rows.count();
    int64_t n[R];  // a gate behind N is a row of up or none: its sum goes nowhere
#pragma unroll
    for (int r = 0; r < kOut; ++r) {
        n[r] = n0 + r;
        n[kOut + r] = N + n0 + r;
    }
    float sums[M][R] = {};
    dot_rows(x, w, n, sums);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < kOut; ++r) {
            if (threadIdx.x % 32 != m * kOut + r || m >= x.rows || n[r] >= N) continue;
            float gate = sums[m][r], up = sums[m][kOut + r];
            if (bias != nullptr) gate += bias[n[r]], up += bias[N + n[r]];
            y[m * N + n[r]] = from_float<X>(silu_gate(gate, up));
        }
}

template <int M, typename X, typename W>
void launch_rows(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
                 const TensorView& residual, const TensorView& y, Rows rows) {
    int64_t K = weight.columns;
    RowMajor<X, kPack<W>> a{x.as<const X>(), rows.planned, K, int(K), K % kPack<W> == 0 && aligned(x.data)};
    RowMajor<W> w{static_cast<const W*>(weight.data), weight.rows, weight.pitch, int(K),
                  weight.pitch % kPack<W> == 0 && aligned(weight.data)};
    Grid grid{unsigned(ceil_div(weight.rows, kWarps * kRowsOfWarp<M>)), kThreads};
    if (op.activation == Activation::silu_gate)
        start_kernel(launch, "gemv", gemv_silu_gate_kernel<M, X, W>, grid, a, w, bias, y.as<X>(), rows);
    else
        start_kernel(launch, "gemv", gemv_kernel<M, X, W>, grid, a, w, bias, residual.as<const X>(), y.as<X>(), rows,
                     op.activation);
}

}  // namespace

void gemv(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
          const TensorView& residual, const TensorView& y, Rows rows) {
    if (weight.rows == 0 || rows.planned == 0) return;
    auto run = [&](auto launcher) { launcher(launch, op, x, weight, bias, residual, y, rows); };
    by_dtype("linear", x.dtype, [&](auto zero) {
        using X = decltype(zero);
        if constexpr (std::is_same_v<X, float>) {
            if (weight.dtype == DType::float32) return run(launch_rows<1, float, float>);
            if (weight.dtype == DType::float16) return run(launch_rows<1, float, half>);
            if (weight.dtype == DType::bfloat16) return run(launch_rows<1, float, bf16>);
        } else if (weight.dtype == x.dtype) {
            if (rows.planned == 1) return run(launch_rows<1, X, X>);
            if (rows.planned == 2) return run(launch_rows<2, X, X>);
            if (rows.planned <= 4) return run(launch_rows<4, X, X>);
            return run(launch_rows<kMostGemvRows, X, X>);
        }
        throw Error("ERR_DTYPE", std::string("linear: x is ") + name_of(x.dtype) + ", the weight " + name_of(weight.dtype));
    });
}

}  // namespace warpsight::cuda
