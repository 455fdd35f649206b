// The distribution that is sampled from: repetition penalty, temperature, topK, topP, softmax (ops.h says what each does)
// shapes    logits [V] float32, float16 or bfloat16; seen int32 [L]; y float32 [V], which holds the logits until the last step
// launch    one block of 1024 threads
// roofline  about ten passes over V floats in L2: 5 to 20 µs at V = 32,000 to 128,000
// source    thresholds are found bit by bit: counts, or sums of probabilities as integers in units of 2^-40 of the largest, per
//           digit of the ordered key (primitives/order.h). Integer sums don't depend on their order, so the same logits give the
//           same bits. Ids outside the vocabulary penalise nothing
#include "device.h"
#include "launch.h"
#include "primitives/number.h"
#include "primitives/order.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 1024, kDigits = 256;
constexpr float kUnit = 1099511627776.f;  // 2^40

__device__ __forceinline__ uint64_t probability(float x, float top) { return uint64_t(expf(x - top) * kUnit); }

/// The largest key t such that the weights of all keys >= t sum to at least `need` (which the whole sum must reach), and what
/// those > t sum to. weight(i) is counted for element i. All threads must call.
template <typename F>
__device__ uint32_t threshold(const float* y, int V, uint64_t need, uint64_t& above, F&& weight) {
    __shared__ unsigned long long bins[kDigits];
    __shared__ uint32_t chosen;
    __shared__ unsigned long long before;
    uint32_t prefix = 0, mask = 0;
    above = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < kDigits) bins[threadIdx.x] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < V; i += kThreads) {
            uint32_t key = order_key(y[i]);
            if ((key & mask) == prefix) atomicAdd(&bins[key >> shift & 255], static_cast<unsigned long long>(weight(i)));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned long long sum = above;
            int digit = kDigits - 1;
            while (digit > 0 && sum + bins[digit] < need) sum += bins[digit--];
            chosen = uint32_t(digit);
            before = sum;
        }
        __syncthreads();
        prefix |= chosen << shift;
        mask |= 255u << shift;
        above = before;
        __syncthreads();
    }
    return prefix;
}

template <typename T>
__global__ __launch_bounds__(kThreads) void sample_distribution_kernel(const T* logits, const int32_t* seen, float* y, int V,
                                                                       Rows seen_count, SampleDistribution op) {
    for (int i = threadIdx.x; i < V; i += kThreads) y[i] = to_float(logits[i]) / op.temperature;
    __syncthreads();
    int64_t L = seen != nullptr ? seen_count.count() : 0;
    for (int64_t i = threadIdx.x; i < L; i += kThreads) {
        int id = seen[i];
        if (id < 0 || id >= V) continue;
        float x = to_float(logits[id]);  // not y[id]: the same id may come twice
        atomicExch(&y[id], (x > 0.f ? x / op.repetition_penalty : x * op.repetition_penalty) / op.temperature);
    }
    __syncthreads();

    if (op.top_k > 0 && op.top_k < V) {
        uint64_t above;
        uint32_t least = threshold(y, V, uint64_t(op.top_k), above, [](int) { return 1; });
        for (int i = threadIdx.x; i < V; i += kThreads)
            if (order_key(y[i]) < least) y[i] = -INFINITY;
        __syncthreads();
    }

    float top = -INFINITY;
    for (int i = threadIdx.x; i < V; i += kThreads) top = Max{}(top, y[i]);
    top = group_reduce<kThreads>(top, Max{});

    if (op.top_p < 1.f && top == top) {
        uint64_t total = 0, above;
        for (int i = threadIdx.x; i < V; i += kThreads) total += probability(y[i], top);
        total = group_reduce<kThreads>(total, Add{});
        uint64_t need = uint64_t(double(total) * double(op.top_p));
        need = need < 1 ? 1 : need;
        uint32_t least = threshold(y, V, need, above, [&](int i) { return probability(y[i], top); });
        // Of those equal to the threshold the first few are needed: as many as bring the sum to `need`.
        __shared__ int kept[2];  // the threshold's smallest index and, with it, how many of the equal ones stay
        if (threadIdx.x == 0) {
            kept[0] = V;
            kept[1] = 0;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < V; i += kThreads)
            if (order_key(y[i]) == least) atomicMin(&kept[0], i);
        __syncthreads();
        if (threadIdx.x == 0 && kept[0] < V) {
            uint64_t each = probability(y[kept[0]], top), left = (need - above + each - 1) / (each > 0 ? each : 1);
            for (int i = kept[0]; i < V; ++i)
                if (order_key(y[i]) == least && left > 0) {
                    kept[1] = i + 1;  // indices from here on fall
                    if (--left == 0) break;
                }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < V; i += kThreads) {
            uint32_t key = order_key(y[i]);
            if (key < least || (key == least && i >= kept[1])) y[i] = -INFINITY;
        }
        __syncthreads();
    }

    float sum = 0.f;
    for (int i = threadIdx.x; i < V; i += kThreads) sum += expf(y[i] - top);
    sum = group_reduce<kThreads>(sum, Add{});
    for (int i = threadIdx.x; i < V; i += kThreads) y[i] = expf(y[i] - top) / sum;
}

}  // namespace

void sample_distribution(const Launch& launch, const SampleDistribution& op, const TensorView& logits, const TensorView& seen,
                         const TensorView& y, Rows seen_count) {
    int V = int(logits.shape.elements());
    if (V == 0) return;
    by_dtype("sampleDistribution", logits.dtype, [&](auto zero) {
        using T = decltype(zero);
        sample_distribution_kernel<T>
            <<<1, kThreads, 0, launch.stream>>>(logits.as<const T>(), seen.as<const int32_t>(), y.as<float>(), V, seen_count, op);
        check_launch(launch, "sampleDistribution");
    });
}

}  // namespace warpsight::cuda
