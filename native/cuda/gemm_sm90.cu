// y = act(x·Wᵀ + b) + r on Hopper's tensor cores; also silu(x·Wgᵀ)·(x·Wuᵀ), and patches into a sequence
// shapes    x [M, K], W [N, K] rows `pitch` apart, b [N] float32, r and y [M, N]; float16 or bfloat16, row-major, sums in float32
// launch    gemm_sm90: one block per multiprocessor works through tiles of 128 × 256 or 128 × 128; where two blocks of a cluster
//           share columns, each fetches half of W for both. gemm_sm90_cluster, for few tiles: a cluster of one to eight blocks
//           shares a tile, each block sums a part of k, and the parts meet through the cluster's shared memory in their order.
//           There W may take the side of the 128 rows and x that of the 16 … 128 columns: 1 … 64 rows of x waste nothing
//           a block is two warpgroups that multiply, 64 rows each, and a warp that feeds them
// roofline  2·M·N·K flops at the tensor cores' rate (H100: 989 TFLOP/s), or the bytes of W where M is small
// source    PTX ISA, wgmma and cp.async.bulk.tensor; the split of roles after the CUTLASS documentation, "Efficient GEMM"
//
//            full[s] ──────────────▶ multiply: wgmma of 64 × BN × 16, four a stage
//   feeder ─ TMA ─▶ stage s = { 128 × 64 of one side, BN × 64 of the other } (swizzled)
//            ◀────────────── empty[s]                └▶ sums in registers ─▶ shared memory ─▶ y
#include "gemm.h"
#include "primitives/cluster.h"
#include "primitives/mbarrier.h"
#include "primitives/mma.h"
#include "primitives/tma.h"
#include "primitives/wgmma.h"
#include "tensor_map.h"

namespace warpsight::cuda {
namespace {

constexpr int BM = 128, BK = 64, kRowBytes = BK * 2, kMultipliers = 256, kThreads = kMultipliers + 128;
constexpr int kMost = 227 << 10;  // bytes of shared memory of a block

/// The stages between feeder and multipliers, and their barriers.
template <int BN, int Stages>
struct Pipeline {
    static constexpr int kABytes = BM * kRowBytes, kBBytes = BN * kRowBytes, kStageBytes = kABytes + kBBytes;
    static constexpr int kStages = Stages;

    uint32_t stages, barriers;  // shared addresses: stages aligned to 1024; full[s], then empty[s]

    __device__ __forceinline__ uint32_t a(int s) const { return stages + s * kStageBytes; }
    __device__ __forceinline__ uint32_t b(int s) const { return stages + s * kStageBytes + kABytes; }
    __device__ __forceinline__ uint32_t full(int s) const { return barriers + s * 8; }
    __device__ __forceinline__ uint32_t empty(int s) const { return barriers + (kStages + s) * 8; }

