// scaled_logits_mma    out[i, j] = multiplier · (x_i·y_j) / (‖x_i‖·‖y_j‖) + bias
// zero_shot_head_mma   the k largest of softmax_j (or sigmoid) of these for each i, without writing them
//
//   classes  ─────────── strip 0 ───────────┬─── strip 1 ───┬ …        a block: a strip of classes for BM images, in tiles of BN
//            tile 0   tile 1   …            │                          tile: x·yᵀ in the registers of all warps
//   x  BM  ┌────────┬────────┬──            │                                 ─▶ shared memory, [image][class]
//   images │ BM×BN  │        │              │                                 ─▶ per image, by one warp: running maximum and
//          └────────┴────────┴──                                                 sum, and the k best (primitives/top_list.h)
//
// shapes    x [n, D], y [m, D] float16 or bfloat16, row-major, D a multiple of 8; out float32 [n, m]; scores float32 and indices
//           int32 [n, k], k <= 32. Norms, products, softmax are float32
// launch    Wide: 64 × 128 by 8 warps, about a block per multiprocessor; Narrow: 16 × 32 by 2 warps, for what gives fewer tiles
//           than that. Then a warp per image joins the strips in their order
// roofline  2·n·m·D flops, 2·m·D bytes: up to some 200 images per pass bound by reading the classes, once for each 64 images (the
//           second 64 from L2). [64, 768] × [100000, 768] moves 154 MB: 46 µs at 3.35 TB/s, and 9.8 GFLOP
// source    Milakov and Gimelshein 2018 for the running maximum and sum. ‖y_j‖² is the diagonal of y·yᵀ: a fragment of y serves
//           as either operand of the same mma, so classes are read once. Rows whose sum of squares is not a normal float32, which
//           bfloat16 can hold, are multiplied again, scaled by a power of two
#include "device.h"
#include "launch.h"
#include "primitives/activation.h"
#include "primitives/row_norm.h"
#include "primitives/stage.h"
#include "primitives/top_list.h"

