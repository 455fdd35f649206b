// The Multiplier of kernels_int8_impl.h and kernels_bfloat16_impl.h for instructions that add products of neighbouring k to a
// vector of sums. The including file has
//   Row, Weight, Sum        what x, W and the sums are kept as
//   kPack                   how many k an instruction adds up in each lane
//   vw, vx                  kPack·W weights, kPack of k for W columns each; kPack of a row in every lane
//   load_weights, broadcast, dot(sum, x, w); perhaps dot(sum, address of x, w), for the rows from kInRegisters (simd_*.h) on
// Included inside an unnamed namespace, behind tile.h.

constexpr int NV = kColumns / W;  // vectors across a register tile
constexpr int64_t kLine = 64 / int64_t(sizeof(Row));
constexpr int kTurns = int(kLine) / kPack / kUnroll;

inline vi sums_from(const int32_t* tile, bool from_zero) { return from_zero ? set1_int(0) : load_ints(tile); }
inline vf sums_from(const float* tile, bool from_zero) { return from_zero ? zero() : load(tile); }
inline void store_sums(int32_t* tile, vi sums) { store_ints(tile, sums); }
inline void store_sums(float* tile, vf sums) { store(tile, sums); }

/// tile[M][kColumns] (+)= Σ_k a[k]·b[k] for k < K, a multiple of kPack.
/// a: [K/kLine][M][kLine]; b: [K/kPack][kColumns][kPack].
/// Not inlined: in one function the sums of all M were in each other's way.
template <int M>
[[gnu::noinline]] void multiply_rows(const Row* a, const Weight* b, int64_t K, Sum* tile, bool from_zero, Ahead ahead) {
    decltype(sums_from(tile, true)) sums[M][NV];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sums[r][v] = sums_from(tile + r * kColumns + v * W, from_zero);

    auto step = [&](const Row* column, const Weight* row) {
        vw ws[NV];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) ws[v] = load_weights(row + v * W * kPack);
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
            if constexpr (requires { dot(sums[r][0], column, ws[0]); }) {
                if (r >= kInRegisters) {
#pragma GCC unroll 16
                    for (int v = 0; v < NV; ++v) sums[r][v] = dot(sums[r][v], column + r * kLine, ws[v]);
                    continue;
                }
            }
            vx x = broadcast(column + r * kLine);
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) sums[r][v] = dot(sums[r][v], x, ws[v]);
        }
    };
    int64_t k = 0;
    for (; k + kLine <= K; k += kLine, a += M * kLine) {
        for (int turn = 0; turn < kTurns; ++turn, b += kUnroll * kPack * kColumns) {
            ahead.fetch(turn);
#pragma GCC unroll kUnroll
            for (int i = 0; i < kUnroll; ++i) step(a + (turn * kUnroll + i) * kPack, b + i * kPack * kColumns);
        }
    }
    for (int i = 0; k < K; k += kPack, i += kPack, b += kPack * kColumns) step(a + i, b);

#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) store_sums(tile + r * kColumns + v * W, sums[r][v]);
}

struct Multiplier {
    template <int M = kRows>
    void operator()(int64_t rows, const Row* a, const Weight* b, int64_t K, Sum* tile, bool from_zero, Ahead ahead) {
        if constexpr (M > 1)
            if (rows < M) return operator()<M - 1>(rows, a, b, K, tile, from_zero, ahead);
        multiply_rows<M>(a, b, K, tile, from_zero, ahead);
    }
    void release() {}
};
