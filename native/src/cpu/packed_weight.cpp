#include "packed_weight.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "bfloat16.h"
#include "isa.h"
#include "memory.h"
#include "pool.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace warpsight::cpu {

static std::atomic<uint64_t> total_bytes{0};

uint64_t weight_bytes() { return total_bytes.load(std::memory_order_relaxed); }

CpuWeight::CpuWeight(WeightLayout layout_, DType dtype_, int64_t rows_, int64_t columns_, size_t bytes_) {
    layout = layout_;
    dtype = dtype_;
    rows = rows_;
    columns = columns_;
    bytes = bytes_;
    data = allocate_to_fill(bytes);
    total_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

CpuWeight::~CpuWeight() {
    total_bytes.fetch_sub(bytes, std::memory_order_relaxed);
    free_aligned(data);
}

/// rows·columns·size, or more than any machine has where that overflows.
static size_t checked_bytes(int64_t rows, int64_t columns, size_t size) {
    constexpr int64_t kMost = int64_t(1) << 56;
    if (rows < 0 || columns < 0)
        throw Error("ERR_SHAPE",
                    "a weight's sizes must not be negative: [" + std::to_string(rows) + ", " + std::to_string(columns) + "]");
    if (columns > 0 && rows > kMost / columns) return size_t(kMost);
    return size_t(rows * columns) * size;
}

/// Calls take(first, count, memory) for chunks of rows from first to last.
template <typename Take>
static void read_chunks(RowSource& source, int64_t rows, int64_t columns, size_t size, const Take& take) {
    const size_t row_bytes = size_t(columns) * size;
    constexpr size_t kChunk = size_t(256) << 10, kMostPanel = size_t(2) << 20;
    const int64_t nr = kernels().nr;
    int64_t chunk = std::max<int64_t>(1, int64_t(kChunk / std::max<size_t>(1, row_bytes)));
    if (size_t(nr) * row_bytes <= kMostPanel) chunk = std::max(chunk / nr, int64_t(1)) * nr;  // whole panels
    chunk = std::min(chunk, std::max<int64_t>(1, rows));
    void* memory = thread_scratch(size_t(chunk) * row_bytes / sizeof(float) + 1);
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = std::min(chunk, rows - first);
        source.read_rows(first, count, memory);
        take(first, count, memory);
    }
}

/// The next 16 bytes of four rows, one under the other: to[k·nr + j] = from[j·K + k] for j < 4.
template <typename T>
static void transpose_four(const T* from, int64_t K, T* to, int64_t nr) {
#if defined(__SSE2__)
    auto row = [&](int j) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j * K)); };
    __m128i columns[4];  // one after the other, two in each if T has 16 bits
    if constexpr (sizeof(T) == 4) {
        __m128i low = _mm_unpacklo_epi32(row(0), row(1)), high = _mm_unpackhi_epi32(row(0), row(1));
        __m128i low2 = _mm_unpacklo_epi32(row(2), row(3)), high2 = _mm_unpackhi_epi32(row(2), row(3));
        columns[0] = _mm_unpacklo_epi64(low, low2), columns[1] = _mm_unpackhi_epi64(low, low2);
        columns[2] = _mm_unpacklo_epi64(high, high2), columns[3] = _mm_unpackhi_epi64(high, high2);
    } else {
        __m128i low = _mm_unpacklo_epi16(row(0), row(1)), high = _mm_unpackhi_epi16(row(0), row(1));
        __m128i low2 = _mm_unpacklo_epi16(row(2), row(3)), high2 = _mm_unpackhi_epi16(row(2), row(3));
        columns[0] = _mm_unpacklo_epi32(low, low2), columns[1] = _mm_unpackhi_epi32(low, low2);
        columns[2] = _mm_unpacklo_epi32(high, high2), columns[3] = _mm_unpackhi_epi32(high, high2);
    }
    for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 4) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * nr), columns[i]);
        } else {
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 2 * i * nr), columns[i]);
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to + (2 * i + 1) * nr), _mm_unpackhi_epi64(columns[i], columns[i]));
        }
    }
