// out[h] = softmax over all keys j of (scale · q_h·k_j) · v_j for one query per segment, in two passes; float16 or bfloat16
// shapes    as attention_mma. Pass one leaves for each segment, head and part of the keys: acc [Dh] = Σ 2^(score − top)·v,
//           top, and total = Σ 2^(score − top), in float32, scores times log2(e)
// launch    keys: a block of 4 warps (2 for heads over 128) per part and per 16 query heads that share a key head: they are the
//           rows of one mma. A warp takes every fourth tile of 16 keys through its own two stages, then the warps' sums are
//           joined. Parts have 64 keys, more where they would be over 32; those past the end of the keys leave at once
//           join: a warp per segment and head
// roofline  4·Dh bytes of k and v per key and key head, each read once: bound by memory. 16 keys are 4·Dh/16 mma, of which one in
//           16 rows counts where every head has keys of its own; that is still under the time of the bytes
// source    the split over keys after Dao et al. 2023 (Flash-Decoding). The parts follow from a segment's keys and the planned
//           most of them alone: a query's bits depend neither on the batch nor on the device
#include <algorithm>

#include "attention.h"
#include "attention_load.h"
#include "primitives/pack.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int kPartKeys = 64, kMaxParts = 32, kTile = 16, kStages = 2;

template <int DH>
constexpr int kWarps = DH <= 128 ? 4 : 2;

/// Keys of a part of a segment that has `keys`.
__device__ __forceinline__ int part_keys(int keys, int splits) {
    return kPartKeys * ((keys + kPartKeys * splits - 1) / (kPartKeys * splits));
}

/// Where pass one leaves a part: acc of all parts, then top and total of all.
__device__ __forceinline__ float* acc_of(const AttentionArguments& a, int64_t part) { return a.workspace + part * a.head_dim; }
__device__ __forceinline__ float2* sums_of(const AttentionArguments& a, int64_t part) {
    return reinterpret_cast<float2*>(a.workspace + a.count * a.heads * a.splits * a.head_dim) + part;
}

template <typename T, int DH>
__global__ __launch_bounds__(kWarps<DH> * 32, 2) void attention_split_kernel(AttentionArguments a) {
    follow_previous();
    constexpr int W = kWarps<DH>, kPitch = kAttentionPitch<DH>, kStage = 2 * kTile * kPitch, kOut = DH + 8;
    static_assert(W * 16 * kOut * sizeof(float) <= W * kStages * kStage * sizeof(T));
    extern __shared__ __align__(16) unsigned char memory[];
    const int split = int(blockIdx.x) % a.splits, segment = int(blockIdx.x) / a.splits;
    const int group = a.heads / a.kv_heads, row_tiles = (group + 15) / 16, kv_head = int(blockIdx.y) / row_tiles,
              head0 = kv_head * group + int(blockIdx.y) % row_tiles * 16, heads = min(16, (kv_head + 1) * group - head0);
    const Segment s(a, segment);
    if (!s.present || s.q_count == 0 || !s.good) return;  // the second pass says so
    const int keys = s.visible(0, a.causal), per_part = part_keys(keys, a.splits), key0 = split * per_part,
              end = min(keys, key0 + per_part);
    if (key0 >= end) return;
    const bool inside = s.pages_inside(a, key0, end);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const T* k = static_cast<const T*>(a.k) + a.k_offset + int64_t(kv_head) * a.head_dim;
    const T* v = static_cast<const T*>(a.v) + a.v_offset + int64_t(kv_head) * a.head_dim;
    T* sq = reinterpret_cast<T*>(memory);                             // [head][d]
    T* ring = sq + 16 * kPitch + warp * kStages * kStage;             // [stage][k, v][key][d]
    const int tiles = inside ? (end - key0 + kTile - 1) / kTile : 0;  // every W-th is this warp's
    auto load_tile = [&](int tile) {
        const uint32_t to = shared_address(ring + tile / W % kStages * kStage);
        if (tile < tiles)
            load_keys<T, DH>(a, s, k, v, key0 + tile * kTile, end, kTile, to, to + uint32_t(kTile * kPitch * sizeof(T)), lane,
                             32);
        cp_async_commit();
    };
    load_queries<T, DH>(static_cast<const T*>(a.q) + int64_t(s.q_start) * a.q_width + a.q_offset + int64_t(head0) * a.head_dim,
                        a.head_dim, a.head_dim, 16, shared_address(sq), [&](int r) { return r < heads ? r : -1; });
    for (int stage = 0; stage < kStages; ++stage) load_tile(warp + stage * W);
    cp_async_wait<kStages - 1>();
    __syncthreads();

    WarpQueries<T, DH, 1> rows;
    rows.reset();
    rows.load(shared_address(sq));
    for (int tile = warp; tile < tiles; tile += W) {
        cp_async_wait<kStages - 1>();
        __syncwarp();
        const int at = key0 + tile * kTile, count = min(kTile, end - at);
        const uint64_t shown = shown_keys(a, s, at, count) & first_keys(count);
        const uint32_t at_k = shared_address(ring + tile / W % kStages * kStage);
        rows.template attend<kTile>(at_k, at_k + uint32_t(kTile * kPitch * sizeof(T)), a.scale * 1.4426950408889634f,
                                    a.mask == nullptr && count == kTile, [&](int, int) { return shown; });
        __syncwarp();
        load_tile(tile + kStages * W);
    }
    cp_async_wait<0>();
    rows.finish();
    __syncthreads();

    __shared__ float2 sums[W][16];                            // top and total of each warp's rows
    float* out = reinterpret_cast<float*>(sq + 16 * kPitch);  // [warp][head][d], over the rings
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = h * 8 + lane / 4;
        if (row >= heads) continue;
        if (lane % 4 == 0) sums[warp][row] = {rows.top[0][h], rows.total[0][h]};
#pragma unroll
        for (int n = 0; n < DH / 8; ++n)
            *reinterpret_cast<float2*>(out + (warp * 16 + row) * kOut + n * 8 + lane % 4 * 2) = {rows.acc[0][n][h * 2],
                                                                                                 rows.acc[0][n][h * 2 + 1]};
    }
    __syncthreads();
    for (int row = warp; row < heads; row += W) {
        const int64_t part = (int64_t(segment) * a.heads + head0 + row) * a.splits + split;
        float top = -INFINITY, total = 0.f, weights[W];
#pragma unroll
        for (int w = 0; w < W; ++w) top = fmaxf(top, sums[w][row].x);
        const float base = top == -INFINITY ? 0.f : top;
#pragma unroll
        for (int w = 0; w < W; ++w) {
            weights[w] = exp2_approx(sums[w][row].x - base);
            total += weights[w] * sums[w][row].y;
        }
        if (lane == 0) *sums_of(a, part) = {top, inside ? total : nan_value()};
        for (int d = lane * 4; d < a.head_dim; d += 128) {
            Pack<4> sum = zeros<4>();
#pragma unroll
            for (int w = 0; w < W; ++w) {
                Pack<4> p = load<4>(out + (w * 16 + row) * kOut + d);
#pragma unroll
                for (int i = 0; i < 4; ++i) sum.v[i] = fmaf(weights[w], p.v[i], sum.v[i]);
            }
            store(acc_of(a, part) + d, sum);
        }
    }
}

