// out[q, h] = softmax over the keys j that q sees of (scale · q_h·k_j) · v_j;  a query that sees no key gives zeros
// shapes    rows of q, k, v, out as ops.h describes them, float32, float16 or bfloat16; scores, softmax and sums are float32
// launch    a block of 4 warps per 32 queries of a segment and head; grid (segments × query tiles, heads). Shared memory: 32
//           queries, 32 keys or values, 32 × 32 probabilities: 21, 37 or 70 KB for heads up to 64, 128 or 256. Wider heads:
//           attention_wide, a warp per query and head
// roofline  4·Tq·Tk·Dh flops on the plain multiply-add units; a warp reads 12 words' worth of shared memory cycles per 32
//           multiply-adds in q·kᵀ, so that part is bound by shared memory, at about two thirds of the arithmetic's rate
// source    running maximum and sum after Milakov and Gimelshein 2018. Keys come in logical order (prefix, own) in tiles of 32
//           counted from the first, and a tile without a visible key changes nothing: a query's bits depend neither on its place
//           in a tile nor on where the rows lie
//
//   lane = key of the tile: scores of 8 queries ─▶ maxima, exp, sums by shuffles ─▶ p[key][query]
//   ─▶ lane = 4 queries × 4·n columns of out
#include <algorithm>
#include <cmath>

#include "attention.h"
#include "primitives/pack.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int BQ = 32, BK = 32, kWarps = 4, kRowsPerWarp = BQ / kWarps;

/// 32 rows of one head into shared memory as float32, `Stride` floats apart; zeros behind the head's width and where row(r) is
/// negative.
template <int DH, int Stride, typename T, typename F>
__device__ __forceinline__ void load_tile(const T* from, int width, const AttentionArguments& a, float* shared, F&& row) {
    constexpr int V = kPack<T>, kPerRow = DH / V;
#pragma unroll 4
    for (int i = threadIdx.x; i < 32 * kPerRow; i += kWarps * 32) {
        int r = i / kPerRow, d = i % kPerRow * V;
        int64_t at = row(r);
        Pack<V> p = zeros<V>();
        if (at >= 0 && d < a.head_dim) {
            const T* source = from + at * width + d;
            if (a.vector) p = load<V>(source);
            else
#pragma unroll
                for (int j = 0; j < V; ++j)
                    if (d + j < a.head_dim) p.v[j] = to_float(source[j]);
        }
        store(shared + r * Stride + d, p);
    }
}

