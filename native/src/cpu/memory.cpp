#include "memory.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../counters.h"
#include "../error.h"
#include "limits.h"

namespace warpsight::cpu {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t(2) << 20, kHuge = size_t(2) << 20;
constexpr size_t kChecked = size_t(64) << 20;  // smaller requests are not worth a look at the machine

static std::string in_mebibytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

void* allocate_aligned(size_t bytes) {
    auto refuse = [&](uint64_t available) {
        throw Error("ERR_OUT_OF_MEMORY",
                    "cpu has " + in_mebibytes(available) + " free: " + in_mebibytes(bytes) + " were asked for");
    };
    if (bytes >= kChecked) {
        MachineMemory machine = machine_memory();
        if (machine.total > 0 && bytes > machine.available) refuse(machine.available);
    }
    size_t rounded = bytes < kAlignment ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (rounded < bytes) refuse(machine_memory().available);
#if defined(_WIN32)
    void* memory = _aligned_malloc(rounded, kAlignment);
#else
    void* memory = std::aligned_alloc(bytes >= kHuge ? kHugePage : kAlignment,
                                      bytes >= kHuge ? (bytes + kHugePage - 1) / kHugePage * kHugePage : rounded);
#endif
    if (!memory) refuse(machine_memory().available);
#if defined(__linux__)
    // Weights are read from end to end for each picture: with pages of 2 MiB the table of pages stays in its cache. Only a wish:
    // it may be refused.
    if (bytes >= kHuge) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    counters().device_allocations.fetch_add(1, std::memory_order_relaxed);
    return memory;
}

void* allocate_to_fill(size_t bytes) {
    void* memory = allocate_aligned(bytes);
#if defined(MADV_POPULATE_WRITE)
    // Linux 5.14; refused by older ones, and harmless if it fails
    if (bytes >= kHuge) madvise(memory, bytes, MADV_POPULATE_WRITE);
#endif
    return memory;
}

void free_aligned(void* memory) noexcept {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

namespace {

struct SizeClass {
    size_t index, bytes;
};

/// 64, 80, 96, 112, 128, 160, …: a quarter of a power of two apart.
SizeClass size_class(size_t bytes) {
    if (bytes <= kAlignment) return {0, kAlignment};
    size_t power = std::bit_floor(bytes - 1), step = power / 4, quarter = (bytes - 1 - power) / step + 1;
    return {size_t(std::countr_zero(power) - 6) * 4 + quarter, power + quarter * step};
}

struct FreeLists {
    std::mutex lock;
    std::array<std::vector<void*>, 80> blocks;
    size_t kept = 0;
};

// Never destroyed: tensors may be released by finalisers while the process exits.
FreeLists& free_lists() {
    static FreeLists* lists = new FreeLists;
    return *lists;
}

std::atomic<uint64_t> in_use{0};

// AddressSanitizer sees a block's true end and its use after release only if each block comes from the system.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif
#else
constexpr bool kPooled = true;
#endif

}  // namespace

void* pool_allocate(size_t bytes) {
    void* memory = nullptr;
    if (kPooled && bytes <= kKeptBlock) {
        SizeClass size = size_class(bytes);
        FreeLists& lists = free_lists();
        {
            std::lock_guard guard(lists.lock);
            auto& blocks = lists.blocks[size.index];
            if (!blocks.empty()) {
                memory = blocks.back();
                blocks.pop_back();
                lists.kept -= size.bytes;
            }
        }
        if (!memory) memory = allocate_aligned(size.bytes);
    } else {
        memory = allocate_aligned(bytes);
    }
    in_use.fetch_add(bytes, std::memory_order_relaxed);
    return memory;
}

void pool_release(void* memory, size_t bytes) noexcept {
    if (!memory) return;
    in_use.fetch_sub(bytes, std::memory_order_relaxed);
    if (kPooled && bytes <= kKeptBlock) {
        SizeClass size = size_class(bytes);
        FreeLists& lists = free_lists();
        std::lock_guard guard(lists.lock);
        if (lists.kept + size.bytes <= kKept) {
            try {
                lists.blocks[size.index].push_back(memory);
                lists.kept += size.bytes;
                return;
            } catch (const std::exception&) {
                // no memory for the list: the block goes back to the system below
            }
        }
    }
    free_aligned(memory);
}

uint64_t pool_bytes() { return in_use.load(std::memory_order_relaxed); }

}  // namespace warpsight::cpu
