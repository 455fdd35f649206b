// y[i·T + t] = (t < c ? class : patch t − c of picture i · Wᵀ + b) + positions[t],   T = c + (H/p)·(W/p)
// shapes    pixels float32 [n, C, H, W], W [D, C·p·p] rows `pitch` apart, b and class [D], positions [T, D] float32, y [n·T, D]
// launch    a 64 × 64 tile of y per block of 256 threads, grid (row tiles, D tiles), 16 KB. The patch matrix is never written: a
//           pack of it is read where it lies in the picture. Rows of the class token go along with a product of zero
// roofline  2·n·(T − c)·D·C·p² flops, as gemm_simt; each pixel is read D / 64 times, from L2 after the first
// source    Dosovitskiy et al. 2021; the sum over k as in primitives/gemm_tile.h, pixels stay float32 in every dtype
#include "device.h"
#include "launch.h"
#include "primitives/gemm_tile.h"

namespace warpsight::cuda {
namespace {

using Medium = Tile<64, 64, 16, 4, 4>;

struct Patches {
    static constexpr int V = 4;
    const float* pixels;
    int64_t rows;
    int channels, height, width, patch, across, tokens, class_tokens;
    bool vector;  // p and W are multiples of 4 and the pixels aligned: four neighbours of a pack lie side by side

    __device__ __forceinline__ Pack<V> pack(int64_t row, int k) const {
        Pack<V> out = zeros<V>();
        int t = int(row % tokens) - class_tokens, columns = channels * patch * patch;
        if (row >= rows || t < 0) return out;
        const float* picture = pixels + row / tokens * channels * height * width;
        int y = t / across * patch, x = t % across * patch;
        if (vector) {
            if (k < columns) out = load<4>(picture + at(k, y, x));
        } else {
#pragma unroll
            for (int i = 0; i < V; ++i)
                if (k + i < columns) out.v[i] = picture[at(k + i, y, x)];
        }
        return out;
    }
    __device__ __forceinline__ int64_t at(int k, int y, int x) const {
        int row = k / patch, channel = row / patch;
        return (int64_t(channel) * height + y + row - channel * patch) * width + x + k - row * patch;
    }
};

template <typename T, typename W>
__global__ __launch_bounds__(Medium::kThreads, 3) void patch_embed_kernel(Patches patches, RowMajor<W, Patches::V> w,
                                                                          const float* bias, const float* class_token,
                                                                          const float* positions, T* y, Rows rows) {
    follow_previous();
    int64_t M = rows.count(), D = w.rows, m0 = int64_t(blockIdx.x) * Medium::BM, n0 = int64_t(blockIdx.y) * Medium::BN;
    if (m0 >= M) return;
    patches.rows = M;
    gemm_tile<Medium>(patches, w, m0, n0, w.columns, [&](int64_t m, int64_t n, Pack<4> p) {
        if (m >= M) return;
        int t = int(m % patches.tokens);
        for (int j = 0; j < 4; ++j) {
            if (n + j >= D) break;
            float v = p.v[j];
            if (t < patches.class_tokens) v = class_token[n + j];
            else if (bias != nullptr) v += bias[n + j];
            if (positions != nullptr) v += positions[t * D + n + j];
            y[m * D + n + j] = from_float<T>(v);
        }
    });
}

template <typename T, typename W>
void launch_types(const Launch& launch, const Patches& patches, const Matrix& weight, const float* bias, const float* class_token,
                  const float* positions, const TensorView& y, Rows rows) {
    RowMajor<W, Patches::V> w{static_cast<const W*>(weight.data), weight.rows, weight.pitch, int(weight.columns),
                              weight.pitch % kPack<W> == 0 && aligned(weight.data)};
    dim3 grid(unsigned(ceil_div(rows.planned, Medium::BM)), unsigned(ceil_div(weight.rows, Medium::BN)));
    start_kernel(launch, "patch_embed", patch_embed_kernel<T, W>, {grid, Medium::kThreads}, patches, w, bias, class_token,
                 positions, y.as<T>(), rows);
}

/// A thread writes eight neighbours of a row; where pixels are kept as two numbers, `packs` counts those of the larger ones.
template <typename T>
__global__ void patches_kernel(Patches patches, T* y, int64_t pitch, Rows rows, int packs) {
    constexpr bool kHalves = std::is_same_v<T, bf16>;
    follow_previous();
    const int64_t q = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = q / packs;
    const int k = int(q % packs) * 8;
    if (row >= rows.count()) return;
    const Pack<4> low = patches.pack(row, k), high = patches.pack(row, k + 4);
    Pack<8> p{low.v[0], low.v[1], low.v[2], low.v[3], high.v[0], high.v[1], high.v[2], high.v[3]};
    T* to = y + row * pitch + (kHalves ? k / 64 * 128 + k % 64 : k);
    store(to, p);
    if constexpr (kHalves) {
#pragma unroll
        for (float& v : p.v) v -= rounded<T>(v);
        store(to + 64, p);
    }
}

Patches patches_of(const PatchEmbed& op, const TensorView& pixels, bool class_token, int64_t rows) {
    int H = int(pixels.shape[2]), W = int(pixels.shape[3]), p = op.patch, c = class_token ? 1 : 0;
    return {pixels.as<const float>(),
            rows,
            int(pixels.shape[1]),
            H,
            W,
            p,
            W / p,
            c + (H / p) * (W / p),
            c,
            p % 4 == 0 && W % 4 == 0 && aligned(pixels.data)};
}

}  // namespace

void patches(const Launch& launch, const PatchEmbed& op, const TensorView& pixels, bool class_token, const TensorView& y,
             Rows rows) {
    const int64_t pitch = y.shape.last();
    const int packs = int(y.dtype == DType::bfloat16 ? pitch / 16 : pitch / 8);
    by_dtype("patchEmbed", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "patchEmbed", patches_kernel<T>, {unsigned(ceil_div(rows.planned * packs, 256)), 256},
                     patches_of(op, pixels, class_token, rows.planned), y.as<T>(), pitch, rows, packs);
    });
}

void patch_embed(const Launch& launch, const PatchEmbed& op, const TensorView& pixels, const Matrix& weight, const float* bias,
                 const float* class_token, const float* positions, const TensorView& y, Rows rows) {
    if (rows.planned == 0 || weight.rows == 0) return;
    const Patches patches = patches_of(op, pixels, class_token != nullptr, rows.planned);
    by_dtype("patchEmbed", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (weight.dtype == y.dtype) return launch_types<T, T>(launch, patches, weight, bias, class_token, positions, y, rows);
        if constexpr (std::is_same_v<T, float>) {
            if (weight.dtype == DType::float16)
                return launch_types<float, half>(launch, patches, weight, bias, class_token, positions, y, rows);
            if (weight.dtype == DType::bfloat16)
                return launch_types<float, bf16>(launch, patches, weight, bias, class_token, positions, y, rows);
        }
        throw Error("ERR_DTYPE", std::string("patchEmbed: y is ") + name_of(y.dtype) + ", the weight " + name_of(weight.dtype));
    });
}

}  // namespace warpsight::cuda
