// Which instruction set the kernels use: the best that both this build and this processor have, or the one that WARPSIGHT_ISA
// names.
#pragma once

#include "kernels.h"

namespace warpsight::cpu {

/// Chosen once per process. Throws ERR_CONFIG if WARPSIGHT_ISA names one that can't be used here.
const Kernels& kernels();

}  // namespace warpsight::cpu
