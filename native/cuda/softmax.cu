// y[j] = exp(x[j] − max x) / Σ exp(x − max x) per row
// shapes    x, y [R, D] row-major, float32, float16 or bfloat16; sums are float32
// launch    D <= 1024: one warp per row, 4 rows per block; else a block of 256 threads per row
// roofline  4 bytes and two exponentials per element in 16-bit dtypes: memory-bound; the second and third read of a row should
//           hit the cache
#include "device.h"
#include "launch.h"
#include "primitives/number.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

template <typename T, int Threads>
__global__ __launch_bounds__(Threads == 32 ? 128 : Threads) void softmax_kernel(const T* x, T* y, Rows rows, int D) {
    follow_previous();
    int64_t row = Threads == 32 ? int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.y : int64_t(blockIdx.x);
    if (row >= rows.count()) return;
    x += row * D;
    y += row * D;
    float top = -INFINITY, sum = 0.f;
    for (int d = threadIdx.x; d < D; d += Threads) top = Max{}(top, to_float(x[d]));
    top = group_reduce<Threads>(top, Max{});
    for (int d = threadIdx.x; d < D; d += Threads) sum += expf(to_float(x[d]) - top);
    sum = group_reduce<Threads>(sum, Add{});
    for (int d = threadIdx.x; d < D; d += Threads) y[d] = from_float<T>(expf(to_float(x[d]) - top) / sum);
}

}  // namespace

void softmax(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows) {
    int D = int(x.shape.last());
    if (rows.planned == 0 || D == 0) return;
    by_dtype("softmax", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (D <= 1024)
            start_kernel(launch, "softmax", softmax_kernel<T, 32>,
                         {unsigned(ceil_div(rows.planned, kRowsPerBlock)), dim3(32, kRowsPerBlock)}, x.as<const T>(), y.as<T>(),
                         rows, D);
        else
            start_kernel(launch, "softmax", softmax_kernel<T, 256>, {unsigned(rows.planned), 256}, x.as<const T>(), y.as<T>(),
                         rows, D);
    });
}

}  // namespace warpsight::cuda
