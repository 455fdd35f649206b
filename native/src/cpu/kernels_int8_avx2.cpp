// int8 products for AVX2. vpmaddubsw adds the products of two k in 16 bits and saturates: rows have 204 steps, and no pair of
// weights is larger than fits then. Such pairs are rare, so a row of W loses little (docs/cpu.md).
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
constexpr int kMost = 204;  // 204·(159 + 1) <= 32767
constexpr int kBias = 0;
using Row = uint8_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 4;

struct vw {
    __m256i v;
};
struct vx {
    __m256i v;
};
inline vw load_weights(const int8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline vx broadcast(const Row* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return {_mm256_set1_epi32(four)};
}
/// In the sum's own register, as accumulate(); the ones are read from memory, as there is no register for them either.
inline vi dot(vi sum, vx x, vw w) {
#if defined(__GNUC__)
    alignas(32) static constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    __m256i pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum.v), "=&x"(pairs)
        : "x"(x.v), "x"(w.v), "m"(kOnes));
    return sum;
#else
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(_mm256_maddubs_epi16(x.v, w.v), _mm256_set1_epi16(1)))};
#endif
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
