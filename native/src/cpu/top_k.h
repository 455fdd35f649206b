// The k largest of a stream of values, falling; NaN before everything, of equal values the smaller index first (values come in
// rising order of index).
#pragma once

#include <cmath>
#include <cstdint>

namespace warpsight::cpu {

/// Whether a comes before b; equal values and two NaN keep the order in which they came.
inline bool before(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

class TopList {
public:
    /// Keeps at most `k` in values and indices, which have room for them.
    TopList(int64_t k, float* values, int32_t* indices) : k_(k), values_(values), indices_(indices) {}

    void add(float value, int32_t index) {
        if (count_ == k_ && !before(value, values_[count_ - 1])) return;
        int64_t at = count_ < k_ ? count_++ : count_ - 1;
        for (; at > 0 && before(value, values_[at - 1]); --at) {
            values_[at] = values_[at - 1];
            indices_[at] = indices_[at - 1];
        }
        values_[at] = value;
        indices_[at] = index;
    }
    int64_t count() const { return count_; }

private:
    int64_t k_, count_ = 0;
    float* values_;
    int32_t* indices_;
};

}  // namespace warpsight::cpu