#elif defined(__aarch64__)
    if constexpr (sizeof(T) == 4) {
        auto row = [&](int j) { return vld1q_u32(reinterpret_cast<const uint32_t*>(from + j * K)); };
        uint32x4x2_t even = vzipq_u32(row(0), row(2)), odd = vzipq_u32(row(1), row(3));
        for (int i = 0; i < 2; ++i) {
            uint32x4x2_t columns = vzipq_u32(even.val[i], odd.val[i]);
            vst1q_u32(reinterpret_cast<uint32_t*>(to + 2 * i * nr), columns.val[0]);
            vst1q_u32(reinterpret_cast<uint32_t*>(to + (2 * i + 1) * nr), columns.val[1]);
        }
    } else {
        auto row = [&](int j) { return vld1q_u16(from + j * K); };
        uint16x8x2_t even = vzipq_u16(row(0), row(2)), odd = vzipq_u16(row(1), row(3));
        for (int i = 0; i < 2; ++i) {
            uint16x8x2_t columns = vzipq_u16(even.val[i], odd.val[i]);
            for (int j = 0; j < 2; ++j) {
                vst1_u16(to + (4 * i + 2 * j) * nr, vget_low_u16(columns.val[j]));
                vst1_u16(to + (4 * i + 2 * j + 1) * nr, vget_high_u16(columns.val[j]));
            }
        }
    }
#else
    for (int k = 0; k < int(16 / sizeof(T)); ++k)
        for (int j = 0; j < 4; ++j) to[k * nr + j] = from[j * K + k];
#endif
}

/// 16-byte aligned memory, written past the caches where that can be said: what was there before need not be read.
static void stream(const void* from, void* to, size_t bytes) {
#if defined(__SSE2__)
    for (size_t i = 0; i < bytes / sizeof(__m128i); ++i)
        _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_load_si128(static_cast<const __m128i*>(from) + i));
#else
    std::memcpy(to, from, bytes);
#endif
}

/// to[k·nr + j] = from[j·K + k] for j < rows; with `rows` = nr, whole lines are written.
template <typename T>
static void pack_rows(const T* from, int64_t rows, int64_t K, T* to, int64_t nr) {
    constexpr int64_t kWide = 16 / sizeof(T), kLine = 64 / sizeof(T), kMostNr = 64;
    alignas(64) T tile[kLine * kMostNr];
    const bool whole = rows == nr && nr <= kMostNr;
    int64_t k0 = 0;
    for (; k0 + kLine <= K; k0 += kLine) {  // a line of each row is read once, while its part of the panel is in the first cache
        T* at = whole ? tile : to + k0 * nr;
        int64_t j = 0;
        for (; j + 4 <= rows; j += 4)
            for (int64_t k = 0; k < kLine; k += kWide) transpose_four(from + j * K + k0 + k, K, at + k * nr + j, nr);
        for (; j < rows; ++j)
            for (int64_t k = 0; k < kLine; ++k) at[k * nr + j] = from[j * K + k0 + k];
        if (whole) stream(tile, to + k0 * nr, size_t(kLine * nr) * sizeof(T));
    }
    for (; k0 < K; ++k0)
        for (int64_t j = 0; j < rows; ++j) to[k0 * nr + j] = from[j * K + k0];
}

template <typename T>
static void pack_lanes(const T* from, int64_t rows, int64_t K, T* to, int64_t nr) {
    pack_rows(from, rows, K, to, nr);
}

/// Whole panels of floats have a kernel.
static void pack_lanes(const float* from, int64_t rows, int64_t K, float* to, int64_t nr) {
    if (rows == nr) kernels().pack_panel(from, K, to);
    else pack_rows(from, rows, K, to, nr);
}

