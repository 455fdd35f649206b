// What this process may use of the machine: processors by affinity and control group, memory by system and control group.
#pragma once

#include <cstdint>
#include <string>

namespace warpsight::cpu {

/// WARPSIGHT_THREADS (1 … 256; anything else throws ERR_CONFIG), else the processors of the affinity mask, at most the control
/// group's quota rounded down, at least 1.
int default_threads();

struct MachineMemory {
    uint64_t total = 0, available = 0;  // bytes
};

/// The smaller of what the system and the process' control group have; zeros where neither can be asked.
MachineMemory machine_memory();

/// Size of a processor's second-level cache, or 1 MiB where nobody says.
int64_t level_2_bytes();

/// cpu.max of control groups version 2 ("150000 100000", "max 100000") in processors; 0: no limit.
double quota_v2(const std::string& text);

/// Where the system says which control groups a process is in, and where they are: version 1 has a folder for each controller.
struct ControlGroups {
    std::string membership = "/proc/self/cgroup", root = "/sys/fs/cgroup";
};

/// The least quota, in processors, of the process' groups and those above them, of both versions; 0: no limit.
double processor_quota(const ControlGroups& from);

}  // namespace warpsight::cpu
