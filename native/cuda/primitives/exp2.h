// 2^x by the special function unit. PTX ISA, ex2.
#pragma once

namespace warpsight::cuda {

/// 2^x to two units in the last place: exactly 1 at 0, 0 at −∞ and below −126, NaN at NaN.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace warpsight::cuda
