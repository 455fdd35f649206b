// The kernels, written once over the vector type of a simd_*.h and included inside an unnamed namespace by each kernels_*.cpp:
// every instruction set has its own copy of every function, and nothing here is shared through the linker. For the same reason
// nothing here uses the standard library's templates: of an inline function the linker keeps one copy, and it could be the one
// compiled for AVX-512.
//
// Every element of a GEMM is one chain of fused multiply-adds over k = 0, 1, …, whatever M, N and the thread count: a row's bits
// depend on nothing but the row and the weight.

// From simd_*.h: W floats in a vector; a GEMM keeps MR x NR sums and takes kUnroll of k at a time, the numbers of its first
// kInRegisters rows by way of a register each; dots() keeps 4 x kDots sums.
constexpr int NV = NR / W;  // vectors across a register tile
constexpr int kTurns = kGroup / kUnroll;

// ---------------------------------------------------------------------------------------------------------------- GEMM

/// tile[M][NR] (+)= Σ_k a[k]·b[k], k < K. a: [K/16][·][16], row r at r·16, groups `a_step` floats apart; b: [K][NR].
template <int M, typename T>
void multiply_rows(const float* a, int64_t a_step, const T* b, int64_t K, float* tile, bool from_zero, Ahead ahead) {
    vf sums[M][NV];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sums[r][v] = from_zero ? zero() : load(tile + r * NR + v * W);

    auto step = [&](const float* column, const T* row) {
        vf bs[NV];
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) bs[v] = load(row + v * W);
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
            if constexpr (M > kInRegisters) {
                if (r >= kInRegisters) {
#pragma GCC unroll 16
                    for (int v = 0; v < NV; ++v) sums[r][v] = accumulate(sums[r][v], column + r * kGroup, bs[v]);
                    continue;
                }
            }
            vf x = set1(column[r * kGroup]);
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v)
                sums[r][v] = M > 1 ? accumulate(sums[r][v], x, bs[v]) : fma(x, bs[v], sums[r][v]);  // fma may read b from memory
        }
    };
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup, a += a_step) {
        for (int turn = 0; turn < kTurns; ++turn, b += kUnroll * NR) {
            ahead.fetch(turn);
            // The loop's own instructions count: where another program shares the core, it is the front end that is short.
#pragma GCC unroll kUnroll
            for (int i = 0; i < kUnroll; ++i) step(a + turn * kUnroll + i, b + i * NR);
        }
    }
    for (int i = 0; k < K; ++k, ++i, b += NR) step(a + i, b);

#pragma GCC unroll 16
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) store(tile + r * NR + v * W, sums[r][v]);
}

template <typename T>
using RowsFunction = void (*)(const float*, int64_t, const T*, int64_t, float*, bool, Ahead);

template <typename T>
RowsFunction<T> rows_function(int64_t rows) {
    static constexpr RowsFunction<T> table[] = {
        multiply_rows<1, T>,
        multiply_rows<2, T>,
        multiply_rows<3, T>,
        multiply_rows<4, T>,
#if defined(WARPSIGHT_ROWS_6) || defined(WARPSIGHT_ROWS_14)
        multiply_rows<5, T>,
        multiply_rows<6, T>,
#endif
#if defined(WARPSIGHT_ROWS_14)
        multiply_rows<7, T>,
        multiply_rows<8, T>,
        multiply_rows<9, T>,
        multiply_rows<10, T>,
        multiply_rows<11, T>,
        multiply_rows<12, T>,
        multiply_rows<13, T>,
        multiply_rows<14, T>,
#endif
    };
    static_assert(sizeof table / sizeof table[0] == MR);
    return table[rows - 1];
}

void finish_tile(const Epilogue& end, const float* tile, int64_t stride, int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
    finish(end, m0, rows, n0, columns,
           [=](int64_t c, int n) { return [=](int64_t r) { return load_some(tile + r * stride + c, n); }; });
}

