// The kernels of kernels_int8.h, written once over the vectors of a simd_*.h and these of the including file:
//   kInt8Isa, kRows, kColumns    the table's isa, mr and nr
//   kPack                        how many of k lie together in a panel
//   kMost                        of q: 255, or less where products of a pair of k are added in 16 bits
//   kBias                        packed rows hold q − kBias
//   Multiplier                   one for each call of tiles(), released last, that is called with
//                                (rows, a, b, K, tile, from_zero, ahead):
//                                tile[rows][kColumns] (+)= Σ_k a[k]·b[k] for k < K, a multiple of 8;
//                                a: [K/kLine][rows][kLine]; b: [K/kPack][kColumns][kPack]
//   kLine, kTurns                k of a row that lie together, one cache line, and in how many turns they are multiplied
// Included inside an unnamed namespace, behind tile.h; like kernels_impl.h without the standard library's templates.

constexpr int kLimit = 127;                                   // of v
constexpr float kPair = kMost < 255 ? 32767 / kMost - 1 : 0;  // rounding adds at most 1 to the v of a pair

constexpr int64_t kHeader = kColumns * int64_t(sizeof(float) + sizeof(int32_t));

inline float* scales_of(void* panel) { return static_cast<float*>(panel); }
inline int32_t* sums_of(void* panel) { return reinterpret_cast<int32_t*>(static_cast<float*>(panel) + kColumns); }
inline int8_t* bytes_of(void* panel) { return static_cast<int8_t*>(panel) + kHeader; }
inline int64_t place_of(int64_t k, int64_t lane) { return (k / kPack * kColumns + lane) * kPack + k % kPack; }

int64_t panel_bytes(int64_t K) { return kHeader + ceil_div(K, 8) * 8 * kColumns; }
int64_t row_bytes(int64_t K) { return ceil_div(K, kLine) * kLine; }

// ------------------------------------------------------------------------------------------------------------ quantising

/// The smallest and the largest of a row and 0, and something that is NaN if a number of the row is not finite, else 0.
struct Range {
    float low, high, finite;
};

inline Range range_of(const float* x, int64_t K) {
    vf low[2] = {zero(), zero()}, high[2] = {zero(), zero()}, finite[2] = {zero(), zero()};
    auto take = [&](int i, vf v) {
        low[i] = min(low[i], v);
        high[i] = max(high[i], v);
        finite[i] = fma(v, zero(), finite[i]);
    };
    int64_t k = 0;
    for (; k + 2 * W <= K; k += 2 * W) {
        take(0, load(x + k));
        take(1, load(x + k + W));
    }
    if (k + W <= K) {
        take(0, load(x + k));
        k += W;
    }
    if (k < K) take(1, load_n(x + k, int(K - k)));
    return {-max_lanes(zero() - min(low[0], low[1])), max_lanes(max(high[0], high[1])), sum_lanes(finite[0] + finite[1])};
}

/// Steps smaller than this, the least normal number, count as none: their inverse would overflow.
constexpr float kLeastStep = 0x1p-126f;

/// 1 / step, or 0 for a step that counts as none and where a number is not finite; `step` becomes 0 or NaN then.
inline float inverse_of(float& step, const Range& range) {
    const bool finite = range.finite == 0.f;
    if (finite && step >= kLeastStep) return 1.f / step;
    step = range.finite;  // 0 or NaN
    return 0.f;
}

/// take(k, v, n) for every group of n <= W numbers x·inverse + offset, clipped to low … high.
template <typename Take>
inline void quantize(const float* x, int64_t K, float inverse, float offset, float low, float high, Take take) {
    auto clipped = [&](vf v) { return min(set1(high), max(v * set1(inverse) + set1(offset), set1(low))); };
    int64_t k = 0;
    for (; k + W <= K; k += W) take(k, clipped(load(x + k)), W);
    if (k < K) take(k, clipped(load_n(x + k, int(K - k))), int(K - k));
}

/// The largest |w[k]| / 2 + |w[k + 1]| / 2 of even k.
inline float pair_of(const float* w, int64_t K) {
    constexpr float kEven[16] = {0.5f, 0, 0.5f, 0, 0.5f, 0, 0.5f, 0, 0.5f, 0, 0.5f, 0, 0.5f, 0, 0.5f, 0};
    const vf even = load(kEven);
    vf largest = zero();
    for (int64_t k = 0; k < K; k += W) {
        const vf first = abs(load_some(w + k, int(least(W, K - k)))),
                 second = abs(load_some(w + k + 1, int(least(W, K - k - 1))));
        largest = max(largest, fma(second, even, first * even));
    }
    return max_lanes(largest);
}

