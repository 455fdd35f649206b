// 16-bit floats to float32, exactly: for results and single numbers; kernels have their own.
#pragma once

#include <cstdint>
#include <cstring>

#include "dtype.h"

namespace warpsight {

inline float widen_half(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff, bits;
    if (exponent == 31) {
        bits = 0x7f800000 | mantissa << 13;
    } else if (exponent) {
        bits = (exponent + 112) << 23 | mantissa << 13;
    } else {
        float subnormal = float(mantissa) * 0x1p-24f;
        std::memcpy(&bits, &subnormal, 4);
    }
    bits |= sign;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

/// `count` floats of type `dtype` from unaligned memory.
inline void widen(DType dtype, const void* from, size_t count, float* to) {
    if (dtype == DType::float32) {
        std::memcpy(to, from, count * 4);
        return;
    }
    for (size_t i = 0; i < count; ++i) {
        uint16_t half;
        std::memcpy(&half, static_cast<const char*>(from) + 2 * i, 2);
        uint32_t bits = uint32_t(half) << 16;
        if (dtype == DType::float16) to[i] = widen_half(half);
        else std::memcpy(&to[i], &bits, 4);
    }
}

}  // namespace warpsight
