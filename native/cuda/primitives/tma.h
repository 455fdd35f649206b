// Tiles of matrices between global and shared memory by the copy engine (sm_90), 64 elements of a row wide, with its 128-byte
// swizzle: piece c (16 bytes) of row r lies at place c ^ (r % 8). PTX ISA, cp.async.bulk.tensor.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace warpsight::cuda {

/// Copies the tile at (column, row) to a shared address aligned to 1024; its bytes count at the barrier, what lies outside the
/// matrix as zeros.
__device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap& map, int column, int row, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}
/// The same to this place in each block of the cluster whose bit is set, and to its barrier.
__device__ __forceinline__ void tma_load_multicast(uint32_t to, const CUtensorMap& map, int column, int row, uint32_t barrier,
                                                   uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], "
        "[%4], "
        "%5;" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
        : "memory");
}

/// Writes a tile; what lies outside the matrix is dropped. Before it, fence_async_shared() in each thread that wrote the tile.
__device__ __forceinline__ void tma_store(const CUtensorMap& map, int column, int row, uint32_t from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(column), "r"(row),
                 "r"(from)
                 : "memory");
}
__device__ __forceinline__ void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until at most `Newest` of this thread's groups of stores still read shared memory.
template <int Newest>
__device__ __forceinline__ void tma_store_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Newest) : "memory");
}
/// Until all of this thread's stores are done.
__device__ __forceinline__ void tma_store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/// What this thread wrote to shared memory can be seen by the copy engine and the tensor cores.
__device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Four bytes of shared memory.
__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
    return v;
}
__device__ __forceinline__ void store_shared(uint32_t address, uint32_t v) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}

}  // namespace warpsight::cuda
