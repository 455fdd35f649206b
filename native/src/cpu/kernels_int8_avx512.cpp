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
constexpr int kMost = 204;
constexpr int kBias = 0;
using Row = uint8_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 4;

struct vw {
    __m512i v;
};
struct vx {
    __m512i v;
};
inline vw load_weights(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
inline vx broadcast(const Row* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return {_mm512_set1_epi32(four)};
}
inline vi dot(vi sum, vx x, vw w) {
#if defined(__GNUC__)
    alignas(64) static constexpr int16_t kOnes[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    __m512i pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+v"(sum.v), "=&v"(pairs)
        : "v"(x.v), "v"(w.v), "m"(kOnes));
    return sum;
#else
    return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(_mm512_maddubs_epi16(x.v, w.v), _mm512_set1_epi16(1)))};
#endif
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
