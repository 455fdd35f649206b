#include "packed_weight.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "isa.h"
#include "memory.h"

namespace warpsight::cpu {

static std::atomic<uint64_t> total_bytes{0};

uint64_t weight_bytes() { return total_bytes.load(std::memory_order_relaxed); }

CpuWeight::CpuWeight(WeightLayout layout_, DType dtype_, int64_t rows_, int64_t columns_, size_t bytes_) {
    layout = layout_;
    dtype = dtype_;
    rows = rows_;
    columns = columns_;
    bytes = bytes_;
    data = allocate_aligned(bytes);
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
    const int64_t chunk =
        std::clamp<int64_t>(int64_t((size_t(256) << 10) / std::max<size_t>(1, row_bytes)), 1, std::max<int64_t>(1, rows));
    std::unique_ptr<void, decltype(&free_aligned)> memory(allocate_aligned(size_t(chunk) * row_bytes), free_aligned);
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = std::min(chunk, rows - first);
        source.read_rows(first, count, memory.get());
        take(first, count, memory.get());
    }
}

template <typename T>
static void pack_panels(CpuWeight& weight, RowSource& source) {
    const int64_t nr = kernels().nr, K = weight.columns, N = weight.rows;
    T* panels = static_cast<T*>(weight.data);
    read_chunks(source, N, K, sizeof(T), [&](int64_t first, int64_t count, const void* memory) {
        const T* from = static_cast<const T*>(memory);
        for (int64_t row = first; row < first + count;) {
            int64_t panel = row / nr, lane = row % nr, here = std::min(first + count, (panel + 1) * nr) - row;
            T* to = panels + panel * K * nr + lane;
            for (int64_t k = 0; k < K; ++k)
                for (int64_t j = 0; j < here; ++j) to[k * nr + j] = from[j * K + k];
            row += here;
            from += here * K;
        }
    });
    if (int64_t rest = N % nr; rest > 0) {
        T* to = panels + N / nr * K * nr;
        for (int64_t k = 0; k < K; ++k) std::fill(to + k * nr + rest, to + (k + 1) * nr, T(0));
    }
}

static void read_floats(CpuWeight& weight, DType dtype, RowSource& source) {
    float* to = static_cast<float*>(weight.data);
    const int64_t columns = weight.columns;
    read_chunks(source, weight.rows, columns, size_of(dtype), [&](int64_t first, int64_t count, const void* memory) {
        kernels().widen(memory, dtype, to + first * columns, count * columns);
    });
}

std::shared_ptr<const Weight> make_weight(WeightLayout layout, DType dtype, int64_t rows, int64_t columns, RowSource& source) {
    if (dtype != DType::float32 && dtype != DType::float16 && dtype != DType::bfloat16)
        throw Error("ERR_DTYPE", std::string("a weight is float32, float16 or bfloat16, got ") + name_of(dtype));
    switch (layout) {
        case WeightLayout::matrix: {
            const int64_t nr = kernels().nr, padded = rows > INT64_MAX - nr ? rows : (rows + nr - 1) / nr * nr;
            auto weight =
                std::make_shared<CpuWeight>(layout, dtype, rows, columns, checked_bytes(padded, columns, size_of(dtype)));
            if (dtype == DType::float32) pack_panels<float>(*weight, source);
            else pack_panels<uint16_t>(*weight, source);
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
