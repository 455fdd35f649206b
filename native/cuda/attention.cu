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
#include <cmath>

#include "device.h"
#include "launch.h"
#include "primitives/pack.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {
namespace {

constexpr int BQ = 32, BK = 32, kWarps = 4, kRowsPerWarp = BQ / kWarps;

struct AttentionArguments {
    const void *q, *k, *v;
    void* out;
    const int32_t *segments, *mask;
    const int32_t* pages = nullptr;  // given: segments are [S, 3] (qStart, qCount, kCount) over a paged cache
    int page = 1, table_pages = 0;
    Rows q_rows, k_rows, segment_rows;
    int q_width, k_width, v_width;  // elements from row to row
    int q_offset, k_offset, v_offset;
    int heads, kv_heads, head_dim, max_queries, max_keys, query_tiles;
    bool causal, vector;
    float scale;
};

/// Rows of a segment; `good` is false where they leave q's or k's rows.
struct Segment {
    int64_t q_start, k_start, prefix_start;
    int q_count, k_count, prefix_count, page;
    bool present, good;
    const int32_t* pages = nullptr;

    __device__ __forceinline__ Segment(const AttentionArguments& a, int index) {
        int64_t rows_q = a.q_rows.count(), rows_k = a.k_rows.count();
        if (a.segments == nullptr) {
            q_start = int64_t(index) * a.max_queries;
            k_start = int64_t(index) * a.max_keys;
            prefix_start = 0;
            q_count = a.max_queries;
            k_count = a.max_keys;
            prefix_count = 0;
            present = q_start < rows_q;
        } else if (a.pages != nullptr) {
            const int32_t* s = a.segments + int64_t(index) * 3;
            present = index < a.segment_rows.count();
            q_start = present ? s[0] : 0;
            q_count = present ? s[1] : 0;
            k_count = present ? s[2] : 0;
            k_start = prefix_start = 0;
            prefix_count = 0;
            pages = a.pages + int64_t(index) * a.table_pages;
            page = a.page;
            int64_t used = (int64_t(k_count) + page - 1) / page;
            good = in_rows(q_start, q_count, rows_q) && k_count >= q_count && used <= a.table_pages;
            for (int64_t p = 0; good && p < used; ++p) good = pages[p] >= 0 && (int64_t(pages[p]) + 1) * page <= rows_k;
            return;
        } else {
            const int32_t* s = a.segments + int64_t(index) * 6;
            present = index < a.segment_rows.count();
            q_start = present ? s[0] : 0;
            q_count = present ? s[1] : 0;
            k_start = present ? s[2] : 0;
            k_count = present ? s[3] : 0;
            prefix_start = present ? s[4] : 0;
            prefix_count = present ? s[5] : 0;
        }
        good =
            in_rows(q_start, q_count, rows_q) && in_rows(k_start, k_count, rows_k) && in_rows(prefix_start, prefix_count, rows_k);
    }
    __device__ __forceinline__ static bool in_rows(int64_t start, int64_t count, int64_t rows) {
        return count == 0 || (start >= 0 && count > 0 && start + count <= rows);
    }
    /// Row of the key with logical index j.
    __device__ __forceinline__ int64_t key_row(int j) const {
        if (pages != nullptr) return int64_t(pages[j / page]) * page + j % page;
        return j < prefix_count ? prefix_start + j : k_start + j - prefix_count;
    }
    /// How many keys query i sees, masks aside.
    __device__ __forceinline__ int visible(int i, bool causal) const {
        int own = causal ? max(0, min(k_count, i + k_count - q_count + 1)) : k_count;
        return prefix_count + own;
    }
};

/// Queries of a bad segment: NaN in every row that exists.
template <typename T>
__device__ void refuse(const AttentionArguments& a, const Segment& s, int first, int count, int head) {
    int64_t rows = a.q_rows.count();
    for (int i = threadIdx.x; i < count * a.head_dim; i += blockDim.x) {
        int query = first + i / a.head_dim;
        int64_t row = s.q_start + query;
        if (query < s.q_count && row >= 0 && row < rows)
            static_cast<T*>(a.out)[row * a.heads * a.head_dim + head * a.head_dim + i % a.head_dim] = from_float<T>(nan_value());
    }
}

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
__global__ __launch_bounds__(kWarps * 32, DH > 128 ? 2 : 3) void attention_kernel(AttentionArguments a) {
    follow_previous();
    constexpr int kQ = DH, kK = DH + 4, kColumns = DH / 64;  // floats from row to row; groups of 64 columns of out
    extern __shared__ __align__(16) float shared[];
    float *sq = shared, *skv = sq + BQ * kQ, *sp = skv + BK * kK;  // [query][d], [key][d], per warp [key][query]

    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), first = int(blockIdx.x) % a.query_tiles * BQ;
    const Segment s(a, int(blockIdx.x) / a.query_tiles);
    if (!s.present || first >= s.q_count) return;
    if (!s.good) return refuse<T>(a, s, first, BQ, head);
    const int queries = min(BQ, s.q_count - first), keys = s.visible(first + queries - 1, a.causal);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = warp * kRowsPerWarp;
    const T* q = static_cast<const T*>(a.q) + a.q_offset + int64_t(head) * a.head_dim;
    const T* k = static_cast<const T*>(a.k) + a.k_offset + int64_t(kv_head) * a.head_dim;
    const T* v = static_cast<const T*>(a.v) + a.v_offset + int64_t(kv_head) * a.head_dim;
    sp += warp * BK * kRowsPerWarp;