template <typename T>
void gemm_tiles_of(const Gemm& g, const GemmPart& part, float* sums) {
    alignas(64) float tile[MR * NR];
    const int64_t padded = ceil_div(g.K, kGroup) * kGroup;
    for_blocks(
        {g.M, g.N, g.K, g.blocks, g.end}, part, {NR, kGroup, int64_t(kGroup * NR * sizeof(T)) / 64, kTurns}, tile, sums,
        [&](int64_t panel, int64_t k) { return static_cast<const T*>(g.panels) + (panel * g.K + k) * NR; },
        [&](const T* b, int64_t k, int64_t depth, int64_t m0, int64_t rows, float* out, Ahead ahead) {
            rows_function<T>(rows)(g.a + (m0 - g.first_row) * padded + k * rows, rows * kGroup, b, depth, out, k == 0, ahead);
        },
        [&](int64_t panel, int64_t m0, int64_t rows, int64_t columns, const float* out) {
            finish_tile(g.end, out, NR, m0, rows, panel * NR, columns);
        });
}

void gemm_tiles(const Gemm& g, const GemmPart& part, float* sums) {
    switch (g.dtype) {
        case DType::float16: return gemm_tiles_of<Float16>(g, part, sums);
        case DType::bfloat16: return gemm_tiles_of<BFloat16>(g, part, sums);
        case DType::float32:
        case DType::int32:
        case DType::uint8:
        case DType::int8: return gemm_tiles_of<float>(g, part, sums);
    }
}

// ------------------------------------------------------------------------------------- products of rows that stand row by row

/// sums[i·N + j] = Σ_k x_i[k]·w_j[k]: lanes run along k and are added at the end, in the same order for any M and N.
template <int M, int N>
void dots(const float* x, const float* w, int64_t K, float* out) {
    vf sums[M][N];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) sums[i][j] = zero();
    auto step = [&](auto read) {
        vf ws[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) ws[j] = read(w + j * K);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) {
            vf xs = read(x + i * K);
#pragma GCC unroll 4
            for (int j = 0; j < N; ++j) sums[i][j] = fma(xs, ws[j], sums[i][j]);
        }
    };
    int64_t k = 0;
    for (; k + W <= K; k += W) step([&](const float* row) { return load(row + k); });
    if (k < K) step([&](const float* row) { return load_n(row + k, int(K - k)); });
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) out[i * 4 + j] = sum_lanes(sums[i][j]);
}

/// out [4][4] for m <= 4 and n <= 4 rows.
void dots_up_to_4(const float* x, const float* w, int64_t K, int64_t m, int64_t n, float* out) {
    if (m == 4 && n == 4) {
        for (int j = 0; j < 4; j += kDots) dots<4, kDots>(x, w + j * K, K, out + j);
        return;
    }
    if (m == 1 && n == 4) return dots<1, 4>(x, w, K, out);
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) dots<1, 1>(x + i * K, w + j * K, K, out + i * 4 + j);
}

void dot_tile(const float* x, const float* w, int64_t K, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const Epilogue& end) {
    float tile[16];
    for (int64_t j = n0; j < n1; j += 4)
        for (int64_t i = m0; i < m1; i += 4) {
            int64_t rows = least(4, m1 - i), columns = least(4, n1 - j);
            dots_up_to_4(x + i * K, w + j * K, K, rows, columns, tile);
            finish_tile(end, tile, 4, i, rows, j, columns);
        }
}

void scaled_dots(const float* x, const float* w, int64_t K, int64_t m, int64_t n, float multiplier, float bias, float* out,
                 int64_t stride) {
    float tile[16];
    for (int64_t j = 0; j < n; j += 4)
        for (int64_t i = 0; i < m; i += 4) {
            int64_t rows = least(4, m - i), columns = least(4, n - j);
            dots_up_to_4(x + i * K, w + j * K, K, rows, columns, tile);
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t c = 0; c < columns; ++c) out[(i + r) * stride + j + c] = multiplier * tile[r * 4 + c] + bias;
        }
}