namespace warpsight::cuda {
namespace {

constexpr int kFragment = 16;  // rows of a fragment of either side, and its k
constexpr int BK = kStageColumns;

template <int M, int N, int WarpM, int WarpN, int Stages>
struct Blocking {
    static constexpr int BM = M, BN = N, WM = WarpM, WN = WarpN, kStages = Stages;
    static constexpr int kDown = BM / WM, kAcross = BN / WN, kWarps = kDown * kAcross, kThreads = 32 * kWarps;
    static constexpr int kPitch = BN + 8;        // floats: the rows of a fragment fall into different banks
    static constexpr int kImages = BM / kWarps;  // of a warp, once the products are in shared memory
    static constexpr int kClasses = BN / 32;     // of a lane
    static_assert(WN / kFragment == kDown, "each warp takes the norms of one fragment of its classes");
};
using Wide = Blocking<64, 128, 32, 32, 4>;
using Narrow = Blocking<16, 32, 16, 16, 8>;

template <typename X>
struct Sides {
    const X *x, *y;
    int64_t m, strip;  // classes; those of one block
    int D;
    float multiplier, bias;
    bool y_unit;
    bool resident;  // the images' rows stay in shared memory; else they come by again with each tile
};

template <class T>
struct alignas(16) Ends {
    float products[T::BM * T::kPitch];  // [image, class]
    float inverse[T::BN];               // 1 / length of a class; −1 if its squares are no normal float32
    RowNorm norms[T::BM];               // of the images
};

template <class T, typename X>
size_t shared_bytes(int D, bool resident) {
    int64_t slots = resident ? ceil_div(D, BK) : T::kStages;
    return sizeof(Ends<T>) + size_t(slots * T::BM + T::kStages * T::BN) * BK * sizeof(X);
}

/// Cosine of two rows of any scale, the slow way; all 32 lanes must call.
template <typename X>
__device__ __forceinline__ float scaled_cosine(const X* x, const X* y, int D, bool y_unit) {
    RowNorm a = row_norm<kPack<X>>(x, D), b = y_unit ? RowNorm{1.f, 1.f} : row_norm<kPack<X>>(y, D);
    float sum = 0.f;
    for (int d = threadIdx.x % 32; d < D; d += 32) sum = fmaf(to_float(x[d]) * a.load, to_float(y[d]) * b.load, sum);
    return warp_sum(sum) * a.inverse * b.inverse;
}

/// Calls take(slot, image, class, Pack<kClasses>, count) in the warp that owns the image, for each image below n of the block's
/// and each tile of its strip: the logits of `count` (at most BN) classes from `class` on, lane by lane. A warp owns kImages, in
/// slots that are known when compiled. All threads of the block must call.
template <class T, typename X, typename Take>
__device__ __forceinline__ void stream_logits(const Sides<X>& s, int64_t n, Take&& take) {
    extern __shared__ __align__(16) unsigned char shared[];
    Ends<T>& ends = *reinterpret_cast<Ends<T>*>(shared);
    constexpr uint32_t kRowsX = T::BM * BK * sizeof(X), kRowsY = T::BN * BK * sizeof(X);
    const uint32_t y_stages = shared_address(shared + sizeof(Ends<T>)), x_slots = y_stages + T::kStages * kRowsY;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, down = warp / T::kAcross, across = warp % T::kAcross;
    const int64_t i0 = int64_t(blockIdx.x) * T::BM, j0 = int64_t(blockIdx.y) * s.strip, end = min(s.m, j0 + s.strip);
    const int images = int(min(int64_t(T::BM), n - i0));
    const int chunks = (s.D + BK - 1) / BK, steps = int((end - j0 + T::BN - 1) / T::BN) * chunks;

    auto x_slot = [&](int step) { return x_slots + (s.resident ? step % chunks : step % T::kStages) * kRowsX; };
    auto y_stage = [&](int step) { return y_stages + step % T::kStages * kRowsY; };
    auto fetch = [&](int step) {
        if (step < steps) {
            int64_t j = j0 + int64_t(step / chunks) * T::BN;
            int k0 = step % chunks * BK;
            stage_rows<T::BN, T::kThreads>(y_stage(step), k0, s.D, s.y,
                                           [&](int row) { return j + row < end ? s.y + (j + row) * s.D : nullptr; });
            if (!s.resident || step < chunks)
                stage_rows<T::BM, T::kThreads>(x_slot(step), k0, s.D, s.x,
                                               [&](int row) { return row < images ? s.x + (i0 + row) * s.D : nullptr; });
        }
        cp_async_commit();
    };
    for (int step = 0; step < T::kStages - 1; ++step) fetch(step);

    for (int i = warp; i < images; i += T::kWarps) {
        RowNorm norm = row_norm<kPack<X>>(s.x + (i0 + i) * s.D, s.D);
        if (lane == 0) ends.norms[i] = {norm.load, norm.load == 1.f ? norm.inverse : 1.f};
    }
    for (int j = threadIdx.x; s.y_unit && j < T::BN; j += T::kThreads) ends.inverse[j] = 1.f;

    constexpr int kFragmentsX = T::WM / kFragment, kFragmentsY = T::WN / kFragment;
    float products[kFragmentsX][kFragmentsY][2][4], squares[2][4];  // a fragment of y is two of 8 columns of a product
    const int fragment_row = lane % 16, fragment_part = lane / 16;

    auto multiply = [&](int step) {
        const uint32_t x = x_slot(step), y = y_stage(step);
#pragma unroll
        for (int k = 0; k < BK / kFragment; ++k) {
            const int part = k * 2 + fragment_part;
            uint32_t a[kFragmentsX][4], b[4];
#pragma unroll
            for (int i = 0; i < kFragmentsX; ++i)
                if (int row = down * T::WM + i * kFragment; row < images) ldmatrix(a[i], x + staged(row + fragment_row, part));
#pragma unroll
            for (int j = 0; j < kFragmentsY; ++j) {
                ldmatrix(b, y + staged(across * T::WN + j * kFragment + fragment_row, part));
#pragma unroll
                for (int i = 0; i < kFragmentsX; ++i)
                    if (down * T::WM + i * kFragment < images) {
                        mma<X>(products[i][j][0], a[i], b[0], b[2]);
                        mma<X>(products[i][j][1], a[i], b[1], b[3]);
                    }
                if (j == down && !s.y_unit) {
                    mma<X>(squares[0], b, b[0], b[2]);
                    mma<X>(squares[1], b, b[1], b[3]);
                }
            }
        }
    };

    /// Products and norms of a whole tile to shared memory.
    auto put_down = [&] {
        const int row = lane / 4, column = lane % 4 * 2;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int i = 0; i < kFragmentsX; ++i)
#pragma unroll
                for (int j = 0; j < kFragmentsY; ++j) {
                    float(&c)[4] = products[i][j][h];
                    float* to = ends.products + (down * T::WM + i * kFragment + row) * T::kPitch + across * T::WN +
                                j * kFragment + h * 8 + column;
                    *reinterpret_cast<float2*>(to) = make_float2(c[0], c[1]);
                    *reinterpret_cast<float2*>(to + 8 * T::kPitch) = make_float2(c[2], c[3]);
                }
            float(&c)[4] = squares[h];  // rows of 16, columns of their half h: the diagonal is in rows 8·h …
            float diagonal = row == column ? c[2 * h] : c[2 * h + 1];
            bool slow = std::is_same_v<X, bf16> && !normal_squares(diagonal);
            if (!s.y_unit && (row == column || row == column + 1))
                ends.inverse[across * T::WN + down * kFragment + h * 8 + row] = slow ? -1.f : inverse_length(diagonal);
        }
    };

