// Element types and shapes, as plain data shared by the core and both backends (also by .cu files).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace warpsight {

/// int8 is what weights may be kept in (backend.h, Quantization); no tensor has it.
enum class DType : uint8_t { float32, float16, bfloat16, int32, uint8, int8 };

inline size_t size_of(DType dtype) {
    switch (dtype) {
        case DType::float32: return 4;
        case DType::float16: return 2;
        case DType::bfloat16: return 2;
        case DType::int32: return 4;
        case DType::uint8: return 1;
        case DType::int8: return 1;
    }
    return 0;
}

inline const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::float32: return "float32";
        case DType::float16: return "float16";
        case DType::bfloat16: return "bfloat16";
        case DType::int32: return "int32";
        case DType::uint8: return "uint8";
        case DType::int8: return "int8";
    }
    return "";
}

constexpr int kMaxRank = 6;

/// Sizes of the dimensions, outermost first. Rank 0 is a scalar.
struct Shape {
    int rank = 0;
    int64_t size[kMaxRank] = {};

    Shape() = default;
    Shape(std::initializer_list<int64_t> sizes) {
        for (int64_t s : sizes) size[rank++] = s;
    }
    int64_t operator[](int i) const { return size[i]; }
    int64_t& operator[](int i) { return size[i]; }
    int64_t last() const { return rank == 0 ? 1 : size[rank - 1]; }
    int64_t elements() const {
        int64_t product = 1;
        for (int i = 0; i < rank; ++i) product *= size[i];
        return product;
    }
    /// All dimensions but the last as one: [2, 77, 512] has 154 rows of 512.
    int64_t rows() const {
        int64_t product = 1;
        for (int i = 0; i + 1 < rank; ++i) product *= size[i];
        return product;
    }
    std::string text() const {
        std::string out = "[";
        for (int i = 0; i < rank; ++i) out += (i ? ", " : "") + std::to_string(size[i]);
        return out + "]";
    }
};

/// What a kernel sees: contiguous row-major memory.
struct TensorView {
    void* data = nullptr;
    DType dtype = DType::float32;
    Shape shape;

    template <typename T>
    T* as() const {
        return static_cast<T*>(data);
    }
};

}  // namespace warpsight
