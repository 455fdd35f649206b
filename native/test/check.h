// Cases of a test program: a line each, and "N passed, N failed" by its main() last.
#pragma once

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>

namespace warpsight::test {

inline int passed = 0, failed = 0;

/// Counts the case as passed unless `act` throws.
inline void check(const std::string& name, const std::function<void()>& act) {
    try {
        act();
        ++passed;
        std::printf("ok    %s\n", name.c_str());
    } catch (const std::exception& error) {
        ++failed;
        std::printf("FAIL  %s: %s\n", name.c_str(), error.what());
    }
}

}  // namespace warpsight::test
