// The two passes of resampling pictures, in PIL's integer arithmetic: Pillow, src/libImaging/Resample.c.
#include <span>

#include "../picture_row.h"
#include "plan.h"

namespace warpsight::cpu {

namespace {

/// A row of the table `images`, in the integers that its products need.
struct Picture {
    int64_t source, width, height, x_table, x_stride, y_table, y_stride, scratch, first_row, rows;

    Picture(const PictureRow& row)
        : source(row.source_offset),
          width(row.source_width),
          height(row.source_height),
          x_table(row.x_table),
          x_stride(row.x_stride),
          y_table(row.y_table),
          y_stride(row.y_stride),
          scratch(row.scratch_offset),
          first_row(row.first_row),
          rows(row.rows) {}

    bool inside(int64_t pixel_bytes, int64_t scratch_bytes, int64_t out_width) const {
        return source >= 0 && width >= 0 && height >= 0 && first_row >= 0 && rows >= 0 && first_row + rows <= height &&
               source + width * height * 3 <= pixel_bytes && fits(scratch_bytes, out_width);
    }
    bool fits(int64_t scratch_bytes, int64_t out_width) const {
        return scratch >= 0 && rows >= 0 && scratch + rows * out_width * 3 <= scratch_bytes;
    }
};

struct Taps {
    int64_t first = 0, count = 0;
    const int32_t* weights = nullptr;
};

/// Those of output `index`; none where the table, or what it says, leaves its bounds (`lowest` … `lowest + size` − 1).
Taps taps_of(const TensorView& table, int64_t at, int64_t stride, int64_t index, int64_t lowest, int64_t size) {
    const int64_t entry = at + index * stride, length = table.shape.elements();
    if (at < 0 || stride < 2 || entry + 2 > length) return {};
    const int32_t* t = table.as<int32_t>() + entry;
    const int64_t first = int64_t(t[0]) - lowest, count = t[1];
    if (count <= 0 || count > stride - 2 || entry + 2 + count > length || first < 0 || first + count > size) return {};
    return {first, count, t + 2};
}

/// One pixel of one row, without reading behind it.
void resize_pixel(const uint8_t* from, const Taps& taps, uint8_t* to) {
    for (int c = 0; c < 3; ++c) {
        uint32_t sum = 1 << 21;
        for (int64_t t = 0; t < taps.count; ++t) sum += uint32_t(taps.weights[t]) * from[t * 3 + c];
        to[c] = uint8_t(std::clamp(int32_t(sum) >> 22, 0, 255));
    }
}

Error misplaced(const char* name, int64_t index) {
    return Error("ERR_SHAPE",
                 std::string(name) + ": picture " + std::to_string(index) + " leaves the memory that its table names");
}

}  // namespace

std::unique_ptr<Step> plan(const ResizeHorizontal& op, const StepSpec& spec) {
    const int64_t out_width = op.width;
    return make_step("resize_horizontal_" + std::string(kernels().isa), spec, 2.0 * double(input(spec, 0).shape.elements()), 0,
                     [out_width](const StepArguments& a) {
                         const TensorView &pixels = a.inputs[0], &images = a.inputs[1], &table = a.inputs[2],
                                          &scratch = a.outputs[0];
                         const int64_t n = images.shape[0];
                         int64_t most_rows = 0;
                         for (int64_t i = 0; i < n; ++i) {
                             Picture p(images.as<const PictureRow>()[i]);
                             if (!p.inside(pixels.shape.elements(), scratch.shape.elements(), out_width))
                                 throw misplaced("resizeHorizontal", i);
                             most_rows = std::max(most_rows, p.rows);
                         }
                         constexpr int64_t kRows = 8;
                         const int64_t runs = ceil_div(most_rows, kRows);
                         parallel_for(n * runs, [&](int64_t item) {
                             const Kernels& kernel = kernels();
                             const Picture p(images.as<const PictureRow>()[item / runs]);
                             const int64_t first = item % runs * kRows, last = std::min(p.rows, first + kRows);
                             for (int64_t x = 0; first < last && x < out_width; ++x) {
                                 const Taps taps = taps_of(table, p.x_table, p.x_stride, x, 0, p.width);
                                 for (int64_t row = first; row < last;) {
                                     const int64_t at = p.source + ((p.first_row + row) * p.width + taps.first) * 3;
                                     const uint8_t* from = pixels.as<uint8_t>() + at;
                                     uint8_t* to = scratch.as<uint8_t>() + p.scratch + (row * out_width + x) * 3;
                                     // where the last of several rows ends: one byte behind it is read
                                     const int64_t end = at + (kernel.pixel_rows - 1) * p.width * 3 + taps.count * 3;
                                     if (row + kernel.pixel_rows <= last && end < pixels.shape.elements()) {
                                         kernel.resize_pixel(from, p.width * 3, taps.weights, int(taps.count), to, out_width * 3);
                                         row += kernel.pixel_rows;
                                     } else {
                                         resize_pixel(from, taps, to);
                                         ++row;
                                     }
                                 }
                             }
                         });
                     });
}

std::unique_ptr<Step> plan(const ResizeVertical& op, const StepSpec& spec) {
    WeightHandle lut = weight_input(spec, 3, WeightLayout::vector);
    const int64_t width = op.width, height = op.height;
    return make_step("resize_vertical_" + std::string(kernels().isa), spec, 2.0 * double(input(spec, 0).shape.elements()), 0,
                     [=](const StepArguments& a) {
                         const TensorView &scratch = a.inputs[0], &images = a.inputs[1], &table = a.inputs[2];
                         const int64_t n = images.shape[0], row_bytes = width * 3;
                         for (int64_t i = 0; i < n; ++i)
                             if (!Picture(images.as<const PictureRow>()[i]).fits(scratch.shape.elements(), width))
                                 throw misplaced("resizeVertical", i);
                         parallel_for(n * height, [&](int64_t item) {
                             const int64_t i = item / height, y = item % height;
                             const Picture p(images.as<const PictureRow>()[i]);
                             const Taps taps = taps_of(table, p.y_table, p.y_stride, y, p.first_row, p.rows);
                             uint8_t* bytes = reinterpret_cast<uint8_t*>(thread_scratch(size_t(row_bytes) / sizeof(float) + 1));
                             kernels().resize_column(scratch.as<uint8_t>() + p.scratch + taps.first * row_bytes, row_bytes,
                                                     taps.weights, int(taps.count), bytes, row_bytes);
                             for (int c = 0; c < 3; ++c) {
                                 float* out = floats_at(a.outputs, 0) + ((i * 3 + c) * height + y) * width;
                                 const float* values = floats_of(lut) + c * 256;
                                 for (int64_t x = 0; x < width; ++x) out[x] = values[bytes[x * 3 + c]];
                             }
                         });
                     });
}

}  // namespace warpsight::cpu
