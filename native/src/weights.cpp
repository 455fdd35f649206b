#include "weights.h"

#include <cstring>
#include <mutex>
#include <unordered_map>

namespace warpsight {

namespace {

struct Entry {
    std::mutex making;
    std::weak_ptr<const Weight> weight;
};

struct Registry {
    std::mutex mutex;
    std::unordered_map<std::string, std::shared_ptr<Entry>> entries;
};

Registry& registry() {
    static Registry& all = *new Registry;  // never destroyed: loader threads may outlive main()
    return all;
}

}  // namespace

std::shared_ptr<const Weight> shared_weight(const std::string& key, const std::function<std::shared_ptr<const Weight>()>& make) {
    std::shared_ptr<Entry> entry;
    {
        std::lock_guard lock(registry().mutex);
        auto& entries = registry().entries;
        // Keys of weights that are gone are swept when the table has doubled since: the cost is spread over the insertions.
        static size_t sweep_at = 1024;
        if (entries.size() >= sweep_at) {
            std::erase_if(entries, [](auto& item) { return item.second.use_count() == 1 && item.second->weight.expired(); });
            sweep_at = std::max<size_t>(1024, 2 * entries.size());
        }
        std::shared_ptr<Entry>& slot = entries[key];
        if (!slot) slot = std::make_shared<Entry>();
        entry = slot;
    }
    std::lock_guard lock(entry->making);
    std::shared_ptr<const Weight> weight = entry->weight.lock();
    if (!weight) {
        weight = make();
        entry->weight = weight;
    }
    return weight;
}

bool has_shared_weight(const std::string& key) {
    std::shared_ptr<Entry> entry;
    {
        std::lock_guard lock(registry().mutex);
        auto found = registry().entries.find(key);
        if (found == registry().entries.end()) return false;
        entry = found->second;
    }
    std::unique_lock making(entry->making, std::try_to_lock);
    return !making || !entry->weight.expired();
}

void MemoryRows::read_rows(int64_t row, int64_t count, void* destination) {
    std::memcpy(destination, data_ + size_t(row) * row_bytes_, size_t(count) * row_bytes_);
}

}  // namespace warpsight
