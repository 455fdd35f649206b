// Compares cublas.h with NVIDIA's headers where the toolkit has them; empty elsewhere.
#if __has_include(<cublasLt.h>) && __has_include(<cublas_v2.h>)
#include <cublasLt.h>
#include <cublas_v2.h>

#include "cublas.h"

namespace warpsight::bench {

static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kAsStored == CUBLAS_OP_N && kTransposed == CUBLAS_OP_T);
static_assert(kComputeFloat32 == CUBLAS_COMPUTE_32F && kDefaultAlgorithm == CUBLAS_GEMM_DEFAULT);
static_assert(kDescriptionTransA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kPreferenceWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(sizeof(LtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(LtCandidate) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(LtCandidate, algorithm) == offsetof(cublasLtMatmulHeuristicResult_t, algo));
static_assert(offsetof(LtCandidate, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(LtCandidate, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));

}  // namespace warpsight::bench
#endif
