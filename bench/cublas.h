// The rivals of bench_gemm, cuBLAS and cuBLASLt, opened at run time: nothing of them is needed to build. Types, values and
// signatures are those of the cuBLAS documentation (docs.nvidia.com/cuda/cublas, "cuBLAS Datatypes Reference" and "cuBLASLt
// Datatypes Reference"), the same in versions 11 to 13; cublas_check.cpp compares them with NVIDIA's headers where it finds them.
#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace warpsight::bench {

constexpr int kSuccess = 0;              // cublasStatus_t: CUBLAS_STATUS_SUCCESS
constexpr int kAsStored = 0;             // cublasOperation_t: CUBLAS_OP_N
constexpr int kTransposed = 1;           // cublasOperation_t: CUBLAS_OP_T
constexpr int kComputeFloat32 = 68;      // cublasComputeType_t: CUBLAS_COMPUTE_32F
constexpr int kDefaultAlgorithm = -1;    // cublasGemmAlgo_t: CUBLAS_GEMM_DEFAULT
constexpr int kDescriptionTransA = 3;    // cublasLtMatmulDescAttributes_t: CUBLASLT_MATMUL_DESC_TRANSA, int32_t
constexpr int kPreferenceWorkspace = 1;  // cublasLtMatmulPreferenceAttributes_t: …_PREF_MAX_WORKSPACE_BYTES, uint64_t

struct LtAlgorithm {  // cublasLtMatmulAlgo_t
    uint64_t data[8];
};

struct LtCandidate {  // cublasLtMatmulHeuristicResult_t
    LtAlgorithm algorithm;
    size_t workspace_bytes;
    int state;  // cublasStatus_t
    float waves;
    int reserved[4];
};

/// Every function that is called, by the name that the library exports.
struct CublasApi {
    using Handle = void*;
    int (*cublasCreate_v2)(Handle*);
    int (*cublasDestroy_v2)(Handle);
    int (*cublasGetVersion_v2)(Handle, int*);
    int (*cublasSetStream_v2)(Handle, cudaStream_t);
    int (*cublasSetWorkspace_v2)(Handle, void*, size_t);
    int (*cublasGemmEx)(Handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* A, cudaDataType Atype,
                        int lda, const void* B, cudaDataType Btype, int ldb, const void* beta, void* C, cudaDataType Ctype,
                        int ldc, int compute, int algorithm);

    int (*cublasLtCreate)(Handle*);
    int (*cublasLtDestroy)(Handle);
    int (*cublasLtMatmulDescCreate)(Handle*, int compute, cudaDataType scale);
    int (*cublasLtMatmulDescSetAttribute)(Handle, int attribute, const void* value, size_t bytes);
    int (*cublasLtMatmulDescDestroy)(Handle);
    int (*cublasLtMatrixLayoutCreate)(Handle*, cudaDataType, uint64_t rows, uint64_t columns, int64_t leading);
    int (*cublasLtMatrixLayoutDestroy)(Handle);
    int (*cublasLtMatmulPreferenceCreate)(Handle*);
    int (*cublasLtMatmulPreferenceSetAttribute)(Handle, int attribute, const void* value, size_t bytes);
    int (*cublasLtMatmulPreferenceDestroy)(Handle);
    int (*cublasLtMatmulAlgoGetHeuristic)(Handle, Handle description, Handle A, Handle B, Handle C, Handle D, Handle preference,
                                          int requested, LtCandidate* candidates, int* found);
    int (*cublasLtMatmul)(Handle, Handle description, const void* alpha, const void* A, Handle Alayout, const void* B,
                          Handle Blayout, const void* beta, const void* C, Handle Clayout, void* D, Handle Dlayout,
                          const LtAlgorithm*, void* workspace, size_t workspace_bytes, cudaStream_t);
};

/// Opens libcublasLt and libcublas, version 13 or 12, from the first of `folders` that has both ("": where the loader looks).
/// False: none has.
bool open_cublas(CublasApi& api, const std::vector<std::string>& folders);

/// y[M, N] = x[M, K]·w[N, K]ᵀ of row-major 16-bit matrices, summed in float32.
struct Problem {
    int64_t M, N, K;
    cudaDataType dtype;
};

/// Both libraries on one stream, with one workspace. Their matrices are column-major, so they are asked for yᵀ[N, M] = w·xᵀ:
/// A is w, stored [K, N] and transposed, B is x, stored [K, M].
class Cublas {
public:
    static constexpr size_t kWorkspace = size_t(64) << 20;  // the documentation advises 32 MiB on Hopper

    Cublas(const CublasApi& api, cudaStream_t stream);
    ~Cublas();
    Cublas(const Cublas&) = delete;

    int version() const { return version_; }  // 130101
    /// cublasGemmEx with the algorithm that it chooses by itself.
    void gemm(const Problem& problem, const void* x, const void* w, void* y) const;

    /// cuBLASLt's own search: up to `most` algorithms that the heuristic lists for the problem, the most promising first.
    class Search {
    public:
        Search(const Cublas& owner, const Problem& problem, int most);
        ~Search();
        Search(const Search&) = delete;
        size_t count() const { return candidates_.size(); }
        /// The status of the call: an algorithm may be refused.
        int run(size_t candidate, const void* x, const void* w, void* y) const;

    private:
        const Cublas& owner_;
        CublasApi::Handle description_ = nullptr, w_ = nullptr, x_ = nullptr, y_ = nullptr;
        std::vector<LtCandidate> candidates_;
    };

private:
    CublasApi api_;
    cudaStream_t stream_;
    CublasApi::Handle handle_ = nullptr, lt_ = nullptr;
    void* workspace_ = nullptr;
    int version_ = 0;
};

}  // namespace warpsight::bench
