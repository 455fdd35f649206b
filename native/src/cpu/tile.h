// What the products of float and of int8 weights share: a tile's epilogue, and what is fetched meanwhile. Included inside an
// unnamed namespace, like kernels_impl.h and for its reasons, behind simd_math.h.

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline vf load_some(const float* p, int n) { return n == W ? load(p) : load_n(p, n); }
inline void store_some(float* p, vf x, int n) { n == W ? store(p, x) : store_n(p, x, n); }

/// What is to be near soon: in each of the first `turns` turns of a group of k `lines` cache lines. More requests at once would
/// wait for each other, and the multiply-adds for them.
struct Ahead {
    const char* at = nullptr;
    int turns = 0, lines = 0;

    void fetch(int turn) {
        if (turn >= turns) return;
        const char* const end = at + lines * 64;
        do prefetch_level_2(at);
        while ((at += 64) != end);
    }
};

/// Where the rows of a block belong, one after the other: what stands in columns n0 … up to the next multiple of 16.
class Places {
public:
    Places(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0) : end_(end), row_(m0), n0_(n0) {
        if (end.patches > 0) {
            locate();
            return;
        }
        if (end.residual) {
            residual = end.residual + m0 * end.residual_stride + n0;
            residual_row_ = end.residual_stride;
        }
        if (end.packed) {
            y = end.y + m0 * end.y_stride + n0 / kGroup * rows * kGroup + n0 % kGroup;
            y_row_ = kGroup;
        } else {
            y = end.y + m0 * end.y_stride + n0;
            y_row_ = end.y_stride;
        }
    }

    void next() {
        ++row_;
        if (end_.patches > 0) return locate();
        y += y_row_;
        residual += residual_row_;
    }

    float* y = nullptr;
    const float* residual = nullptr;  // null where there is none

private:
    void locate() {
        const int64_t residual_row = end_.first + row_ % end_.patches;
        y = end_.y + (row_ / end_.patches * end_.tokens + residual_row) * end_.y_stride + n0_;
        if (end_.residual) residual = end_.residual + residual_row * end_.residual_stride + n0_;
    }

    const Epilogue& end_;
    int64_t row_, n0_, y_row_ = 0, residual_row_ = 0;
};

/// Brings what finish() will read and write near: each row is in other cache lines, in no order that the processor would guess.
inline void fetch_places(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
    for (int64_t c = 0; c < columns; c += kGroup) {
        Places place(end, m0, rows, n0 + c);
        for (int64_t r = 0; r < rows; ++r, place.next()) {
            prefetch(place.y);
            if (place.residual) prefetch(place.residual);
        }
    }
}

/// A packed product: rows in `blocks` blocks of nearly equal size, over k = 0 … depth − 1.
struct Product {
    int64_t M, N, depth, blocks;
    const Epilogue& end;
};

/// How the panels of a weight lie: `nr` columns, and so many cache lines for each `group` of k, which is multiplied in `turns`.
struct Panels {
    int64_t nr, group, lines;
    int turns;
};

/// The blocks of a part of a product, slice of k by slice and panel by panel, and what is fetched meanwhile.
/// at(panel, k): the weights of a panel from k on.
/// multiply(weights, k, depth, m0, rows, out, ahead): out[rows][nr] (+)= Σ over the slice's k; a sum begins where k = 0.
/// finish(panel, m0, rows, columns, out): once the sums are complete. `out` lies in `tile`, or in `sums` between slices.
template <typename Sum, typename At, typename Multiply, typename Finish>
inline void for_blocks(const Product& p, const GemmPart& part, const Panels& panels, Sum* tile, Sum* sums, At at,
                       Multiply multiply, Finish finish) {
    auto row_of = [&](int64_t block) { return block * p.M / p.blocks; };
    const int64_t origin = row_of(part.first_block), rows_in_all = row_of(part.last_block) - origin;
    // Each block fetches its share of the next panel, at least a line in a group.
    const int share = int(ceil_div(panels.lines, part.last_block - part.first_block));
    const int lines = int(ceil_div(share, panels.turns)), turns = int(ceil_div(share, lines));
    int64_t k = 0;
    do {  // once for K = 0: the sums are zero
        const int64_t depth = least(part.depth, p.depth - k);
        const bool done = k + depth == p.depth;
        for (int64_t panel = part.first_panel; panel < part.last_panel; ++panel) {
            // What is multiplied next: this slice of the next panel, the next slice of the first one, or the next part.
            const auto next = panel + 1 < part.last_panel ? at(panel + 1, k)
                              : !done                     ? at(part.first_panel, k + depth)
                              : part.next_panel >= 0      ? at(part.next_panel, 0)
                                                          : nullptr;
            const int64_t n0 = panel * panels.nr, columns = least(panels.nr, p.N - n0);
            for (int64_t block = part.first_block; block < part.last_block; ++block) {
                const int64_t m0 = row_of(block), rows = row_of(block + 1) - m0;
                Sum* out = done && k == 0 ? tile : sums + ((panel - part.first_panel) * rows_in_all + m0 - origin) * panels.nr;
                const int64_t skipped = (block - part.first_block) * turns * lines * 64 * (depth / panels.group);
                Ahead ahead;
                if (next) ahead = {reinterpret_cast<const char*>(next) + skipped, turns, lines};
                if (done) fetch_places(p.end, m0, rows, n0, panels.nr);
                multiply(at(panel, k), k, depth, m0, rows, out, ahead);
                if (done) finish(panel, m0, rows, columns, out);
            }
        }
        k += depth;
    } while (k < p.depth);
}

/// Rows m0 … m0 + rows − 1, columns n0 … n0 + columns − 1, W of them at a time: what belongs to a column stays in registers while
/// the rows pass. sums(c, n)(r) gives the n <= W finished sums from column n0 + c on of row m0 + r.
template <typename Sums>
inline void finish(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0, int64_t columns, Sums sums) {
    with_activation(end.activation, [&](auto act) {
        auto take = [&](int64_t c, int n) {
            const auto sum = sums(c, n);
            const vf bias = end.bias ? load_some(end.bias + n0 + c, n) : zero();
            Places place(end, m0, rows, n0 + c);
            for (int64_t r = 0; r < rows; ++r, place.next()) {
                vf x = act(sum(r) + bias);
                if (place.residual) x = x + load_some(place.residual, n);
                store_some(place.y, x, n);
            }
        };
        int64_t c = 0;
        for (; c + W <= columns; c += W) take(c, W);
        if (c < columns) take(c, int(columns - c));
    });
}
