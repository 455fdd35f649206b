// activate  y = act(x);  silu_gate  y = silu(gate)·up;  binary  out = x + y, x·y or max(x, y), y of x's shape, one row for all
//           or one number for each row
// shapes    n elements, float32, float16 or bfloat16; computed in float32, rounded once
// launch    16 bytes per thread, blocks of 256; grid ceil(n / (256 · 16 bytes))
// roofline  4 to 6 bytes per element in 16-bit dtypes: memory-bound
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/pack.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

/// y[i] = f(a[i], b[i mod period]); b may be null (then f gets 0). `vector`: 16-byte accesses, period a multiple of a pack.
template <typename T, typename F>
__global__ void elementwise_kernel(const T* a, const T* b, int64_t period, T* y, Rows elements, bool vector, F f) {
    follow_previous();
    constexpr int V = kPack<T>;
    int64_t n = elements.count(), i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
    if (i >= n) return;
    if (vector && i + V <= n) {
        Pack<V> p = load<V>(a + i), q = zeros<V>();
        if (b != nullptr) q = load<V>(b + i % period);
#pragma unroll
        for (int j = 0; j < V; ++j) p.v[j] = f(p.v[j], q.v[j]);
        store(y + i, p);
        return;
    }
    for (int64_t end = i + V < n ? i + V : n; i < end; ++i)
        y[i] = from_float<T>(f(to_float(a[i]), b != nullptr ? to_float(b[i % period]) : 0.f));
}

struct ActivateOne {
    Activation activation;
    __device__ float operator()(float x, float) const { return activate(x, activation); }
};
struct SiluTimes {
    __device__ float operator()(float gate, float up) const { return silu_gate(gate, up); }
};
struct BinaryOne {
    Arithmetic arithmetic;
    __device__ float operator()(float x, float y) const {
        if (arithmetic == Arithmetic::add) return x + y;
        if (arithmetic == Arithmetic::multiply) return x * y;
        return x > y || x != x ? x : y;  // fmaxf lets go of a NaN
    }
};

template <typename F>
void elementwise(const Launch& launch, const char* op, const TensorView& a, const TensorView& b, const TensorView& y,
                 Rows elements, F f) {
    if (elements.planned == 0) return;
    by_dtype(op, a.dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr int V = kPack<T>;
        int64_t period = b.data != nullptr ? b.shape.elements() : 1;
        bool vector = aligned(a.data) && aligned(y.data) &&
                      (b.data == nullptr || (aligned(b.data) && (period % V == 0 || period == elements.planned)));
        start_kernel(launch, op, elementwise_kernel<T, F>,
                     {unsigned(ceil_div(elements.planned, int64_t(kThreads) * V)), kThreads}, a.as<const T>(), b.as<const T>(),
                     period, y.as<T>(), elements, vector, f);
    });
}

}  // namespace

void activate(const Launch& launch, const Activate& op, const TensorView& x, const TensorView& y, Rows elements) {
    elementwise(launch, "activate", x, {}, y, elements, ActivateOne{op.activation});
}

namespace {

/// y[r, d] = silu(x[r, d])·x[r, D + d]
template <typename T>
__global__ void silu_gate_packed_kernel(const T* x, T* y, Rows elements, int64_t D) {
    follow_previous();
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, at = i / D * 2 * D + i % D;
    if (i < elements.count()) y[i] = from_float<T>(SiluTimes{}(to_float(x[at]), to_float(x[at + D])));
}

}  // namespace

void silu_gate(const Launch& launch, const TensorView& gate, const TensorView& up, const TensorView& y, Rows elements) {
    if (up.data != nullptr) return elementwise(launch, "siluGate", gate, up, y, elements, SiluTimes{});
    if (elements.planned == 0) return;
    by_dtype("siluGate", gate.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "siluGate", silu_gate_packed_kernel<T>,
                     {unsigned(ceil_div(elements.planned, int64_t(kThreads))), kThreads}, gate.as<const T>(), y.as<T>(), elements,
                     y.shape.last());
    });
}

namespace {

/// out[r, d] = f(x[r, d], y[r]). `vector`: 16-byte accesses, D a multiple of a pack.
template <typename T>
__global__ void binary_number_each_kernel(const T* x, const T* y, T* out, Rows elements, int64_t D, bool vector, BinaryOne f) {
    follow_previous();
    constexpr int V = kPack<T>;
    int64_t n = elements.count(), i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
    if (i >= n) return;
    if (vector) {
        Pack<V> p = load<V>(x + i);
        float number = to_float(y[i / D]);
#pragma unroll
        for (int j = 0; j < V; ++j) p.v[j] = f(p.v[j], number);
        store(out + i, p);
        return;
    }
    for (int64_t end = i + V < n ? i + V : n; i < end; ++i) out[i] = from_float<T>(f(to_float(x[i]), to_float(y[i / D])));
}

}  // namespace

void binary(const Launch& launch, const Binary& op, const TensorView& x, const TensorView& y, const TensorView& out,
            Rows elements) {
    int64_t D = x.shape.last();
    if (elements.planned > 0 && number_for_each_row(x.shape, y.shape)) {
        by_dtype("binary", x.dtype, [&](auto zero) {
            using T = decltype(zero);
            constexpr int V = kPack<T>;
            bool vector = aligned(x.data) && aligned(out.data) && D % V == 0;
            unsigned blocks = unsigned(ceil_div(elements.planned, int64_t(kThreads) * V));
            start_kernel(launch, "binary", binary_number_each_kernel<T>, {blocks, kThreads}, x.as<const T>(), y.as<const T>(),
                         out.as<T>(), elements, D, vector, BinaryOne{op.arithmetic});
        });
        return;
    }
    elementwise(launch, "binary", x, y, out, elements, BinaryOne{op.arithmetic});
}

}  // namespace warpsight::cuda
