// y[r] = table[ids[r]] + position_table[positions[r]]
// shapes    ids, positions int32 [R]; tables [V, D] and [P, D] in the dtype they are stored in; y [R, D] float32, float16 or
//           bfloat16
// launch    blocks of 256 threads, an element of y each; grid ceil(R·D / 256)
// roofline  reads two rows and writes one per id: memory-bound, and small
// source    an id or position outside its table gives a row of NaN and touches nothing
#include "device.h"
#include "launch.h"
#include "primitives/number.h"

namespace warpsight::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float gathered(const Matrix& table, int row, int64_t column) {
    return row >= 0 && row < table.rows ? element(table.data, table.dtype, row * table.pitch + column) : nan_value();
}

template <typename T>
__global__ void embed_kernel(const int32_t* ids, Matrix table, const int32_t* positions, Matrix position_table, T* y, Rows rows) {
    follow_previous();
    int64_t D = table.columns, i = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = i / D, column = i % D;
    if (row >= rows.count()) return;
    float v = gathered(table, ids[row], column);
    if (positions != nullptr) v += gathered(position_table, positions[row], column);
    y[i] = from_float<T>(v);
}

}  // namespace

void embed(const Launch& launch, const TensorView& ids, const Matrix& table, const TensorView& positions,
           const Matrix& position_table, const TensorView& y, Rows rows) {
    if (rows.planned == 0 || table.columns == 0) return;
    by_dtype("embed", y.dtype, [&](auto zero) {
        using T = decltype(zero);
        start_kernel(launch, "embed", embed_kernel<T>, {unsigned(ceil_div(rows.planned * table.columns, kThreads)), kThreads},
                     ids.as<const int32_t>(), table, positions.as<const int32_t>(), position_table, y.as<T>(), rows);
    });
}

}  // namespace warpsight::cuda