/// N rows of K elements into panels [ceil(N/nr)][K][nr].
template <typename T>
static void pack_panels(T* panels, int64_t N, int64_t K, int64_t nr, RowSource& source) {
    read_chunks(source, N, K, sizeof(T), [&](int64_t first, int64_t count, const void* memory) {
        const T* from = static_cast<const T*>(memory);
        for (int64_t row = first; row < first + count;) {
            int64_t panel = row / nr, lane = row % nr, here = std::min(first + count, (panel + 1) * nr) - row;
            pack_lanes(from, here, K, panels + panel * K * nr + lane, nr);
            row += here;
            from += here * K;
        }
    });
    if (int64_t rest = N % nr; rest > 0) {
        T* to = panels + N / nr * K * nr;
        for (int64_t k = 0; k < K; ++k) std::fill(to + k * nr + rest, to + (k + 1) * nr, T(0));
    }
#if defined(__SSE2__)
    _mm_sfence();  // before another thread reads what was streamed
#endif
}

/// Rows of another source, rounded to bfloat16, with zeros behind them up to `columns`.
class RoundedRows final : public RowSource {
public:
    RoundedRows(RowSource& source, DType dtype, int64_t own_columns, int64_t columns)
        : source_(source), dtype_(dtype), own_columns_(own_columns), columns_(columns) {}

    void read_rows(int64_t row, int64_t count, void* destination) override {
        uint16_t* to = static_cast<uint16_t*>(destination);
        if (dtype_ == DType::bfloat16 && own_columns_ == columns_) return source_.read_rows(row, count, to);
        stored_.resize(size_t(count * own_columns_) * size_of(dtype_));
        source_.read_rows(row, count, stored_.data());
        floats_.resize(size_t(own_columns_));
        for (int64_t r = 0; r < count; ++r, to += columns_) {
            kernels().widen(stored_.data() + size_t(r * own_columns_) * size_of(dtype_), dtype_, floats_.data(), own_columns_);
            for (int64_t k = 0; k < own_columns_; ++k) to[k] = bfloat16_of(floats_[size_t(k)]);
            std::fill(to + own_columns_, to + columns_, uint16_t(0));
        }
    }

private:
    RowSource& source_;
    DType dtype_;
    int64_t own_columns_, columns_;
    std::vector<char> stored_;
    std::vector<float> floats_;
};

static std::shared_ptr<const Weight> make_pairs(DType dtype, int64_t rows, int64_t columns, RowSource& source) {
    const BFloat16Kernels* k = level().bfloat16;
    if (!k)
        throw Error("ERR_DTYPE", std::string("products in bfloat16 need AVX-512 on the cpu: this one computes with ") +
                                     level().name + "; use float32");
    const int64_t padded = bfloat16_padded(columns);
    const int64_t panels = rows / k->nr + (rows % k->nr != 0);
    auto weight = std::make_shared<CpuWeight>(WeightLayout::matrix, DType::bfloat16, rows, columns,
                                              checked_bytes(panels, padded, sizeof(uint16_t) * size_t(k->nr)));
    weight->in_pairs = true;
    RoundedRows rounded(source, dtype, columns, padded);
    pack_panels(static_cast<uint32_t*>(weight->data), rows, padded / 2, k->nr, rounded);
    return weight;
}

