// out[i, j] = multiplier · (x_i·y_j) / (‖x_i‖·‖y_j‖) + bias
// shapes    x [n, D], y [m, D] float32, float16 or bfloat16, row-major; out [n, m] float32; sums and norms are float32
// launch    row_norms: a warp per row, 4 per block; logits: a 64 × 64 tile per block of 256 threads, grid (n tiles, m tiles), 16
//           KB
// roofline  2·n·m·D flops on the plain multiply-add units; for few images bound by reading the m·D elements of y
// source    CLIP's logits_per_image. Rows whose sum of squares is not a normal float32 are scaled by a power of two as they are
//           loaded, exactly
#include "device.h"
#include "launch.h"
#include "primitives/gemm_tile.h"
#include "primitives/row_norm.h"

namespace warpsight::cuda {
namespace {

using Medium = Tile<64, 64, 16, 4, 4>;
constexpr int kRowsPerBlock = 4;

template <typename T>
__global__ void row_norms_kernel(const T* x, RowNorm* norms, Rows rows, int D, bool unit) {
    follow_previous();
    int64_t row = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.y;
    if (row >= rows.count()) return;
    RowNorm norm = unit ? RowNorm{1.f, 1.f} : row_norm<1>(x + row * D, D);
    if (threadIdx.x == 0) norms[row] = norm;
}

template <typename T>
struct Scaled {
    static constexpr int V = kPack<T>;
    RowMajor<T> rows;
    const RowNorm* norms;
    __device__ __forceinline__ Pack<V> pack(int64_t row, int k) const {
        Pack<V> p = rows.pack(row, k);
        float f = row < rows.rows ? norms[row].load : 0.f;
#pragma unroll
        for (float& v : p.v) v *= f;
        return p;
    }
};

template <typename T>
__global__ __launch_bounds__(Medium::kThreads, 3) void logits_kernel(Scaled<T> x, Scaled<T> y, float* out, Rows rows,
                                                                     float multiplier, float bias) {
    follow_previous();
    int64_t n = rows.count(), m = y.rows.rows, i0 = int64_t(blockIdx.x) * Medium::BM, j0 = int64_t(blockIdx.y) * Medium::BN;
    if (i0 >= n) return;
    x.rows.rows = n;
    gemm_tile<Medium>(x, y, i0, j0, x.rows.columns, [&](int64_t i, int64_t j, const Pack<4>& p) {
        if (i >= n) return;
        float inverse = x.norms[i].inverse;
        for (int e = 0; e < 4; ++e)
            if (j + e < m) out[i * m + j + e] = fmaf(multiplier, p.v[e] * inverse * y.norms[j + e].inverse, bias);
    });
}

}  // namespace

size_t logits_workspace(int64_t n, int64_t m) { return size_t(n + m) * sizeof(RowNorm); }

void scaled_logits(const Launch& launch, const ScaledLogits& op, const TensorView& x, const TensorView& y, const TensorView& out,
                   void* workspace, Rows rows) {
    int64_t n = rows.planned, m = y.shape.rows();
    int D = int(x.shape.last());
    if (n == 0 || m == 0) return;
    by_dtype("scaledLogits", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        RowNorm *x_norms = static_cast<RowNorm*>(workspace), *y_norms = x_norms + n;
        dim3 block(32, kRowsPerBlock);
        start_kernel(launch, "scaledLogits", row_norms_kernel<T>, {unsigned(ceil_div(n, kRowsPerBlock)), block}, x.as<const T>(),
                     x_norms, rows, D, false);
        start_kernel(launch, "scaledLogits", row_norms_kernel<T>, {unsigned(ceil_div(m, kRowsPerBlock)), block}, y.as<const T>(),
                     y_norms, Rows{.planned = m}, D, op.y_unit);
        auto operand = [&](const TensorView& t, int64_t count, const RowNorm* norms) {
            return Scaled<T>{{t.as<const T>(), count, D, D, D % kPack<T> == 0 && aligned(t.data)}, norms};
        };
        dim3 grid(unsigned(ceil_div(n, Medium::BM)), unsigned(ceil_div(m, Medium::BN)));
        start_kernel(launch, "scaledLogits", logits_kernel<T>, {grid, Medium::kThreads}, operand(x, n, x_norms),
                     operand(y, m, y_norms), out.as<float>(), rows, op.multiplier, op.bias);
    });
}

}  // namespace warpsight::cuda