    /// One thread; `blocks` of the cluster release a stage.
    __device__ __forceinline__ void init(int blocks) const {
        for (int s = 0; s < kStages; ++s) {
            mbarrier_init(full(s), 1);
            mbarrier_init(empty(s), kMultipliers / 32 * blocks);
        }
        fence_barriers();
    }
};

/// A place in the ring of stages.
struct Turn {
    int stage = 0;
    uint32_t parity = 0;
    template <int Stages>
    __device__ __forceinline__ void next() {
        if (++stage == Stages) stage = 0, parity ^= 1;
    }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// d = the sum over `count` stages, at least one; release(stage) is called in each warp once a stage has been read.
template <typename T, int BN, int Stages, typename Release>
__device__ __forceinline__ void multiply(const Pipeline<BN, Stages>& pipe, Turn& turn, int count, float (&d)[BN / 2],
                                         Release&& release) {
    const uint32_t rows = threadIdx.x / 128 * 64 * kRowBytes;  // of this warpgroup
    auto start = [&](int stage, bool add) {
        const uint64_t a = wgmma_matrix(pipe.a(stage) + rows), b = wgmma_matrix(pipe.b(stage));
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < BK / 16; ++k) wgmma<T, BN>(d, a + k * 2, b + k * 2, add || k > 0);
        wgmma_commit();
    };
    mbarrier_wait(pipe.full(turn.stage), turn.parity);
    start(turn.stage, false);
    for (int step = 1; step < count; ++step) {
        const int previous = turn.stage;
        turn.next<Stages>();
        mbarrier_wait(pipe.full(turn.stage), turn.parity);
        start(turn.stage, true);
        wgmma_wait<1>();
        release(previous);
    }
    wgmma_wait<0>();
    release(turn.stage);
    turn.next<Stages>();
}

#endif

// ── few tiles: a cluster sums one ────────────────────────────────────────────────────────────────────────────────────

/// Blocks of narrow tiles leave room for a second one beside them.
template <int BN>
constexpr int kClusterStages = (BN > 64 ? kMost : kMost / 2 - 1024) / ((BM + BN) * kRowBytes + 16);

/// Floats from row to row of the sums in shared memory: what a fragment's lanes write lies in different banks.
template <int BN, bool Swapped>
constexpr int kSumsPitch = Swapped ? BM + 4 : BN + 8;

template <typename T, int BN, bool Swapped, class Out>
__global__ __launch_bounds__(kThreads, BN > 64 ? 1 : 2) void gemm_sm90_cluster_kernel(const __grid_constant__ CUtensorMap x_map,
                                                                                      const __grid_constant__ CUtensorMap w_map,
                                                                                      GemmOperands g, int splits, Out out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr int kStages = kClusterStages<BN>, kPitch = kSumsPitch<BN, Swapped>;
    constexpr int kRowsM = Swapped ? BN : BM, kRowsN = Swapped ? BM : BN;  // of x and of W in a tile
    using Pipe = Pipeline<BN, kStages>;
    extern __shared__ __align__(1024) char shared[];
    const Pipe pipe{shared_address(shared), shared_address(shared) + kStages * Pipe::kStageBytes};

    const int64_t M = g.rows.count(), N = g.w.rows, up = g.gated ? N / 2 : 0, n_end = g.gated ? up : N;
    const int width = g.gated ? kRowsN / 2 : kRowsN;  // columns of y per tile
    const int rank = int(blockIdx.x) % splits;
    const TileAt at = tile_at(int(blockIdx.x) / splits, int(ceil_div(g.rows.planned, kRowsM)), int(ceil_div(n_end, width)));
    const int m0 = at.m * kRowsM, n0 = at.n * width;
    let_next_start();
    if (m0 >= M) return wait_for_previous();  // the whole cluster leaves
    const int steps = g.steps(), part = (steps + splits - 1) / splits, first = rank * part;
    const int count = min(part, steps - first);  // of 64 columns of k

    if (threadIdx.x == 0) pipe.init(1);
    __syncthreads();

    if (threadIdx.x == kMultipliers) {
        auto load_w = [&](int step, int s) {
            uint32_t to = Swapped ? pipe.a(s) : pipe.b(s);
            int k = g.w_column(first + step);
            tma_load(to, w_map, k, n0, pipe.full(s));
            tma_load(to + kRowsN / 2 * kRowBytes, w_map, k, g.gated ? int(up) + n0 : n0 + kRowsN / 2, pipe.full(s));
        };
        auto load_x = [&](int step, int s) {
            tma_load(Swapped ? pipe.b(s) : pipe.a(s), x_map, (first + step) * BK, m0, pipe.full(s));
        };
        if (!g.constant) wait_for_previous();
        const int ahead = min(count, kStages);
        for (int step = 0; step < ahead; ++step) {
            mbarrier_expect(pipe.full(step), Pipe::kStageBytes);
            load_w(step, step);
        }
        if (g.constant) wait_for_previous();
        for (int step = 0; step < ahead; ++step) load_x(step, step);
        Turn turn;
        for (int step = kStages; step < count; ++step) {
            mbarrier_wait(pipe.empty(turn.stage), turn.parity);
            mbarrier_expect(pipe.full(turn.stage), Pipe::kStageBytes);
            load_w(step, turn.stage);
            load_x(step, turn.stage);
            turn.next<kStages>();
        }
    } else {
        wait_for_previous();
    }

    float* sums = reinterpret_cast<float*>(shared);  // [m][n] of the tile, whichever side W took
    if (threadIdx.x < kMultipliers) {
        const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
        float d[BN / 2];
        Turn turn;
        multiply<T>(pipe, turn, count, d, [&](int stage) {
            if (lane == 0) mbarrier_arrive(pipe.empty(stage));
        });
        named_sync<kMultipliers>(1);  // every stage has been read: the sums take their place
#pragma unroll
        for (int j = 0; j < BN / 8; ++j) {
            const int column = j * 8 + lane % 4 * 2;
            if constexpr (Swapped) {
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[(column + i % 2) * kPitch + row + i / 2 * 8] = d[j * 4 + i];
            } else {
                *reinterpret_cast<float2*>(sums + row * kPitch + column) = make_float2(d[j * 4], d[j * 4 + 1]);
                *reinterpret_cast<float2*>(sums + (row + 8) * kPitch + column) = make_float2(d[j * 4 + 2], d[j * 4 + 3]);
            }
        }
    }
    if (splits > 1) cluster_sync();
    else __syncthreads();

    const uint32_t base = shared_address(sums);
    for (int q = int(threadIdx.x) + rank * kThreads; q < kRowsM * width / 8; q += splits * kThreads) {
        const int row = q / (width / 8), column = q % (width / 8) * 8;
        if (m0 + row >= M || n0 + column >= n_end) continue;
        auto sum = [&](int from) {
            Pack<8> p = load_from_block(base + (row * kPitch + from) * 4, 0);
            for (int block = 1; block < splits; ++block) {
                Pack<8> next = load_from_block(base + (row * kPitch + from) * 4, block);
#pragma unroll
                for (int j = 0; j < 8; ++j) p.v[j] += next.v[j];
            }
            return p;
        };
        Pack<8> p = sum(column);
        if (g.gated) gate(p, sum(width + column));
        out(m0 + row, n0 + column, p);
    }
    if (splits > 1) cluster_sync();  // a block's shared memory lives until all have read it
#endif
}

// ── many tiles: one block per multiprocessor ─────────────────────────────────────────────────────────────────────────

/// What becomes of a sum beside bias and residual, known when the kernel is compiled: sums stay in registers.
enum class Way { plain, gelu, gelu_tanh, quick_gelu, gated };

template <Way Kind>
constexpr Activation kActivationOf = Kind == Way::gelu         ? Activation::gelu
                                     : Kind == Way::gelu_tanh  ? Activation::gelu_tanh
                                     : Kind == Way::quick_gelu ? Activation::quick_gelu
                                                               : Activation::none;

constexpr int kOutBytes = 64 * 128;  // 64 rows × 64 columns of y on their way through shared memory

template <int BN>
constexpr int kTileStages = (kMost - 2048 - 4 * kOutBytes) / ((BM + BN) * kRowBytes);

template <typename T, int BN, Way Kind>
__global__ __launch_bounds__(kThreads, 1) void gemm_sm90_kernel(const __grid_constant__ CUtensorMap x_map,
                                                                const __grid_constant__ CUtensorMap w_map,
                                                                const __grid_constant__ CUtensorMap r_map,
                                                                const __grid_constant__ CUtensorMap y_map, GemmOperands g,
                                                                int blocks, const float* bias, bool residual) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr bool kGated = Kind == Way::gated;
    constexpr int kStages = kTileStages<BN>, kWidth = kGated ? BN / 2 : BN;  // columns of y per tile
    using Pipe = Pipeline<BN, kStages>;
    extern __shared__ __align__(1024) char shared[];
    const Pipe pipe{shared_address(shared), shared_address(shared) + kStages * Pipe::kStageBytes + 4 * kOutBytes};

