// What the products of float and of int8 weights share: a tile's epilogue, and what is fetched meanwhile. Included inside an
// unnamed namespace, like kernels_impl.h and for its reasons, behind simd_math.h.

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline vf load_some(const float* p, int n) { return n == W ? load(p) : load_n(p, n); }
inline void store_some(float* p, vf x, int n) { n == W ? store(p, x) : store_n(p, x, n); }

/// What is to be in L2 soon: `lines` cache lines for each group of k that is worked on.
struct Ahead {
    const char* at = nullptr;
    int lines = 0;

    /// The share of one of `turns` turns of a group: so many requests at once would wait for each other, and the multiply-adds
    /// for them.
    void fetch(int turn, int turns) const {
        for (int line = turn; line < lines; line += turns) prefetch(at + line * 64);
    }
    void next_group() { at += lines * 64; }
};

/// Where column n0 of row m of the product belongs.
struct Place {
    float* y;
    const float* residual;  // null where there is none
};

inline Place place_of(const Epilogue& end, int64_t row, int64_t n0) {
    int64_t out_row = row, residual_row = row;
    if (end.patches > 0) {
        residual_row = end.first + row % end.patches;
        out_row = row / end.patches * end.tokens + residual_row;
    }
    return {end.y + out_row * end.y_stride + n0, end.residual ? end.residual + residual_row * end.residual_stride + n0 : nullptr};
}

/// Brings what finish() will read and write near: each row is in other cache lines, in no order that the processor would guess.
inline void fetch_places(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
    for (int64_t r = 0; r < rows; ++r) {
        const Place place = place_of(end, m0 + r, n0);
        for (int64_t c = 0; c < columns; c += kGroup) {
            prefetch(place.y + c);
            if (place.residual) prefetch(place.residual + c);
        }
    }
}

/// Rows m0 … m0 + rows − 1, columns n0 … n0 + columns − 1; sums(r)(c, n) gives the n <= W finished sums from column n0 + c of
/// row m0 + r on.
template <typename Sums, typename Activate>
inline void finish_rows(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0, int64_t columns, Sums sums, Activate act) {
    const float* bias = end.bias ? end.bias + n0 : nullptr;
    for (int64_t r = 0; r < rows; ++r) {
        const Place place = place_of(end, m0 + r, n0);
        const float* residual = place.residual;
        float* y = place.y;
        const auto row = sums(r);
        auto take = [&](int64_t c, int n) {
            vf x = row(c, n);
            if (bias) x = x + load_some(bias + c, n);
            x = act(x);
            if (residual) x = x + load_some(residual + c, n);
            store_some(y + c, x, n);
        };
        int64_t c = 0;
        for (; c + W <= columns; c += W) take(c, W);
        if (c < columns) take(c, int(columns - c));
    }
}

/// The same with the epilogue's activation.
template <typename Sums>
inline void finish(const Epilogue& end, int64_t m0, int64_t rows, int64_t n0, int64_t columns, Sums sums) {
    with_activation(end.activation, [&](auto act) { finish_rows(end, m0, rows, n0, columns, sums, act); });
}
