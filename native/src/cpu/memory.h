// Aligned memory from the system, and the process-wide pool that tensors and arenas come from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warpsight::cpu {

/// 64-byte aligned memory from the system, counted in counters().device_allocations. Throws ERR_OUT_OF_MEMORY: also when `bytes`
/// is more than the machine or the control group has left, where the system itself would promise the memory and end the process
/// when it is touched.
void* allocate_aligned(size_t bytes);
void free_aligned(void* memory) noexcept;
/// The same, for memory all of which will be written soon: the system finds and clears it at once, instead of page by page as it
/// is touched.
void* allocate_to_fill(size_t bytes);

/// Blocks by size class (four per power of two). Freed blocks up to kKeptBlock wait for the next request, at most kKept bytes of
/// them together.
void* pool_allocate(size_t bytes);
void pool_release(void* memory, size_t bytes) noexcept;
constexpr size_t kKeptBlock = size_t(16) << 20, kKept = size_t(64) << 20;

/// Bytes handed out by pool_allocate and not yet released, as asked for.
uint64_t pool_bytes();

}  // namespace warpsight::cpu
