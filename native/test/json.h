// A reader of well-formed JSON for meta.json and safetensors headers of the fixtures. Throws std::runtime_error on anything else.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace warpsight::test {

struct Json {
    enum class Kind { null, boolean, number, string, array, object } kind = Kind::null;
    bool boolean = false;
    double number = 0;
    std::string string;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;

    const Json* find(std::string_view name) const {
        for (auto& [key, value] : members)
            if (key == name) return &value;
        return nullptr;
    }
    const Json& at(std::string_view name) const {
        if (const Json* value = find(name)) return *value;
        throw std::runtime_error("JSON: no member " + std::string(name));
    }
    double number_or(std::string_view name, double otherwise) const {
        const Json* value = find(name);
        return value && value->kind == Kind::number ? value->number : otherwise;
    }
    bool true_at(std::string_view name) const {
        const Json* value = find(name);
        return value && value->boolean;
    }
};

class JsonReader {
public:
    explicit JsonReader(std::string_view text) : text_(text) {}

    Json read() {
        Json value;
        switch (peek()) {
            case '{':
                value.kind = Json::Kind::object;
                ++at_;
                while (peek() != '}') {
                    std::string name = text();
                    expect(':');
                    value.members.emplace_back(std::move(name), read());
                    if (peek() == ',') ++at_;
                }
                ++at_;
                return value;
            case '[':
                value.kind = Json::Kind::array;
                ++at_;
                while (peek() != ']') {
                    value.items.push_back(read());
                    if (peek() == ',') ++at_;
                }
                ++at_;
                return value;
            case '"':
                value.kind = Json::Kind::string;
                value.string = text();
                return value;
            case 't': value.boolean = true; [[fallthrough]];
            case 'f':
                value.kind = Json::Kind::boolean;
                at_ += value.boolean ? 4 : 5;
                return value;
            case 'n': at_ += 4; return value;
            default: {
                std::string digits(text_.substr(at_, text_.find_first_not_of("+-.0123456789eE", at_) - at_));
                if (digits.empty()) throw std::runtime_error("JSON: unexpected character at " + std::to_string(at_));
                value.kind = Json::Kind::number;
                value.number = std::strtod(digits.c_str(), nullptr);
                at_ += digits.size();
                return value;
            }
        }
    }

private:
    char peek() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
        if (at_ == text_.size()) throw std::runtime_error("JSON: ends too early");
        return text_[at_];
    }
    void expect(char c) {
        if (peek() != c) throw std::runtime_error(std::string("JSON: expected ") + c);
        ++at_;
    }
    std::string text() {
        expect('"');
        std::string out;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\') ++at_;
            out += text_[at_++];
        }
        ++at_;
        return out;
    }

    std::string_view text_;
    size_t at_ = 0;
};

}  // namespace warpsight::test
