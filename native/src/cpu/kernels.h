// What each instruction set offers: a table of functions over plain memory. kernels_generic.cpp, kernels_avx2.cpp,
// kernels_avx512.cpp and kernels_neon.cpp fill one each from the same templates (kernels_impl.h). None allocates, throws or knows
// a thread; all arguments are plain data.
#pragma once

#include <cstdint>

#include "../dtype.h"
#include "../ops.h"

namespace warpsight::cpu {

/// Consecutive k of a row that lie together in packed rows: one cache line.
constexpr int kGroup = 16;

/// What happens to a finished sum before it is stored: act(sum + bias[n]) + residual.
struct Epilogue {
    Activation activation = Activation::none;
    const float* bias = nullptr;      // [N]
    const float* residual = nullptr;  // rows of `residual_stride`
    float* y = nullptr;               // rows of `y_stride`
    int64_t residual_stride = 0, y_stride = 0;
    bool packed = false;  // y lies in the same blocks of rows, as the next Gemm reads them
    // Row m goes to output row m, or (patches > 0) to row m / patches·tokens + first + m % patches with residual row first + m %
    // patches.
    int64_t patches = 0, tokens = 0, first = 0;
};

/// y = epilogue(A·Wᵀ). Rows stand in blocks of nearly equal size: block b holds rows b·M/blocks … (b + 1)·M/blocks − 1.
/// A packed: block b starts at row_of(b)·padded K; inside [ceil(K/16)][rows][16].  W packed: [ceil(N/nr)][K][nr] of `dtype`.
struct Gemm {
    int64_t M = 0, N = 0, K = 0, blocks = 0;
    const float* a = nullptr;
    int64_t first_row = 0;  // that stands at `a`, the first of a block
    const void* panels = nullptr;
    DType dtype = DType::float32;
    Epilogue end;
};

/// What one thread multiplies at a time: blocks of rows times panels of W, k in slices of `depth`: whole groups. A slice of the
/// rows stays in L2 while the panels pass. `next_panel` is what the thread will probably begin with behind it, or −1.
struct GemmPart {
    int64_t first_block = 0, last_block = 0, first_panel = 0, last_panel = 0, depth = 0, next_panel = -1;
};

/// Rows of `width` numbers: one behind the other, or packed in blocks as a Gemm of all `M` reads them.
struct Rows {
    float* data = nullptr;
    int64_t width = 0;
    int64_t M = 0, blocks = 0;  // blocks 0: not packed
};

/// Column c of a row lies at `at` + c / 16·step + c % 16; the same step and 16 floats apart for all rows of a block.
struct PackedRow {
    float* at = nullptr;
    int64_t step = 0, first_of_block = 0, rows_of_block = 0;
};

/// `known`, the place of a row before, saves the search where it is of the same block. Internal to each object, see docs/cpu.md.
static inline PackedRow place_row(const Rows& y, int64_t row, PackedRow known = {}) {
    if (y.blocks == 0) return {y.data + row * y.width, kGroup, row, 1};
    if (row < known.first_of_block || row >= known.first_of_block + known.rows_of_block) {
        const int64_t block = ((row + 1) * y.blocks - 1) / y.M;
        known.first_of_block = block * y.M / y.blocks;
        known.rows_of_block = (block + 1) * y.M / y.blocks - known.first_of_block;
        known.step = known.rows_of_block * kGroup;
    }
    known.at = y.data + known.first_of_block * y.width + (row - known.first_of_block) * kGroup;
    return known;
}

/// The queries of one segment; k and v rows in logical order are prefix_start …, then own_start … .
struct Segment {
    int64_t q_start = 0, q_count = 0, own_start = 0, own_count = 0, prefix_start = 0, prefix_count = 0;
};

struct Attend {
    const float *q = nullptr, *k = nullptr, *v = nullptr;  // offsets added already
    int64_t q_stride = 0, k_stride = 0, v_stride = 0;
    const int32_t* mask = nullptr;
    Rows y;
    int head_dim = 1, group = 1;  // query heads that share one key/value head
    bool causal = false;
    float scale = 1.f;
    int64_t next = 0;  // floats from a head's row of q, k or v to that of the head taken next, fetched meanwhile; 0: none
};

struct Kernels {
    const char* isa;
    int mr, nr;      // register tile of the GEMM: rows, columns
    int pixel_rows;  // rows that one resize_pixel takes

    /// Where K > depth, `sums` holds nr floats for each row and panel of the part between two slices.
    void (*gemm_tiles)(const Gemm& gemm, const GemmPart& part, float* sums);
    /// y[i, j] = epilogue(x_i·w_j) for rows [m0, m1) and [n0, n1) of row-major x [M, K] and w [N, K].
    void (*dot_tile)(const float* x, const float* w, int64_t K, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                     const Epilogue& end);
    /// out[i·stride + j] = multiplier·x_i·w_j + bias for i < m, j < n.
    void (*scaled_dots)(const float* x, const float* w, int64_t K, int64_t m, int64_t n, float multiplier, float bias, float* out,
                        int64_t stride);

    /// Floats of scratch for one attend() with at most `keys` keys.
    int64_t (*attend_scratch)(int64_t keys, int head_dim);
    /// Queries [first, last) of a segment for the query heads of one key/value head.
    void (*attend)(const Attend& attention, const Segment& segment, int kv_head, int64_t first, int64_t last, float* scratch);

    /// Rows of D; residual, bias and sum may be null. Those of y are packed as a block where y_step, the floats between groups of
    /// 16, is not 16; there is no residual without a sum then.
    void (*layer_norm)(const float* x, const float* residual, const float* weight, const float* bias, float* sum, float* y,
                       int64_t y_step, int64_t rows, int64_t D, float eps);
    void (*rms_norm)(const float* x, const float* residual, const float* weight, float* sum, float* y, int64_t y_step,
                     int64_t rows, int64_t D, float eps);
    void (*l2_normalize)(const float* x, float* y, int64_t rows, int64_t D);
    void (*softmax)(const float* x, float* y, int64_t rows, int64_t D);

    void (*activate)(Activation activation, const float* x, float* y, int64_t count);
    void (*silu_gate)(const float* gate, const float* up, float* y, int64_t count);
    void (*add)(const float* x, const float* y, float* out, int64_t count);
    /// `one`: y is a single number.
    void (*binary)(Arithmetic arithmetic, const float* x, const float* y, bool one, float* out, int64_t count);
    /// The largest of a row (NaN ignored) and Σ exp(x − largest); count > 0.
    void (*exp_sum)(const float* x, int64_t count, float* largest, float* sum);

    /// A whole panel: to[k·nr + j] = from[j·K + k] for j < nr and k < K; `to` begins a cache line.
    void (*pack_panel)(const float* from, int64_t K, float* to);
    /// y = stored row, widened.
    void (*widen)(const void* stored, DType dtype, float* y, int64_t count);
    /// y[x] = clip8((2^21 + Σ_t weights[t]·rows[t·stride + x]) >> 22) for x < count.
    void (*resize_column)(const uint8_t* rows, int64_t stride, const int32_t* weights, int taps, uint8_t* y, int64_t count);
    /// The same along rows, for one pixel of three bytes in each of `pixel_rows` rows: y[row·y_stride + c] from rows[row·stride +
    /// 3·t + c]. Reads one byte behind the last pixel.
    void (*resize_pixel)(const uint8_t* rows, int64_t stride, const int32_t* weights, int taps, uint8_t* y, int64_t y_stride);
};

/// Null where the build has no such code; whether the processor does is isa.h's business.
const Kernels* generic_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* neon_kernels();

}  // namespace warpsight::cpu
