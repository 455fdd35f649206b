// Process-wide counts of what was executed; read by tests (`counters()` in lib/native.ts) and never reset.
#pragma once

#include <atomic>
#include <cstdint>

namespace warpsight {

struct Counters {
    std::atomic<uint64_t> calls{0};               // N-API calls that queue work
    std::atomic<uint64_t> steps{0};               // steps run one by one
    std::atomic<uint64_t> kernels{0};             // CUDA kernels launched or recorded
    std::atomic<uint64_t> graph_launches{0};      // recordings replayed
    std::atomic<uint64_t> device_allocations{0};  // cudaMalloc and the like; CPU: blocks taken from the system
    std::atomic<uint64_t> multiply_adds{0};       // executed by linear, patchEmbed, attention and the heads (CPU, exactly)
};

Counters& counters();

}  // namespace warpsight
