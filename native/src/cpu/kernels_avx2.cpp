// The kernels for AVX2 with FMA and F16C; compiled with those enabled.
#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#define WARPSIGHT_ROWS_6
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx2.h"
#include "simd_math.h"
#include "tile.h"
#include "kernels_impl.h"
}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Kernels* avx2_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
