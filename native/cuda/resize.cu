// Resampling in two passes of integers, then a table per channel; PIL's arithmetic bit for bit.
//   scratch[r, x, c] = clip8((2^21 + Σ w·pixels[firstRow + r, first + i, c]) >> 22)          resize_horizontal
//   out[c, y, x]     = lut[c, clip8((2^21 + Σ w·scratch[first − firstRow + i, x, c]) >> 22)]   resize_vertical
// shapes    pixels, scratch uint8, HWC pictures one after the other; images int32 [n, 12] and taps int32 as ops.h lays them out;
//           out float32 [n, 3, H, W]
// launch    a thread per sample of the output, blocks of 256; grid (64 blocks that step through a picture's scratch, n),
//           (ceil(3·H·W / 256), n)
// roofline  a byte and a multiply-add per tap and sample: bound by L1 and integer arithmetic; a picture of 500 × 375 takes about
//           1 M taps in each pass
// source    Pillow's Resample.c. Offsets or taps that leave their arrays give 0 and touch nothing
#include "../src/picture_row.h"
#include "device.h"
#include "launch.h"
#include "primitives/number.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256, kBlocksPerPicture = 64;

/// One row of `images`.
struct Picture {
    int64_t source, scratch;
    int width, x_table, x_stride, y_table, y_stride, first_row, rows;
    __device__ explicit Picture(const PictureRow& row)
        : source(row.source_offset),
          scratch(row.scratch_offset),
          width(row.source_width),
          x_table(row.x_table),
          x_stride(row.x_stride),
          y_table(row.y_table),
          y_stride(row.y_stride),
          first_row(row.first_row),
          rows(row.rows) {}
};

/// The weights of one output sample; none where they leave the tables.
struct Taps {
    const int32_t* weights = nullptr;
    int first = 0, count = 0;
    __device__ Taps(const int32_t* taps, int64_t length, int table, int stride, int i) {
        int64_t at = int64_t(table) + int64_t(i) * stride;
        if (at < 0 || stride < 2 || at + stride > length) return;
        first = taps[at];
        count = min(taps[at + 1], stride - 2);
        weights = taps + at + 2;
    }
};

__device__ __forceinline__ uint8_t clip8(int sum) { return uint8_t(min(255, max(0, sum >> 22))); }

__global__ void resize_horizontal_kernel(const uint8_t* pixels, int64_t bytes, const PictureRow* images, const int32_t* taps,
                                         int64_t length, uint8_t* scratch, int64_t scratch_bytes, int width, Rows n) {
    follow_previous();
    if (blockIdx.y >= n.count()) return;
    const Picture p(images[blockIdx.y]);
    int64_t samples = int64_t(p.rows) * width * 3;
    if (p.scratch < 0 || p.rows < 0 || p.scratch + samples > scratch_bytes) return;
    for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < samples; i += int64_t(gridDim.x) * kThreads) {
        int c = int(i % 3), x = int(i / 3 % width);
        const Taps t(taps, length, p.x_table, p.x_stride, x);
        int64_t from = p.source + ((p.first_row + i / 3 / width) * p.width + t.first) * 3 + c;
        int sum = 1 << 21;
        if (from >= 0 && from + (t.count - 1) * int64_t(3) < bytes)
            for (int j = 0; j < t.count; ++j) sum += t.weights[j] * pixels[from + j * 3];
        scratch[p.scratch + i] = clip8(sum);
    }
}

__global__ void resize_vertical_kernel(const uint8_t* scratch, int64_t scratch_bytes, const PictureRow* images,
                                       const int32_t* taps, int64_t length, const float* lut, float* out, int width, int height,
                                       Rows n) {
    follow_previous();
    int i = blockIdx.x * kThreads + threadIdx.x;
    if (blockIdx.y >= n.count() || i >= 3 * width * height) return;
    const Picture p(images[blockIdx.y]);
    int x = i % width, y = i / width % height, c = i / width / height;
    const Taps t(taps, length, p.y_table, p.y_stride, y);
    int64_t row = int64_t(width) * 3, from = p.scratch + int64_t(t.first - p.first_row) * row + x * 3 + c;
    int sum = 1 << 21;
    if (from >= 0 && from + (t.count - 1) * row < scratch_bytes)
        for (int j = 0; j < t.count; ++j) sum += t.weights[j] * scratch[from + j * row];
    out[int64_t(blockIdx.y) * 3 * width * height + i] = lut[c * 256 + clip8(sum)];
}

}  // namespace

void resize_horizontal(const Launch& launch, const ResizeHorizontal& op, const TensorView& pixels, const TensorView& images,
                       const TensorView& taps, const TensorView& scratch, Rows n) {
    if (n.planned == 0 || scratch.shape.elements() == 0 || op.width == 0) return;
    start_kernel(launch, "resizeHorizontal", resize_horizontal_kernel, {dim3(kBlocksPerPicture, unsigned(n.planned)), kThreads},
                 pixels.as<const uint8_t>(), pixels.shape.elements(), images.as<const PictureRow>(), taps.as<const int32_t>(),
                 taps.shape.elements(), scratch.as<uint8_t>(), scratch.shape.elements(), op.width, n);
}

void resize_vertical(const Launch& launch, const ResizeVertical& op, const TensorView& scratch, const TensorView& images,
                     const TensorView& taps, const float* lut, const TensorView& out, Rows n) {
    int64_t samples = int64_t(3) * op.width * op.height;
    if (n.planned == 0 || samples == 0) return;
    start_kernel(launch, "resizeVertical", resize_vertical_kernel,
                 {dim3(unsigned(ceil_div(samples, kThreads)), unsigned(n.planned)), kThreads}, scratch.as<const uint8_t>(),
                 scratch.shape.elements(), images.as<const PictureRow>(), taps.as<const int32_t>(), taps.shape.elements(), lut,
                 out.as<float>(), op.width, op.height, n);
}

}  // namespace warpsight::cuda