/// Calls f(offset, n) for whole vectors (n = W) and then for the rest.
template <typename F>
inline void along(int64_t D, F f) {
    int64_t d = 0;
    for (; d + W <= D; d += W) f(d, W);
    if (d < D) f(d, int(D - d));
}

// ----------------------------------------------------------------------------------------------------------- attention

struct AttendScratch {
    int64_t key_panels, value_panels, groups;            // panels of NR keys, panels of NR components, groups of 16 keys
    int64_t keys, values, queries, scores, tile, total;  // offsets in floats

    AttendScratch(int64_t key_count, int64_t head_dim) {
        key_panels = ceil_div(key_count, NR);
        value_panels = ceil_div(head_dim, NR);
        groups = ceil_div(key_panels * NR, kGroup);
        keys = 0;
        values = keys + key_panels * head_dim * NR;
        queries = values + value_panels * key_count * NR;
        queries = ceil_div(queries, kGroup) * kGroup;
        scores = queries + ceil_div(head_dim, kGroup) * kGroup * MR;
        tile = scores + groups * kGroup * MR;
        total = tile + MR * NR;
    }
};

int64_t attend_scratch(int64_t keys, int head_dim) { return AttendScratch(keys, head_dim).total; }

/// Scores of one row (groups `step` apart) to exp(score − largest) with zeros up to the end of the last group that holds a key;
/// gives their sum.
inline float exponentials(float* row, int64_t step, int64_t count) {
    const int64_t groups = ceil_div(count, kGroup);
    auto scores = [&](int64_t g, int i) {
        const vf x = load(row + g * step + i);
        const int64_t n = count - (g * kGroup + i);
        return n >= W ? x : select(first_lanes(int(most(0, n))), x, set1(-INFINITY));
    };
    vf largest = set1(-INFINITY);
    for (int64_t g = 0; g < groups; ++g)
        for (int i = 0; i < kGroup; i += W) largest = max(largest, scores(g, i));
    vf top = set1(max_lanes(largest)), sum = zero();
    for (int64_t g = 0; g < groups; ++g)
        for (int i = 0; i < kGroup; i += W) {
            vf p = exp(scores(g, i) - top);
            store(row + g * step + i, p);
            sum = sum + p;
        }
    return sum_lanes(sum);
}

/// tile[NR] += Σ p_k·v_k for keys from … to − 1 of one row of probabilities.
inline void add_keys(const float* row, int64_t step, int64_t from, int64_t to, const float* values, float* tile) {
    for (int64_t k = from; k < to; ++k) {
        vf p = set1(row[k / kGroup * step + k % kGroup]);
        for (int v = 0; v < NV; ++v) store(tile + v * W, fma(p, load(values + k * NR + v * W), load(tile + v * W)));
    }
}