template <typename T>
__global__ __launch_bounds__(32) void attention_join_kernel(AttentionArguments a) {
    follow_previous();
    const int segment = int(blockIdx.x) / a.heads, head = int(blockIdx.x) % a.heads, lane = threadIdx.x;
    const Segment s(a, segment);
    if (!s.present || s.q_count == 0) return;
    if (!s.good) return refuse<T>(a, s, 0, 1, head);
    const int keys = s.visible(0, a.causal), per_part = part_keys(keys, a.splits);
    const int parts = keys == 0 ? 0 : (keys + per_part - 1) / per_part;  // at most one per lane
    const int64_t first = int64_t(blockIdx.x) * a.splits;
    const float2 mine = lane < parts ? *sums_of(a, first + lane) : float2{-INFINITY, 0.f};
    const float top = warp_reduce(mine.x, [](float x, float y) { return fmaxf(x, y); });
    const float weight = exp2_approx(mine.x - (top == -INFINITY ? 0.f : top)), total = warp_sum(weight * mine.y);
    const float f = total == 0.f ? 0.f : 1.f / total;
    T* out = static_cast<T*>(a.out) + (int64_t(s.q_start) * a.heads + head) * a.head_dim;
    for (int d0 = 0; d0 < a.head_dim; d0 += 128) {
        const int d = d0 + lane * 4;
        Pack<4> sum = zeros<4>();
#pragma unroll 4
        for (int part = 0; part < parts; ++part) {
            const float w = __shfl_sync(0xffffffffu, weight, part) * f;
            if (d >= a.head_dim) continue;
            Pack<4> p = load<4>(acc_of(a, first + part) + d);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum.v[i] = fmaf(w, p.v[i], sum.v[i]);
        }
        if (d < a.head_dim) store(out + d, sum);
    }
}

int splits_of(const AttentionArguments& a) { return int(std::clamp<int64_t>(ceil_div(a.max_keys, kPartKeys), 1, kMaxParts)); }

template <typename T, int DH>
void launch_width(const Launch& launch, const char* op, const AttentionArguments& a) {
    constexpr int W = kWarps<DH>;
    const unsigned row_tiles = unsigned(ceil_div(a.heads / a.kv_heads, 16));
    const size_t bytes = size_t(16 + W * kStages * 2 * kTile) * kAttentionPitch<DH> * sizeof(T);
    start_kernel(launch, op, attention_split_kernel<T, DH>,
                 {dim3(unsigned(a.count * a.splits), unsigned(a.kv_heads) * row_tiles), W * 32, bytes}, a);
    start_kernel(launch, op, attention_join_kernel<T>, {unsigned(a.count * a.heads), 32}, a);
}

template <typename T>
void launch_type(const Launch& launch, const char* op, const AttentionArguments& a) {
    if (a.head_dim <= 64) launch_width<T, 64>(launch, op, a);
    else if (a.head_dim <= 96) launch_width<T, 96>(launch, op, a);
    else if (a.head_dim <= 128) launch_width<T, 128>(launch, op, a);
    else launch_width<T, 256>(launch, op, a);
}

}  // namespace

size_t attention_split_workspace(const AttentionArguments& a) {
    return size_t(a.count * a.heads * splits_of(a)) * (a.head_dim + 2) * sizeof(float);
}

void attention_split(const Launch& launch, const char* op, AttentionArguments a, DType dtype) {
    a.splits = splits_of(a);
    if (dtype == DType::float16) launch_type<half>(launch, op, a);
    else launch_type<bf16>(launch, op, a);
}

}  // namespace warpsight::cuda
