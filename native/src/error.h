// The one exception type of the addon. addon.cpp turns it into a WarpsightError; nothing else crosses into JavaScript.
#pragma once

#include <stdexcept>
#include <string>

namespace warpsight {

class Error : public std::runtime_error {
public:
    Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
    /// One of lib/errors.ts' ErrorCode, a literal.
    const char* code() const { return code_; }

private:
    const char* code_;
};

}  // namespace warpsight
