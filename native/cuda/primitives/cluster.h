// Blocks of a cluster and each other's shared memory (sm_90). PTX ISA, barrier.cluster, mapa, ld.shared::cluster.
#pragma once

#include "pack.h"

namespace warpsight::cuda {

/// All threads of all blocks of the cluster; what each wrote before can be seen by all after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Eight float32 from the place of another block's shared memory that `shared_address` (aligned to 16) is in this one's.
__device__ __forceinline__ Pack<8> load_from_block(uint32_t shared_address, uint32_t block) {
    uint32_t there;
    Pack<8> p;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address), "r"(block));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(p.v[0]), "=f"(p.v[1]), "=f"(p.v[2]), "=f"(p.v[3])
                 : "r"(there)
                 : "memory");
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(p.v[4]), "=f"(p.v[5]), "=f"(p.v[6]), "=f"(p.v[7])
                 : "r"(there + 16)
                 : "memory");
    return p;
}

}  // namespace warpsight::cuda