void attend(const Attend& a, const Segment& s, int kv_head, int64_t first, int64_t last, float* scratch) {
    const int64_t d = a.head_dim, all = s.prefix_count + s.own_count;
    auto row_of = [&](int64_t key) { return key < s.prefix_count ? s.prefix_start + key : s.own_start + key - s.prefix_count; };
    auto visible = [&](int64_t query) {  // keys 0 … visible − 1 in logical order
        if (!a.causal) return all;
        return s.prefix_count + most(0, least(s.own_count, query + 1 + s.own_count - s.q_count));
    };
    const int64_t keys = visible(last - 1);
    const AttendScratch at(keys, d);
    float *kp = scratch + at.keys, *vp = scratch + at.values, *qp = scratch + at.queries, *scores = scratch + at.scores,
          *tile = scratch + at.tile;

    // Of each row 4 lines or more are read, a head's, in no order that processors guess.
    auto fetch_next = [&](const float* row) {
        for (int64_t i = 0; a.next > 0 && i < d; i += kGroup) prefetch_level_2(row + a.next + i);
    };
    // Kᵀ in panels [d][NR] and V in panels [keys][NR]; padding and masked keys are zero, so that nothing of theirs can reach a
    // sum
    auto seen = [&](int64_t key) { return key < keys && (!a.mask || a.mask[row_of(key)] != 0); };
    for (int64_t first_key = 0; first_key < at.key_panels * NR; first_key += W) {
        float* to = kp + first_key / NR * d * NR + first_key % NR;
        // neighbours in memory, all of them seen
        const bool together = !a.mask && first_key + W <= keys && row_of(first_key + W - 1) == row_of(first_key) + W - 1;
        const float* rows[W];  // null: unseen
        for (int j = 0; j < W; ++j) {
            rows[j] = seen(first_key + j) ? a.k + row_of(first_key + j) * a.k_stride + kv_head * d : nullptr;
            if (rows[j]) fetch_next(rows[j]);
        }
        int64_t i = 0;
        for (; i + W <= d; i += W) {
            if (together) {
                transpose(rows[0] + i, a.k_stride, to + i * NR, NR);
                continue;
            }
            float square[W * W];
            for (int j = 0; j < W; ++j) store(square + j * W, rows[j] ? load(rows[j] + i) : zero());
            transpose(square, W, to + i * NR, NR);
        }
        for (; i < d; ++i)
            for (int j = 0; j < W; ++j) to[i * NR + j] = rows[j] ? rows[j][i] : 0.f;
    }
    for (int64_t key = 0; key < keys; ++key) {
        const float* from = a.v + row_of(key) * a.v_stride + kv_head * d;
        fetch_next(from);
        for (int64_t panel = 0; panel < at.value_panels; ++panel) {
            float* to = vp + (panel * keys + key) * NR;
            const int64_t count = seen(key) ? least(NR, d - panel * NR) : 0;
            int64_t i = 0;
            for (; i + W <= count; i += W) store(to + i, load(from + panel * NR + i));
            for (; i < count; ++i) to[i] = from[panel * NR + i];
            for (; i < NR; ++i) to[i] = 0.f;
        }
    }

    const vf scale = set1(a.scale);
    PackedRow place;
    for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head)
        for (int64_t q0 = first; q0 < last; q0 += MR) {
            const int64_t rows = least(MR, last - q0), step = rows * kGroup, block_keys = visible(q0 + rows - 1);
            for (int64_t r = 0; r < rows; ++r) {
                const float* from = a.q + (s.q_start + q0 + r) * a.q_stride + head * d;
                fetch_next(from);
                float* to = qp + r * kGroup;
                int64_t i = 0;
                for (; i + W <= d; i += W) store(to + i / kGroup * step + i % kGroup, load(from + i) * scale);
                for (; i < d; ++i) to[i / kGroup * step + i % kGroup] = from[i] * a.scale;
            }
            for (int64_t panel = 0; panel * NR < block_keys; ++panel) {
                constexpr bool kDirect = NR == kGroup;  // a tile is a group of scores
                float* out = kDirect ? scores + panel * step : tile;
                rows_function<float>(rows)(qp, step, kp + panel * d * NR, d, out, true, Ahead{});
                for (int64_t r = 0; !kDirect && r < rows; ++r)
                    for (int c = 0; c < NR; c += W) {
                        int64_t key = panel * NR + c;
                        store(scores + key / kGroup * step + r * kGroup + key % kGroup, load(tile + r * NR + c));
                    }
            }

            float inverse[MR];
            int64_t common = block_keys;  // keys that all rows of the block see
            for (int64_t r = 0; r < rows; ++r) {
                float* row = scores + r * kGroup;
                int64_t count = visible(q0 + r), left = count;
                if (a.mask) {
                    for (int64_t key = 0; key < count; ++key)
                        if (a.mask[row_of(key)] == 0) row[key / kGroup * step + key % kGroup] = -INFINITY, --left;
                }
                inverse[r] = left > 0 ? 1.f / exponentials(row, step, count) : 0.f;
                if (left == 0)
                    for (int64_t key = 0; key < count; ++key) row[key / kGroup * step + key % kGroup] = 0.f;
                common = least(common, count);
            }
            for (int64_t panel = 0; panel < at.value_panels; ++panel) {
                const float* values = vp + panel * keys * NR;
                rows_function<float>(rows)(scores, step, values, common, tile, true, Ahead{});
                for (int64_t r = 0; r < rows; ++r) {
                    float* row_tile = tile + r * NR;
                    add_keys(scores + r * kGroup, step, common, visible(q0 + r), values, row_tile);
                    place = place_row(a.y, s.q_start + q0 + r, place);
                    const int64_t column = head * d + panel * NR, count = least(NR, d - panel * NR);
                    const vf factor = set1(inverse[r]);
                    along(count, [&](int64_t c, int n) {
                        const int64_t to = column + c;
                        store_some(place.at + to / kGroup * place.step + to % kGroup, load(row_tile + c) * factor, n);
                    });
                }
            }
        }
}

