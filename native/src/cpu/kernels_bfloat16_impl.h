// The table of kernels_bfloat16.h, written once over these of the including file:
//   kProductsIsa, kRows, kColumns          the table's isa, mr and nr
//   Row, kLine                             what rows of x are kept as, and how many of them are a cache line
//   kTurns                                 in which the Multiplier takes kLine k
//   round_group(x, n, to)                  n <= kLine floats rounded to bfloat16, zeros behind them up to kLine
//   Multiplier                             one for each call of tiles(), released last, that is called with
//                                          (rows, a, b, K, tile, from_zero, ahead):
//                                          tile[rows][kColumns] (+)= Σ_k a[k]·b[k] for k < K, a multiple of 32;
//                                          a: [K/kLine][rows][kLine]; b: [K/2][kColumns][2]
// Included inside an unnamed namespace, behind tile.h; like kernels_impl.h without the standard library's templates.

void pack_row(const float* x, int64_t K, int64_t rows, void* row) {
    Row* to = static_cast<Row*>(row);
    for (int64_t k = 0; k < bfloat16_padded(K); k += kLine, to += rows * kLine)
        round_group(x + k, int(most(0, least(kLine, K - k))), to);
}

void bfloat16_tiles(const BFloat16Gemm& g, const GemmPart& part, float* sums) {
    alignas(64) float tile[kRows * kColumns];
    const int64_t K = bfloat16_padded(g.K);
    const Row* a = static_cast<const Row*>(g.a);
    Multiplier multiplier;
    for_blocks(
        {g.M, g.N, K, g.blocks, g.end}, part, {kColumns, kLine, kLine * kColumns * int64_t(sizeof *g.panels) / 64, kTurns}, tile,
        sums, [&](int64_t panel, int64_t k) { return g.panels + (panel * K + k) * kColumns; },
        [&](const uint16_t* b, int64_t k, int64_t depth, int64_t m0, int64_t rows, float* out, Ahead ahead) {
            multiplier(rows, a + m0 * K + k * rows, b, depth, out, k == 0, ahead);
        },
        [&](int64_t panel, int64_t m0, int64_t rows, int64_t columns, const float* out) {
            finish(g.end, m0, rows, panel * kColumns, columns,
                   [=](int64_t c, int) { return [=](int64_t r) { return load(out + r * kColumns + c); }; });
        });
    multiplier.release();
}

constexpr BFloat16Kernels kBFloat16Kernels = {
    .isa = kProductsIsa,
    .mr = kRows,
    .nr = kColumns,
    .row_bytes = sizeof(Row),
    .pack_row = pack_row,
    .tiles = bfloat16_tiles,
};
