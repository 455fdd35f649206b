// layer_norm    s = x + r;  y = (s − mean) / sqrt(mean((s − mean)²) + eps) · w + b
// rms_norm      s = x + r;  y = s / sqrt(mean(s²) + eps) · w
// l2_normalize  y = x / max(‖x‖₂, tiny)          rows of unit length; a zero row stays zero
// shapes    x, r, y, s [R, D] row-major, float32, float16 or bfloat16; w, b float32 [D]; means and sums are float32
// launch    D <= 1024: one warp per row, 4 rows per block; else a block of 256 threads per row. Chosen by D alone, so a row's
//           bits don't depend on R
// roofline  2 bytes read and 2 written per element in 16-bit dtypes (4 + 4 with r and s), 8 flops: memory-bound.
//           Rows of up to 8192 are read once, a thread keeps at most 32 numbers of it
// source    s is rounded to the dtype before it is used, so that fused and separate additions give the same bits;
//           tiny is FLT_MIN; rows whose sum of squares is not a normal float32 are scaled by their largest magnitude first
#include <cfloat>

#include "device.h"
#include "launch.h"
#include "primitives/pack.h"
#include "primitives/row_norm.h"

namespace warpsight::cuda {
namespace {

constexpr int kRowsPerBlock = 4;

/// The row of this group of threads: a warp, or the whole block.
template <int Threads>
__device__ __forceinline__ int64_t group_row() {
    return Threads == 32 ? int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.y : int64_t(blockIdx.x);
}

/// The group's share of a row, x + r rounded to T where r is given. Kept in registers where the row has at most 32 numbers for
/// each thread, so that it is read once; else each pass reads it again.
template <int Threads, int V, bool Kept, typename T>
struct RowShare {
    static constexpr int kPacks = 32 / V;
    const T *x, *r;
    int D;
    Pack<V> packs[Kept ? kPacks : 1];