static std::shared_ptr<const Weight> quantize(DType dtype, int64_t rows, int64_t columns, RowSource& source) {
    const Int8Kernels& k = int8_kernels();
    if (columns > kMostInt8Columns)
        throw Error("ERR_SHAPE", "an int8 weight has at most " + std::to_string(kMostInt8Columns) +
                                     " columns, so that no sum overflows: it is [" + std::to_string(rows) + ", " +
                                     std::to_string(columns) + "]");
    const int64_t panels = rows / k.nr + (rows % k.nr != 0);
    const size_t panel_bytes = size_t(k.panel_bytes(std::max<int64_t>(0, columns)));
    auto weight = std::make_shared<CpuWeight>(WeightLayout::matrix, DType::int8, rows, columns,
                                              checked_bytes(panels, int64_t(panel_bytes), 1));
    char* to = static_cast<char*>(weight->data);
    std::unique_ptr<void, decltype(&free_aligned)> floats(allocate_aligned(size_t(columns) * sizeof(float)), free_aligned);
    float* row = static_cast<float*>(floats.get());
    read_chunks(source, rows, columns, size_of(dtype), [&](int64_t first, int64_t count, const void* memory) {
        for (int64_t i = 0; i < count; ++i) {
            const char* stored = static_cast<const char*>(memory) + size_t(i * columns) * size_of(dtype);
            kernels().widen(stored, dtype, row, columns);
            k.pack_weight(row, columns, (first + i) % k.nr, to + size_t((first + i) / k.nr) * panel_bytes);
        }
    });
    std::fill_n(row, columns, 0.f);
    for (int64_t n = rows; n < panels * k.nr; ++n) k.pack_weight(row, columns, n % k.nr, to + size_t(panels - 1) * panel_bytes);
    return weight;
}

static void read_floats(CpuWeight& weight, DType dtype, RowSource& source) {
    float* to = static_cast<float*>(weight.data);
    const int64_t columns = weight.columns;
    read_chunks(source, weight.rows, columns, size_of(dtype), [&](int64_t first, int64_t count, const void* memory) {
        kernels().widen(memory, dtype, to + first * columns, count * columns);
    });
}

std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, DType compute, Quantization quantization,
                                          int64_t rows, int64_t columns, RowSource& source) {
    if (dtype != DType::float32 && dtype != DType::float16 && dtype != DType::bfloat16)
        throw Error("ERR_DTYPE", std::string("a weight is float32, float16 or bfloat16, got ") + name_of(dtype));
    if (quantization == Quantization::int8) {
        if (layout == WeightLayout::matrix) return quantize(dtype, rows, columns, source);
        throw Error("ERR_DTYPE", "only a matrix can be kept as int8");
    }
    if (compute == DType::bfloat16 && layout == WeightLayout::matrix) return make_pairs(dtype, rows, columns, source);
    switch (layout) {
        case WeightLayout::matrix: {
            const int64_t nr = kernels().nr, padded = rows > INT64_MAX - nr ? rows : (rows + nr - 1) / nr * nr;
            auto weight =
                std::make_shared<CpuWeight>(layout, dtype, rows, columns, checked_bytes(padded, columns, size_of(dtype)));
            if (dtype == DType::float32) pack_panels(static_cast<float*>(weight->data), rows, columns, nr, source);
            else pack_panels(static_cast<uint16_t*>(weight->data), rows, columns, nr, source);
            return weight;
        }
        case WeightLayout::vector: {
            auto weight =
                std::make_shared<CpuWeight>(layout, DType::float32, rows, columns, checked_bytes(rows, columns, sizeof(float)));
            read_floats(*weight, dtype, source);
            weight->rows = rows * columns;
            weight->columns = 1;
            return weight;
        }
        case WeightLayout::table: {
            auto weight = std::make_shared<CpuWeight>(layout, dtype, rows, columns, checked_bytes(rows, columns, size_of(dtype)));
            const size_t row_bytes = size_t(columns) * size_of(dtype);
            char* to = static_cast<char*>(weight->data);
            const int64_t chunk = std::max<int64_t>(1, int64_t((size_t(256) << 10) / std::max<size_t>(1, row_bytes)));
            for (int64_t first = 0; first < rows; first += chunk)
                source.read_rows(first, std::min(chunk, rows - first), to + size_t(first) * row_bytes);
            return weight;
        }
    }
    throw Error("ERR_SHAPE", "a weight's layout is matrix, vector or table");
}

}  // namespace warpsight::cpu