    const int64_t M = g.rows.count(), N = g.w.rows, up = kGated ? N / 2 : 0, n_end = kGated ? up : N;
    const int m_tiles = int(ceil_div(M, BM)), n_tiles = int(ceil_div(n_end, kWidth));
    // A cluster of two blocks takes two tiles of neighbouring rows; the second may lie past the end and is then computed for
    // nothing.
    const int m_groups = (m_tiles + blocks - 1) / blocks, groups = m_groups * n_tiles;
    const int rank = int(blockIdx.x) % blocks;
    const int first = int(blockIdx.x) / blocks, stride = int(gridDim.x) / blocks;
    const int steps = g.steps();
    auto tile = [&](int index) {
        TileAt at = tile_at(index, m_groups, n_tiles);
        return TileAt{at.m * blocks + rank, at.n};
    };

    if (threadIdx.x == 0) {
        pipe.init(blocks);
        for (int i = 0; i < 4; ++i) mbarrier_init(pipe.barriers + (2 * kStages + i) * 8, 1);
        fence_barriers();
    }
    if (blocks > 1) cluster_sync();
    else __syncthreads();
    let_next_start();

    if (threadIdx.x >= kMultipliers) {
        give_registers<40>();
        if (threadIdx.x == kMultipliers) {
            Turn turn;
            bool waited = !g.constant;
            if (waited) wait_for_previous();
            int ahead = 0;  // stages whose x waits for the kernels before
            auto load_x = [&](int m, int step, int s) { tma_load(pipe.a(s), x_map, step * BK, m * BM, pipe.full(s)); };
            for (int index = first; index < groups; index += stride) {
                const TileAt at = tile(index);
                const int n0 = at.n * kWidth;
                for (int step = 0; step < steps; ++step) {
                    const int s = turn.stage;
                    mbarrier_wait(pipe.empty(s), turn.parity ^ 1);
                    mbarrier_expect(pipe.full(s), Pipe::kStageBytes);
                    for (int half = 0; half < 2; ++half) {
                        int n = half == 0 ? n0 : kGated ? int(up) + n0 : n0 + BN / 2;
                        uint32_t to = pipe.b(s) + half * (BN / 2) * kRowBytes;
                        if (blocks == 1) tma_load(to, w_map, step * BK, n, pipe.full(s));
                        else if (half == rank) tma_load_multicast(to, w_map, step * BK, n, pipe.full(s), 3);
                    }
                    if (waited) load_x(at.m, step, s);
                    else if (++ahead == min(steps, kStages)) {
                        wait_for_previous();
                        waited = true;
                        for (int i = 0; i < ahead; ++i) load_x(at.m, i, i);
                    }
                    turn.next<kStages>();
                }
            }
            if (!waited) wait_for_previous();
        } else {
            wait_for_previous();
        }
    } else {
        take_registers<232>();
        wait_for_previous();
        const int lane = threadIdx.x % 32, group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
        const uint32_t buffers = shared_address(shared) + kStages * Pipe::kStageBytes + group * 2 * kOutBytes;
        const uint32_t arrived = pipe.barriers + (2 * kStages + group * 2) * 8;
        const bool leader = threadIdx.x % 128 == 0;
        auto fetch = [&](uint32_t use, int n, int m) {  // columns n … n + 63 of the residual
            mbarrier_expect(arrived + use % 2 * 8, kOutBytes);
            tma_load(buffers + use % 2 * kOutBytes, r_map, n, m, arrived + use % 2 * 8);
        };
        Turn turn;
        uint32_t use = 0;
        for (int index = first; index < groups; index += stride) {
            const TileAt at = tile(index);
            const int m0 = at.m * BM + group * 64, n0 = at.n * kWidth;
            if (leader && residual) {
                tma_store_wait_read<1>();
                fetch(use, n0, m0);
            }
            float d[BN / 2];
            multiply<T>(pipe, turn, steps, d, [&](int stage) {
                if (lane >= blocks) return;
                if (lane == rank) mbarrier_arrive(pipe.empty(stage));
                else mbarrier_arrive_at(pipe.empty(stage), lane);
            });

            // 64 columns of y at a time through two buffers in turn: a residual comes in, is added to, and goes out.
#pragma unroll
            for (int chunk = 0; chunk < kWidth / 64; ++chunk, ++use) {
                const uint32_t buffer = buffers + use % 2 * kOutBytes;
                if (residual) {
                    if (leader && chunk + 1 < kWidth / 64) {
                        tma_store_wait_read<0>();
                        fetch(use + 1, n0 + (chunk + 1) * 64, m0);
                    }
                    mbarrier_wait(arrived + use % 2 * 8, use / 2 % 2);
                } else {
                    if (leader) tma_store_wait_read<1>();  // the buffer's last store
                    named_sync<128>(1 + group);
                }
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const int n = n0 + chunk * 64 + j * 8 + lane % 4 * 2;
                    float2 b = make_float2(0.f, 0.f);
                    if (bias != nullptr && n < n_end) b = *reinterpret_cast<const float2*>(bias + n);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {  // rows lane / 4 and eight below
                        const int i = (chunk * 8 + j) * 4 + half * 2, row = warp * 16 + half * 8 + lane / 4;
                        float low = d[i] + b.x, high = d[i + 1] + b.y;
                        if constexpr (kGated) {
                            low = activate(d[i], Activation::silu) * d[i + BN / 4];
                            high = activate(d[i + 1], Activation::silu) * d[i + 1 + BN / 4];
                        } else {
                            low = activate(low, kActivationOf<Kind>);
                            high = activate(high, kActivationOf<Kind>);
                        }
                        const uint32_t place = buffer + row * 128 + ((j ^ (row & 7)) << 4) + lane % 4 * 4;
                        if (residual) {
                            float2 r = unpack_pair<T>(load_shared(place));
                            low += r.x, high += r.y;
                        }
                        store_shared(place, pack_pair<T>(low, high));
                    }
                }
                fence_async_shared();
                named_sync<128>(1 + group);
                if (leader) {
                    tma_store(y_map, n0 + chunk * 64, m0, buffer);
                    tma_store_commit();
                }
            }
        }
        if (leader) tma_store_wait();
    }
    if (blocks > 1) cluster_sync();  // a block's barriers live until the other has arrived at them
#endif
}

