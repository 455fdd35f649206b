#include "host_copy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <vector>

namespace warpsight {

constexpr size_t kSmall = size_t(64) << 10;  // below, the C library keeps memory itself
constexpr size_t kMostKept = size_t(64) << 20;

namespace {

struct Kept {
    std::mutex lock;
    std::vector<HostCopy> blocks;
    size_t bytes = 0;
};

// Never destroyed: jobs may end while the process exits.
Kept& kept() {
    static Kept* blocks = new Kept;
    return *blocks;
}

// AddressSanitizer sees a block's true end and its use after release only if each block comes from the system.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kReuse = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kReuse = false;
#else
constexpr bool kReuse = true;
#endif
#else
constexpr bool kReuse = true;
#endif

/// A quarter of a power of two apart, so that calls of nearly the same size share blocks.
size_t rounded(size_t bytes) {
    size_t step = std::bit_floor(bytes) / 4;
    return (bytes + step - 1) / step * step;
}

std::byte* reuse(size_t capacity) {
    std::lock_guard guard(kept().lock);
    auto& blocks = kept().blocks;
    auto found = std::find_if(blocks.begin(), blocks.end(),
                              [&](const HostCopy& block) { return block.get_deleter().capacity == capacity; });
    if (found == blocks.end()) return nullptr;
    kept().bytes -= capacity;
    std::byte* block = found->release();
    blocks.erase(found);
    return block;
}

}  // namespace

void GiveBack::operator()(std::byte* block) const noexcept {
    if (kReuse && capacity > kSmall && capacity <= kMostKept) {
        std::lock_guard guard(kept().lock);
        if (kept().bytes + capacity <= kMostKept) {
            try {
                kept().blocks.emplace_back(block, *this);
                kept().bytes += capacity;
                return;
            } catch (const std::bad_alloc&) {
                // no room for the list: the block goes back to the system
            }
        }
    }
    delete[] block;
}

HostCopy host_copy(const void* data, size_t bytes) {
    const size_t capacity = !kReuse || bytes <= kSmall ? std::max<size_t>(bytes, 1) : rounded(bytes);
    std::byte* block = capacity > kSmall ? reuse(capacity) : nullptr;
    HostCopy copy(block ? block : new std::byte[capacity], GiveBack{capacity});
    if (bytes) std::memcpy(copy.get(), data, bytes);
    return copy;
}

}  // namespace warpsight