    /// Rows whose length float32 sums don't hold: their products are made anew, so that times both inverses they are cosines.
    auto mend = [&](int64_t j, int count) {
#pragma unroll 1
        for (int i = warp; i < images; i += T::kWarps)
#pragma unroll 1
            for (int first = 0; first < count; first += 32) {
                const RowNorm norm = ends.norms[i];
                bool slow = first + lane < count && (norm.load != 1.f || ends.inverse[first + lane] < 0.f);
                for (unsigned left = __ballot_sync(0xffffffffu, slow); left != 0; left &= left - 1) {
                    const int c = first + __ffs(left) - 1;
                    float cosine = scaled_cosine(s.x + (i0 + i) * s.D, s.y + (j + c) * s.D, s.D, s.y_unit);
                    if (lane == 0) ends.products[i * T::kPitch + c] = cosine / (norm.inverse * fabsf(ends.inverse[c]));
                }
            }
        __syncwarp();
    };

    auto take_tile = [&](int64_t j) {
        const int count = int(min(int64_t(T::BN), end - j)), first = lane * T::kClasses;
        if (std::is_same_v<X, bf16>) mend(j, count);
        Pack<T::kClasses> inverse = load<T::kClasses>(ends.inverse + first);
#pragma unroll
        for (int slot = 0; slot < T::kImages; ++slot) {
            const int i = slot * T::kWarps + warp;
            if (i >= images) break;
            const float inverse_x = ends.norms[i].inverse;
            Pack<T::kClasses> logits = load<T::kClasses>(ends.products + i * T::kPitch + first);
#pragma unroll
            for (int v = 0; v < T::kClasses; ++v)
                logits.v[v] = fmaf(s.multiplier, logits.v[v] * inverse_x * fabsf(inverse.v[v]), s.bias);
            take(slot, i0 + i, j, logits, count);
        }
    };

    int step = 0;
    for (int64_t j = j0; j < end; j += T::BN) {
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                squares[h][c] = 0.f;
#pragma unroll
                for (int i = 0; i < kFragmentsX; ++i)
#pragma unroll
                    for (int f = 0; f < kFragmentsY; ++f) products[i][f][h][c] = 0.f;
            }
        for (int chunk = 0; chunk < chunks; ++chunk, ++step) {
            cp_async_wait<T::kStages - 2>();
            __syncthreads();  // the stage has landed for all, and all are done with the one that is filled next
            fetch(step + T::kStages - 1);
            multiply(step);
        }
        put_down();
        __syncthreads();
        take_tile(j);
    }
}

template <class T, typename X>
__global__ __launch_bounds__(T::kThreads, 1) void scaled_logits_kernel(Sides<X> sides, float* out, Rows rows) {
    follow_previous();
    const int64_t n = rows.count();
    if (int64_t(blockIdx.x) * T::BM >= n) return;
    const int first = threadIdx.x % 32 * T::kClasses;
    const bool vector = sides.m % T::kClasses == 0;
    stream_logits<T>(sides, n, [&](int, int64_t i, int64_t j, const Pack<T::kClasses>& logits, int count) {
        float* to = out + i * sides.m + j + first;
        if (vector && first + T::kClasses <= count) return store(to, logits);
#pragma unroll
        for (int v = 0; v < T::kClasses; ++v)
            if (first + v < count) to[v] = logits.v[v];
    });
}