// ── the choice and the launch ────────────────────────────────────────────────────────────────────────────────────────

// Tensor cores of sm_90 take 2048 multiply-adds of 16-bit numbers a clock: BM · BN · 64 / 2048 clocks for a step, and some more
// where B's columns are few and A is read for little. The first two are gemm_sm90, the others gemm_sm90_cluster.
constexpr GemmTileCost kTiles[] = {
    {.BM = 128, .BN = 256, .most_splits = 1, .resident = 1, .step = 1100, .fixed = 2600, .combine = 0},
    {.BM = 128, .BN = 128, .most_splits = 1, .resident = 1, .step = 570, .fixed = 2200, .combine = 0},
    {.BM = 128, .BN = 128, .most_splits = 8, .resident = 1, .step = 570, .fixed = 2600, .combine = 2600},
    {.BM = 128, .BN = 64, .most_splits = 8, .resident = 2, .step = 320, .fixed = 2200, .combine = 1400},
    {.BM = 128, .BN = 64, .most_splits = 8, .resident = 2, .step = 320, .fixed = 2200, .combine = 1400, .swapped = true},
    {.BM = 128, .BN = 32, .most_splits = 8, .resident = 2, .step = 190, .fixed = 2000, .combine = 900, .swapped = true},
    {.BM = 128, .BN = 16, .most_splits = 8, .resident = 2, .step = 140, .fixed = 1900, .combine = 600, .swapped = true},
};
constexpr int kPersistent = 2;

