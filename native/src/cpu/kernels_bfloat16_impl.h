// The table of kernels_bfloat16.h, written once over these of the including file:
//   kProductsIsa, kRows, kColumns          the table's isa, mr and nr
//   round_group(x, n, to)                  n <= 32 floats rounded to bfloat16, zeros behind them up to 32
//   Multiplier                             one for each call of tiles(), released last, that is called with
//                                          (rows, a, b, K, tile, from_zero, ahead):
//                                          tile[rows][kColumns] (+)= Σ_k a[k]·b[k] for k < K, a multiple of 32;
//                                          a: [K/32][rows][32]; b: [K/2][kColumns][2]
// Included inside an unnamed namespace, behind tile.h; like kernels_impl.h without the standard library's templates.

void pack_row(const float* x, int64_t K, int64_t rows, uint16_t* to) {
    for (int64_t k = 0; k < K; k += kBFloat16Group, to += rows * kBFloat16Group)
        round_group(x + k, int(least(kBFloat16Group, K - k)), to);
}

void bfloat16_tiles(const BFloat16Gemm& g, const GemmPart& part, float* sums) {
    alignas(64) float tile[kRows * kColumns];
    const int64_t padded = ceil_div(g.K, kBFloat16Group) * kBFloat16Group, panel_size = padded * kColumns;
    auto row_of = [&](int64_t block) { return block * g.M / g.blocks; };
    const int64_t origin = row_of(part.first_block), rows_in_all = row_of(part.last_block) - origin;
    const int64_t blocks = part.last_block - part.first_block;
    Multiplier multiply;
    int64_t k = 0;
    do {  // once for K = 0: the sums are zero
        const int64_t depth = least(part.depth, padded - k);
        const bool done = k + depth == padded;
        for (int64_t panel = part.first_panel; panel < part.last_panel; ++panel) {
            const uint16_t* b = g.panels + panel * panel_size + k * kColumns;
            // as in kernels_impl.h
            const bool turn = panel + 1 == part.last_panel && !done;
            const uint16_t* next = turn ? g.panels + part.first_panel * panel_size + (k + depth) * kColumns : b + panel_size;
            const int lines = int(ceil_div(kBFloat16Group * kColumns * int64_t(sizeof *b) / 64, blocks));
            const int64_t n0 = panel * kColumns, columns = least(kColumns, g.N - n0);
            for (int64_t block = part.first_block; block < part.last_block; ++block) {
                const int64_t m0 = row_of(block), rows = row_of(block + 1) - m0;
                float* out = done && k == 0 ? tile : sums + ((panel - part.first_panel) * rows_in_all + m0 - origin) * kColumns;
                const Ahead ahead = {
                    reinterpret_cast<const char*>(next) + (block - part.first_block) * lines * 64 * (depth / kBFloat16Group),
                    lines};
                if (done) fetch_places(g.end, m0, rows, n0, kColumns);
                multiply(rows, g.a + m0 * padded + k * rows, b, depth, out, k == 0, ahead);
                if (!done) continue;
                finish(g.end, m0, rows, n0, columns,
                       [=](int64_t r) { return [=](int64_t c, int) { return load(out + r * kColumns + c); }; });
            }
        }
        k += depth;
    } while (k < padded);
    multiply.release();
}

constexpr BFloat16Kernels kBFloat16Kernels = {
    .isa = kProductsIsa,
    .mr = kRows,
    .nr = kColumns,
    .pack_row = pack_row,
    .tiles = bfloat16_tiles,
};
