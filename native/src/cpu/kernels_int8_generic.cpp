// int8 products in plain C++, for any processor.
#include "kernels_int8.h"

#include <math.h>
#include <string.h>

namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_generic.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "generic";
constexpr int kRows = 4, kColumns = 8;
constexpr int kMost = 255;
constexpr int kBias = 0;
using Row = uint8_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 4;

struct vw {
    int8_t v[4 * W];
};
struct vx {
    uint8_t v[4];
};
inline vw load_weights(const int8_t* p) {
    vw out;
    memcpy(out.v, p, sizeof out.v);
    return out;
}
inline vx broadcast(const Row* p) {
    vx out;
    memcpy(out.v, p, sizeof out.v);
    return out;
}
inline vi dot(vi sum, vx x, vw w) {
    for (int i = 0; i < W; ++i)
        for (int j = 0; j < 4; ++j) sum.v[i] += uint32_t(int32_t(x.v[j]) * w.v[4 * i + j]);
    return sum;
}

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* generic_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
