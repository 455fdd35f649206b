// int8 products for the dot product instructions of Armv8.2, which take bytes of the same sign: q − 128 in place of q.
#include "kernels_int8.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <string.h>
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_neon.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kInt8Isa = "neon_dotprod";
constexpr int kRows = 6, kColumns = 16;
constexpr int kMost = 255;
constexpr int kBias = 128;
using Row = uint8_t;
using Weight = int8_t;
using Sum = int32_t;
constexpr int kPack = 4;

struct vw {
    int8x16_t v;
};
struct vx {
    int8x16_t v;
};
inline vw load_weights(const int8_t* p) { return {vld1q_s8(p)}; }
inline vx broadcast(const Row* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return {vreinterpretq_s8_s32(vdupq_n_s32(four))};
}
/// In the sum's own register, as accumulate().
inline vi dot(vi sum, vx x, vw w) {
#if defined(__GNUC__)
    asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum.v) : "w"(w.v), "w"(x.v));
    return sum;
#else
    return {vdotq_s32(sum.v, w.v, x.v)};
#endif
}

#include "multiply_vectors.h"
#include "kernels_int8_impl.h"
}  // namespace

const Int8Kernels* neon_dotprod_int8_kernels() { return &kInt8Kernels; }

}  // namespace warpsight::cpu
#else
namespace warpsight::cpu {

const Int8Kernels* neon_dotprod_int8_kernels() { return nullptr; }

}  // namespace warpsight::cpu
#endif
