// Products in bfloat16 in plain C++, so that models can be tested on any processor; no faster than float32.
#include "bfloat16.h"
#include "kernels_bfloat16.h"

#include <math.h>
#include <string.h>
namespace warpsight::cpu {
namespace {
#include "stored.h"
#include "simd_generic.h"
#include "simd_math.h"
#include "tile.h"

constexpr const char* kProductsIsa = "generic";
constexpr int kRows = 4, kColumns = 8;
constexpr int kPack = 2;
using Row = uint16_t;
using Weight = uint16_t;
using Sum = float;

/// Pairs of k: of W columns of a panel, or one of a row in every lane.
struct pairs {
    vf first, second;
};
inline pairs load_weights(const uint16_t* p) {
    return {each([&](int i) { return widen(BFloat16{p[2 * i]}); }), each([&](int i) { return widen(BFloat16{p[2 * i + 1]}); })};
}
inline pairs broadcast(const uint16_t* p) { return {set1(widen(BFloat16{p[0]})), set1(widen(BFloat16{p[1]}))}; }
using vw = pairs;
using vx = pairs;
inline vf dot(vf sum, pairs x, pairs w) { return fma(x.second, w.second, fma(x.first, w.first, sum)); }

inline void round_group(const float* x, int n, uint16_t* to) {
    for (int i = 0; i < kBFloat16Group; ++i) to[i] = i < n ? bfloat16_of(x[i]) : uint16_t(0);
}

#include "multiply_vectors.h"
#include "kernels_bfloat16_impl.h"
}  // namespace

const BFloat16Kernels* generic_bfloat16_kernels() { return &kBFloat16Kernels; }

}  // namespace warpsight::cpu
