// layer_norm    s = x + r;  y = (s − mean) / sqrt(mean((s − mean)²) + eps) · w + b
// rms_norm      s = x + r;  y = s / sqrt(mean(s²) + eps) · w
// l2_normalize  y = x / max(‖x‖₂, tiny)          rows of unit length; a zero row stays zero
// shapes    x, r, y, s [R, D] row-major, float32, float16 or bfloat16; w, b float32 [D]; means and sums are float32
// launch    D <= 1024: one warp per row, 4 rows per block; else a block of 256 threads per row. Chosen by D alone, so a row's
//           bits don't depend on R
// roofline  2 bytes read and 2 written per element in 16-bit dtypes (4 + 4 with r and s), 8 flops: memory-bound.
//           The second and third read of a row should hit L1
// source    s is rounded to the dtype before it is used, so that fused and separate additions give the same bits;
//           tiny is FLT_MIN; rows whose sum of squares is not a normal float32 are scaled by their largest magnitude first
#include <cfloat>

#include "device.h"
#include "launch.h"
#include "primitives/pack.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

/// The row of this group of threads: a warp, or the whole block.
template <int Threads>
__device__ __forceinline__ int64_t group_row() {
    return Threads == 32 ? int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.y : int64_t(blockIdx.x);
}

/// Calls f(d, Pack<V>) for the group's share of a row, x + r rounded to T where r is given.
template <int Threads, int V, typename T, typename F>
__device__ __forceinline__ void for_row(const T* x, const T* r, int D, F&& f) {
    for (int d = threadIdx.x * V; d < D; d += Threads * V) {
        Pack<V> p = load<V>(x + d);
        if (r != nullptr) {
            Pack<V> q = load<V>(r + d);
#pragma unroll
            for (int i = 0; i < V; ++i) p.v[i] = rounded<T>(p.v[i] + q.v[i]);
        }
        f(d, p);
    }
}

template <typename T, int V, int Threads, bool Centre>
__global__ __launch_bounds__(Threads == 32 ? 128 : Threads) void norm_kernel(const T* x, const T* r, const float* weight,
                                                                             const float* bias, T* y, T* sum, Rows rows, int D,
                                                                             float eps) {
    follow_previous();
    int64_t row = group_row<Threads>();
    if (row >= rows.count()) return;
    x += row * D;
    y += row * D;
    if (r != nullptr) r += row * D;

    float mean = 0.f;
    if constexpr (Centre) {
        for_row<Threads, V>(x, r, D, [&](int, const Pack<V>& p) {
            for (float v : p.v) mean += v;
        });
        mean = group_reduce<Threads>(mean, Add{}) / D;
    }
    float squares = 0.f;
    for_row<Threads, V>(x, r, D, [&](int, const Pack<V>& p) {
        for (float v : p.v) squares = fmaf(v - mean, v - mean, squares);
    });
    float scale = 1.f / sqrtf(group_reduce<Threads>(squares, Add{}) / D + eps);

    for_row<Threads, V>(x, r, D, [&](int d, Pack<V> p) {
        if (sum != nullptr) store(sum + row * D + d, p);
        Pack<V> w = load<V>(weight + d), b = zeros<V>();
        if (bias != nullptr) b = load<V>(bias + d);
#pragma unroll
        for (int i = 0; i < V; ++i) p.v[i] = fmaf((p.v[i] - mean) * scale, w.v[i], b.v[i]);
        store(y + d, p);
    });
}

template <typename T, int V, int Threads>
__global__ __launch_bounds__(Threads == 32 ? 128 : Threads) void l2_normalize_kernel(const T* x, T* y, Rows rows, int D) {
    follow_previous();
    int64_t row = group_row<Threads>();
    if (row >= rows.count()) return;
    x += row * D;
    y += row * D;
    const T* none = nullptr;

    float squares = 0.f, scale = 1.f;
    for_row<Threads, V>(x, none, D, [&](int, const Pack<V>& p) {
        for (float v : p.v) squares = fmaf(v, v, squares);
    });
    squares = group_reduce<Threads>(squares, Add{});
    if (!(squares >= FLT_MIN && squares <= FLT_MAX)) {  // zero, too small, too large, NaN
        float largest = 0.f;
        for_row<Threads, V>(x, none, D, [&](int, const Pack<V>& p) {
            for (float v : p.v) largest = Max{}(largest, fabsf(v));
        });
        largest = group_reduce<Threads>(largest, Max{});
        if (largest > 0.f && largest <= FLT_MAX) {
            scale = largest;
            squares = 0.f;
            for_row<Threads, V>(x, none, D, [&](int, const Pack<V>& p) {
                for (float v : p.v) squares = fmaf(v / scale, v / scale, squares);
            });
            squares = group_reduce<Threads>(squares, Add{});
        }
    }
    float norm = Max{}(sqrtf(squares), FLT_MIN);

    for_row<Threads, V>(x, none, D, [&](int d, Pack<V> p) {
        for (float& v : p.v) v = v / scale / norm;
        store(y + d, p);
    });
}

/// Rows of D as launches: f(threads per row as a constant, block, grid).
template <typename F>
void by_width(int64_t R, int D, F&& f) {
    if (D <= 1024) f(std::integral_constant<int, 32>{}, dim3(32, kRowsPerBlock), unsigned(ceil_div(R, kRowsPerBlock)));
    else f(std::integral_constant<int, 256>{}, dim3(256), unsigned(R));
}

template <bool Centre>
void norm(const Launch& launch, const char* op, float eps, const TensorView& x, const float* weight, const float* bias,
          const TensorView& residual, const TensorView& y, const TensorView& sum, Rows rows) {
    int D = int(x.shape.last());
    if (rows.planned == 0 || D == 0) return;
    by_dtype(op, x.dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr int V = kPack<T>;
        bool vector = D % V == 0 && aligned(x.data) && aligned(y.data) && aligned(residual.data) && aligned(sum.data) &&
                      aligned(weight) && aligned(bias);
        by_width(rows.planned, D, [&](auto threads, dim3 block, unsigned grid) {
            auto* kernel = vector ? norm_kernel<T, V, threads(), Centre> : norm_kernel<T, 1, threads(), Centre>;
            start_kernel(launch, op, kernel, {grid, block}, x.as<const T>(), residual.as<const T>(), weight, bias, y.as<T>(),
                         sum.as<T>(), rows, D, eps);
        });
    });
}

}  // namespace

void layer_norm(const Launch& launch, float eps, const TensorView& x, const float* weight, const float* bias,
                const TensorView& residual, const TensorView& y, const TensorView& sum, Rows rows) {
    norm<true>(launch, "layerNorm", eps, x, weight, bias, residual, y, sum, rows);
}

void rms_norm(const Launch& launch, float eps, const TensorView& x, const float* weight, const TensorView& residual,
              const TensorView& y, const TensorView& sum, Rows rows) {
    norm<false>(launch, "rmsNorm", eps, x, weight, nullptr, residual, y, sum, rows);
}

void l2_normalize(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows) {
    int D = int(x.shape.last());
    if (rows.planned == 0 || D == 0) return;
    by_dtype("l2Normalize", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr int V = kPack<T>;
        bool vector = D % V == 0 && aligned(x.data) && aligned(y.data);
        by_width(rows.planned, D, [&](auto threads, dim3 block, unsigned grid) {
            auto* kernel = vector ? l2_normalize_kernel<T, V, threads()> : l2_normalize_kernel<T, 1, threads()>;
            start_kernel(launch, "l2Normalize", kernel, {grid, block}, x.as<const T>(), y.as<T>(), rows, D);
        });
    });
}

}  // namespace warpsight::cuda
