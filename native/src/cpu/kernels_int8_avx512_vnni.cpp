// int8 products for AVX-512 VNNI: vpdpbusd on 512 bits.
#include "kernels_int8.h"

#if defined(__x86_64__) || defined(_M_X64)
#include "intrinsics_avx512.h"
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_avx512.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "avx512_vnni";
constexpr int kRows = 14, kColumns = 32;
constexpr int kMost = 255;
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
inline vi dot(vi sum, vx x, vw w) { return {_mm512_dpbusd_epi32(sum.v, x.v, w.v)}; }

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* avx512_vnni_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* avx512_vnni_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
