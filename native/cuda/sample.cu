// sample_distribution  what is sampled from: repetition penalty, temperature, topK, topP, softmax (ops.h says what each does)
// sample               an id of each row drawn from it, or the largest
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

/// y[i] = the logits, with the penalty where an id was seen, divided by the temperature. seen(j) for j < count is an id, or -1.
template <typename T, typename F>
__device__ void penalise(const T* logits, float* y, int V, float penalty, float temperature, int64_t count, F&& seen) {
    for (int i = threadIdx.x; i < V; i += kThreads) y[i] = to_float(logits[i]) / temperature;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < count; j += kThreads) {
        int id = seen(j);
        if (id < 0 || id >= V) continue;
        float x = to_float(logits[id]);  // not y[id]: the same id may come twice
        atomicExch(&y[id], (x > 0.f ? x / penalty : x * penalty) / temperature);
    }
    __syncthreads();
}

/// y becomes -inf where topK and topP leave an id out. Returns the largest. All threads must call.
__device__ float filter(float* y, int V, int top_k, float top_p) {
    if (top_k > 0 && top_k < V) {
        uint64_t above;
        uint32_t least = threshold(y, V, uint64_t(top_k), above, [](int) { return 1; });
        for (int i = threadIdx.x; i < V; i += kThreads)
            if (order_key(y[i]) < least) y[i] = -INFINITY;
        __syncthreads();
    }

    float top = -INFINITY;
    for (int i = threadIdx.x; i < V; i += kThreads) top = Max{}(top, y[i]);
    top = group_reduce<kThreads>(top, Max{});

    if (top_p < 1.f && top == top) {
        uint64_t total = 0, above;
        for (int i = threadIdx.x; i < V; i += kThreads) total += probability(y[i], top);
        total = group_reduce<kThreads>(total, Add{});
        uint64_t need = uint64_t(double(total) * double(top_p));
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

    return top;
}

template <typename T>
__global__ __launch_bounds__(kThreads) void sample_distribution_kernel(const T* logits, const int32_t* seen, float* y, int V,
                                                                       Rows seen_count, SampleDistribution op) {
    follow_previous();
    penalise(logits, y, V, op.repetition_penalty, op.temperature, seen != nullptr ? seen_count.count() : 0,
             [&](int64_t j) { return seen[j]; });
    float top = filter(y, V, op.top_k, op.top_p), sum = 0.f;
    for (int i = threadIdx.x; i < V; i += kThreads) sum += expf(y[i] - top);
    sum = group_reduce<kThreads>(sum, Add{});
    for (int i = threadIdx.x; i < V; i += kThreads) y[i] = expf(y[i] - top) / sum;
}

/// The first word of Philox4x32-10 for counter (draw, 0, 0, 0), as a number in [0, 1).
__device__ double uniform(uint32_t low, uint32_t high, uint32_t draw) {
    uint32_t c0 = draw, c1 = 0, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; ++round) {
        uint32_t a = __umulhi(0xD2511F53u, c0), b = __umulhi(0xCD9E8D57u, c2);
        uint32_t n1 = 0xCD9E8D57u * c2, n3 = 0xD2511F53u * c0;
        c0 = b ^ c1 ^ low;
        c2 = a ^ c3 ^ high;
        c1 = n1;
        c3 = n3;
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    return double(c0) / 4294967296.0;
}

template <typename T>
__global__ __launch_bounds__(kThreads) void sample_kernel(const T* logits, const float* numbers, const int32_t* integers,
                                                          const int32_t* seen, int32_t* ids, float* scratch, int V, Rows rows,
                                                          Rows seen_count) {
    follow_previous();
    __shared__ double sums[kThreads];
    const int row = blockIdx.x;
    if (row >= rows.count()) return;
    numbers += row * 3;
    integers += row * 4;
    float* y = scratch + int64_t(row) * V;
    const bool greedy = !(numbers[0] > 0.f);
    penalise(logits + int64_t(row) * V, y, V, numbers[2], greedy ? 1.f : numbers[0], seen != nullptr ? seen_count.count() : 0,
             [&](int64_t j) { return seen[2 * j] == row ? seen[2 * j + 1] : -1; });
    if (greedy) {
        uint64_t best = 0;
        for (int i = threadIdx.x; i < V; i += kThreads) best = Max{}(best, order_key(y[i], i));
        best = group_reduce<kThreads>(best, Max{});
        if (threadIdx.x == 0) ids[row] = int32_t(index_of(best));
        return;
    }
    const float top = filter(y, V, integers[0], numbers[1]);
    // A thread adds neighbouring ids, in their order; then the threads' sums are added in theirs.
    const int each = (V + kThreads - 1) / kThreads, first = min(V, int(threadIdx.x) * each), last = min(V, first + each);
    double own = 0.0;
    for (int i = first; i < last; ++i) own += double(expf(y[i] - top));
    sums[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double sum = 0.0;
    for (int t = 0; t < kThreads; ++t) sum += sums[t];
    const double u = sum * uniform(uint32_t(integers[1]), uint32_t(integers[2]), uint32_t(integers[3]));
    double running = 0.0;
    int thread = 0, id = 0;
    while (thread + 1 < kThreads && running + sums[thread] <= u) running += sums[thread++];
    for (int i = min(V, thread * each); i < V; ++i) {
        double p = double(expf(y[i] - top));
        if (p > 0.0) id = i;
        running += p;
        if (running > u) break;
    }
    ids[row] = id;
}

}  // namespace

void sample_distribution(const Launch& launch, const SampleDistribution& op, const TensorView& logits, const TensorView& seen,
                         const TensorView& y, Rows seen_count) {
    int V = int(logits.shape.elements());
    if (V == 0) return;
    by_dtype("sampleDistribution", logits.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "sampleDistribution", sample_distribution_kernel<T>, {1, kThreads}, logits.as<const T>(),
                     seen.as<const int32_t>(), y.as<float>(), V, seen_count, op);
    });
}

size_t sample_workspace(int64_t n, int64_t V) { return size_t(n * V) * sizeof(float); }

void sample(const Launch& launch, const TensorView& logits, const TensorView& numbers, const TensorView& integers,
            const TensorView& seen, const TensorView& ids, void* workspace, Rows rows, Rows seen_count) {
    int V = int(logits.shape.last());
    if (V == 0 || rows.planned == 0) return;
    by_dtype("sample", logits.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "sample", sample_kernel<T>, {unsigned(rows.planned), kThreads}, logits.as<const T>(),
                     numbers.as<const float>(), integers.as<const int32_t>(), seen.as<const int32_t>(), ids.as<int32_t>(),
                     static_cast<float*>(workspace), V, rows, seen_count);
    });
}

}  // namespace warpsight::cuda
