// int8 products for AVX-VNNI: vpdpbusd on 256 bits.
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

constexpr const char* kInt8Isa = "avx_vnni";
constexpr int kRows = 6, kColumns = 16;
constexpr int kMost = 255;
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
inline vi dot(vi sum, vx x, vw w) { return {_mm256_dpbusd_avx_epi32(sum.v, x.v, w.v)}; }

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* avx_vnni_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* avx_vnni_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
