// The vector type of kernels_impl.h for AVX2 with FMA and F16C. Included inside an unnamed namespace.

constexpr const char* kIsa = "avx2";
constexpr int W = 8, MR = 6, NR = 16, kUnroll = 4, kDots = 2, kInRegisters = MR;

struct vf {
    __m256 v;
};
struct vm {
    __m256 v;
};

inline vf zero() { return {_mm256_setzero_ps()}; }
inline vf set1(float x) { return {_mm256_set1_ps(x)}; }
inline vf load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline vf load(const Float16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline vf load(const BFloat16* p) {
    return {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16))};
}
inline void store(float* p, vf x) { _mm256_storeu_ps(p, x.v); }
/// To memory that begins a vector, past the caches where that can be said: what was there before need not be read.
inline void stream(float* p, vf x) { _mm256_stream_ps(p, x.v); }
/// Lanes 0 … n − 1, n <= W.
inline vm first_lanes(int n) {
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))};
}
inline vf load_n(const float* p, int n) { return {_mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n).v))}; }
inline void store_n(float* p, vf x, int n) { _mm256_maskstore_ps(p, _mm256_castps_si256(first_lanes(n).v), x.v); }

inline vf operator+(vf a, vf b) { return {_mm256_add_ps(a.v, b.v)}; }
inline vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline vf operator/(vf a, vf b) { return {_mm256_div_ps(a.v, b.v)}; }
inline vf fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
/// sum + a·b as fma() gives it, in the sum's own register: left to choose among the forms of the instruction, GCC exchanges the
/// registers of a tile's sums from step to step, and there are none to spare.
inline vf accumulate(vf sum, vf a, vf b) {
#if defined(__GNUC__)
    asm("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v));
    return sum;
#else
    return fma(a, b, sum);
#endif
}
inline vf max(vf a, vf b) { return {_mm256_max_ps(a.v, b.v)}; }
inline vf min(vf a, vf b) { return {_mm256_min_ps(a.v, b.v)}; }
inline vf sqrt(vf a) { return {_mm256_sqrt_ps(a.v)}; }
inline vf abs(vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v)}; }
inline vf round(vf a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline vm less(vf a, vf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline vf select(vm m, vf a, vf b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
/// x·2^n for a whole n in −252 … 254, in two steps: 2^128 is no number.
inline vf scale2(vf x, vf n) {
    __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
    __m256i bias = _mm256_set1_epi32(127);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return {_mm256_mul_ps(_mm256_mul_ps(x.v, a), b)};
}

/// Lane i + half of x in each lane i < half.
template <int half>
inline vf upper(vf x) {
    if constexpr (half == 4) return {_mm256_permute2f128_ps(x.v, x.v, 1)};
    else if constexpr (half == 2) return {_mm256_permute_ps(x.v, 0x4e)};
    else return {_mm256_permute_ps(x.v, 0xb1)};
}
inline float first(vf x) { return _mm256_cvtss_f32(x.v); }

inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
/// Into the second-level cache: more than the first one holds, or not yet.
inline void prefetch_level_2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

#include "transpose_avx.h"

/// to[j·to_stride + i] = from[i·stride + j] for i, j < W.
inline void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
    transpose_8(from, stride, to, to_stride);
}

struct vi {
    __m256i v;
};
inline vi set1_int(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline vi load_ints(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void store_ints(int32_t* p, vi x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v); }
inline vf to_floats(vi x) { return {_mm256_cvtepi32_ps(x.v)}; }
/// The low byte of each lane, rounded to nearest even.
inline void store_bytes(uint8_t* p, vf x) {
    const __m128i first_bytes = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i whole = _mm256_shuffle_epi8(_mm256_cvtps_epi32(x.v), _mm256_broadcastsi128_si256(first_bytes));
    __m128i low = _mm256_castsi256_si128(whole), high = _mm256_extracti128_si256(whole, 1);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(low, high));
}
inline vi load_bytes(const uint8_t* p) { return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
/// Pixels of three bytes, one from each of W / 4 rows, in four lanes each; the fourth is the byte behind the pixel.
inline vi load_pixels(const uint8_t* p, int64_t stride) {
    int32_t first, second;
    memcpy(&first, p, 4);
    memcpy(&second, p + stride, 4);
    return {_mm256_cvtepu8_epi32(_mm_setr_epi32(first, second, 0, 0))};
}
inline vi multiply_add(vi a, vi b, vi c) { return {_mm256_add_epi32(_mm256_mullo_epi32(a.v, b.v), c.v)}; }
/// clip(x >> 22) to 0 … 255.
inline void store_clipped(uint8_t* p, vi x) {
    __m256i shifted = _mm256_srai_epi32(x.v, 22);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(shifted), _mm256_extracti128_si256(shifted, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