    __device__ __forceinline__ RowShare(const T* x, const T* r, int D) : x(x), r(r), D(D) {
        if constexpr (Kept)
#pragma unroll
            for (int i = 0; i < kPacks; ++i) {
                int d = (i * Threads + int(threadIdx.x)) * V;
                if (d < D) packs[i] = read(d);
            }
    }
    __device__ __forceinline__ Pack<V> read(int d) const {
        Pack<V> p = load<V>(x + d);
        if (r != nullptr) {
            Pack<V> q = load<V>(r + d);
#pragma unroll
            for (int i = 0; i < V; ++i) p.v[i] = rounded<T>(p.v[i] + q.v[i]);
        }
        return p;
    }
    /// Calls f(d, Pack<V>) for each pack, in rising order.
    template <typename F>
    __device__ __forceinline__ void each(F&& f) const {
        if constexpr (Kept) {
#pragma unroll
            for (int i = 0; i < kPacks; ++i) {
                int d = (i * Threads + int(threadIdx.x)) * V;
                if (d < D) f(d, packs[i]);
            }
        } else {
            for (int d = threadIdx.x * V; d < D; d += Threads * V) f(d, read(d));
        }
    }
};

template <typename T, int V, int Threads, bool Kept, bool Centre>
__global__ __launch_bounds__(Threads == 32 ? 128 : Threads) void norm_kernel(const T* x, const T* r, const float* weight,
                                                                             const float* bias, T* y, T* sum, Rows rows, int D,
                                                                             float eps) {
    follow_previous();
    int64_t row = group_row<Threads>();
    if (row >= rows.count()) return;
    y += row * D;
    const RowShare<Threads, V, Kept, T> share(x + row * D, r != nullptr ? r + row * D : nullptr, D);

    float mean = 0.f;
    if constexpr (Centre) {
        share.each([&](int, const Pack<V>& p) {
            for (float v : p.v) mean += v;
        });
        mean = group_reduce<Threads>(mean, Add{}) / D;
    }
    float squares = 0.f;
    share.each([&](int, const Pack<V>& p) {
        for (float v : p.v) squares = fmaf(v - mean, v - mean, squares);
    });
    float scale = 1.f / sqrtf(group_reduce<Threads>(squares, Add{}) / D + eps);

    share.each([&](int d, Pack<V> p) {
        if (sum != nullptr) store(sum + row * D + d, p);
        Pack<V> w = load<V>(weight + d), b = zeros<V>();
        if (bias != nullptr) b = load<V>(bias + d);
#pragma unroll
        for (int i = 0; i < V; ++i) p.v[i] = fmaf((p.v[i] - mean) * scale, w.v[i], b.v[i]);
        store(y + d, p);
    });
}

template <typename T, int V, int Threads, bool Kept>
__global__ __launch_bounds__(Threads == 32 ? 128 : Threads) void l2_normalize_kernel(const T* x, T* y, Rows rows, int D) {
    follow_previous();
    int64_t row = group_row<Threads>();
    if (row >= rows.count()) return;
    y += row * D;
    const RowShare<Threads, V, Kept, T> share(x + row * D, nullptr, D);

    float squares = 0.f, scale = 1.f;
    share.each([&](int, const Pack<V>& p) {
        for (float v : p.v) squares = fmaf(v, v, squares);
    });
    squares = group_reduce<Threads>(squares, Add{});
    if (!normal_squares(squares)) {  // zero, too small, too large, NaN
        float largest = 0.f;
        share.each([&](int, const Pack<V>& p) {
            for (float v : p.v) largest = Max{}(largest, fabsf(v));
        });
        largest = group_reduce<Threads>(largest, Max{});
        if (largest > 0.f && largest <= FLT_MAX) {
            scale = largest;
            squares = 0.f;
            share.each([&](int, const Pack<V>& p) {
                for (float v : p.v) squares = fmaf(v / scale, v / scale, squares);
            });
            squares = group_reduce<Threads>(squares, Add{});
        }
    }
    float norm = Max{}(sqrtf(squares), FLT_MIN);

    share.each([&](int d, Pack<V> p) {
        for (float& v : p.v) v = v / scale / norm;
        store(y + d, p);
    });
}

/// Rows of D as launches: f(threads per row, elements of a pack, whether a share stays in registers (as constants), block, grid).
template <typename T, typename F>
void by_width(int64_t R, int D, bool vector, F&& f) {
    constexpr std::integral_constant<int, kPack<T>> pack;
    constexpr std::integral_constant<int, 1> one;
    constexpr std::integral_constant<int, 32> warp;
    constexpr std::integral_constant<int, 256> whole;
    const dim3 rows(32, kRowsPerBlock);
    const unsigned blocks = unsigned(ceil_div(R, kRowsPerBlock));
    if (D <= 1024 && vector) f(warp, pack, std::true_type{}, rows, blocks);
    else if (D <= 1024) f(warp, one, std::false_type{}, rows, blocks);
    else if (D <= 256 * 32 && vector) f(whole, pack, std::true_type{}, dim3(256), unsigned(R));
    else if (vector) f(whole, pack, std::false_type{}, dim3(256), unsigned(R));
    else f(whole, one, std::false_type{}, dim3(256), unsigned(R));
}

template <bool Centre>
void norm(const Launch& launch, const char* op, float eps, const TensorView& x, const float* weight, const float* bias,
          const TensorView& residual, const TensorView& y, const TensorView& sum, Rows rows) {
    int D = int(x.shape.last());
    if (rows.planned == 0 || D == 0) return;
    by_dtype(op, x.dtype, [&](auto zero) {
        using T = decltype(zero);
        bool vector = D % kPack<T> == 0 && aligned(x.data) && aligned(y.data) && aligned(residual.data) && aligned(sum.data) &&
                      aligned(weight) && aligned(bias);
        by_width<T>(rows.planned, D, vector, [&](auto threads, auto pack, auto kept, dim3 block, unsigned grid) {
            start_kernel(launch, op, norm_kernel<T, pack(), threads(), kept(), Centre>, {grid, block}, x.as<const T>(),
                         residual.as<const T>(), weight, bias, y.as<T>(), sum.as<T>(), rows, D, eps);
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
        bool vector = D % kPack<T> == 0 && aligned(x.data) && aligned(y.data);
        by_width<T>(rows.planned, D, vector, [&](auto threads, auto pack, auto kept, dim3 block, unsigned grid) {
            start_kernel(launch, "l2Normalize", l2_normalize_kernel<T, pack(), threads(), kept()>, {grid, block}, x.as<const T>(),
                         y.as<T>(), rows, D);
        });
    });
}

}  // namespace warpsight::cuda
