// round_group() of kernels_bfloat16_impl.h for AVX512-BF16. Included inside an unnamed namespace.

inline void round_group(const float* x, int n, uint16_t* to) {
    const auto low = __mmask16(n >= 16 ? 0xffff : (1u << n) - 1), high = __mmask16(n >= 16 ? (1u << (n - 16)) - 1 : 0);
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, x + 16), _mm512_maskz_loadu_ps(low, x));
    memcpy(to, &both, sizeof both);
}
