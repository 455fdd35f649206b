// int8 products for AVX-512 without VNNI: as with AVX2 (kernels_int8_avx2.cpp), twice as wide.
#include "kernels_int8.h"

#if defined(__x86_64__) || defined(_M_X64)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "avx512";
constexpr int kRows = 14, kColumns = 32;
constexpr int kBias = 0;
using Row = int16_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 2;

struct vw {
    __m512i v;
};
struct vx {
    __m512i v;
};
inline vw load_weights(const int8_t* p) {
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline vx broadcast(const Row* p) {
    int32_t two;
    memcpy(&two, p, 4);
    return {_mm512_set1_epi32(two)};
}
inline vi dot(vi sum, vx x, vw w) { return opaque({_mm512_add_epi32(sum.v, _mm512_madd_epi16(x.v, w.v))}); }
inline void store_row(Row* p, vf v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v.v)));
}

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* avx512_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* avx512_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
