// One row of the table `images` that both passes of resampling read (ops.h). lib/preprocess/resample.ts writes it, by the names
// in its kDescriptor. Offsets of sources and scratch are bytes, those of tables int32 elements.
#pragma once

#include <cstdint>

namespace warpsight {

struct PictureRow {
    static constexpr int kFields = 12;
    int32_t source_offset, source_width, source_height;
    int32_t x_table, x_stride, y_table, y_stride;
    int32_t scratch_offset;
    int32_t first_row, rows;  // of the source, that the second pass reads
    int32_t zeros[2];
};
static_assert(sizeof(PictureRow) == PictureRow::kFields * sizeof(int32_t));

}  // namespace warpsight
