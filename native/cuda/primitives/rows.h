// How many rows there really are. One recorded launch serves every size up to the planned one: grids have the planned size, and
// what lies past the actual end leaves at once.
#pragma once

#include <cstdint>

namespace warpsight::cuda {

struct Rows {
    const int32_t* symbols = nullptr;  // on the device; null: `planned` is exact
    int symbol = -1;
    int64_t multiple = 1;
    int64_t planned = 0;

    __device__ __forceinline__ int64_t count() const {
        if (symbols == nullptr || symbol < 0) return planned;
        int64_t n = multiple * symbols[symbol];
        return n < 0 ? 0 : n < planned ? n : planned;
    }
};

}  // namespace warpsight::cuda
