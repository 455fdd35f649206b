// The kernels for AVX-512 (F, BW, DQ, VL) with FMA and F16C; compiled with those enabled.
#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#include "intrinsics_avx512.h"
#define WARPSIGHT_ROWS_14
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"
#include "kernels_impl.h"
}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
