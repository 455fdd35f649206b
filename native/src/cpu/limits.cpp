#include "limits.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#endif

#include "../error.h"
#include "pool.h"

namespace warpsight::cpu {

static std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

double quota_v2(const std::string& text) {
    std::istringstream words(text);
    double quota = 0, period = 0;
    if (!(words >> quota >> period) || quota <= 0 || period <= 0) return 0;  // "max" is no number
    return quota / period;
}

/// Folders of the process' own control groups for a controller, from its own up to the root: inside a container the path may be
/// the host's, and only the root is there. Version 2 lines of the membership start with "0::".
static std::vector<std::string> control_groups(const std::string& controller, const ControlGroups& from) {
    std::vector<std::string> folders;
    std::ifstream file(from.membership);
    for (std::string line; std::getline(file, line);) {
        size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        std::string names = "," + line.substr(first + 1, second - first - 1) + ",", path = line.substr(second + 1);
        bool v2 = line.rfind("0::", 0) == 0;
        if (!v2 && names.find("," + controller + ",") == std::string::npos) continue;
        std::vector<std::string> roots = {from.root};
        if (!v2) roots = {from.root + "/" + controller, from.root + "/" + names.substr(1, names.size() - 2)};
        for (const std::string& root : roots) {
            for (std::string at = path; at.size() > 1; at.resize(at.rfind('/'))) folders.push_back(root + at);
            folders.push_back(root);
        }
    }
    return folders;
}

double processor_quota(const ControlGroups& from) {
    double least = 0;
    auto take = [&](double quota) {
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
    };
    for (const std::string& folder : control_groups("cpu", from)) {
        take(quota_v2(first_line(folder + "/cpu.max")));
        std::string quota = first_line(folder + "/cpu.cfs_quota_us"), period = first_line(folder + "/cpu.cfs_period_us");
        if (!quota.empty() && !period.empty()) take(quota_v2(quota + " " + period));  // "-1" is no limit
    }
    return least;
}

int default_threads() {
    if (const char* given = std::getenv("WARPSIGHT_THREADS"); given && *given) {
        char* end = nullptr;
        long count = std::strtol(given, &end, 10);
        if (*end || count < 1 || count > kMaxThreads)
            throw Error("ERR_CONFIG", "WARPSIGHT_THREADS must be a whole number from 1 to " + std::to_string(kMaxThreads) +
                                          ", got \"" + given + "\"");
        return int(count);
    }
    int count = int(std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) count = CPU_COUNT(&mask);
#endif
    double quota = processor_quota({});
    if (quota > 0) count = std::min(count, int(quota));
    return std::clamp(count, 1, kMaxThreads);
}

int64_t level_2_bytes() {
    static const int64_t bytes = [] {
        int64_t size = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
        size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        return size >= (128 << 10) && size <= (64 << 20) ? size : 1 << 20;
    }();
    return bytes;
}

static uint64_t number_in(const std::string& path) {
    std::string line = first_line(path);
    return line.empty() || line[0] < '0' || line[0] > '9' ? 0 : std::strtoull(line.c_str(), nullptr, 10);
}

MachineMemory machine_memory() {
    MachineMemory memory;
#if defined(__linux__)
    std::ifstream file("/proc/meminfo");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        uint64_t kilobytes = 0;
        words >> name >> kilobytes;
        if (name == "MemTotal:") memory.total = kilobytes * 1024;
        if (name == "MemAvailable:") memory.available = kilobytes * 1024;
    }
    for (const std::string& folder : control_groups("memory", {})) {
        for (auto& [limit_name, used_name] :
             {std::pair{"/memory.max", "/memory.current"}, std::pair{"/memory.limit_in_bytes", "/memory.usage_in_bytes"}}) {
            uint64_t limit = number_in(folder + limit_name), used = number_in(folder + used_name);
            if (limit == 0 || limit >= memory.total) continue;
            memory.total = limit;
            // what the group holds of the page cache counts as used and is given back when memory is asked for
            std::ifstream stat(folder + "/memory.stat");
            for (std::string name, value; stat >> name >> value;)
                if (name == "inactive_file" || name == "total_inactive_file")
                    used -= std::min<uint64_t>(used, std::strtoull(value.c_str(), nullptr, 10));
            memory.available = std::min(memory.available, limit - std::min(limit, used));
        }
    }
#elif defined(__APPLE__)
    uint64_t bytes = 0;
    size_t size = sizeof bytes;
    if (sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0) memory.total = memory.available = bytes;
#elif defined(_WIN32)
    MEMORYSTATUSEX status;
    status.dwLength = sizeof status;
    if (GlobalMemoryStatusEx(&status)) memory = {status.ullTotalPhys, status.ullAvailPageFile};
#endif
    return memory;
}

}  // namespace warpsight::cpu