template <typename T, int DH>
__global__ __launch_bounds__(kWarps * 32, DH > 64 ? 2 : 3) void attention_kernel(AttentionArguments a) {
    follow_previous();
    constexpr int kQ = DH, kK = DH + 4, kColumns = DH / 64;  // floats from row to row; groups of 64 columns of out
    extern __shared__ __align__(16) float shared[];
    float *sq = shared, *skv = sq + BQ * kQ, *sp = skv + BK * kK;  // [query][d], [key][d], per warp [key][query]

    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), first = int(blockIdx.x) % a.query_tiles * BQ;
    const Segment s(a, int(blockIdx.x) / a.query_tiles);
    if (!s.present || first >= s.q_count) return;
    if (!s.good || !s.pages_inside(a, 0, s.visible(s.q_count - 1, a.causal))) return refuse<T>(a, s, first, BQ, head);
    const int queries = min(BQ, s.q_count - first), keys = s.visible(first + queries - 1, a.causal);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = warp * kRowsPerWarp;
    const T* q = static_cast<const T*>(a.q) + a.q_offset + int64_t(head) * a.head_dim;
    const T* k = static_cast<const T*>(a.k) + a.k_offset + int64_t(kv_head) * a.head_dim;
    const T* v = static_cast<const T*>(a.v) + a.v_offset + int64_t(kv_head) * a.head_dim;
    sp += warp * BK * kRowsPerWarp;

    load_tile<DH, kQ>(q, a.q_width, a, sq, [&](int r) { return r < queries ? int64_t(s.q_start) + first + r : -1; });

    float top[kRowsPerWarp], total[kRowsPerWarp];  // running maximum and sum of each of the warp's queries, the same in all lanes
    float acc[4][4 * kColumns] = {};               // out of 4 queries × columns 4·(lane % 16) + 64·c
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) top[r] = -INFINITY, total[r] = 0.f;
    const int half = lane / 16, column = lane % 16 * 4;

    for (int key0 = 0; key0 < keys; key0 += BK) {
        auto key_row = [&](int r) { return key0 + r < keys ? s.key_row(key0 + r) : -1; };
        __syncthreads();
        load_tile<DH, kK>(k, a.k_width, a, skv, key_row);
        __syncthreads();

        float p[kRowsPerWarp] = {};
        for (int d = 0; d < a.head_dim; d += 4) {
            float4 kd = *reinterpret_cast<const float4*>(skv + lane * kK + d);
#pragma unroll
            for (int r = 0; r < kRowsPerWarp; ++r) {
                float4 qd = *reinterpret_cast<const float4*>(sq + (row0 + r) * kQ + d);
                p[r] = fmaf(qd.x, kd.x, fmaf(qd.y, kd.y, fmaf(qd.z, kd.z, fmaf(qd.w, kd.w, p[r]))));
            }
        }
        bool shown = key0 + lane < keys && (a.mask == nullptr || a.mask[s.key_row(key0 + lane)] != 0);
        float shrink[kRowsPerWarp];
#pragma unroll
        for (int r = 0; r < kRowsPerWarp; ++r) {
            bool seen = shown && key0 + lane < s.visible(first + row0 + r, a.causal);
            float score = seen ? p[r] * a.scale : -INFINITY;
            float now = fmaxf(top[r], warp_reduce(score, [](float x, float y) { return fmaxf(x, y); }));
            float base = now == -INFINITY ? 0.f : now;  // nothing seen yet
            p[r] = seen ? expf(score - base) : 0.f;
            shrink[r] = expf(top[r] - base);
            total[r] = total[r] * shrink[r] + warp_sum(p[r]);
            top[r] = now;
        }
        store(sp + lane * kRowsPerWarp, Pack<4>{p[0], p[1], p[2], p[3]});
        store(sp + lane * kRowsPerWarp + 4, Pack<4>{p[4], p[5], p[6], p[7]});

        __syncthreads();
        load_tile<DH, kK>(v, a.v_width, a, skv, key_row);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float f = half ? shrink[4 + i] : shrink[i];
#pragma unroll
            for (int c = 0; c < 4 * kColumns; ++c) acc[i][c] *= f;
        }
        const int count = min(BK, keys - key0);
        for (int j = 0; j < count; ++j) {
            Pack<4> pj = load<4>(sp + j * kRowsPerWarp + half * 4);
#pragma unroll
            for (int c = 0; c < kColumns; ++c) {
                Pack<4> vj = load<4>(skv + j * kK + c * 64 + column);
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (pj.v[i] != 0.f)  // a key that is not seen has no part, even if its value is NaN
#pragma unroll
                        for (int e = 0; e < 4; ++e) acc[i][c * 4 + e] = fmaf(pj.v[i], vj.v[e], acc[i][c * 4 + e]);
            }
        }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int r = row0 + half * 4 + i;
        if (r >= queries) continue;
        float sum = half ? total[4 + i] : total[i], f = sum == 0.f ? 0.f : 1.f / sum;
        T* out = static_cast<T*>(a.out) + ((int64_t(s.q_start) + first + r) * a.heads + head) * a.head_dim;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            int d = c * 64 + column;
            if (a.vector && d < a.head_dim)
                store(out + d, Pack<4>{acc[i][c * 4] * f, acc[i][c * 4 + 1] * f, acc[i][c * 4 + 2] * f, acc[i][c * 4 + 3] * f});
            else
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (d + e < a.head_dim) out[d + e] = from_float<T>(acc[i][c * 4 + e] * f);
        }
    }
}

/// Any head width: one warp per query and head.
template <typename T>
__global__ __launch_bounds__(32) void attention_wide_kernel(AttentionArguments a) {
    follow_previous();
    extern __shared__ __align__(16) float acc[];  // [d]
    const int head = blockIdx.y, query = int(blockIdx.x) % a.max_queries;
    const Segment s(a, int(blockIdx.x) / a.max_queries);
    if (!s.present || query >= s.q_count) return;
    if (!s.good || !s.pages_inside(a, 0, s.visible(s.q_count - 1, a.causal))) return refuse<T>(a, s, query, 1, head);
    attend_one<T>(a, s, query, head, acc);
}

template <typename T, int DH>
void launch_tiles(const Launch& launch, const char* op, const AttentionArguments& a) {
    size_t bytes = sizeof(float) * (BQ * DH + BK * (DH + 4) + BQ * BK);
    start_kernel(launch, op, attention_kernel<T, DH>,
                 {dim3(unsigned(a.count * a.query_tiles), unsigned(a.heads)), kWarps * 32, bytes}, a);
}

void attention_simt(const Launch& launch, const char* op, AttentionArguments a, DType dtype) {
    a.query_tiles = int(ceil_div(a.max_queries, BQ));
    by_dtype(op, dtype, [&](auto zero) {
        using T = decltype(zero);
        a.vector = aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.out) && whole_packs(a, kPack<T>);
        if (a.head_dim <= 64) launch_tiles<T, 64>(launch, op, a);
        else if (a.head_dim <= 128) launch_tiles<T, 128>(launch, op, a);
        else launch_tiles<T, 256>(launch, op, a);
    });
}

void attention_wide(const Launch& launch, const char* op, const AttentionArguments& a, DType dtype) {
    by_dtype(op, dtype, [&](auto zero) {
        start_kernel(launch, op, attention_wide_kernel<decltype(zero)>,
                     {dim3(unsigned(a.count * a.max_queries), unsigned(a.heads)), 32, sizeof(float) * a.head_dim}, a);
    });
}

