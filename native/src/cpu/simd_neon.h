// The vector type of kernels_impl.h for NEON on AArch64. Included inside an unnamed namespace.

constexpr const char* kIsa = "neon";
constexpr int W = 4, MR = 6, NR = 16, kUnroll = 2, kDots = 4, kInRegisters = MR;

struct vf {
    float32x4_t v;
};
struct vm {
    uint32x4_t v;
};

inline vf zero() { return {vdupq_n_f32(0.f)}; }
inline vf set1(float x) { return {vdupq_n_f32(x)}; }
inline vf load(const float* p) { return {vld1q_f32(p)}; }
inline vf load(const Float16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
inline vf load(const BFloat16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))}; }
inline void store(float* p, vf x) { vst1q_f32(p, x.v); }
inline void stream(float* p, vf x) { store(p, x); }
/// Lanes 0 … n − 1, n <= W.
inline vm first_lanes(int n) {
    static const int32_t lanes[W] = {0, 1, 2, 3};
    return {vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(n))};
}
inline vf load_n(const float* p, int n) {
    float lanes[W] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
}
inline void store_n(float* p, vf x, int n) {
    float lanes[W];
    store(lanes, x);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

inline vf operator+(vf a, vf b) { return {vaddq_f32(a.v, b.v)}; }
inline vf operator-(vf a, vf b) { return {vsubq_f32(a.v, b.v)}; }
inline vf operator*(vf a, vf b) { return {vmulq_f32(a.v, b.v)}; }
inline vf operator/(vf a, vf b) { return {vdivq_f32(a.v, b.v)}; }
inline vf fma(vf a, vf b, vf c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
/// fma(a, b, sum) in the sum's own register, as for AVX2.
inline vf accumulate(vf sum, vf a, vf b) {
#if defined(__GNUC__)
    asm("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum.v) : "w"(a.v), "w"(b.v));
    return sum;
#else
    return fma(a, b, sum);
#endif
}
/// As on x86: b where either is NaN.
inline vf max(vf a, vf b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline vf min(vf a, vf b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline vf sqrt(vf a) { return {vsqrtq_f32(a.v)}; }
inline vf abs(vf a) { return {vabsq_f32(a.v)}; }
inline vf round(vf a) { return {vrndnq_f32(a.v)}; }
inline vm less(vf a, vf b) { return {vcltq_f32(a.v, b.v)}; }
inline vf select(vm m, vf a, vf b) { return {vbslq_f32(m.v, a.v, b.v)}; }
/// x·2^n for a whole n in −252 … 254, in two steps: 2^128 is no number.
inline vf scale2(vf x, vf n) {
    int32x4_t whole = vcvtnq_s32_f32(n.v), half = vshrq_n_s32(whole, 1), rest = vsubq_s32(whole, half), bias = vdupq_n_s32(127);
    float32x4_t a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    float32x4_t b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return {vmulq_f32(vmulq_f32(x.v, a), b)};
}

/// Lane i + half of x in each lane i < half.
template <int half>
inline vf upper(vf x) {
    return {vextq_f32(x.v, x.v, half)};
}
inline float first(vf x) { return vgetq_lane_f32(x.v, 0); }

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
/// Into the second-level cache: more than the first one holds, or not yet.
inline void prefetch_level_2(const void* p) { __builtin_prefetch(p, 0, 2); }

/// to[j·to_stride + i] = from[i·stride + j] for i, j < W.
inline void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
    float32x4x2_t low = vzipq_f32(vld1q_f32(from), vld1q_f32(from + 2 * stride));
    float32x4x2_t high = vzipq_f32(vld1q_f32(from + stride), vld1q_f32(from + 3 * stride));
    for (int i = 0; i < 2; ++i) {
        float32x4x2_t both = vzipq_f32(low.val[i], high.val[i]);
        vst1q_f32(to + 2 * i * to_stride, both.val[0]);
        vst1q_f32(to + (2 * i + 1) * to_stride, both.val[1]);
    }
}

struct vi {
    int32x4_t v;
};
inline vi set1_int(int32_t x) { return {vdupq_n_s32(x)}; }
inline vi load_ints(const int32_t* p) { return {vld1q_s32(p)}; }
inline void store_ints(int32_t* p, vi x) { vst1q_s32(p, x.v); }
inline vf to_floats(vi x) { return {vcvtq_f32_s32(x.v)}; }
/// The low byte of each lane, rounded to nearest even.
inline void store_bytes(uint8_t* p, vf x) {
    uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(vcvtnq_s32_f32(x.v)));
    uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
    memcpy(p, &four, 4);
}
inline vi load_bytes(const uint8_t* p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))))};
}
/// A pixel of three bytes; the fourth lane is the byte behind it.
inline vi load_pixels(const uint8_t* p, int64_t) { return load_bytes(p); }
inline vi multiply_add(vi a, vi b, vi c) { return {vmlaq_s32(c.v, a.v, b.v)}; }
/// clip(x >> 22) to 0 … 255.
inline void store_clipped(uint8_t* p, vi x) {
    uint16x4_t words = vqmovun_s32(vshrq_n_s32(x.v, 22));
    uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
    uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    memcpy(p, &four, 4);
}
