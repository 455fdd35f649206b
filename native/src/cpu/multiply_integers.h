// The Multiplier of kernels_int8_impl.h for instructions that add products of small integers to a vector of sums. The including
// file has
//   vw, vx                                    kPack·W weights, kPack of k for W columns each; kPack of a row in every lane
//   load_weights, broadcast, dot(sum, x, w)   the last adds to each lane its kPack products
// Included inside an unnamed namespace, behind tile.h.

constexpr int NV = kColumns / W;  // vectors across a register tile
constexpr int64_t kLine = 64 / int64_t(sizeof(Row));
constexpr int kTurns = int(kLine) / kPack / kUnroll;

/// tile[M][kColumns] (+)= Σ_k a[k]·b[k] for k < K, which is a multiple of 8.
/// a: [K/kLine][M][kLine]; b: [K/kPack][kColumns][kPack].
template <int M>
void multiply_rows(const Row* a, const int8_t* b, int64_t K, int32_t* tile, bool from_zero, Ahead ahead) {
    vi sums[M][NV];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sums[r][v] = from_zero ? set1_int(0) : load_ints(tile + r * kColumns + v * W);

    auto step = [&](const Row* column, const int8_t* row) {
        vw ws[NV];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) ws[v] = load_weights(row + v * W * kPack);
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
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
        for (int v = 0; v < NV; ++v) store_ints(tile + r * kColumns + v * W, sums[r][v]);
}

struct Multiplier {
    template <int M = kRows>
    void operator()(int64_t rows, const Row* a, const int8_t* b, int64_t K, int32_t* tile, bool from_zero, Ahead ahead) {
        if constexpr (M > 1)
            if (rows < M) return operator()<M - 1>(rows, a, b, K, tile, from_zero, ahead);
        multiply_rows<M>(a, b, K, tile, from_zero, ahead);
    }
    void release() {}
};
