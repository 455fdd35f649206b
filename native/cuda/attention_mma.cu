// out[q, h] = softmax over the keys j that q sees of (scale · q_h·k_j) · v_j;  a query that sees no key gives zeros
// shapes    rows of q, k, v, out as ops.h describes them, float16 or bfloat16, head widths up to 256 in multiples of 8; scores,
//           softmax and sums are float32, probabilities are rounded to the storage before they meet v
// launch    a block per 16·M·warps queries of a segment and head: 128 where such blocks fill the device, else 64, fewer where
//           segments are short; grid (segments × query tiles, heads). Keys come in tiles of 64 (32 for heads over 96), one
//           ahead of the computation; a last tile of at most 16 or 32 keys is loaded and multiplied as such, so 577 = 9·64 + 1
//           costs 592. Shared memory: the queries and one or two tiles, 21 to 101 KB
// roofline  4·Tq·Tk·Dh flops of mma.sync. Per 16 queries and 16 keys a warp reads 64·Dh bytes of shared memory for 1024·Dh
//           flops; two blocks of queries per warp (M = 2) halve that. k and v come from L2 once per block
// source    queries in registers, online softmax and p as the next product's operand after Dao 2023 (FlashAttention-2). A tile
//           without a visible key changes nothing, nor does the block's size: a query's bits depend neither on its place in a
//           block nor on where the rows lie
#include "attention.h"
#include "attention_load.h"
#include "primitives/attention_tile.h"

namespace warpsight::cuda {
namespace {

constexpr int kMaxWarps = 4;

template <int DH>
constexpr int kTile = DH <= 96 ? 64 : 32;  // keys

/// As many as the registers allow.
template <int DH, int M>
constexpr int kBlocksPerMultiprocessor = DH* M == 64 ? 3 : 2;

template <typename T, int DH, int M>
__global__ __launch_bounds__(kMaxWarps * 32, kBlocksPerMultiprocessor<DH, M>) void attention_mma_kernel(AttentionArguments a) {
    follow_previous();
    constexpr int BK = kTile<DH>, kPitch = kAttentionPitch<DH>, kRows = 16 * M;  // keys of a tile, queries of a warp
    extern __shared__ __align__(16) unsigned char memory[];
    const int BQ = kRows * int(blockDim.x) / 32, head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const int first = (a.query_tiles - 1 - int(blockIdx.x) % a.query_tiles) * BQ;  // the longest causal rows start first
    const Segment s(a, int(blockIdx.x) / a.query_tiles);
    if (!s.present || first >= s.q_count) return;
    const int queries = min(BQ, s.q_count - first);
    if (!s.good || !s.pages_inside(a, 0, s.visible(s.q_count - 1, a.causal))) return refuse<T>(a, s, first, BQ, head);
    const int keys = s.visible(first + queries - 1, a.causal);

    const T* q = static_cast<const T*>(a.q) + a.q_offset + int64_t(head) * a.head_dim;
    const T* k = static_cast<const T*>(a.k) + a.k_offset + int64_t(kv_head) * a.head_dim;
    const T* v = static_cast<const T*>(a.v) + a.v_offset + int64_t(kv_head) * a.head_dim;
    T* sq = reinterpret_cast<T*>(memory);  // [query][d]
    T* sk = sq + BQ * kPitch;              // [stage][key][d], then v
    T* sv = sk + a.stages * BK * kPitch;
    auto stage_of = [&](int tile) { return a.stages == 1 ? 0 : tile % 2 * BK * kPitch; };
    auto load_tile = [&](int tile) {
        const int key0 = tile * BK, count = min(BK, keys - key0), padded = count > 32 ? BK : count > 16 ? 32 : 16;
        if (count > 0)
            load_keys<T, DH>(a, s, k, v, key0, key0 + count, padded, shared_address(sk + stage_of(tile)),
                             shared_address(sv + stage_of(tile)), threadIdx.x, blockDim.x);
        cp_async_commit();
    };
    load_queries<T, DH>(q, a.q_width, a.head_dim, BQ, shared_address(sq),
                        [&](int r) { return r < queries ? int64_t(s.q_start) + first + r : -1; });

    const int lane = threadIdx.x % 32, row0 = int(threadIdx.x) / 32 * kRows;  // of the block's queries
    const int warp_keys = row0 < queries ? s.visible(min(first + row0 + kRows, s.q_count) - 1, a.causal) : 0;
    WarpQueries<T, DH, M> rows;
    rows.reset();
    load_tile(0);
    for (int tile = 0; tile * BK < keys; ++tile) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile == 0) rows.load(shared_address(sq + row0 * kPitch));
        if (a.stages > 1) load_tile(tile + 1);
        const int key0 = tile * BK, count = min(BK, warp_keys - key0);
        if (count > 0) {
            const uint64_t shown = shown_keys(a, s, key0, count);
            const bool all = a.mask == nullptr && s.visible(first + row0, a.causal) >= key0 + BK;
            auto seen = [&](int m, int h) {
                return shown & first_keys(s.visible(first + row0 + m * 16 + h * 8 + lane / 4, a.causal) - key0);
            };
            const uint32_t at_k = shared_address(sk + stage_of(tile)), at_v = shared_address(sv + stage_of(tile));
            const float scale = a.scale * 1.4426950408889634f;  // log2(e)
            if (count <= 16) rows.template attend<16>(at_k, at_v, scale, all, seen);
            else if (BK == 32 || count <= 32) rows.template attend<32>(at_k, at_v, scale, all, seen);
            else rows.template attend<BK>(at_k, at_v, scale, all, seen);
        }
        if (a.stages == 1) {
            __syncthreads();
            load_tile(tile + 1);
        }
    }
    cp_async_wait<0>();
    rows.finish();
    __syncthreads();