template <typename T, int BN, bool Swapped, class Out>
void launch_cluster(const Launch& launch, const char* op, const GemmOperands& g, int splits, const Out& out) {
    using Pipe = Pipeline<BN, kClusterStages<BN>>;
    constexpr DType dtype = std::is_same_v<T, half> ? DType::float16 : DType::bfloat16;
    constexpr int kRowsM = Swapped ? BN : BM, kRowsN = Swapped ? BM : BN;
    constexpr size_t kSums = size_t(kRowsM) * kSumsPitch<BN, Swapped> * 4, kStages = Pipe::kStages * Pipe::kStageBytes;
    static_assert(kSums <= kStages);
    const int64_t columns = g.gated ? g.w.rows / 2 : g.w.rows, width = g.gated ? kRowsN / 2 : kRowsN;
    const int64_t tiles = ceil_div(g.rows.planned, kRowsM) * ceil_div(columns, width);
    Grid grid{unsigned(tiles * splits), kThreads, kStages + 2 * Pipe::kStages * 8, unsigned(splits)};
    start_kernel(launch, op, gemm_sm90_cluster_kernel<T, BN, Swapped, Out>, grid,
                 tensor_map(launch, dtype, g.x, g.rows.planned, g.halves ? g.x_pitch : g.w.columns, g.x_pitch, kRowsM),
                 tensor_map(launch, dtype, g.w.data, g.w.rows, g.w.columns, g.w.pitch, kRowsN / 2), g, splits, out);
}

template <typename T, class Out>
void launch_any_cluster(const Launch& launch, const char* op, const GemmTile& tile, const GemmOperands& g, const Out& out) {
    switch (tile.index) {
        case 2: return launch_cluster<T, 128, false>(launch, op, g, tile.splits, out);
        case 3: return launch_cluster<T, 64, false>(launch, op, g, tile.splits, out);
        case 4: return launch_cluster<T, 64, true>(launch, op, g, tile.splits, out);
        case 5: return launch_cluster<T, 32, true>(launch, op, g, tile.splits, out);
        default: return launch_cluster<T, 16, true>(launch, op, g, tile.splits, out);
    }
}