    load_tile<DH, kQ>(q, a.q_width, a, sq, [&](int r) { return r < queries ? s.q_start + first + r : -1; });

    float top[kRowsPerWarp], total[kRowsPerWarp];  // running maximum and sum of each of the warp's queries, the same in all lanes
    float acc[4][4 * kColumns] = {};               // out of 4 queries × columns 4·(lane % 16) + 64·c
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) top[r] = -INFINITY, total[r] = 0.f;
    const int half = lane / 16, column = lane % 16 * 4;

    for (int key0 = 0; key0 < keys; key0 += BK) {
        auto key_row = [&](int r) { return key0 + r < keys ? s.key_row(key0 + r) : int64_t(-1); };
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
        T* out = static_cast<T*>(a.out) + ((s.q_start + first + r) * a.heads + head) * a.head_dim;
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

/// Any head width: one warp per query and head, one key after the other.
template <typename T>
__global__ __launch_bounds__(32) void attention_wide_kernel(AttentionArguments a) {
    follow_previous();
    extern __shared__ __align__(16) float acc[];  // [d]
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), query = int(blockIdx.x) % a.max_queries,
              lane = threadIdx.x;
    const Segment s(a, int(blockIdx.x) / a.max_queries);
    if (!s.present || query >= s.q_count) return;
    if (!s.good) return refuse<T>(a, s, query, 1, head);
    const T* q = static_cast<const T*>(a.q) + (s.q_start + query) * a.q_width + a.q_offset + int64_t(head) * a.head_dim;
    const T* k = static_cast<const T*>(a.k) + a.k_offset + int64_t(kv_head) * a.head_dim;
    const T* v = static_cast<const T*>(a.v) + a.v_offset + int64_t(kv_head) * a.head_dim;

    for (int d = lane; d < a.head_dim; d += 32) acc[d] = 0.f;
    float top = -INFINITY, total = 0.f;
    for (int j = 0, keys = s.visible(query, a.causal); j < keys; ++j) {
        int64_t row = s.key_row(j);
        if (a.mask != nullptr && a.mask[row] == 0) continue;
        float score = 0.f;
        for (int d = lane; d < a.head_dim; d += 32) score = fmaf(to_float(q[d]), to_float(k[row * a.k_width + d]), score);
        score = warp_sum(score) * a.scale;
        float now = fmaxf(top, score), base = now == -INFINITY ? 0.f : now, p = expf(score - base), shrink = expf(top - base);
        total = total * shrink + p;
        top = now;
        for (int d = lane; d < a.head_dim; d += 32) acc[d] = fmaf(p, to_float(v[row * a.v_width + d]), acc[d] * shrink);
    }
    T* out = static_cast<T*>(a.out) + ((s.q_start + query) * a.heads + head) * a.head_dim;
    for (int d = lane; d < a.head_dim; d += 32) out[d] = from_float<T>(total == 0.f ? 0.f : acc[d] / total);
}

