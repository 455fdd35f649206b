// The Multiplier of kernels_bfloat16_impl.h for instructions that add pairs of products to a vector of sums. The including file
// has
//   pairs, load_pairs, broadcast_pair    W pairs of k, of W columns of a panel or one of a row in every lane
//   dot                                  sum + x.first·w.first + x.second·w.second in every lane
// Included inside an unnamed namespace.

constexpr int NV = kColumns / W;  // vectors across a register tile
constexpr int kTurns = kBFloat16Group / 2;

/// tile[M][kColumns] (+)= Σ_k a[k]·b[k] for k < K, a multiple of 32. a: [K/32][M][32]; b: [K/2][kColumns][2].
template <int M>
void multiply_pairs(const uint16_t* a, const uint16_t* b, int64_t K, float* tile, bool from_zero, Ahead ahead) {
    vf sums[M][NV];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sums[r][v] = from_zero ? zero() : load(tile + r * kColumns + v * W);

    for (int64_t k = 0; k < K; k += kBFloat16Group, a += M * kBFloat16Group) {
        for (int turn = 0; turn < kTurns; ++turn, b += 2 * kColumns) {
            ahead.fetch(turn);
            pairs ws[NV];
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) ws[v] = load_pairs(b + v * W * 2);
#pragma GCC unroll 16
            for (int r = 0; r < M; ++r) {
                const pairs x = broadcast_pair(a + r * kBFloat16Group + turn * 2);
#pragma GCC unroll 16
                for (int v = 0; v < NV; ++v) sums[r][v] = dot(sums[r][v], x, ws[v]);
            }
        }
    }

#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) store(tile + r * kColumns + v * W, sums[r][v]);
}

struct Multiplier {
    template <int M = kRows>
    void operator()(int64_t rows, const uint16_t* a, const uint16_t* b, int64_t K, float* tile, bool from_zero, Ahead ahead) {
        if constexpr (M > 1)
            if (rows < M) return operator()<M - 1>(rows, a, b, K, tile, from_zero, ahead);
        multiply_pairs<M>(a, b, K, tile, from_zero, ahead);
    }
    void release() {}
};
