// Products in bfloat16 for AVX-512 without an instruction for them, or with one that is slower than two of floats: numbers are
// rounded as for it, and multiplied and added as floats. Rows are widened when they are packed, weights in the loop.
#include "kernels_bfloat16.h"

#if defined(__x86_64__) || defined(_M_X64)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kProductsIsa = "avx512";
constexpr int kRows = 12, kColumns = 32;  // four registers hold weights of two k
constexpr int kPack = 2;
using Row = float;
using Weight = uint16_t;
using Sum = float;

/// Pairs of k: of W columns of a panel, or one of a row in every lane.
struct pairs {
    vf first, second;
};
/// Of the upper 16 bits of each lane.
inline vf widen_upper(__m512i bits) { return {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(int(0xffff0000u))))}; }
inline pairs load_weights(const uint16_t* p) {
    const __m512i both = _mm512_loadu_si512(p);
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(both, 16))}, widen_upper(both)};
}
inline pairs broadcast(const float* p) { return {set1(p[0]), set1(p[1])}; }
using vw = pairs;
using vx = pairs;
inline vf dot(vf sum, pairs x, pairs w) { return fma(x.second, w.second, fma(x.first, w.first, sum)); }
inline vf dot(vf sum, const float* x, pairs w) { return accumulate(accumulate(sum, x, w.first), x + 1, w.second); }

/// As bfloat16_of() in bfloat16.h.
inline void round_group(const float* x, int n, float* to) {
    const __m512 numbers = _mm512_maskz_loadu_ps(first_lanes(n).v, x);
    const __m512i bits = _mm512_castps_si512(numbers), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i whole = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(numbers, numbers, _CMP_UNORD_Q), rounded, quiet);
    store(to, widen_upper(whole));
}

#include "multiply_vectors.h"
#include "kernels_bfloat16_impl.h"
}  // namespace

const BFloat16Kernels* avx512_bfloat16_kernels() { return &kBFloat16Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const BFloat16Kernels* avx512_bfloat16_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
