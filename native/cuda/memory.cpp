#include "memory.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace warpsight::cuda {
namespace {

/// Sizes are rounded so that shapes that differ a little share blocks: multiples of 512 bytes up to 4 KiB, then eighths of a
/// power of two.
size_t block_size(size_t bytes) {
    if (bytes <= 4096) return bytes == 0 ? 512 : (bytes + 511) / 512 * 512;
    size_t step = std::bit_floor(bytes - 1) / 8;
    return (bytes + step - 1) / step * step;
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
    if (bytes < 1024) return std::to_string(bytes) + " bytes";
    const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = double(bytes) / 1024;
    int unit = 0;
    for (; value >= 1024 && unit < 3; ++unit) value /= 1024;
    char text[32];
    snprintf(text, sizeof text, "%.1f %s", value, units[unit]);
    return text;
}

MemoryPool::~MemoryPool() {
    if (!device_.try_enter()) return;
    for (auto& [memory, bytes] : blocks_) cudaFree(memory);
}

void* MemoryPool::allocate(size_t bytes, const void* stream) {
    device_.enter();
    size_t size = block_size(bytes);
    {
        std::lock_guard lock(mutex_);
        for (const void* owner : {stream, static_cast<const void*>(nullptr)}) {
            auto list = free_.find(owner);
            if (list == free_.end()) continue;
            auto block = list->second.lower_bound(size);
            if (block == list->second.end() || block->first > size + size / 4) continue;
            void* memory = block->second;
            cached_ -= block->first;
            in_use_ += block->first;
            list->second.erase(block);
            return memory;
        }
    }
    void* memory = device_malloc(size, "memory for a tensor or an arena");
    std::lock_guard lock(mutex_);
    blocks_[memory] = size;
    in_use_ += size;
    return memory;
}

void MemoryPool::release(void* memory, const void* stream) noexcept {
    if (memory == nullptr) return;
    std::lock_guard lock(mutex_);
    auto block = blocks_.find(memory);
    if (block == blocks_.end()) return;
    free_[stream].emplace(block->second, memory);
    cached_ += block->second;
    in_use_ -= block->second;
}

void MemoryPool::retire(const void* stream) noexcept {
    std::lock_guard lock(mutex_);
    auto list = free_.find(stream);
    if (list == free_.end()) return;
    Free blocks = std::move(list->second);
    free_.erase(list);
    free_[nullptr].merge(blocks);
}

void* MemoryPool::allocate_plain(size_t bytes, const char* what) {
    device_.enter();
    size_t size = std::max<size_t>(bytes, 16);
    void* memory = device_malloc(size, what);
    std::lock_guard lock(mutex_);
    plain_[memory] = size;
    return memory;
}

void MemoryPool::release_plain(void* memory) noexcept {
    if (memory == nullptr) return;
    if (device_.try_enter()) device_.note(cudaFree(memory), "memory cannot be freed");
    std::lock_guard lock(mutex_);
    held_ -= plain_.extract(memory).mapped();
}

void* MemoryPool::device_malloc(size_t bytes, const char* what) {
    for (bool trimmed : {false, true}) {
        void* memory = nullptr;
        cudaError_t status = cudaErrorMemoryAllocation;
        if (held_.fetch_add(bytes) + bytes <= limit_) status = cudaMalloc(&memory, bytes);
        if (status == cudaSuccess) {
            ++counters().device_allocations;
            return memory;
        }
        held_ -= bytes;
        if (status != cudaErrorMemoryAllocation) device_.check(status, what);
        cudaGetLastError();
        if (!trimmed) trim();
    }
    size_t free = 0, total = 0;
    device_.check(cudaMemGetInfo(&free, &total), "free memory cannot be asked for");
    free = size_t(std::min<uint64_t>(free, left()));
    std::string limit = limit_ == UINT64_MAX ? "" : " within its limit of " + bytes_text(limit_);
    throw Error("ERR_OUT_OF_MEMORY", device_.name + " has " + bytes_text(free) + " free" + limit + " (" + std::to_string(free) +
                                         " bytes): " + what + " needs " + bytes_text(bytes) + " (" + std::to_string(bytes) +
                                         " bytes)");
}

uint64_t MemoryPool::left() const {
    uint64_t held = held_ - cached();
    return limit_ > held ? limit_ - held : 0;
}

void MemoryPool::trim() {
    std::lock_guard lock(mutex_);
    for (auto& [stream, blocks] : free_) {
        for (auto& [size, memory] : blocks) {
            blocks_.erase(memory);
            cached_ -= size;
            held_ -= size;
            device_.note(cudaFree(memory), "memory cannot be freed");  // waits for work that still uses it
        }
        blocks.clear();
    }
}

size_t MemoryPool::in_use() const {
    std::lock_guard lock(mutex_);
    return in_use_;
}

size_t MemoryPool::cached() const {
    std::lock_guard lock(mutex_);
    return cached_;
}

PinnedPool::~PinnedPool() {
    if (!device_.try_enter()) return;
    for (auto& [bytes, data] : free_) cudaFreeHost(data);
}

PinnedPool::Block PinnedPool::take(size_t bytes) {
    size_t size = std::max(size_t(64) << 10, std::bit_ceil(bytes));
    {
        std::lock_guard lock(mutex_);
        auto block = free_.lower_bound(size);
        if (block != free_.end() && block->first <= 4 * size) {
            Block taken{block->second, block->first};
            free_.erase(block);
            return taken;
        }
    }
    Block block{nullptr, size};
    device_.check(cudaHostAlloc(&block.data, size, cudaHostAllocDefault), "page-locked host memory cannot be had");
    ++counters().device_allocations;
    return block;
}

void PinnedPool::give(Block block) noexcept {
    if (block.data == nullptr) return;
    if (block.bytes > kKept) {
        if (device_.try_enter()) device_.note(cudaFreeHost(block.data), "host memory cannot be freed");
        return;
    }
    std::lock_guard lock(mutex_);
    free_.emplace(block.bytes, block.data);
}

}  // namespace warpsight::cuda