template <typename T, int BN, Way Kind>
void launch_tiles(const Launch& launch, const GemmOperands& g, const float* bias, const TensorView& residual,
                  const TensorView& y) {
    using Pipe = Pipeline<BN, kTileStages<BN>>;
    constexpr DType dtype = std::is_same_v<T, half> ? DType::float16 : DType::bfloat16;
    const int64_t M = g.rows.planned, columns = y.shape.last(), K = g.w.columns;
    const int64_t m_tiles = ceil_div(M, BM), n_tiles = ceil_div(columns, Kind == Way::gated ? BN / 2 : BN);
    const int blocks = m_tiles > 1 ? 2 : 1;
    const int64_t most = launch.device.multiprocessors / blocks;
    Grid grid{unsigned(std::min(ceil_div(m_tiles, blocks) * n_tiles, most) * blocks), kThreads,
              size_t(Pipe::kStages) * Pipe::kStageBytes + 4 * kOutBytes + (2 * Pipe::kStages + 4) * 8, unsigned(blocks)};
    CUtensorMap y_map = tensor_map(launch, dtype, y.data, M, columns, columns, 64);
    CUtensorMap r_map = residual.data == nullptr ? y_map : tensor_map(launch, dtype, residual.data, M, columns, columns, 64);
    start_kernel(launch, "linear", gemm_sm90_kernel<T, BN, Kind>, grid, tensor_map(launch, dtype, g.x, M, K, g.x_pitch, BM),
                 tensor_map(launch, dtype, g.w.data, g.w.rows, K, g.w.pitch, BN / 2), r_map, y_map, g, blocks, bias,
                 residual.data != nullptr);
}

template <typename T, int BN>
void launch_way(const Launch& launch, const Linear& op, const GemmOperands& g, const float* bias, const TensorView& residual,
                const TensorView& y) {
    if (g.gated) return launch_tiles<T, BN, Way::gated>(launch, g, bias, residual, y);
    switch (op.activation) {
        case Activation::gelu: return launch_tiles<T, BN, Way::gelu>(launch, g, bias, residual, y);
        case Activation::gelu_tanh: return launch_tiles<T, BN, Way::gelu_tanh>(launch, g, bias, residual, y);
        case Activation::quick_gelu: return launch_tiles<T, BN, Way::quick_gelu>(launch, g, bias, residual, y);
        default: return launch_tiles<T, BN, Way::plain>(launch, g, bias, residual, y);
    }
}

bool has_way(Activation activation) {
    return activation == Activation::none || activation == Activation::gelu || activation == Activation::gelu_tanh ||
           activation == Activation::quick_gelu;
}

}  // namespace

std::span<const GemmTileCost> gemm_sm90_tiles() { return kTiles; }

GemmTile plan_gemm_sm90(const Device& device, const GemmOperands& g, Activation activation) {
    // gemm_sm90 writes y by TMA: rows of y are multiples of 16 bytes
    bool persistent = g.w.rows % (g.gated ? 16 : 8) == 0 && has_way(activation);
    return choose_tile(kTiles, persistent ? 0 : kPersistent, g, device.multiprocessors);
}

GemmTile plan_gemm_sm90_patches(const Device& device, const GemmOperands& g) {
    return choose_tile(kTiles, kPersistent, g, device.multiprocessors);
}

void gemm_sm90(const Launch& launch, const Linear& op, const GemmTile& tile, const GemmOperands& g, const float* bias,
               const TensorView& residual, const TensorView& y) {
    by_dtype16("linear", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (tile.index == 0) return launch_way<T, 256>(launch, op, g, bias, residual, y);
        if (tile.index == 1) return launch_way<T, 128>(launch, op, g, bias, residual, y);
        launch_any_cluster<T>(launch, "linear", tile, g, linear_out<T>(op, bias, residual, y));
    });
}

void gemm_sm90_patches(const Launch& launch, const GemmTile& tile, const GemmOperands& g, const PatchRows& rows,
                       const TensorView& y) {
    by_dtype16("patchEmbed", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        launch_any_cluster<T>(launch, "patchEmbed", tile, g, patch_out<T>(rows, y));
    });
}

}  // namespace warpsight::cuda
