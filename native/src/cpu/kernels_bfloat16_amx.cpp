// Products in bfloat16 for AMX: tdpbf16ps.
#include "kernels_bfloat16.h"

#if defined(__x86_64__) && defined(__linux__)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kProductsIsa = "amx";

#include "round_avx512_bf16.h"

using Row = uint16_t;
using Weight = uint16_t;
using Sum = float;
#define TILE_PRODUCT(sums, x, w) _tile_dpbf16ps(sums, x, w)
#include "multiply_tiles.h"
#include "kernels_bfloat16_impl.h"
}  // namespace

const BFloat16Kernels* amx_bfloat16_kernels() { return &kBFloat16Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const BFloat16Kernels* amx_bfloat16_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
