// The activations of ops.h on one float32 value.
#pragma once

#include "ops.h"
#include "pack.h"

namespace warpsight::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

__device__ __forceinline__ float activate(float x, Activation activation) {
    switch (activation) {
        case Activation::none:
        case Activation::silu_gate: return x;  // joins two columns: not of one value
        case Activation::gelu: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
        case Activation::gelu_tanh: return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
        case Activation::quick_gelu: return x * sigmoid(1.702f * x);
        case Activation::silu: return x * sigmoid(x);
        case Activation::relu: return x > 0.f || x != x ? x : 0.f;
        case Activation::tanh: return tanhf(x);
        case Activation::sigmoid: return sigmoid(x);
    }
    return x;
}

/// The same for each element of a pack; the choice is made once.
template <int V>
__device__ __forceinline__ void activate_all(Pack<V>& p, Activation activation) {
    auto each = [&](auto f) {
#pragma unroll
        for (float& v : p.v) v = f(v);
    };
    switch (activation) {
        case Activation::none:
        case Activation::silu_gate: return;
        case Activation::gelu: return each([](float x) { return activate(x, Activation::gelu); });
        case Activation::gelu_tanh: return each([](float x) { return activate(x, Activation::gelu_tanh); });
        case Activation::quick_gelu: return each([](float x) { return activate(x, Activation::quick_gelu); });
        case Activation::silu: return each([](float x) { return activate(x, Activation::silu); });
        case Activation::relu: return each([](float x) { return activate(x, Activation::relu); });
        case Activation::tanh: return each([](float x) { return activate(x, Activation::tanh); });
        case Activation::sigmoid: return each([](float x) { return activate(x, Activation::sigmoid); });
    }
}

__device__ __forceinline__ float silu_gate(float gate, float up) { return gate * sigmoid(gate) * up; }

}  // namespace warpsight::cuda
