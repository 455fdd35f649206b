// top_k         the k largest of each row, falling; equal values: the smaller index first; NaN first
// top_k_scores  the same order, with exp(x − max) / Σ exp(x − max) or 1 / (1 + exp(−x)) in place of the values
// shapes    x [R, D] row-major, float32, float16 or bfloat16; values [R, k] of x's dtype, scores float32 [R, k]; indices int32
//           [R, k]
// launch    a block of 512 threads per row
// roofline  memory-bound: up to k = 32 or D = 4096 the row is read once (top_k_scores three times, for maximum and
//           sum), else k times, from L2
// source    primitives/top_list.h, each warp its part of the row; beyond 32, value and index are one 64-bit key
//           (primitives/order.h): rows of up to 4096 are sorted in shared memory (Batcher 1968), in longer ones each round finds
//           the largest below the one before
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/number.h"
#include "primitives/order.h"
#include "primitives/reduce.h"
#include "primitives/top_list.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;

/// Calls emit(rank, index) in one thread each for the k <= kMostBest largest of a row; all threads of the block must call.
template <typename T, typename F>
__device__ __forceinline__ void select_at_once(const T* x, int D, int k, F&& emit) {
    constexpr int V = 8;
    __shared__ uint32_t keys[kThreads], indices[kThreads];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = (D + kWarps - 1) / kWarps;
    const int end = min(D, (warp + 1) * part);
    TopList list;
    for (int d0 = warp * part; d0 < end; d0 += 32 * V) {
        uint32_t mine[V];
#pragma unroll
        for (int v = 0; v < V; ++v) {
            int d = d0 + lane * V + v;
            mine[v] = d < end ? order_key(to_float(x[d])) : 0;
        }
        list.offer(mine, uint32_t(d0), k);
    }
    keys[threadIdx.x] = lane < k ? list.key : 0;
    indices[threadIdx.x] = list.index;
    __syncthreads();
    if (warp > 0) return;
    TopList all;  // its indices are places in `indices`
    for (int at = 0; at < kThreads; at += 32) {
        uint32_t mine[1] = {keys[at + lane]};
        all.offer(mine, uint32_t(at), k);
    }
    if (lane < k) emit(lane, indices[all.index]);
}

constexpr int kMostSorted = 4096;

/// The same for any k of a row of D <= kMostSorted.
template <typename T, typename F>
__device__ __forceinline__ void select_sorted(const T* x, int D, int k, F&& emit) {
    __shared__ uint64_t keys[kMostSorted];
    int size = 2;
    while (size < D) size *= 2;
    for (int d = threadIdx.x; d < size; d += kThreads) keys[d] = d < D ? order_key(to_float(x[d]), d) : 0;
    for (int run = 2; run <= size; run *= 2)  // Batcher's bitonic sort: runs that fall and rise in turn, twice as long each time
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int p = threadIdx.x; p < size / 2; p += kThreads) {
                int i = p / step * 2 * step + p % step;
                uint64_t a = keys[i], b = keys[i + step];
                if ((i & run) == 0 ? a < b : a > b) keys[i] = b, keys[i + step] = a;
            }
        }
    __syncthreads();
    for (int rank = threadIdx.x; rank < k; rank += kThreads) emit(rank, index_of(keys[rank]));
}

/// The same for any k and D, in one thread.
template <typename T, typename F>
__device__ __forceinline__ void select_in_rounds(const T* x, int D, int k, F&& emit) {
    uint64_t last = ~uint64_t(0);
    for (int rank = 0; rank < k; ++rank) {
        uint64_t best = 0;
        for (int d = threadIdx.x; d < D; d += kThreads) {
            uint64_t key = order_key(to_float(x[d]), d);
            if (key < last && key > best) best = key;
        }
        last = group_reduce<kThreads>(best, Max{});
        if (threadIdx.x == 0) emit(rank, index_of(last));
    }
}

template <typename T, typename F>
__device__ __forceinline__ void select(const T* x, int D, int k, F&& emit) {
    if (k <= kMostBest) select_at_once(x, D, k, emit);
    else if (D <= kMostSorted) select_sorted(x, D, k, emit);
    else select_in_rounds(x, D, k, emit);
}

template <typename T>
__global__ __launch_bounds__(kThreads) void top_k_kernel(const T* x, T* values, int32_t* indices, Rows rows, int D, int k) {
    follow_previous();
    int64_t row = blockIdx.x;
    if (row >= rows.count()) return;
    x += row * D;
    select(x, D, k, [&](int rank, uint32_t index) {
        values[row * k + rank] = x[index];
        indices[row * k + rank] = int32_t(index);
    });
}

__global__ __launch_bounds__(kThreads) void top_k_scores_kernel(const float* x, float* scores, int32_t* indices, Rows rows, int D,
                                                                int k, bool use_sigmoid) {
    follow_previous();
    int64_t row = blockIdx.x;
    if (row >= rows.count()) return;
    x += row * D;
    float top = -INFINITY, sum = 0.f;
    if (!use_sigmoid) {
        for (int d = threadIdx.x; d < D; d += kThreads) top = Max{}(top, x[d]);
        top = group_reduce<kThreads>(top, Max{});
        for (int d = threadIdx.x; d < D; d += kThreads) sum += expf(x[d] - top);
        sum = group_reduce<kThreads>(sum, Add{});
    }
    select(x, D, k, [&](int rank, uint32_t index) {
        scores[row * k + rank] = use_sigmoid ? sigmoid(x[index]) : expf(x[index] - top) / sum;
        indices[row * k + rank] = int32_t(index);
    });
}

}  // namespace

void top_k(const Launch& launch, const TensorView& x, const TensorView& values, const TensorView& indices, Rows rows) {
    int D = int(x.shape.last()), k = int(indices.shape.last());
    if (rows.planned == 0 || k == 0) return;
    by_dtype("topK", x.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "topK", top_k_kernel<T>, {unsigned(rows.planned), kThreads}, x.as<const T>(), values.as<T>(),
                     indices.as<int32_t>(), rows, D, k);
    });
}

void top_k_scores(const Launch& launch, bool sigmoid, const TensorView& logits, const TensorView& scores,
                  const TensorView& indices, Rows rows) {
    int D = int(logits.shape.last()), k = int(indices.shape.last());
    if (rows.planned == 0 || k == 0) return;
    start_kernel(launch, "zeroShotHead", top_k_scores_kernel, {unsigned(rows.planned), kThreads}, logits.as<const float>(),
                 scores.as<float>(), indices.as<int32_t>(), rows, D, k, sigmoid);
}

}  // namespace warpsight::cuda
