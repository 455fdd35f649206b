// float16 and bfloat16 in software, rounded to nearest even: the harness' own, so that it does not trust the code it judges.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace warpsight::test {

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline float from_bfloat16(uint16_t bits) { return float_of(uint32_t(bits) << 16); }

inline uint16_t to_bfloat16(float value) {
    uint32_t bits = bits_of(value);
    if (std::isnan(value)) return uint16_t(bits >> 16) | 0x40;
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_float16(uint16_t bits) {
    int exponent = (bits >> 10) & 31;
    int fraction = bits & 1023;
    float sign = bits & 0x8000 ? -1.f : 1.f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
    return sign * std::ldexp(float(fraction | 1024), exponent - 25);
}

inline uint16_t to_float16(float value) {
    uint16_t sign = uint16_t(bits_of(value) >> 16) & 0x8000;
    if (std::isnan(value)) return sign | 0x7e00;
    double magnitude = std::fabs(double(value));
    if (magnitude >= 65520) return sign | 0x7c00;  // halfway between 65504 and 65536
    if (magnitude == 0) return sign;
    int exponent = std::ilogb(magnitude);
    if (exponent < -14) exponent = -14;
    double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // default rounding: to nearest even
    return sign | uint16_t(int(steps) + (exponent + 14) * 1024);          // a carry moves into the exponent by itself
}

}  // namespace warpsight::test
