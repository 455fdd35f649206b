// The vector type of kernels_impl.h for AVX-512 (F, BW, DQ, VL) with FMA and F16C. Included inside an unnamed namespace.

constexpr const char* kIsa = "avx512";
constexpr int W = 16, MR = 14, NR = 32, kUnroll = 2, kDots = 4, kInRegisters = 6;

struct vf {
    __m512 v;
};
struct vm {
    __mmask16 v;
};

inline vf zero() { return {_mm512_setzero_ps()}; }
inline vf set1(float x) { return {_mm512_set1_ps(x)}; }
inline vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline vf load(const Float16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline vf load(const BFloat16* p) {
    return {_mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}
inline void store(float* p, vf x) { _mm512_storeu_ps(p, x.v); }
/// To memory that begins a vector, past the caches where that can be said: what was there before need not be read.
inline void stream(float* p, vf x) { _mm512_stream_ps(p, x.v); }
/// Lanes 0 … n − 1, n <= W.
inline vm first_lanes(int n) { return {__mmask16((1u << n) - 1)}; }
inline vf load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n).v, p)}; }
inline void store_n(float* p, vf x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n).v, x.v); }

inline vf operator+(vf a, vf b) { return {_mm512_add_ps(a.v, b.v)}; }
inline vf operator-(vf a, vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline vf operator*(vf a, vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline vf operator/(vf a, vf b) { return {_mm512_div_ps(a.v, b.v)}; }
inline vf fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline vf accumulate(vf sum, vf a, vf b) { return fma(a, b, sum); }
/// sum + *a·b; the multiply-add itself reads *a into all lanes, which compilers leave to it only where a number is used once. It
/// spares an instruction for each row; with all rows at once there would be more loads than multiply-adds.
inline vf accumulate(vf sum, const float* a, vf b) {
#if defined(__GNUC__)
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum.v) : "v"(b.v), "m"(*a));
    return sum;
#else
    return fma(set1(*a), b, sum);
#endif
}
inline vf max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }
inline vf min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
inline vf sqrt(vf a) { return {_mm512_sqrt_ps(a.v)}; }
inline vf abs(vf a) { return {_mm512_abs_ps(a.v)}; }
inline vf round(vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline vm less(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline vf select(vm m, vf a, vf b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
/// x·2^n for a whole n.
inline vf scale2(vf x, vf n) { return {_mm512_scalef_ps(x.v, n.v)}; }

/// Lane i + half of x in each lane i < half.
template <int half>
inline vf upper(vf x) {
    if constexpr (half == 8) return {_mm512_shuffle_f32x4(x.v, x.v, 0x4e)};
    else if constexpr (half == 4) return {_mm512_shuffle_f32x4(x.v, x.v, 0xb1)};
    else if constexpr (half == 2) return {_mm512_permute_ps(x.v, 0x4e)};
    else return {_mm512_permute_ps(x.v, 0xb1)};
}
inline float first(vf x) { return _mm512_cvtss_f32(x.v); }

inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
/// Into the second-level cache: more than the first one holds, or not yet.
inline void prefetch_level_2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

#include "transpose_avx.h"

/// to[j·to_stride + i] = from[i·stride + j] for i, j < W.
inline void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
    for (int i = 0; i < W; i += 8)
        for (int j = 0; j < W; j += 8) transpose_8(from + i * stride + j, stride, to + j * to_stride + i, to_stride);
}

struct vi {
    __m512i v;
};
inline vi set1_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline vi load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_ints(int32_t* p, vi x) { _mm512_storeu_si512(p, x.v); }
inline vf to_floats(vi x) { return {_mm512_cvtepi32_ps(x.v)}; }
/// The low byte of each lane, rounded to nearest even.
inline void store_bytes(uint8_t* p, vf x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
inline vi load_bytes(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
/// Pixels of three bytes, one from each of W / 4 rows, in four lanes each; the fourth is the byte behind the pixel.
inline vi load_pixels(const uint8_t* p, int64_t stride) {
    auto pixel = [&](int row) {
        int32_t four;
        memcpy(&four, p + row * stride, 4);
        return four;
    };
    return {_mm512_cvtepu8_epi32(_mm_setr_epi32(pixel(0), pixel(1), pixel(2), pixel(3)))};
}
inline vi multiply_add(vi a, vi b, vi c) { return {_mm512_add_epi32(_mm512_mullo_epi32(a.v, b.v), c.v)}; }
/// clip(x >> 22) to 0 … 255.
inline void store_clipped(uint8_t* p, vi x) {
    __m512i shifted = _mm512_max_epi32(_mm512_srai_epi32(x.v, 22), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(shifted));
}
