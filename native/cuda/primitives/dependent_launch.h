// Programmatic dependent launch: a kernel's blocks take their places, and do what depends on no other kernel, while the kernel
// before them still runs. PTX ISA, griddepcontrol.
#pragma once

#if defined(__CUDACC__)
namespace warpsight::cuda {

/// The next kernel of the stream may be placed on the device once every block of this one has called.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// What lies below runs after the kernels ahead in the stream are done and what they wrote can be seen. Every thread of every
/// kernel calls it, on every way through, before it reads or writes what another kernel writes or reads: the next kernel relies
/// on it as well.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The first statement of a kernel that has nothing to do before the wait.
__device__ __forceinline__ void follow_previous() {
    let_next_start();
    wait_for_previous();
}

}  // namespace warpsight::cuda
#endif