/// The choice, by what was planned.
enum class Kernel { simt, wide, mma, split };

Kernel kernel_of(const AttentionArguments& a, DType dtype) {
    if (a.head_dim > 256) return Kernel::wide;
    if (dtype == DType::float32 || !whole_packs(a, 8))
        return Kernel::simt;  // cp.async copies 8 elements; tensors start on 256 bytes
    const bool split = a.max_queries == 1 && (a.paged || a.max_keys > 128);  // so many that one warp would take long
    return split ? Kernel::split : Kernel::mma;
}

AttentionPlan plan_of(const AttentionArguments& a, DType dtype) {
    switch (kernel_of(a, dtype)) {
        case Kernel::simt: return {a.paged ? "paged_attention_simt" : "attention_simt", 0};
        case Kernel::wide: return {a.paged ? "paged_attention_wide" : "attention_wide", 0};
        case Kernel::mma: return {a.paged ? "paged_attention_mma" : "attention_mma", 0};
        case Kernel::split: return {a.paged ? "paged_attention_split" : "attention_split", attention_split_workspace(a)};
    }
    return {};
}

void start(const Launch& launch, const char* op, const AttentionArguments& a, DType dtype) {
    if (a.count == 0 || a.max_queries == 0) return;
    switch (kernel_of(a, dtype)) {
        case Kernel::simt: return attention_simt(launch, op, a, dtype);
        case Kernel::wide: return attention_wide(launch, op, a, dtype);
        case Kernel::mma: return attention_mma(launch, op, a, dtype);
        case Kernel::split: return attention_split(launch, op, a, dtype);
    }
}

AttentionArguments arguments(const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v, int64_t count) {
    AttentionArguments a{.q = q.data, .k = k.data, .v = v.data};
    a.count = count;
    a.q_width = int(q.shape.last());
    a.k_width = int(k.shape.last());
    a.v_width = int(v.shape.last());
    a.q_offset = op.q_offset;
    a.k_offset = op.k_offset;
    a.v_offset = op.v_offset;
    a.heads = op.heads;
    a.kv_heads = op.kv_heads;
    a.head_dim = op.head_dim;
    a.max_queries = op.max_queries;
    a.max_keys = op.max_keys;
    a.causal = op.causal;
    a.scale = op.scale;
    return a;
}

AttentionArguments arguments(const PagedAttention& op, const TensorView& q, const TensorView& cache, const TensorView& pages) {
    const int64_t table_pages = pages.shape.last();
    Attention same{.heads = op.heads, .kv_heads = op.kv_heads, .head_dim = op.head_dim};
    same.q_offset = op.q_offset;
    same.k_offset = op.k_offset;
    same.v_offset = op.v_offset;
    same.max_queries = op.max_queries;
    same.max_keys = int(std::min<int64_t>(table_pages * op.page, INT32_MAX));
    same.causal = true;
    same.scale = op.scale;
    AttentionArguments a = arguments(same, q, cache, cache, pages.shape[0]);
    a.paged = true;
    a.page = op.page;
    a.table_pages = int(table_pages);
    return a;
}

}  // namespace

AttentionPlan plan_attention(const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v, int64_t count) {
    return plan_of(arguments(op, q, k, v, count), q.dtype);
}

AttentionPlan plan_paged_attention(const PagedAttention& op, const TensorView& q, const TensorView& cache,
                                   const TensorView& pages) {
    return plan_of(arguments(op, q, cache, pages), q.dtype);
}

void attention(const Launch& launch, const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v,
               const TensorView& segments, const TensorView& mask, const TensorView& y, void* workspace, Rows q_rows, Rows k_rows,
               Rows segment_rows) {
    int64_t count = segments.data != nullptr ? segment_rows.planned : op.max_queries == 0 ? 0 : q_rows.planned / op.max_queries;
    AttentionArguments a = arguments(op, q, k, v, count);
    a.out = y.data;
    a.segments = segments.as<const int32_t>();
    a.mask = mask.as<const int32_t>();
    a.workspace = static_cast<float*>(workspace);
    a.q_rows = q_rows;
    a.k_rows = k_rows;
    a.segment_rows = segment_rows;
    start(launch, "attention", a, q.dtype);
}

void paged_attention(const Launch& launch, const PagedAttention& op, const TensorView& q, const TensorView& cache,
                     const TensorView& pages, const TensorView& sequences, const TensorView& y, void* workspace, Rows q_rows,
                     Rows sequence_rows) {
    AttentionArguments a = arguments(op, q, cache, pages);
    a.out = y.data;
    a.segments = sequences.as<const int32_t>();
    a.pages = pages.as<const int32_t>();
    a.workspace = static_cast<float*>(workspace);
    a.q_rows = q_rows;
    a.k_rows = {nullptr, -1, 1, cache.shape.rows()};
    a.segment_rows = sequence_rows;
    start(launch, "pagedAttention", a, q.dtype);
}

}  // namespace warpsight::cuda
