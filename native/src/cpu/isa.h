// Which instructions the kernels use: the best level that both this build and this processor have, or the one that WARPSIGHT_ISA
// names.
#pragma once

#include "kernels.h"
#include "kernels_bfloat16.h"
#include "kernels_int8.h"

namespace warpsight::cpu {

/// A table for each kind of product.
struct Level {
    const char* name;
    const Kernels* floats;
    const Int8Kernels* int8;
    const BFloat16Kernels* bfloat16;  // null without AVX-512; generic has one for tests
};

/// Chosen once per process. Throws ERR_CONFIG if WARPSIGHT_ISA names one that can't be used here.
const Level& level();

inline const Kernels& kernels() { return *level().floats; }
inline const Int8Kernels& int8_kernels() { return *level().int8; }

}  // namespace warpsight::cpu