// --------------------------------------------------------------------------------------------------------------- norms

/// The same with where to put the result: y has its groups of 16 `step` floats apart.
template <typename F>
inline void along(int64_t D, float* y, int64_t step, F f) {
    int64_t d = 0;
    for (; d + kGroup <= D; d += kGroup, y += step)
#pragma GCC unroll 4
        for (int i = 0; i < kGroup; i += W) f(d + i, W, y + i);
    along(D - d, [&](int64_t i, int n) { f(d + i, n, y + i); });
}

/// x with zeros from lane n on.
inline vf first_lanes_of(vf x, int n) { return n == W ? x : select(first_lanes(n), x, zero()); }

/// Σ term(offset, n) over a row; the term's lanes from n on must be zero. Four sums take turns, so that none waits for the one
/// before.
template <typename Term>
inline float sum_along(int64_t D, Term term) {
    vf sums[4] = {zero(), zero(), zero(), zero()};
    int64_t d = 0;
    for (; d + 4 * W <= D; d += 4 * W)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[i] = sums[i] + term(d + i * W, W);
    for (; d + W <= D; d += W) sums[0] = sums[0] + term(d, W);
    if (d < D) sums[1] = sums[1] + term(d, int(D - d));
    return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/// y = sum = x + residual where there is a residual; gives the row that holds the sum.
inline const float* add_residual(const float* x, const float* residual, float* sum, float* y, int64_t D) {
    if (!residual && !sum) return x;
    float* to = sum ? sum : y;
    along(D, [&](int64_t d, int n) {
        vf v = load_some(x + d, n);
        store_some(to + d, residual ? v + load_some(residual + d, n) : v, n);
    });
    return to;
}

void layer_norm(const float* x, const float* residual, const float* weight, const float* bias, float* sum, float* y,
                int64_t y_step, int64_t rows, int64_t D, float eps) {
    for (int64_t r = 0; r < rows; ++r, x += D, y += y_step == kGroup ? D : kGroup) {
        const float* row = add_residual(x, residual ? residual + r * D : nullptr, sum ? sum + r * D : nullptr, y, D);
        const vf mean = set1(sum_along(D, [&](int64_t d, int n) { return load_some(row + d, n); }) / float(D));
        const float squares = sum_along(D, [&](int64_t d, int n) {
            vf centred = load_some(row + d, n) - mean;
            return first_lanes_of(centred * centred, n);
        });
        const vf inverse = set1(1.f) / sqrt(set1(squares / float(D) + eps));
        along(D, y, y_step, [&](int64_t d, int n, float* to) {
            vf v = (load_some(row + d, n) - mean) * inverse * load_some(weight + d, n);
            store_some(to, bias ? v + load_some(bias + d, n) : v, n);
        });
    }
}

inline float sum_of_squares(const float* x, int64_t D) {
    return sum_along(D, [&](int64_t d, int n) {
        vf v = load_some(x + d, n);
        return v * v;
    });
}

void rms_norm(const float* x, const float* residual, const float* weight, float* sum, float* y, int64_t y_step, int64_t rows,
              int64_t D, float eps) {
    for (int64_t r = 0; r < rows; ++r, x += D, y += y_step == kGroup ? D : kGroup) {
        const float* row = add_residual(x, residual ? residual + r * D : nullptr, sum ? sum + r * D : nullptr, y, D);
        vf inverse = set1(1.f) / sqrt(set1(sum_of_squares(row, D) / float(D) + eps));
        along(D, y, y_step, [&](int64_t d, int n, float* to) {
            store_some(to, load_some(row + d, n) * inverse * load_some(weight + d, n), n);
        });
    }
}

void l2_normalize(const float* x, float* y, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; ++r, x += D, y += D) {
        float squares = sum_of_squares(x, D);
        if (squares > 1e-30f && squares < 1e38f) {
            vf inverse = set1(1.f) / sqrt(set1(squares));
            along(D, [&](int64_t d, int n) { store_some(y + d, load_some(x + d, n) * inverse, n); });
            continue;
        }
        vf largest = zero();
        along(D, [&](int64_t d, int n) { largest = max(largest, abs(load_some(x + d, n))); });
        float most_of_row = max_lanes(largest);
        bool nothing = most_of_row == 0.f && squares == 0.f;  // with a NaN in it `squares` is NaN
        vf scale = set1(most_of_row);
        along(D, [&](int64_t d, int n) { store_some(y + d, nothing ? zero() : load_some(x + d, n) / scale, n); });
        if (nothing) continue;
        vf inverse = set1(1.f) / sqrt(set1(sum_of_squares(y, D)));
        along(D, [&](int64_t d, int n) { store_some(y + d, load_some(y + d, n) * inverse, n); });
    }
}

