// Products in bfloat16 for AVX512-BF16: vdpbf16ps on 512 bits.
#include "kernels_bfloat16.h"

#if defined(__x86_64__) || defined(_M_X64)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kProductsIsa = "avx512_bf16";
constexpr int kRows = 14, kColumns = 32;
constexpr int kPack = 2;
using Row = uint16_t;
using Weight = uint16_t;
using Sum = float;

/// Pairs of k: of W columns of a panel, or one of a row in every lane.
struct pairs {
    __m512bh v;
};
inline pairs load_weights(const uint16_t* p) {
    pairs out;
    memcpy(&out.v, p, sizeof out.v);
    return out;
}
inline pairs broadcast(const uint16_t* p) {
    int32_t two;
    memcpy(&two, p, sizeof two);
    const __m512i all = _mm512_set1_epi32(two);
    pairs out;
    memcpy(&out.v, &all, sizeof out.v);
    return out;
}
using vw = pairs;
using vx = pairs;
inline vf dot(vf sum, pairs x, pairs w) { return {_mm512_dpbf16_ps(sum.v, x.v, w.v)}; }

#include "round_avx512_bf16.h"
#include "multiply_vectors.h"
#include "kernels_bfloat16_impl.h"
}  // namespace

const BFloat16Kernels* avx512_bf16_kernels() { return &kBFloat16Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const BFloat16Kernels* avx512_bf16_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
