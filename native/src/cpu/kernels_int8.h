// Products with weights that are kept as int8: a table of functions beside kernels.h', one for each form of the instructions that
// multiply small integers. The kernels_int8_*.cpp fill one each from the same templates (kernels_int8_impl.h).
//
// A row of W has one scale and no zero point: w ≈ scale·v with v in −127 … 127. A row of x is quantised when it is packed:
// x ≈ scale·(q − zero), with q in 0 … most, and a zero that is hit exactly. Where the instruction adds products of k = 2i and
// 2i + 1 in 16 bits, most·(|v[n, 2i]| + |v[n, 2i + 1]|) is at most 32767. With sums[n] = Σ_k v[n, k]
//   y[m, n] = epilogue((Σ_k q[m, k]·v[n, k] − zero[m]·sums[n])·w.scale[n]·x.scale[m])
// The sums are integers and exact: their order does not matter. A row with a NaN or an infinity gives NaN everywhere.
#pragma once

#include "kernels.h"

namespace warpsight::cpu {

/// K beyond it could overflow a sum: 255·127·65536 < 2^31.
constexpr int64_t kMostInt8Columns = 65536;

struct RowScale {
    float scale;
    int32_t zero;
};

/// Rows stand in blocks as in Gemm. `a`: block b starts at row_of(b)·row_bytes(K); inside, row_bytes(K)/64 times the next 64
/// bytes of each row, one for each k. `panels`: [ceil(N/nr)] of panel_bytes(K) each: scale float [nr] · sums int32 [nr] ·
/// v [ceil(K/8)·8/p][nr][p], p of k together as the instruction wants them.
struct Int8Gemm {
    int64_t M = 0, N = 0, K = 0, blocks = 0;
    const RowScale* rows = nullptr;  // [M]
    const void* a = nullptr;
    const void* panels = nullptr;
    Epilogue end;
};

struct Int8Kernels {
    const char* isa;
    int mr, nr;          // register tile: rows, columns
    int most;            // of q
    float most_of_pair;  // of (|w[2i]| + |w[2i + 1]|) / scale, before v is rounded; 0: no limit

    int64_t (*panel_bytes)(int64_t K);
    /// One row of W into column `lane` of a panel.
    void (*pack_weight)(const float* w, int64_t K, int64_t lane, void* panel);
    /// Column `lane` of a panel as floats again.
    void (*unpack_weight)(const void* panel, int64_t K, int64_t lane, float* w);

    /// A multiple of 64.
    int64_t (*row_bytes)(int64_t K);
    /// One row of x into a block of `rows` rows: its first 64 bytes go to `to`.
    RowScale (*pack_row)(const float* x, int64_t K, int64_t rows, void* to);
    /// `sums` as for gemm_tiles in kernels.h.
    void (*tiles)(const Int8Gemm& gemm, const GemmPart& part, int32_t* sums);
};

/// Null where the build has no such code; whether the processor does is isa.h's business.
const Int8Kernels* generic_int8_kernels();
const Int8Kernels* avx2_int8_kernels();
const Int8Kernels* avx_vnni_int8_kernels();
const Int8Kernels* avx512_int8_kernels();
const Int8Kernels* avx512_vnni_int8_kernels();
const Int8Kernels* amx_int8_kernels();
const Int8Kernels* neon_dotprod_int8_kernels();

}  // namespace warpsight::cpu
