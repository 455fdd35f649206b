// How the copy engine sees a row-major matrix of 16-bit elements.
#pragma once

#include <cuda.h>

#include "launch.h"

namespace warpsight::cuda {

/// Tiles of `box_rows` rows (at most 256) × 64 columns, with the 128-byte swizzle. Address and pitch are multiples of 16 bytes.
CUtensorMap tensor_map(const Launch& launch, DType dtype, const void* data, int64_t rows, int64_t columns, int64_t pitch,
                       int box_rows);

}  // namespace warpsight::cuda