void exp_sum(const float* x, int64_t count, float* largest, float* sum) {
    vf high = set1(-INFINITY);
    float top = -INFINITY;
    along(count, [&](int64_t d, int n) {
        if (n == W) high = max(high, load(x + d));
        for (int i = 0; n < W && i < n; ++i) top = x[d + i] > top ? x[d + i] : top;
    });
    float lanes = max_lanes(high);
    top = lanes > top ? lanes : top;
    vf total = zero(), part = zero();  // parts of 32 terms, so that rounding stays small over a whole vocabulary
    along(count, [&](int64_t d, int n) {
        part = part + first_lanes_of(exp(load_some(x + d, n) - set1(top)), n);
        if (d / W % 32 == 31) total = total + part, part = zero();
    });
    total = total + part;
    *largest = top;
    *sum = sum_lanes(total);
}

void softmax(const float* x, float* y, int64_t rows, int64_t D) {
    for (int64_t r = 0; D > 0 && r < rows; ++r, x += D, y += D) {
        float top, sum;
        exp_sum(x, D, &top, &sum);
        vf largest = set1(top), inverse = set1(1.f / sum);
        along(D, [&](int64_t d, int n) { store_some(y + d, exp(load_some(x + d, n) - largest) * inverse, n); });
    }
}

// --------------------------------------------------------------------------------------------------------- elementwise

void activate_all(Activation activation, const float* x, float* y, int64_t count) {
    with_activation(activation,
                    [&](auto act) { along(count, [&](int64_t d, int n) { store_some(y + d, act(load_some(x + d, n)), n); }); });
}

void silu_gate(const float* gate, const float* up, float* y, int64_t count) {
    along(count, [&](int64_t d, int n) { store_some(y + d, silu(load_some(gate + d, n)) * load_some(up + d, n), n); });
}

void add(const float* x, const float* y, float* out, int64_t count) {
    along(count, [&](int64_t d, int n) { store_some(out + d, load_some(x + d, n) + load_some(y + d, n), n); });
}

template <typename F>
void combine(const float* x, const float* y, bool one, float* out, int64_t count, F f) {
    vf number = one && count > 0 ? set1(*y) : zero();
    along(count, [&](int64_t d, int n) { store_some(out + d, f(load_some(x + d, n), one ? number : load_some(y + d, n)), n); });
}