void pack_weight(const float* w, int64_t K, int64_t lane, void* panel) {
    const Range range = range_of(w, K);
    float scale = (-range.low > range.high ? -range.low : range.high) / float(kLimit);
    if constexpr (kPair > 0) {
        const float least_scale = pair_of(w, K) / (kPair / 2);
        if (least_scale > scale) scale = least_scale;
    }
    const float inverse = inverse_of(scale, range);
    int8_t* to = bytes_of(panel);
    int32_t sum = 0;
    quantize(w, K, inverse, 0.f, float(-kLimit), float(kLimit), [&](int64_t k, vf v, int n) {
        uint8_t bytes[W];
        store_bytes(bytes, v);
        for (int i = 0; i < n; ++i) {
            const int8_t byte = int8_t(bytes[i]);
            to[place_of(k + i, lane)] = byte;
            sum += byte;
        }
    });
    for (int64_t k = K; k % 8 != 0; ++k) to[place_of(k, lane)] = 0;
    scales_of(panel)[lane] = scale;
    sums_of(panel)[lane] = sum;
}

void unpack_weight(const void* panel, int64_t K, int64_t lane, float* w) {
    const float scale = scales_of(const_cast<void*>(panel))[lane];
    const int8_t* from = bytes_of(const_cast<void*>(panel));
    for (int64_t k = 0; k < K; ++k) w[k] = scale * float(from[place_of(k, lane)]);
}

RowScale pack_row(const float* x, int64_t K, int64_t rows, void* to) {
    const Range range = range_of(x, K);
    constexpr float top = float(kMost);
    float scale = range.high / top - range.low / top;  // the difference itself may overflow
    const float inverse = inverse_of(scale, range);
    const int32_t zero_point = inverse == 0.f ? 0 : int32_t(-range.low * inverse + 0.5f);
    uint8_t* row = static_cast<uint8_t*>(to);
    auto at = [&](int64_t k) { return row + k / kLine * rows * kLine + k % kLine; };
    quantize(x, K, inverse, float(zero_point), 0.f, top, [&](int64_t k, vf v, int n) {
        if constexpr (kBias != 0) v = v - set1(float(kBias));
        if (n == W) return store_bytes(at(k), v);
        uint8_t some[W];
        store_bytes(some, v);
        memcpy(at(k), some, size_t(n));
    });
    for (int64_t k = K; k % 8 != 0; ++k) *at(k) = 0;  // these meet weights of zero
    return {scale, zero_point - kBias};
}

// --------------------------------------------------------------------------------------------------------------- product

void int8_tiles(const Int8Gemm& g, const GemmPart& part, int32_t* sums) {
    alignas(64) int32_t tile[kRows * kColumns];
    Multiplier multiplier;
    const int64_t row_size = row_bytes(g.K), all = ceil_div(g.K, 8) * 8;
    auto panel_at = [&](int64_t panel) { return static_cast<char*>(const_cast<void*>(g.panels)) + panel * panel_bytes(g.K); };
    for_blocks(
        {g.M, g.N, all, g.blocks, g.end}, part, {kColumns, kLine, kLine * kColumns / 64, kTurns}, tile, sums,
        [&](int64_t panel, int64_t k) { return bytes_of(panel_at(panel)) + k * kColumns; },
        [&](const int8_t* b, int64_t k, int64_t depth, int64_t m0, int64_t rows, int32_t* out, Ahead ahead) {
            multiplier(rows, static_cast<const Row*>(g.a) + m0 * row_size + k * rows, b, depth, out, k == 0, ahead);
        },
        [&](int64_t panel, int64_t m0, int64_t rows, int64_t columns, const int32_t* out) {
            const float* scales = scales_of(panel_at(panel));
            const int32_t* weight_sums = sums_of(panel_at(panel));
            finish(g.end, m0, rows, panel * kColumns, columns, [=, row_scales = g.rows + m0](int64_t c, int) {
                const vi weight_sum = load_ints(weight_sums + c);
                const vf scale = load(scales + c);
                return [=](int64_t r) {
                    const vi sum = multiply_add(set1_int(-row_scales[r].zero), weight_sum, load_ints(out + r * kColumns + c));
                    return to_floats(sum) * scale * set1(row_scales[r].scale);
                };
            });
        });
    multiplier.release();
}

constexpr Int8Kernels kInt8Kernels = {
    .isa = kInt8Isa,
    .mr = kRows,
    .nr = kColumns,
    .most = kMost,
    .most_of_pair = kPair,
    .panel_bytes = panel_bytes,
    .pack_weight = pack_weight,
    .unpack_weight = unpack_weight,
    .row_bytes = row_bytes,
    .pack_row = pack_row,
    .tiles = int8_tiles,
};
