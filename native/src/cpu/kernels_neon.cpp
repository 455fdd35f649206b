// The kernels for NEON on AArch64, where every processor has it.
#include "kernels.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <string.h>
#define WARPSIGHT_ROWS_6
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_neon.h"
#include "simd_math.h"
#include "tile.h"
#include "kernels_impl.h"
}  // namespace

const Kernels* neon_kernels() { return &kKernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Kernels* neon_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
