// The kernels in plain C++, for any processor.
#include "kernels.h"

#include <math.h>
#include <string.h>

#define WARPSIGHT_ROWS_4
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_generic.h"
#include "simd_math.h"
#include "tile.h"
#include "kernels_impl.h"
}  // namespace

const Kernels* generic_kernels() { return &kKernels; }

}  // namespace warpsight::cpu