/// Of one image and one strip.
struct Sum {
    float largest, sum;  // Σ exp(logit − largest)
};
struct Best {
    uint32_t key, index;
};

/// Takes in further numbers of which `largest` is the maximum and `sum` Σ exp(number − largest); −∞ and 0 is nothing.
__device__ __forceinline__ void join(Sum& s, float largest, float sum) {
    const float top = Max{}(s.largest, largest);
    if (top == -INFINITY) return;
    s.sum = s.sum * expf(s.largest - top) + sum * expf(largest - top);
    s.largest = top;
}

template <class T, typename X>
__global__ __launch_bounds__(T::kThreads, 1) void zero_shot_head_kernel(Sides<X> sides, Sum* sums, Best* best, Rows rows, int k,
                                                                        bool use_sigmoid) {
    follow_previous();
    const int64_t n = rows.count();
    if (int64_t(blockIdx.x) * T::BM >= n) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    TopList lists[T::kImages];
    Sum lane_sums[T::kImages];
#pragma unroll
    for (Sum& sum : lane_sums) sum = {-INFINITY, 0.f};

    stream_logits<T>(sides, n, [&](int slot, int64_t, int64_t j, const Pack<T::kClasses>& logits, int count) {
        uint32_t keys[T::kClasses], largest = 0;
#pragma unroll
        for (int v = 0; v < T::kClasses; ++v) {
            keys[v] = lane * T::kClasses + v < count ? order_key(logits.v[v]) : 0;
            largest = max(largest, keys[v]);
        }
        if (!use_sigmoid) {
            const float top = value_of(__reduce_max_sync(0xffffffffu, largest));
            float sum = 0.f;
#pragma unroll
            for (int v = 0; v < T::kClasses; ++v) sum += keys[v] != 0 && top != -INFINITY ? expf(logits.v[v] - top) : 0.f;
            join(lane_sums[slot], top, sum);
        }
        lists[slot].offer(keys, uint32_t(j), k);
    });

#pragma unroll
    for (int slot = 0; slot < T::kImages; ++slot) {
        const int64_t i = int64_t(blockIdx.x) * T::BM + slot * T::kWarps + warp;
        if (i >= n) break;
        const int64_t at = i * gridDim.y + blockIdx.y;
        const float sum = warp_sum(lane_sums[slot].sum);
        if (lane == 0) sums[at] = {lane_sums[slot].largest, sum};
        if (lane < k) best[at * k + lane] = {lists[slot].key, lists[slot].index};
    }
}

constexpr int kJoinWarps = 4;

/// The strips' results of one image, in the order of classes, by one warp.
__global__ __launch_bounds__(32 * kJoinWarps) void zero_shot_head_join_kernel(const Sum* sums, const Best* best, float* scores,
                                                                              int32_t* indices, Rows rows, int strips, int k,
                                                                              bool use_sigmoid) {
    follow_previous();
    const int lane = threadIdx.x % 32;
    const int64_t i = int64_t(blockIdx.x) * kJoinWarps + threadIdx.x / 32;
    if (i >= rows.count()) return;
    sums += i * strips;
    best += i * strips * k;
    Sum all{-INFINITY, 0.f};
    if (!use_sigmoid) {
        for (int s = lane; s < strips; s += 32) all.largest = Max{}(all.largest, sums[s].largest);
        all.largest = warp_reduce(all.largest, Max{});
        for (int s = lane; s < strips; s += 32)
            if (sums[s].largest != -INFINITY) all.sum += sums[s].sum * expf(sums[s].largest - all.largest);
        all.sum = warp_sum(all.sum);
    }
    TopList list;  // its indices are places in `best`
    for (int at = 0; at < strips * k; at += 32) {
        uint32_t key[1] = {at + lane < strips * k ? best[at + lane].key : 0};
        list.offer(key, uint32_t(at), k);
    }
    if (lane >= k) return;
    const float logit = value_of(list.key);
    scores[i * k + lane] = use_sigmoid ? sigmoid(logit) : expf(logit - all.largest) / all.sum;
    indices[i * k + lane] = int32_t(best[list.index].index);
}

