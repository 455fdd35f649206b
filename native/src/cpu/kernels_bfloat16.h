// Products in bfloat16: a table of functions beside kernels.h', for processors that multiply pairs of bfloat16 into float32 sums,
// for AVX-512 without, where what is rounded is multiplied as floats, and in plain C++ so that everything around it can be tested
// anywhere. kernels_bfloat16_generic.cpp, …_avx512.cpp, …_avx512_bf16.cpp and …_amx.cpp fill one each.
//
// Rows of x are rounded to bfloat16, to the nearest and halves to even, when they are packed; weights when they are loaded. Every
// element of a product adds its pairs of k in the same order whatever M, N and the thread count: a row's bits depend on nothing
// but the row and the weight. How a pair is added, and what becomes of numbers below the normal range, is the instruction's
// affair: vdpbf16ps and tdpbf16ps take them as zero, and no two of the tables give the same bits.
#pragma once

#include "kernels.h"

namespace warpsight::cpu {

/// Rows and panels end in zeros up to the next multiple of so many k.
constexpr int kBFloat16Group = 32;

/// K with these zeros. Internal to each object, see docs/cpu.md.
static inline int64_t bfloat16_padded(int64_t K) { return (K / kBFloat16Group + (K % kBFloat16Group != 0)) * kBFloat16Group; }

/// Rows stand in blocks as in Gemm, of numbers of `row_bytes`, of which a cache line holds `line`. `a`: block b starts behind
/// row_of(b)·padded K of them; inside [padded K/line][rows][line]. `panels`: [ceil(N/nr)][padded K/2][nr][2].
struct BFloat16Gemm {
    int64_t M = 0, N = 0, K = 0, blocks = 0;
    const void* a = nullptr;
    const uint16_t* panels = nullptr;
    Epilogue end;
};

struct BFloat16Kernels {
    const char* isa;
    int mr, nr;     // register tile: rows, columns
    int row_bytes;  // of a number of a packed row: 2, or 4 where it is rounded and kept as a float

    /// One row of x, rounded, into its place in a block of `rows` rows.
    void (*pack_row)(const float* x, int64_t K, int64_t rows, void* to);
    /// `sums` as for gemm_tiles in kernels.h.
    void (*tiles)(const BFloat16Gemm& gemm, const GemmPart& part, float* sums);
};

/// Null where the build has no such code; whether the processor does is isa.h's business.
const BFloat16Kernels* generic_bfloat16_kernels();
const BFloat16Kernels* avx512_bfloat16_kernels();
const BFloat16Kernels* avx512_bf16_kernels();
const BFloat16Kernels* amx_bfloat16_kernels();

}  // namespace warpsight::cpu
