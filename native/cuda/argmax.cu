// y[r] = the index of the largest value of row r: the first of equal ones; NaN is larger than everything, the first NaN wins
// shapes    x [R, D] row-major, float32, float16 or bfloat16; y int32 [R]
// launch    a block of 256 threads per row
// roofline  each element is read once: memory-bound
// source    torch.argmax; value and index are one 64-bit key (primitives/order.h), so the maximum is the answer in any order
#include "device.h"
#include "launch.h"
#include "primitives/number.h"
#include "primitives/order.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ __launch_bounds__(kThreads) void argmax_kernel(const T* x, int32_t* y, Rows rows, int D) {
    follow_previous();
    int64_t row = blockIdx.x;
    if (row >= rows.count()) return;
    x += row * D;
    uint64_t best = 0;
    for (int d = threadIdx.x; d < D; d += kThreads) best = Max{}(best, order_key(to_float(x[d]), d));
    best = group_reduce<kThreads>(best, Max{});
    if (threadIdx.x == 0) y[row] = int32_t(index_of(best));
}

}  // namespace

void argmax(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows) {
    int D = int(x.shape.last());
    if (rows.planned == 0 || D == 0) return;
    by_dtype("argmax", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "argmax", argmax_kernel<T>, {unsigned(rows.planned), kThreads}, x.as<const T>(), y.as<int32_t>(),
                     rows, D);
    });
}

}  // namespace warpsight::cuda