template <typename T, int DH>
void launch_tiles(const Launch& launch, const char* op, const AttentionArguments& a, int64_t segments) {
    size_t bytes = sizeof(float) * (BQ * DH + BK * (DH + 4) + BQ * BK);
    start_kernel(launch, op, attention_kernel<T, DH>,
                 {dim3(unsigned(segments * a.query_tiles), unsigned(a.heads)), kWarps * 32, bytes}, a);
}

/// Launches for `count` segments with at most a.max_queries queries each; `a` has everything but query_tiles and vector.
void start(const Launch& launch, const char* op, AttentionArguments a, DType dtype, int64_t count) {
    if (count == 0 || a.max_queries == 0 || a.heads == 0 || a.head_dim == 0) return;
    a.query_tiles = int(ceil_div(a.max_queries, BQ));
    by_dtype(op, dtype, [&](auto zero) {
        using T = decltype(zero);
        a.vector = aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.out);
        for (int n : {a.q_width, a.k_width, a.v_width, a.q_offset, a.k_offset, a.v_offset, a.head_dim})
            a.vector = a.vector && n % kPack<T> == 0;
        if (a.head_dim <= 64) launch_tiles<T, 64>(launch, op, a, count);
        else if (a.head_dim <= 128) launch_tiles<T, 128>(launch, op, a, count);
        else if (a.head_dim <= 256) launch_tiles<T, 256>(launch, op, a, count);
        else
            start_kernel(launch, op, attention_wide_kernel<T>,
                         {dim3(unsigned(count * a.max_queries), unsigned(a.heads)), 32, sizeof(float) * a.head_dim}, a);
    });
}

}  // namespace

void attention(const Launch& launch, const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v,
               const TensorView& segments, const TensorView& mask, const TensorView& y, Rows q_rows, Rows k_rows,
               Rows segment_rows) {
    int64_t count = segments.data != nullptr ? segment_rows.planned : op.max_queries == 0 ? 0 : q_rows.planned / op.max_queries;
    AttentionArguments a{.q = q.data, .k = k.data, .v = v.data, .out = y.data};
    a.segments = segments.as<const int32_t>();
    a.mask = mask.as<const int32_t>();
    a.q_rows = q_rows;
    a.k_rows = k_rows;
    a.segment_rows = segment_rows;
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
    start(launch, "attention", a, q.dtype, count);
}

void paged_attention(const Launch& launch, const PagedAttention& op, const TensorView& q, const TensorView& cache,
                     const TensorView& pages, const TensorView& sequences, const TensorView& y, Rows q_rows, Rows sequence_rows) {
    AttentionArguments a{.q = q.data, .k = cache.data, .v = cache.data, .out = y.data};
    a.segments = sequences.as<const int32_t>();
    a.mask = nullptr;
    a.pages = pages.as<const int32_t>();
    a.page = op.page;
    a.table_pages = int(pages.shape.last());
    a.q_rows = q_rows;
    a.k_rows = {nullptr, -1, 1, cache.shape.rows()};
    a.segment_rows = sequence_rows;
    a.q_width = int(q.shape.last());
    a.k_width = a.v_width = int(cache.shape.last());
    a.q_offset = op.q_offset;
    a.k_offset = op.k_offset;
    a.v_offset = op.v_offset;
    a.heads = op.heads;
    a.kv_heads = op.kv_heads;
    a.head_dim = op.head_dim;
    a.max_queries = op.max_queries;
    a.max_keys = a.page * a.table_pages;
    a.causal = true;
    a.scale = op.scale;
    start(launch, "pagedAttention", a, q.dtype, sequence_rows.planned);
}

}  // namespace warpsight::cuda
