// Copies from global to shared memory that run beside computation (sm_80 and later). PTX ISA, cp.async.
#pragma once

#include <cstdint>

namespace warpsight::cuda {

/// 16 bytes to the shared address, both aligned to 16; zeros instead where `present` is false (then nothing is read).
__device__ __forceinline__ void cp_async16(uint32_t to, const void* from, bool present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0) : "memory");
}

/// Closes the group of this thread's copies so far.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `Newest` of this thread's groups are unfinished. Other threads' copies need a barrier after it.
template <int Newest>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
}

}  // namespace warpsight::cuda