void binary(Arithmetic arithmetic, const float* x, const float* y, bool one, float* out, int64_t count) {
    switch (arithmetic) {
        case Arithmetic::add: return combine(x, y, one, out, count, [](vf a, vf b) { return a + b; });
        case Arithmetic::multiply: return combine(x, y, one, out, count, [](vf a, vf b) { return a * b; });
        case Arithmetic::maximum:  // not the vectors' max, which lets go of a NaN in x
            for (int64_t d = 0; d < count; ++d) {
                float a = x[d], b = y[one ? 0 : d];
                out[d] = a > b || a != a ? a : b;
            }
            return;
    }
}

void pack_panel(const float* from, int64_t K, float* to) {
    alignas(64) float tile[kGroup * NR];  // a line of each row, read once
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup) {
        for (int j = 0; j < NR; j += W)
            for (int i = 0; i < kGroup; i += W) transpose(from + j * K + k + i, K, tile + i * NR + j, NR);
        for (int i = 0; i < kGroup * NR; i += W) stream(to + k * NR + i, load(tile + i));
    }
    for (; k < K; ++k)
        for (int j = 0; j < NR; ++j) to[k * NR + j] = from[j * K + k];
}

template <typename T>
void widen_all(const T* stored, float* y, int64_t count) {
    int64_t d = 0;
    for (; d + W <= count; d += W) store(y + d, load(stored + d));
    if (d == count) return;
    T rest[W] = {};
    for (int64_t i = d; i < count; ++i) rest[i - d] = stored[i];
    store_n(y + d, load(rest), int(count - d));
}

void widen_row(const void* stored, DType dtype, float* y, int64_t count) {
    if (dtype == DType::float16) return widen_all(static_cast<const Float16*>(stored), y, count);
    if (dtype == DType::bfloat16) return widen_all(static_cast<const BFloat16*>(stored), y, count);
    widen_all(static_cast<const float*>(stored), y, count);
}

void resize_column(const uint8_t* rows, int64_t stride, const int32_t* weights, int taps, uint8_t* y, int64_t count) {
    int64_t x = 0;
    for (; x + W <= count; x += W) {
        vi sum = set1_int(1 << 21);
        for (int t = 0; t < taps; ++t) sum = multiply_add(load_bytes(rows + t * stride + x), set1_int(weights[t]), sum);
        store_clipped(y + x, sum);
    }
    for (; x < count; ++x) {
        uint32_t sum = 1 << 21;
        for (int t = 0; t < taps; ++t) sum += uint32_t(weights[t]) * rows[t * stride + x];
        int32_t shifted = int32_t(sum) >> 22;
        y[x] = uint8_t(shifted < 0 ? 0 : shifted > 255 ? 255 : shifted);
    }
}

void resize_pixel(const uint8_t* rows, int64_t stride, const int32_t* weights, int taps, uint8_t* y, int64_t y_stride) {
    vi sums[2] = {set1_int(1 << 21), set1_int(0)};
    int t = 0;
    for (; t + 2 <= taps; t += 2)
        for (int i = 0; i < 2; ++i)
            sums[i] = multiply_add(load_pixels(rows + (t + i) * 3, stride), set1_int(weights[t + i]), sums[i]);
    if (t < taps) sums[1] = multiply_add(load_pixels(rows + t * 3, stride), set1_int(weights[t]), sums[1]);
    uint8_t pixels[W];
    store_clipped(pixels, multiply_add(set1_int(1), sums[0], sums[1]));
    for (int row = 0; row < W / 4; ++row)
        for (int c = 0; c < 3; ++c) y[row * y_stride + c] = pixels[row * 4 + c];
}

constexpr Kernels kKernels = {
    .isa = kIsa,
    .mr = MR,
    .nr = NR,
    .pixel_rows = W / 4,
    .gemm_tiles = gemm_tiles,
    .dot_tile = dot_tile,
    .scaled_dots = scaled_dots,
    .attend_scratch = attend_scratch,
    .attend = attend,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .l2_normalize = l2_normalize,
    .softmax = softmax,
    .activate = activate_all,
    .silu_gate = silu_gate,
    .add = add,
    .binary = binary,
    .exp_sum = exp_sum,
    .pack_panel = pack_panel,
    .widen = widen_row,
    .resize_column = resize_column,
    .resize_pixel = resize_pixel,
};
