// The vector type of kernels_impl.h in plain C++, for any processor. Included inside an unnamed namespace.

constexpr const char* kIsa = "generic";
constexpr int W = 4, MR = 4, NR = 8, kUnroll = 1, kDots = 2, kInRegisters = MR;

struct vf {
    float v[W];
};
struct vm {
    bool v[W];
};

template <typename F>
inline vf each(F f) {
    vf out;
    for (int i = 0; i < W; ++i) out.v[i] = f(i);
    return out;
}

inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline float widen(Float16 half) {
    uint32_t sign = uint32_t(half.bits & 0x8000) << 16, magnitude = half.bits & 0x7fff;
    if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    // the exponent is moved by a multiplication, which is exact and reaches subnormal numbers too
    return float_of(sign | 0x3f800000) * (float_of(magnitude << 13) * 0x1p112f);
}
inline float widen(BFloat16 half) { return float_of(uint32_t(half.bits) << 16); }

inline vf zero() {
    return each([](int) { return 0.f; });
}
inline vf set1(float x) {
    return each([&](int) { return x; });
}
inline vf load(const float* p) {
    return each([&](int i) { return p[i]; });
}
inline vf load(const Float16* p) {
    return each([&](int i) { return widen(p[i]); });
}
inline vf load(const BFloat16* p) {
    return each([&](int i) { return widen(p[i]); });
}
inline void store(float* p, vf x) { memcpy(p, x.v, sizeof x.v); }
inline void stream(float* p, vf x) { store(p, x); }
/// Lanes 0 … n − 1, n <= W.
inline vm first_lanes(int n) {
    vm out;
    for (int i = 0; i < W; ++i) out.v[i] = i < n;
    return out;
}
inline vf load_n(const float* p, int n) {
    return each([&](int i) { return i < n ? p[i] : 0.f; });
}
inline void store_n(float* p, vf x, int n) {
    for (int i = 0; i < n; ++i) p[i] = x.v[i];
}

inline vf operator+(vf a, vf b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline vf operator-(vf a, vf b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline vf operator*(vf a, vf b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline vf operator/(vf a, vf b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline vf fma(vf a, vf b, vf c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline vf accumulate(vf sum, vf a, vf b) { return fma(a, b, sum); }
/// As on x86: b where either is NaN.
inline vf max(vf a, vf b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline vf min(vf a, vf b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline vf sqrt(vf a) {
    return each([&](int i) { return sqrtf(a.v[i]); });
}
inline vf abs(vf a) {
    return each([&](int i) { return fabsf(a.v[i]); });
}
/// Halves to even, for |a| < 2^22: the sum has no bits left below one.
inline vf round(vf a) {
    return each([&](int i) { return a.v[i] + 12582912.f - 12582912.f; });
}
inline vm less(vf a, vf b) {
    vm out;
    for (int i = 0; i < W; ++i) out.v[i] = a.v[i] < b.v[i];
    return out;
}
inline vf select(vm m, vf a, vf b) {
    return each([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
/// x·2^n for a whole n in −252 … 254, in two steps: 2^128 is no number.
inline vf scale2(vf x, vf n) {
    return each([&](int i) {
        if (!(n.v[i] >= -252.f && n.v[i] <= 254.f)) return x.v[i];  // NaN, which x is as well then
        int32_t whole = int32_t(n.v[i]), half = whole / 2;
        return x.v[i] * float_of(uint32_t(half + 127) << 23) * float_of(uint32_t(whole - half + 127) << 23);
    });
}

/// Lane i + half of x in each lane i < half.
template <int half>
inline vf upper(vf x) {
    return each([&](int i) { return x.v[(i + half) % W]; });
}
inline float first(vf x) { return x.v[0]; }

inline void prefetch(const void*) {}
inline void prefetch_level_2(const void*) {}

/// to[j·to_stride + i] = from[i·stride + j] for i, j < W.
inline void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
    for (int i = 0; i < W; ++i)
        for (int j = 0; j < W; ++j) to[j * to_stride + i] = from[i * stride + j];
}

struct vi {
    uint32_t v[W];  // wraps around, as the instructions of the other sets do
};
inline vi set1_int(int32_t x) {
    vi out;
    for (int i = 0; i < W; ++i) out.v[i] = uint32_t(x);
    return out;
}
inline vi load_ints(const int32_t* p) {
    vi out;
    memcpy(out.v, p, sizeof out.v);
    return out;
}
inline void store_ints(int32_t* p, vi x) { memcpy(p, x.v, sizeof x.v); }
inline vf to_floats(vi x) {
    return each([&](int i) { return float(int32_t(x.v[i])); });
}
/// The low byte of each lane, rounded to nearest even.
inline void store_bytes(uint8_t* p, vf x) {
    x = round(x);
    for (int i = 0; i < W; ++i) p[i] = uint8_t(int32_t(x.v[i]));
}
inline vi load_bytes(const uint8_t* p) {
    vi out;
    for (int i = 0; i < W; ++i) out.v[i] = p[i];
    return out;
}
/// A pixel of three bytes; the fourth lane is the byte behind it.
inline vi load_pixels(const uint8_t* p, int64_t) { return load_bytes(p); }
inline vi multiply_add(vi a, vi b, vi c) {
    vi out;
    for (int i = 0; i < W; ++i) out.v[i] = a.v[i] * b.v[i] + c.v[i];
    return out;
}
/// clip(x >> 22) to 0 … 255.
inline void store_clipped(uint8_t* p, vi x) {
    for (int i = 0; i < W; ++i) {
        int32_t shifted = int32_t(x.v[i]) >> 22;
        p[i] = uint8_t(shifted < 0 ? 0 : shifted > 255 ? 255 : shifted);
    }
}
