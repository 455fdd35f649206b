// y = act(x·Wᵀ + b) + r
// shapes    x [M, K], W [N, K] rows `pitch` apart, b [N], r and y [M, N]; row-major
//           x, r, y float32 with W float32, float16 or bfloat16; or all float16; or all bfloat16. Sums, b and act are float32
// launch    a tile of y per block: 128 × 128 by 256 threads where that fills the device, else 32 × 64 by 128; grid (M tiles, N
//           tiles), 32 or 12 KB
// roofline  2·M·N·K flops on the plain multiply-add units: 67 TFLOP/s on an H100 in any dtype; a thread's 8 × 8 tile reads 16
//           floats of shared memory per 64 multiply-adds, so large shapes are bound by arithmetic, M < 32 by the N·K elements of
//           W
// source    the order of the sum over k is that of primitives/gemm_tile.h: the same bits for a row whatever M
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/gemm_tile.h"

namespace warpsight::cuda {
namespace {

using Large = Tile<128, 128, 8, 8, 8>;
using Small = Tile<32, 64, 16, 4, 4>;

/// Packs of as many elements as x has: a thread carries both through registers, and 128 of them must do.
template <typename X, typename W>
using WeightOperand = RowMajor<W, kPack<X>>;

template <class T, typename X, typename W>
__global__ __launch_bounds__(T::kThreads, 2) void gemm_simt_kernel(RowMajor<X> x, WeightOperand<X, W> w, const float* bias,
                                                                   const X* residual, X* y, Rows rows, Activation activation,
                                                                   bool vector_out) {
    follow_previous();
    int64_t M = rows.count(), N = w.rows, m0 = int64_t(blockIdx.x) * T::BM, n0 = int64_t(blockIdx.y) * T::BN;
    if (m0 >= M) return;
    x.rows = M;
    gemm_tile<T>(x, w, m0, n0, x.columns, [&](int64_t m, int64_t n, Pack<4> p) {
        if (m >= M || n >= N) return;
        int64_t at = m * N + n;
        int count = N - n < 4 ? int(N - n) : 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (bias != nullptr && j < count) p.v[j] += bias[n + j];
            p.v[j] = activate(p.v[j], activation);
        }
        if (vector_out) {
            if (residual != nullptr) {
                Pack<4> r = load<4>(residual + at);
#pragma unroll
                for (int j = 0; j < 4; ++j) p.v[j] += r.v[j];
            }
            store(y + at, p);
        } else {
            for (int j = 0; j < 4; ++j)
                if (j < count) y[at + j] = from_float<X>(p.v[j] + (residual != nullptr ? to_float(residual[at + j]) : 0.f));
        }
    });
}

template <class T, typename X, typename W>
void launch_tile(const Launch& launch, const RowMajor<X>& x, const WeightOperand<X, W>& w, const float* bias, const X* residual,
                 X* y, Rows rows, Activation activation) {
    bool vector_out = w.rows % 4 == 0 && aligned(y) && (residual == nullptr || aligned(residual));
    dim3 grid(unsigned(ceil_div(rows.planned, T::BM)), unsigned(ceil_div(w.rows, T::BN)));
    start_kernel(launch, "gemm_simt", gemm_simt_kernel<T, X, W>, {grid, T::kThreads}, x, w, bias, residual, y, rows, activation,
                 vector_out);
}

template <typename X, typename W>
void launch_types(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
                  const TensorView& residual, const TensorView& y, Rows rows) {
    int64_t K = weight.columns;
    RowMajor<X> a{x.as<const X>(), rows.planned, K, int(K), K % kPack<X> == 0 && aligned(x.data)};
    WeightOperand<X, W> w{static_cast<const W*>(weight.data), weight.rows, weight.pitch, int(K),
                          weight.pitch % kPack<W> == 0 && aligned(weight.data)};
    bool large = ceil_div(rows.planned, Large::BM) * ceil_div(weight.rows, Large::BN) * 3 >= 2 * launch.device.multiprocessors;
    auto* run = large ? launch_tile<Large, X, W> : launch_tile<Small, X, W>;
    run(launch, a, w, bias, residual.as<const X>(), y.as<X>(), rows, op.activation);
}

}  // namespace

void gemm_simt(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
               const TensorView& residual, const TensorView& y, Rows rows) {
    if (rows.planned == 0 || weight.rows == 0) return;
    by_dtype("linear", x.dtype, [&](auto zero) {
        using X = decltype(zero);
        if (weight.dtype == x.dtype) return launch_types<X, X>(launch, op, x, weight, bias, residual, y, rows);
        if constexpr (std::is_same_v<X, float>) {
            if (weight.dtype == DType::float16) return launch_types<float, half>(launch, op, x, weight, bias, residual, y, rows);
            if (weight.dtype == DType::bfloat16) return launch_types<float, bf16>(launch, op, x, weight, bias, residual, y, rows);
        }
        throw Error("ERR_DTYPE", std::string("linear: x is ") + name_of(x.dtype) + ", the weight " + name_of(weight.dtype));
    });
}

}  // namespace warpsight::cuda
