// int8 products for AVX2. Its instruction for bytes saturates unless one side has 7 bits, which costs more accuracy than a
// transformer has to spare; vpmaddwd multiplies 16 bits exactly: weights are widened on the way, rows are kept as 16 bits.
#include "kernels_int8.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx2.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "avx2";
constexpr int kRows = 6, kColumns = 16;
constexpr int kBias = 0;
using Row = int16_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 2;

struct vw {
    __m256i v;
};
struct vx {
    __m256i v;
};
inline vw load_weights(const int8_t* p) { return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline vx broadcast(const Row* p) {
    int32_t two;
    memcpy(&two, p, 4);
    return {_mm256_set1_epi32(two)};
}
inline vi dot(vi sum, vx x, vw w) { return opaque({_mm256_add_epi32(sum.v, _mm256_madd_epi16(x.v, w.v))}); }
inline void store_row(Row* p, vf v) {
    __m256i whole = _mm256_cvtps_epi32(v.v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* avx2_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* avx2_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