struct Division {
    bool wide;
    int64_t strip, strips;
};

/// How classes are divided among blocks: depends on n only in the choice of the tile.
Division divide(const Device& device, int64_t n, int64_t m, int D) {
    bool wide = ceil_div(n, Wide::BM) * ceil_div(m, Wide::BN) >= device.multiprocessors &&
                shared_bytes<Wide, half>(D, false) <= size_t(device.shared_bytes_per_block);
    int64_t most = wide ? device.multiprocessors : 4 * device.multiprocessors;
    int64_t tiles = ceil_div(m, wide ? Wide::BN : Narrow::BN);
    int64_t strip = ceil_div(ceil_div(m, std::min(tiles, most)), 8) * 8;
    return {wide, strip, ceil_div(m, strip)};
}

/// Calls f(tile, sides, grid) for the operands.
template <typename Op, typename F>
void with_sides(const Launch& launch, const char* name, const Op& op, const TensorView& x, const TensorView& y, F&& f) {
    const int64_t n = x.shape.rows(), m = y.shape.rows();
    const int D = int(x.shape.last());
    const Division division = divide(launch.device, n, m, D);
    auto run = [&](auto tile, auto zero) {
        using T = decltype(tile);
        using X = decltype(zero);
        bool resident = shared_bytes<T, X>(D, true) <= size_t(launch.device.shared_bytes_per_block);
        Sides<X> sides{x.as<const X>(), y.as<const X>(), m, division.strip, D, op.multiplier, op.bias, op.y_unit, resident};
        f(tile, sides,
          Grid{dim3(unsigned(ceil_div(n, T::BM)), unsigned(division.strips)), T::kThreads, shared_bytes<T, X>(D, resident)});
    };
    by_dtype(name, x.dtype, [&](auto zero) {
        if constexpr (!std::is_same_v<decltype(zero), float>) {
            if (division.wide) run(Wide{}, zero);
            else run(Narrow{}, zero);
        }
    });
}

}  // namespace

bool has_logits_mma(DType dtype, int64_t D) { return dtype != DType::float32 && D > 0 && D % 8 == 0; }

void scaled_logits_mma(const Launch& launch, const ScaledLogits& op, const TensorView& x, const TensorView& y,
                       const TensorView& out, Rows rows) {
    if (rows.planned == 0 || y.shape.rows() == 0) return;
    with_sides(launch, "scaledLogits", op, x, y, [&]<class T, typename X>(T, const Sides<X>& sides, const Grid& grid) {
        start_kernel(launch, "scaledLogits", scaled_logits_kernel<T, X>, grid, sides, out.as<float>(), rows);
    });
}

size_t zero_shot_head_workspace(const Device& device, int64_t n, int64_t m, int D, int k) {
    return m == 0 ? 0 : size_t(n * divide(device, n, m, D).strips) * (sizeof(Sum) + size_t(k) * sizeof(Best));
}

void zero_shot_head_mma(const Launch& launch, const ZeroShotHead& op, const TensorView& x, const TensorView& y,
                        const TensorView& scores, const TensorView& indices, void* workspace, Rows rows) {
    const int64_t n = rows.planned;
    if (n == 0) return;
    with_sides(launch, "zeroShotHead", op, x, y, [&]<class T, typename X>(T, const Sides<X>& sides, const Grid& grid) {
        const int strips = int(grid.blocks.y);
        Sum* sums = static_cast<Sum*>(workspace);
        Best* best = reinterpret_cast<Best*>(sums + n * strips);
        start_kernel(launch, "zeroShotHead", zero_shot_head_kernel<T, X>, grid, sides, sums, best, rows, op.k, op.sigmoid);
        start_kernel(launch, "zeroShotHead", zero_shot_head_join_kernel, {unsigned(ceil_div(n, kJoinWarps)), 32 * kJoinWarps},
                     sums, best, scores.as<float>(), indices.as<int32_t>(), rows, strips, op.k, op.sigmoid);
    });
}

}  // namespace warpsight::cuda