    T* staged = sq + row0 * kPitch;  // the warp's own rows, so that it writes whole sectors
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float f = rows.total[m][h] == 0.f ? 0.f : 1.f / rows.total[m][h];
#pragma unroll
            for (int n = 0; n < DH / 8; ++n)
                *reinterpret_cast<uint32_t*>(staged + (m * 16 + h * 8 + lane / 4) * kPitch + n * 8 + lane % 4 * 2) =
                    pack_pair<T>(rows.acc[m][n][h * 2] * f, rows.acc[m][n][h * 2 + 1] * f);
        }
    __syncwarp();
    const int count = min(kRows, queries - row0);
    T* out = static_cast<T*>(a.out) + ((int64_t(s.q_start) + first + row0) * a.heads + head) * a.head_dim;
    const int64_t out_width = int64_t(a.heads) * a.head_dim;
    for (int r = lane / 8; r < count; r += 4)
        for (int d = lane % 8 * 8; d < a.head_dim; d += 64)
            *reinterpret_cast<uint4*>(out + r * out_width + d) = *reinterpret_cast<const uint4*>(staged + r * kPitch + d);

    // A later key that is not seen has probability 0, and 0 times NaN or infinity leaves NaN: such rows again, without that key.
    if (!a.causal || !__any_sync(0xffffffffu, rows.has_nan())) return;
    __syncwarp();
    for (int r = 0; r < count; ++r) {
        bool nan = false;
        for (int d = lane; d < a.head_dim; d += 32) nan = nan || isnan(to_float(out[r * out_width + d]));
        if (__any_sync(0xffffffffu, nan)) attend_one<T>(a, s, first + row0 + r, head, reinterpret_cast<float*>(staged));
    }
}

/// Warps of a block, blocks of 16 queries per warp, tiles of keys in shared memory.
struct Blocks {
    int warps, M, stages;
};

template <int DH>
Blocks blocks_of(const Launch& launch, const AttentionArguments& a) {
    const int64_t queries = ceil_div(a.q_rows.planned, a.count);  // of a segment, on average
    const int stages = a.max_keys <= kTile<DH> ? 1 : 2;
    if (queries <= 16) return {1, 1, a.max_keys <= 2 * kTile<DH> ? 1 : 2};  // small blocks, so that there are more at once
    if (queries <= 32) return {2, 1, stages};
    const bool fills = a.count * a.heads * ceil_div(a.max_queries, 128) >= 2 * launch.device.multiprocessors;
    return {4, DH == 64 && queries > 64 && fills ? 2 : 1, stages};
}

template <typename T, int DH, int M>
void launch_blocks(const Launch& launch, const char* op, AttentionArguments a, const Blocks& blocks) {
    const int BQ = 16 * M * blocks.warps;
    a.query_tiles = int(ceil_div(a.max_queries, BQ));
    a.stages = blocks.stages;
    const size_t bytes = size_t(BQ + 2 * blocks.stages * kTile<DH>) * kAttentionPitch<DH> * sizeof(T);
    start_kernel(launch, op, attention_mma_kernel<T, DH, M>,
                 {dim3(unsigned(a.count * a.query_tiles), unsigned(a.heads)), unsigned(blocks.warps * 32), bytes}, a);
}

template <typename T, int DH>
void launch_width(const Launch& launch, const char* op, const AttentionArguments& a) {
    const Blocks blocks = blocks_of<DH>(launch, a);
    if constexpr (DH == 64)
        if (blocks.M == 2) return launch_blocks<T, DH, 2>(launch, op, a, blocks);
    launch_blocks<T, DH, 1>(launch, op, a, blocks);
}

template <typename T>
void launch_type(const Launch& launch, const char* op, const AttentionArguments& a) {
    if (a.head_dim <= 64) launch_width<T, 64>(launch, op, a);
    else if (a.head_dim <= 80) launch_width<T, 80>(launch, op, a);
    else if (a.head_dim <= 96) launch_width<T, 96>(launch, op, a);
    else if (a.head_dim <= 128) launch_width<T, 128>(launch, op, a);
    else launch_width<T, 256>(launch, op, a);
}

}  // namespace

void attention_mma(const Launch& launch, const char* op, AttentionArguments a, DType dtype) {
    if (dtype == DType::float16) launch_type<half>(launch, op, a);
    else launch_type<bf16>(launch, op, a);
}

}  // namespace warpsight::cuda
