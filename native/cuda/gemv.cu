// y = act(x·Wᵀ + b) + r for one row: a decode step
// shapes    x [K], W [N, K] rows `pitch` apart, b [N], r and y [N]
//           x, r, y float32 with W float32, float16 or bfloat16; or all float16; or all bfloat16. Sums, b and act are float32
// launch    two rows of W per warp, eight warps per block; a lane keeps eight 16-byte loads of W in flight; grid (N / 16)
// roofline  the N·K elements of W, once: at most a multiply-add per byte, so the bandwidth of the memory is the bound; x is
//           read by every warp, from L1 after the first
// source    lanes sum strided parts of k, then meet in a tree: the same bits in every run, but not those of gemm_simt
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/gemm_tile.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kWarps = 8, kRows = 2, kUnroll = 4;

template <typename X, typename W>
__global__ __launch_bounds__(kWarps * 32, 2) void gemv_kernel(RowMajor<X, kPack<W>> x, RowMajor<W> w, const float* bias,
                                                              const X* residual, X* y, Activation activation) {
    follow_previous();
    constexpr int V = kPack<W>, kStep = 32 * V;
    const int lane = threadIdx.x % 32;
    const int64_t n0 = (int64_t(blockIdx.x) * kWarps + threadIdx.x / 32) * kRows;
    if (n0 >= w.rows) return;
    float sums[kRows] = {};
    for (int k0 = lane * V; k0 < w.columns; k0 += kUnroll * kStep) {
        Pack<V> packs[kUnroll][kRows];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
#pragma unroll
            for (int r = 0; r < kRows; ++r) packs[u][r] = w.pack(n0 + r, k0 + u * kStep);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            Pack<V> p = x.pack(0, k0 + u * kStep);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
                for (int i = 0; i < V; ++i) sums[r] = fmaf(p.v[i], packs[u][r].v[i], sums[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        float sum = warp_sum(sums[r]);
        int64_t n = n0 + r;
        if (lane != r || n >= w.rows) continue;
        float value = activate(sum + (bias != nullptr ? bias[n] : 0.f), activation);
        y[n] = from_float<X>(value + (residual != nullptr ? to_float(residual[n]) : 0.f));
    }
}

template <typename X, typename W>
void launch_types(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
                  const TensorView& residual, const TensorView& y) {
    int64_t K = weight.columns;
    RowMajor<X, kPack<W>> a{x.as<const X>(), 1, K, int(K), K % kPack<W> == 0 && aligned(x.data)};
    RowMajor<W> w{static_cast<const W*>(weight.data), weight.rows, weight.pitch, int(K),
                  weight.pitch % kPack<W> == 0 && aligned(weight.data)};
    unsigned blocks = unsigned(ceil_div(weight.rows, kWarps * kRows));
    start_kernel(launch, "gemv", gemv_kernel<X, W>, {blocks, kWarps * 32}, a, w, bias, residual.as<const X>(), y.as<X>(),
                 op.activation);
}

}  // namespace

void gemv(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
          const TensorView& residual, const TensorView& y) {
    if (weight.rows == 0) return;
    by_dtype("linear", x.dtype, [&](auto zero) {
        using X = decltype(zero);
        if (weight.dtype == x.dtype) return launch_types<X, X>(launch, op, x, weight, bias, residual, y);
        if constexpr (std::is_same_v<X, float>) {
            if (weight.dtype == DType::float16) return launch_types<float, half>(launch, op, x, weight, bias, residual, y);
            if (weight.dtype == DType::bfloat16) return launch_types<float, bf16>(launch, op, x, weight, bias, residual, y);
        }
        throw Error("ERR_DTYPE", std::string("linear: x is ") + name_of(x.dtype) + ", the weight " + name_of(weight.dtype));
    });
}

}  // namespace warpsight::cuda
