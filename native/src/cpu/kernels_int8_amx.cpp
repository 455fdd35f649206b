// int8 products for AMX: tdpbusd.
#include "kernels_int8.h"

#if defined(__x86_64__) && defined(__linux__)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "amx";
constexpr int kMost = 255;
constexpr int kBias = 0;
constexpr int kPack = 4;
using Row = uint8_t;
using Weight = int8_t;
using Sum = int32_t;
#define TILE_PRODUCT(sums, x, w) _tile_dpbusd(sums, x, w)
#include "multiply_tiles.h"

#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* amx_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* amx_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
