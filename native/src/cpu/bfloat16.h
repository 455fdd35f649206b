// bfloat16 in plain C++, for files that run on any processor.
#pragma once

#include <cstdint>
#include <cstring>

namespace warpsight::cpu {

/// To the nearest, halves to even; NaN stays NaN.
inline uint16_t bfloat16_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace warpsight::cpu
