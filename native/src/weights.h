// The process-wide registry of loaded weights: a second model or a second worker that loads the same tensors shares them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace warpsight {

/// The weight registered under `key`, or the one that `make` makes. Of several threads that ask at once, one makes and the others
/// wait. The registry keeps no weight alive.
std::shared_ptr<const Weight> shared_weight(const std::string& key, const std::function<std::shared_ptr<const Weight>()>& make);

/// Whether the weight under `key` is there, or is being made by somebody else: asking for it then takes no memory of its own.
bool has_shared_weight(const std::string& key);

/// Rows that lie in host memory already: a JavaScript typed array.
class MemoryRows : public RowSource {
public:
    MemoryRows(const std::byte* data, size_t row_bytes) : data_(data), row_bytes_(row_bytes) {}
    void read_rows(int64_t row, int64_t count, void* destination) override;

private:
    const std::byte* data_;
    size_t row_bytes_;
};

}  // namespace warpsight
