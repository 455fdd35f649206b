// The CPU backend: the operations of ops.h for generic C++, AVX2 + FMA, AVX-512 and NEON, chosen when the process first asks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend.h"

namespace warpsight {

/// Each call gives a backend of its own; memory pool, threads and choice of instructions are the process's.
/// Throws ERR_CONFIG if WARPSIGHT_ISA names instructions that this machine or build lacks, or WARPSIGHT_THREADS is no number from
/// 1 to 256.
std::shared_ptr<Backend> make_cpu_backend();

/// Threads that work on a step, the caller included. Throws ERR_CONFIG unless 1 … 256. Waits for the step that is running.
/// At first: WARPSIGHT_THREADS, else what the affinity mask and the control group's quota allow.
void set_cpu_threads(int count);
int cpu_threads();

/// The instruction sets that can be used here, the best first, of "amx", "avx512_bf16", "avx512_vnni", "avx512", "avx_vnni",
/// "avx2", "neon_dotprod", "neon", "generic".
std::vector<std::string> cpu_isas();

}  // namespace warpsight
