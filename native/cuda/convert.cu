// y = x in another float dtype, rounded to nearest even; rows of a weight get their pitch, with zeros behind the last column
// shapes    convert_rows: from [rows, columns] contiguous, to [rows, pitch]; cast: n elements
// launch    blocks of 256 threads, an element each; grid ceil(elements / 256)
// roofline  4 to 8 bytes per element: memory-bound; weights pass once, at load, behind a disk
#include "device.h"
#include "launch.h"
#include "primitives/number.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

template <typename From, typename To>
__global__ void convert_rows_kernel(const From* from, To* to, int64_t rows, int64_t columns, int64_t pitch, int* overflow) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = i / pitch, column = i % pitch;
    if (row >= rows) return;
    float v = column < columns ? to_float(from[row * columns + column]) : 0.f;
    to[i] = from_float<To>(v);
    if (overflow != nullptr && isfinite(v) && !isfinite(to_float(to[i]))) *overflow = 1;
}

template <typename From, typename To>
__global__ void cast_kernel(const From* x, To* y, Rows elements) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i < elements.count()) y[i] = from_float<To>(to_float(x[i]));
}

}  // namespace

void convert_rows(const Launch& launch, const void* from, DType from_dtype, const Matrix& to, int* overflow) {
    int64_t elements = to.rows * to.pitch;
    if (elements == 0) return;
    by_dtype("weight", from_dtype, [&](auto a) {
        by_dtype("weight", to.dtype, [&](auto b) {
            using From = decltype(a);
            using To = decltype(b);
            start_kernel(launch, "weight", convert_rows_kernel<From, To>, {unsigned(ceil_div(elements, kThreads)), kThreads},
                         static_cast<const From*>(from), static_cast<To*>(const_cast<void*>(to.data)), to.rows, to.columns,
                         to.pitch, overflow);
        });
    });
}

void cast(const Launch& launch, const TensorView& x, const TensorView& y, Rows elements) {
    if (elements.planned == 0) return;
    by_dtype("cast", x.dtype, [&](auto a) {
        by_dtype("cast", y.dtype, [&](auto b) {
            using From = decltype(a);
            using To = decltype(b);
            start_kernel(launch, "cast", cast_kernel<From, To>, {unsigned(ceil_div(elements.planned, kThreads)), kThreads},
                         x.as<const From>(), y.as<To>(), elements);
        });
    });
}

}  // namespace warpsight::cuda
