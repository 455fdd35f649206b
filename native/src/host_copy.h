// Copies of what a caller passes, made before its call returns.
#pragma once

#include <cstddef>
#include <memory>

namespace warpsight {

/// Gives a block back to those that the next copies are made in.
struct GiveBack {
    size_t capacity = 0;
    void operator()(std::byte* block) const noexcept;
};

using HostCopy = std::unique_ptr<std::byte[], GiveBack>;

/// The bytes at `data`, in memory that an earlier copy has used where there is some: the system's first touch of a fresh page
/// costs several times as much as the copy into it, and it is the caller's thread that pays. Large blocks are kept, 64 MiB at
/// most.
HostCopy host_copy(const void* data, size_t bytes);

}  // namespace warpsight
