// V neighbouring elements, moved by 16-byte (or 8-byte) accesses and computed with as float32.
#pragma once

#include "number.h"

namespace warpsight::cuda {

template <int V>
struct Pack {
    float v[V];
};

/// Elements of T in 16 bytes.
template <typename T>
constexpr int kPack = 16 / int(sizeof(T));

template <int V>
__device__ __forceinline__ Pack<V> zeros() {
    Pack<V> p;
#pragma unroll
    for (int i = 0; i < V; ++i) p.v[i] = 0.f;
    return p;
}

/// p must be aligned to min(V·sizeof(T), 16) bytes.
template <int V, typename T>
__device__ __forceinline__ Pack<V> load(const T* p) {
    constexpr int bytes = V * int(sizeof(T));
    using Word = std::conditional_t<bytes % 16 == 0, uint4, std::conditional_t<bytes % 8 == 0, uint2, T>>;
    alignas(16) T raw[V];
#pragma unroll
    for (int i = 0; i < bytes / int(sizeof(Word)); ++i) reinterpret_cast<Word*>(raw)[i] = reinterpret_cast<const Word*>(p)[i];
    Pack<V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out.v[i] = to_float(raw[i]);
    return out;
}

template <int V, typename T>
__device__ __forceinline__ void store(T* p, const Pack<V>& values) {
    constexpr int bytes = V * int(sizeof(T));
    using Word = std::conditional_t<bytes % 16 == 0, uint4, std::conditional_t<bytes % 8 == 0, uint2, T>>;
    alignas(16) T raw[V];
#pragma unroll
    for (int i = 0; i < V; ++i) raw[i] = from_float<T>(values.v[i]);
#pragma unroll
    for (int i = 0; i < bytes / int(sizeof(Word)); ++i) reinterpret_cast<Word*>(p)[i] = reinterpret_cast<const Word*>(raw)[i];
}

inline bool aligned(const void* p, size_t bytes = 16) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace warpsight::cuda
