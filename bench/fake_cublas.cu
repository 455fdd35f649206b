// Stands for cuBLAS and cuBLASLt where there is neither: the functions that bench_gemm calls, with their documented meaning and
// strict about what they are given. test/cuda/bench-gemm.test.ts runs the bench against it. With FAKE_CUBLAS_WRONG=cublas
// or cublasLt that one's products are not what they should be.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdlib>
#include <cstring>

#include "cublas.h"

namespace {

using warpsight::bench::LtAlgorithm;
using warpsight::bench::LtCandidate;

constexpr int kInvalid = 7, kNotSupported = 15;  // CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_NOT_SUPPORTED
constexpr int kCandidates = 3;                   // the second is refused when it runs

struct Layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t leading;
};
struct Description {
    int transa = 0;
};
struct Preference {
    uint64_t workspace = 0;
};
struct Library {
    cudaStream_t stream = nullptr;
};

/// C[m, n] = A[k, m]ᵀ·B[k, n], column-major: a thread for each output.
template <typename T>
__global__ void product_kernel(int m, int n, int k, const T* A, int lda, const T* B, int ldb, T* C, int ldc, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= m * n) return;
    int row = i % m, column = i / m;
    float sum = 0;
    for (int j = 0; j < k; ++j) sum += float(A[int64_t(row) * lda + j]) * float(B[int64_t(column) * ldb + j]);
    C[int64_t(column) * ldc + row] = T(factor * sum);
}

int multiply(const char* library, cudaDataType type, int m, int n, int k, const void* A, int lda, const void* B, int ldb, void* C,
             int ldc, cudaStream_t stream) {
    if (lda < k || ldb < k || ldc < m) return kInvalid;
    const char* wrong = std::getenv("FAKE_CUBLAS_WRONG");
    float factor = wrong != nullptr && std::strcmp(wrong, library) == 0 ? 1.01f : 1.f;
    int blocks = (m * n + 127) / 128;
    if (type == CUDA_R_16F) {
        product_kernel<<<blocks, 128, 0, stream>>>(m, n, k, static_cast<const __half*>(A), lda, static_cast<const __half*>(B),
                                                   ldb, static_cast<__half*>(C), ldc, factor);
    } else if (type == CUDA_R_16BF) {
        product_kernel<<<blocks, 128, 0, stream>>>(m, n, k, static_cast<const __nv_bfloat16*>(A), lda,
                                                   static_cast<const __nv_bfloat16*>(B), ldb, static_cast<__nv_bfloat16*>(C), ldc,
                                                   factor);
    } else {
        return kNotSupported;
    }
    return cudaGetLastError() == cudaSuccess ? 0 : kNotSupported;
}

template <typename T>
int make(void** handle, T value) {
    *handle = new T(value);
    return 0;
}
template <typename T>
int destroy(void* handle) {
    delete static_cast<T*>(handle);
    return 0;
}
bool one_and_zero(const void* alpha, const void* beta) {
    return *static_cast<const float*>(alpha) == 1.f && *static_cast<const float*>(beta) == 0.f;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int cublasCreate_v2(void** handle) { return make(handle, Library{}); }
int cublasDestroy_v2(void* handle) { return destroy<Library>(handle); }
int cublasGetVersion_v2(void*, int* version) {
    *version = 1;
    return 0;
}
int cublasSetStream_v2(void* handle, cudaStream_t stream) {
    static_cast<Library*>(handle)->stream = stream;
    return 0;
}
int cublasSetWorkspace_v2(void*, void* workspace, size_t) { return workspace ? 0 : kInvalid; }
int cublasGemmEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, cudaDataType Atype,
                 int lda, const void* B, cudaDataType Btype, int ldb, const void* beta, void* C, cudaDataType Ctype, int ldc,
                 int compute, int algorithm) {
    bool expected = transa == 1 && transb == 0 && compute == 68 && algorithm == -1 && Atype == Btype && Btype == Ctype;
    if (!expected || !one_and_zero(alpha, beta)) return kInvalid;
    return multiply("cublas", Atype, m, n, k, A, lda, B, ldb, C, ldc, static_cast<Library*>(handle)->stream);
}

int cublasLtCreate(void** handle) { return make(handle, Library{}); }
int cublasLtDestroy(void* handle) { return destroy<Library>(handle); }
int cublasLtMatmulDescCreate(void** handle, int compute, cudaDataType scale) {
    return compute == 68 && scale == CUDA_R_32F ? make(handle, Description{}) : kInvalid;
}
int cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    if (attribute != 3 || bytes != sizeof(int32_t)) return kInvalid;
    std::memcpy(&static_cast<Description*>(handle)->transa, value, bytes);
    return 0;
}
int cublasLtMatmulDescDestroy(void* handle) { return destroy<Description>(handle); }
int cublasLtMatrixLayoutCreate(void** handle, cudaDataType type, uint64_t rows, uint64_t columns, int64_t leading) {
    return leading >= int64_t(rows) ? make(handle, Layout{type, rows, columns, leading}) : kInvalid;
}
int cublasLtMatrixLayoutDestroy(void* handle) { return destroy<Layout>(handle); }
int cublasLtMatmulPreferenceCreate(void** handle) { return make(handle, Preference{}); }
int cublasLtMatmulPreferenceSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    if (attribute != 1 || bytes != sizeof(uint64_t)) return kInvalid;
    std::memcpy(&static_cast<Preference*>(handle)->workspace, value, bytes);
    return 0;
}
int cublasLtMatmulPreferenceDestroy(void* handle) { return destroy<Preference>(handle); }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void* preference, int requested,
                                   LtCandidate* candidates, int* found) {
    if (static_cast<Preference*>(preference)->workspace == 0) return kInvalid;
    *found = requested < kCandidates ? requested : kCandidates;
    for (int i = 0; i < *found; ++i) candidates[i] = {.algorithm = {{uint64_t(i)}}};
    return 0;
}
int cublasLtMatmul(void*, void* description, const void* alpha, const void* A, void* Alayout, const void* B, void* Blayout,
                   const void* beta, const void* C, void* Clayout, void* D, void* Dlayout, const LtAlgorithm* algorithm,
                   void* workspace, size_t, cudaStream_t stream) {
    const Layout &a = *static_cast<Layout*>(Alayout), &b = *static_cast<Layout*>(Blayout), &d = *static_cast<Layout*>(Dlayout);
    bool transposed = static_cast<Description*>(description)->transa == 1;
    bool fits = a.rows == b.rows && a.columns == d.rows && b.columns == d.columns && a.type == b.type && b.type == d.type;
    if (!transposed || !fits || C != D || Clayout != Dlayout || workspace == nullptr || !one_and_zero(alpha, beta))
        return kInvalid;
    if (algorithm->data[0] == 1) return kNotSupported;
    return multiply("cublasLt", a.type, int(d.rows), int(d.columns), int(a.rows), A, int(a.leading), B, int(b.leading), D,
                    int(d.leading), stream);
}

}  // extern "C"
#pragma GCC visibility pop
