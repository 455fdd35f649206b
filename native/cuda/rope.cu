// a = position·frequency[i] in the first `heads` heads, the others are copied;
// y[i] = x[i]·cos a − x[i + d/2]·sin a,  y[i + d/2] = x[i + d/2]·cos a + x[i]·sin a,  i < d/2
// shapes    x, y [T, H, d] row-major, float32, float16 or bfloat16; positions int32 [T]; frequencies float32 [d/2]
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

template <typename T>
__global__ void rope_kernel(const T* x, const int32_t* positions, const float* frequencies, T* y, Rows tokens, int H, int turned,
                            int half_d) {
    follow_previous();
    int64_t pair = int64_t(blockIdx.x) * kThreads + threadIdx.x, token = pair / (int64_t(H) * half_d);
    if (token >= tokens.count()) return;
    int i = int(pair % half_d);
    int64_t first = pair / half_d * (2 * half_d) + i;
    if (pair / half_d % H >= turned) {
        y[first] = x[first];
        y[first + half_d] = x[first + half_d];
        return;
    }

    float position = float(positions[token]), angle = position * frequencies[i], rest = fmaf(position, frequencies[i], -angle), s,
          c;
    sincosf(angle, &s, &c);
    float sine = fmaf(rest, c, s), cosine = fmaf(-rest, s, c);

    float a = to_float(x[first]), b = to_float(x[first + half_d]);
    y[first] = from_float<T>(a * cosine - b * sine);
    y[first + half_d] = from_float<T>(b * cosine + a * sine);
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

}  // namespace warpsight::cuda
