// Device memory: freed blocks are kept per stream and handed out again in that stream's order, so a warm program never calls
// cudaMalloc.
#pragma once

#include <map>
#include <unordered_map>

#include "device.h"

namespace warpsight::cuda {

/// "3.1 GiB", "512 bytes"
std::string bytes_text(uint64_t bytes);

class MemoryPool {
public:
    explicit MemoryPool(Device& device) : device_(device) {}
    ~MemoryPool();

    /// At most so many bytes from here on, weights included; what is there already stays.
    void limit(uint64_t bytes) { limit_ = bytes; }

    /// Throws ERR_OUT_OF_MEMORY, after everything that is cached was given back once. `stream` is any identity of a stream.
    void* allocate(size_t bytes, const void* stream);
    void release(void* memory, const void* stream) noexcept;
    /// The stream is idle and goes away: its blocks may serve any other.
    void retire(const void* stream) noexcept;

    /// Outside the pool: weights and loaders' buffers, given back when they are freed.
    void* allocate_plain(size_t bytes, const char* what);
    void release_plain(void* memory) noexcept;

    size_t in_use() const;  // bytes of blocks handed out
    size_t cached() const;
    uint64_t left() const;  // of the limit, what is cached included

private:
    using Free = std::multimap<size_t, void*>;

    void* device_malloc(size_t bytes, const char* what);
    void trim();

    Device& device_;
    mutable std::mutex mutex_;
    std::unordered_map<const void*, Free> free_;  // by stream; null: any stream
    std::unordered_map<void*, size_t> blocks_;    // every block of the pool and its size
    std::unordered_map<void*, size_t> plain_;     // what lies outside the pool and its size
    size_t in_use_ = 0, cached_ = 0;
    std::atomic<uint64_t> held_{0}, limit_{UINT64_MAX};  // bytes that the device gave, and may give
};

/// Page-locked host memory, reused by size; counted as an allocation when there is none to reuse.
class PinnedPool {
public:
    explicit PinnedPool(Device& device) : device_(device) {}
    ~PinnedPool();
    struct Block {
        void* data = nullptr;
        size_t bytes = 0;
    };
    Block take(size_t bytes);
    void give(Block block) noexcept;

private:
    static constexpr size_t kKept = size_t(64) << 20;  // larger blocks are not kept

    Device& device_;
    std::mutex mutex_;
    std::multimap<size_t, void*> free_;
};

}  // namespace warpsight::cuda
