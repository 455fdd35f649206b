// exp and the activations over the vector type. Included inside an unnamed namespace, after a simd_*.h.
// Polynomials: fitted here by iterated weighted least squares to the named function on the named interval; errors are of the fit,
// before rounding.

/// e^x within 1.5 units in the last place for x >= −87.33, of which less counts as that; infinite above 88.73; NaN stays.
inline vf exp_above(vf x) {
    x = min(set1(89.f), max(set1(-87.33f), x));
    vf n = round(x * set1(1.44269504f));
    vf r = fma(n, set1(-0.693359375f), x);  // ln 2 in two parts, the first exact in 10 bits
    r = fma(n, set1(2.12194440e-4f), r);
    // e^r = 1 + r + r²·g(r), |r| <= 0.3475: relative error 3.1e-9
    vf g = fma(set1(1.381422160e-3f), r, set1(8.368899114e-3f));
    g = fma(g, r, set1(4.166840390e-2f));
    g = fma(g, r, set1(1.666651964e-1f));
    g = fma(g, r, set1(4.999999404e-1f));
    return scale2(set1(1.f) + fma(r * r, g, r), n);
}

/// The same, 0 below −87.33. No result lies below the normal range: some processors leave their fast path to make one.
inline vf exp(vf x) { return select(less(x, set1(-87.33f)), zero(), exp_above(x)); }

inline vf one_plus_exp(vf x) { return set1(1.f) + exp_above(x); }

inline vf sigmoid(vf x) { return set1(1.f) / one_plus_exp(zero() - x); }

/// x·Φ(x), Φ(−|x|) = exp(−x²/2)·P(|x|)/Q(|x|) on 0 … 15: relative error 6.3e-9.
inline vf gelu(vf x) {
    vf a = abs(x), t = min(set1(15.f), a);
    vf p = fma(set1(4.153238144e-3f), t, set1(4.088119790e-2f));
    p = fma(p, t, set1(1.839693487e-1f));
    p = fma(p, t, set1(4.392837286e-1f));
    p = fma(p, t, set1(0.5f));
    vf q = fma(set1(1.041051280e-2f), t, set1(1.024800763e-1f));
    q = fma(q, t, set1(4.714092612e-1f));
    q = fma(q, t, set1(1.205549240f));
    q = fma(q, t, set1(1.676452518f));
    q = fma(q, t, set1(1.f));
    vf tail = exp(set1(-0.5f) * (a * a)) * p / q;
    return x * select(less(x, zero()), tail, set1(1.f) - tail);
}

/// 0.5·x·(1 + tanh(u)) = x / (1 + exp(−2u)), u = √(2/π)·(x + 0.044715·x³).
inline vf gelu_tanh(vf x) {
    vf u = x * fma(set1(0.044715f), x * x, set1(1.f)) * set1(-1.595769122f);
    return x / one_plus_exp(u);
}

inline vf silu(vf x) { return x / one_plus_exp(zero() - x); }
inline vf quick_gelu(vf x) { return x / one_plus_exp(x * set1(-1.702f)); }

/// x + x³·g(x²) where |x| < 0.625 (relative error 1.8e-10), else 1 − 2/(e^2|x| + 1) with the sign of x.
inline vf tanh(vf x) {
    vf a = abs(x), u = x * x;
    vf g = fma(set1(2.126209904e-3f), u, set1(-8.159536869e-3f));
    g = fma(g, u, set1(2.169367298e-2f));
    g = fma(g, u, set1(-5.394551903e-2f));
    g = fma(g, u, set1(1.333319694e-1f));
    g = fma(g, u, set1(-3.333333135e-1f));
    vf small = fma(x * u, g, x);
    vf large = set1(1.f) - set1(2.f) / one_plus_exp(a + a);
    large = select(less(x, zero()), zero() - large, large);
    return select(less(a, set1(0.625f)), small, large);
}

/// f(act) with the activation as a function of a vector: chosen here, outside of f's loops.
template <typename F>
inline void with_activation(Activation activation, F f) {
    switch (activation) {
        case Activation::none:
        case Activation::silu_gate: return f([](vf x) { return x; });  // what joins two columns is done behind the product
        case Activation::gelu: return f([](vf x) { return gelu(x); });
        case Activation::gelu_tanh: return f([](vf x) { return gelu_tanh(x); });
        case Activation::quick_gelu: return f([](vf x) { return quick_gelu(x); });
        case Activation::silu: return f([](vf x) { return silu(x); });
        case Activation::relu: return f([](vf x) { return max(zero(), x); });
        case Activation::tanh: return f([](vf x) { return tanh(x); });
        case Activation::sigmoid: return f([](vf x) { return sigmoid(x); });
    }
}

template <int half, typename Join>
inline float join_lanes(vf x, Join join) {
    x = join(x, upper<half>(x));
    if constexpr (half > 1) return join_lanes<half / 2>(x, join);
    else return first(x);
}

/// The lanes' sum: halves are added until one is left.
inline float sum_lanes(vf x) {
    return join_lanes<W / 2>(x, [](vf a, vf b) { return a + b; });
}

/// The largest lane that is a number; −infinity if none is.
inline float max_lanes(vf x) {
    return join_lanes<W / 2>(max(x, set1(-INFINITY)), [](vf a, vf b) { return max(a, b); });
}
