// What the attention kernels share: their arguments, the rows of a segment, and which kernel takes a shape.
#pragma once

#include <cmath>

#include "launch.h"
#include "primitives/number.h"
#include "primitives/reduce.h"

namespace warpsight::cuda {

struct AttentionArguments {
    const void *q, *k, *v;
    void* out;
    const int32_t *segments, *mask;
    bool paged = false;  // segments are [S, 3] (qStart, qCount, kCount) over a paged cache
    const int32_t* pages = nullptr;
    int page = 1, table_pages = 0;
    Rows q_rows, k_rows, segment_rows;
    int64_t count;                  // segments, as planned
    int q_width, k_width, v_width;  // elements from row to row
    int q_offset, k_offset, v_offset;
    int heads, kv_heads, head_dim, max_queries, max_keys, query_tiles;
    bool causal, vector;
    float scale;
    int stages = 1;              // attention_mma: tiles of keys in shared memory
    float* workspace = nullptr;  // attention_split
    int splits = 1;              // attention_split: most parts that the keys of a segment are cut into
};

/// Whether every head of every row begins at a multiple of `elements`.
inline bool whole_packs(const AttentionArguments& a, int elements) {
    for (int n : {a.q_width, a.k_width, a.v_width, a.q_offset, a.k_offset, a.v_offset, a.head_dim})
        if (n % elements != 0) return false;
    return true;
}

// attention_mma.cu, attention_split.cu: float16 and bfloat16, heads of whole packs of 8 up to 256.
void attention_mma(const Launch& launch, const char* op, AttentionArguments a, DType dtype);
/// For one query per segment.
void attention_split(const Launch& launch, const char* op, AttentionArguments a, DType dtype);
size_t attention_split_workspace(const AttentionArguments& a);

#if defined(__CUDACC__)
/// Rows of a segment; `good` is false where they leave q's or k's rows or, over a paged cache, the table.
struct Segment {
    int q_start, k_start, prefix_start;
    int q_count, k_count, prefix_count, page = 1;
    bool present, good;
    const int32_t* pages = nullptr;

    __device__ __forceinline__ Segment(const AttentionArguments& a, int index) {
        int64_t rows_q = a.q_rows.count(), rows_k = a.k_rows.count();
        k_start = prefix_start = prefix_count = 0;
        if (a.segments == nullptr) {
            q_start = index * a.max_queries;
            k_start = index * a.max_keys;
            q_count = a.max_queries;
            k_count = a.max_keys;
            present = q_start < rows_q;
        } else if (a.pages != nullptr) {
            const int32_t* s = a.segments + int64_t(index) * 3;
            present = index < a.segment_rows.count();
            q_start = present ? s[0] : 0;
            q_count = present ? s[1] : 0;
            k_count = present ? s[2] : 0;
            pages = a.pages + int64_t(index) * a.table_pages;
            page = a.page;
            good = in_rows(q_start, q_count, rows_q) && k_count >= q_count && k_count <= int64_t(a.table_pages) * page;
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
    /// Whether the pages of keys first … end − 1 of a good segment lie in the cache. All threads of the block must call.
    __device__ __forceinline__ bool pages_inside(const AttentionArguments& a, int first, int end) const {
        if (pages == nullptr) return true;
        bool inside = true;
        for (int p = first / page + int(threadIdx.x); int64_t(p) * page < end; p += int(blockDim.x))
            inside = inside && pages[p] >= 0 && (int64_t(pages[p]) + 1) * page <= a.k_rows.count();
        return __syncthreads_and(inside);
    }
    /// Row of the key with logical index j.
    __device__ __forceinline__ int key_row(int j) const {
        if (pages != nullptr) return pages[j / page] * page + j % page;
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
        int64_t row = int64_t(s.q_start) + query;
        if (query < s.q_count && row >= 0 && row < rows)
            static_cast<T*>(a.out)[row * a.heads * a.head_dim + head * a.head_dim + i % a.head_dim] = from_float<T>(nan_value());
    }
}

/// One query and head by one warp, one key after the other; acc: head_dim floats of shared memory.
template <typename T>
__device__ void attend_one(const AttentionArguments& a, const Segment& s, int query, int head, float* acc) {
    const int lane = threadIdx.x % 32, kv_head = head / (a.heads / a.kv_heads);
    const T* q = static_cast<const T*>(a.q) + (int64_t(s.q_start) + query) * a.q_width + a.q_offset + int64_t(head) * a.head_dim;
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
    T* out = static_cast<T*>(a.out) + ((int64_t(s.q_start) + query) * a.heads + head) * a.head_dim;
    for (int d = lane; d < a.head_dim; d += 32) out[d] = from_float<T>(total == 0.f ? 0.f : acc[d] / total);
}
#endif

}  // namespace warpsight::cuda
