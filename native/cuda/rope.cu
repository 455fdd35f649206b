// a = position·frequency[i] in the first `heads` heads, the others are copied;
// y[i] = x[i]·cos a − x[i + d/2]·sin a,  y[i + d/2] = x[i + d/2]·cos a + x[i]·sin a,  i < d/2
// rope_append   the same of queries and keys; queries to y, keys and values into row rows[t] of the cache
// shapes    x, y [T, H, d] row-major, float32, float16 or bfloat16; positions int32 [T]; frequencies float32 [d/2];
//           rope_append: x [T, heads + 2·kvHeads, d], y [T, heads, d], rows int32 [T], cache [R, 2·kvHeads, d]
// launch    blocks of 256 threads, a pair of components each; grid ceil(T·H·d/2 / 256)
// roofline  2 + 2 bytes per element in 16-bit dtypes, one sincos per pair: memory-bound up to the range reduction of large angles
// source    the pairing of the Llama checkpoints on the Hub. The rounding error of the product is carried along: at position
//           100,000 a float32 angle alone would be off by 0.004
#include "device.h"
#include "launch.h"
#include "primitives/number.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

/// Writes the pair that stands at x, d/2 apart, to `to`.
template <typename T>
__device__ __forceinline__ void turn_pair(const T* x, T* to, int half_d, int32_t at, float frequency) {
    float position = float(at), angle = position * frequency, rest = fmaf(position, frequency, -angle), s, c;
    sincosf(angle, &s, &c);
    float sine = fmaf(rest, c, s), cosine = fmaf(-rest, s, c);

    float a = to_float(x[0]), b = to_float(x[half_d]);
    to[0] = from_float<T>(a * cosine - b * sine);
    to[half_d] = from_float<T>(b * cosine + a * sine);
}

template <typename T>
__device__ __forceinline__ void copy_pair(const T* x, T* to, int half_d) {
    to[0] = x[0];
    to[half_d] = x[half_d];
}

template <typename T>
__global__ void rope_kernel(const T* x, const int32_t* positions, const float* frequencies, T* y, Rows tokens, int H, int turned,
                            int half_d) {
    follow_previous();
    int64_t pair = int64_t(blockIdx.x) * kThreads + threadIdx.x, token = pair / (int64_t(H) * half_d);
    if (token >= tokens.count()) return;
    int i = int(pair % half_d);
    int64_t first = pair / half_d * (2 * half_d) + i;
    if (pair / half_d % H < turned) turn_pair(x + first, y + first, half_d, positions[token], frequencies[i]);
    else copy_pair(x + first, y + first, half_d);
}

template <typename T>
__global__ void rope_append_kernel(const T* x, const int32_t* positions, const float* frequencies, const int32_t* rows, T* y,
                                   T* cache, int64_t cache_rows, Rows tokens, int heads, int kv_heads, int half_d) {
    follow_previous();
    int H = heads + 2 * kv_heads, d = 2 * half_d;
    int64_t pair = int64_t(blockIdx.x) * kThreads + threadIdx.x, token = pair / (int64_t(H) * half_d);
    if (token >= tokens.count()) return;
    int i = int(pair % half_d), h = int(pair / half_d % H);
    int64_t row = h < heads ? token : rows[token];
    if (h >= heads && (row < 0 || row >= cache_rows)) return;
    T* to = (h < heads ? y + (row * heads + h) * d : cache + (row * 2 * kv_heads + h - heads) * d) + i;
    const T* from = x + pair / half_d * d + i;
    if (h < heads + kv_heads) turn_pair(from, to, half_d, positions[token], frequencies[i]);
    else copy_pair(from, to, half_d);
}

}  // namespace

void rope(const Launch& launch, const Rope& op, const TensorView& x, const TensorView& positions, const float* frequencies,
          const TensorView& y, Rows tokens) {
    int H = int(x.shape[1]), half_d = int(x.shape[2] / 2), turned = op.heads > 0 ? op.heads : H;
    int64_t pairs = tokens.planned * H * half_d;
    if (pairs == 0) return;
    by_dtype("rope", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "rope", rope_kernel<T>, {unsigned(ceil_div(pairs, kThreads)), kThreads}, x.as<const T>(),
                     positions.as<const int32_t>(), frequencies, y.as<T>(), tokens, H, turned, half_d);
    });
}

void rope_append(const Launch& launch, const RopeAppend& op, const TensorView& x, const TensorView& positions,
                 const float* frequencies, const TensorView& rows, const TensorView& cache, const TensorView& y, Rows tokens) {
    int half_d = int(x.shape[2] / 2);
    int64_t pairs = tokens.planned * x.shape[1] * half_d;
    if (pairs == 0) return;
    by_dtype("ropeAppend", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "ropeAppend", rope_append_kernel<T>, {unsigned(ceil_div(pairs, kThreads)), kThreads},
                     x.as<const T>(), positions.as<const int32_t>(), frequencies, rows.as<const int32_t>(), y.as<T>(),
                     cache.as<T>(), cache.shape.rows(), tokens, op.heads, op.kv_heads, half_d);
    });
}

}  // namespace warpsight::cuda
