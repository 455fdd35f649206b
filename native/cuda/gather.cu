// gather_rows   y[r] = x[rows[r]]
// append_rows   to[rows[r]] = x[r, offset …], in place; a row outside `to` is dropped
// splice        y[r] = index[r] < 0 ? x[r] : features[index[r]]
// copy_columns  y[r, offset + d] = x[r, d]
// segment_mean  y[c] = mean of the rows start … start + count − 1 of x, added in that order; count 0 gives NaN
// shapes    x [R, D], y [m, D] float32, float16 or bfloat16; rows int32 [m]; segments int32 [m, 2] (start, count); sums are
//           float32
// launch    blocks of 256 threads, an element of y each; grid ceil(m·D / 256)
// roofline  each row read is read once, each row of y written once: memory-bound
// source    an index outside x gives a row of NaN and touches nothing
#include "device.h"
#include "launch.h"
#include "primitives/number.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void gather_rows_kernel(const T* x, const int32_t* rows, T* y, Rows x_rows, Rows y_rows, int64_t D) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, r = i / D;
    if (r >= y_rows.count()) return;
    int64_t row = rows[r];
    y[i] = row >= 0 && row < x_rows.count() ? x[row * D + i % D] : from_float<T>(nan_value());
}

template <typename T>
__global__ void append_rows_kernel(const T* x, const int32_t* rows, T* to, Rows x_rows, int64_t to_rows, int64_t width,
                                   int64_t stride, int64_t offset) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, r = i / width;
    if (r >= x_rows.count()) return;
    int64_t row = rows[r];
    if (row >= 0 && row < to_rows) to[row * width + i % width] = x[r * stride + offset + i % width];
}

template <typename T>
__global__ void splice_kernel(const T* x, const T* features, const int32_t* index, T* y, Rows rows, Rows feature_rows,
                              int64_t D) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, r = i / D;
    if (r >= rows.count()) return;
    int64_t from = index[r];
    y[i] = from < 0 ? x[i] : from < feature_rows.count() ? features[from * D + i % D] : from_float<T>(nan_value());
}

template <typename T>
__global__ void copy_columns_kernel(const T* x, T* y, Rows rows, int64_t width, int64_t stride, int64_t offset) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, r = i / width;
    if (r < rows.count()) y[r * stride + offset + i % width] = x[i];
}

template <typename T>
__global__ void segment_mean_kernel(const T* x, const int32_t* segments, T* y, Rows x_rows, Rows y_rows, int64_t D) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, c = i / D;
    if (c >= y_rows.count()) return;
    int64_t start = segments[2 * c], count = segments[2 * c + 1];
    float sum = start >= 0 && count > 0 && start + count <= x_rows.count() ? 0.f : nan_value();
    if (sum == 0.f)
        for (int64_t r = 0; r < count; ++r) sum += to_float(x[(start + r) * D + i % D]);
    y[i] = from_float<T>(sum / float(count));
}

}  // namespace

void gather_rows(const Launch& launch, const TensorView& x, const TensorView& rows, const TensorView& y, Rows x_rows,
                 Rows y_rows) {
    int64_t D = x.shape.last(), elements = y_rows.planned * D;
    if (elements == 0) return;
    by_dtype("gatherRows", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "gatherRows", gather_rows_kernel<T>, {unsigned(ceil_div(elements, kThreads)), kThreads},
                     x.as<const T>(), rows.as<const int32_t>(), y.as<T>(), x_rows, y_rows, D);
    });
}

void append_rows(const Launch& launch, const AppendRows& op, const TensorView& x, const TensorView& rows, const TensorView& to,
                 Rows x_rows) {
    int64_t width = to.shape.last(), elements = x_rows.planned * width;
    if (elements == 0) return;
    by_dtype("appendRows", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "appendRows", append_rows_kernel<T>, {unsigned(ceil_div(elements, kThreads)), kThreads},
                     x.as<const T>(), rows.as<const int32_t>(), to.as<T>(), x_rows, to.shape.rows(), width, x.shape.last(),
                     op.offset);
    });
}

void splice(const Launch& launch, const TensorView& x, const TensorView& features, const TensorView& index, const TensorView& y,
            Rows rows, Rows feature_rows) {
    int64_t D = x.shape.last(), elements = rows.planned * D;
    if (elements == 0) return;
    by_dtype("splice", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "splice", splice_kernel<T>, {unsigned(ceil_div(elements, kThreads)), kThreads}, x.as<const T>(),
                     features.as<const T>(), index.as<const int32_t>(), y.as<T>(), rows, feature_rows, D);
    });
}

void copy_columns(const Launch& launch, const TensorView& x, const TensorView& y, int64_t offset, Rows rows) {
    int64_t width = x.shape.last(), elements = rows.planned * width;
    if (elements == 0) return;
    by_dtype("concat", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "concat", copy_columns_kernel<T>, {unsigned(ceil_div(elements, kThreads)), kThreads},
                     x.as<const T>(), y.as<T>(), rows, width, y.shape.last(), offset);
    });
}

void segment_mean(const Launch& launch, const TensorView& x, const TensorView& segments, const TensorView& y, Rows x_rows,
                  Rows y_rows) {
    int64_t D = x.shape.last(), elements = y_rows.planned * D;
    if (elements == 0) return;
    by_dtype("segmentMean", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "segmentMean", segment_mean_kernel<T>, {unsigned(ceil_div(elements, kThreads)), kThreads},
                     x.as<const T>(), segments.as<const int32_t>(), y.as<T>(), x_rows, y_rows, D);
    });
}

}  // namespace warpsight::cuda
