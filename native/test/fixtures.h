// The operation goldens: fixtures/ops/meta.json and one <operation>.safetensors each, tensors named <case>.<tensor>.
#pragma once

#include <fstream>
#include <iterator>
#include <string>

#include "json.h"
#include "runner.h"

namespace warpsight::test {

inline std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + " cannot be read: set WARPSIGHT_FIXTURES to the folder of fixtures");
    return {std::istreambuf_iterator<char>(file), {}};
}

class SafeTensors {
public:
    explicit SafeTensors(const std::string& path) : bytes_(read_file(path)) {
        uint64_t header = 0;
        std::memcpy(&header, bytes_.data(), 8);
        data_ = 8 + size_t(header);
        header_ = JsonReader(std::string_view(bytes_).substr(8, size_t(header))).read();
    }

    bool has(const std::string& name) const { return header_.find(name) != nullptr; }

    /// A float32 (whatever is stored) or int32 tensor that stays float32.
    Value get(const std::string& name) const {
        const Json& entry = header_.at(name);
        Value value{.as = Value::As::tensor};
        for (auto& size : entry.at("shape").items) value.shape.size[value.shape.rank++] = int64_t(size.number);
        const std::string& dtype = entry.at("dtype").string;
        value.dtype = dtype == "F16"    ? DType::float16
                      : dtype == "BF16" ? DType::bfloat16
                      : dtype == "I32"  ? DType::int32
                                        : DType::float32;
        auto& range = entry.at("data_offsets").items;
        size_t begin = data_ + size_t(range[0].number), end = data_ + size_t(range[1].number);
        std::vector<uint8_t> raw(bytes_.begin() + long(begin), bytes_.begin() + long(end));
        if (value.dtype == DType::int32) {
            value.ints.resize(raw.size() / 4);
            if (!raw.empty()) std::memcpy(value.ints.data(), raw.data(), raw.size());
        } else {
            value.floats = decode(raw, value.dtype);
        }
        return value;
    }

    Value as_activation(const std::string& name) const {
        Value value = get(name);
        value.storage = true;
        value.dtype = DType::float32;
        return value;
    }

    Value as_weight(const std::string& name, Value::As as) const {
        if (!has(name)) return absent();
        Value value = get(name);
        value.as = as;
        if (as == Value::As::matrix && value.shape.rank > 2)
            value.shape = {value.shape[0], value.shape.elements() / value.shape[0]};
        return value;
    }

    float scalar(const std::string& name, float otherwise) const { return has(name) ? get(name).floats.at(0) : otherwise; }

private:
    std::string bytes_;
    size_t data_ = 0;
    Json header_;
};

}  // namespace warpsight::test
