#include "cublas.h"

#include <dlfcn.h>

#include <stdexcept>

namespace warpsight::bench {
namespace {

const float kOne = 1.f, kZero = 0.f;

void check(int status, const char* what) {
    if (status != kSuccess) throw std::runtime_error(std::string(what) + ": cublasStatus_t " + std::to_string(status));
}

void* open(const std::string& folder, const std::string& file) {
    return dlopen((folder.empty() ? file : folder + "/" + file).c_str(), RTLD_NOW | RTLD_GLOBAL);
}

template <typename F>
void find(void* library, const char* name, F*& function) {
    function = reinterpret_cast<F*>(dlsym(library, name));
    if (function == nullptr) throw std::runtime_error(std::string("cuBLAS has no function ") + name);
}

}  // namespace

bool open_cublas(CublasApi& api, const std::vector<std::string>& folders) {
    for (const std::string& folder : folders) {
        for (const char* version : {".so.13", ".so.12"}) {
            void* lt = open(folder, std::string("libcublasLt") + version);  // first: libcublas needs it
            void* blas = lt ? open(folder, std::string("libcublas") + version) : nullptr;
            if (blas == nullptr) continue;
            find(blas, "cublasCreate_v2", api.cublasCreate_v2);
            find(blas, "cublasDestroy_v2", api.cublasDestroy_v2);
            find(blas, "cublasGetVersion_v2", api.cublasGetVersion_v2);
            find(blas, "cublasSetStream_v2", api.cublasSetStream_v2);
            find(blas, "cublasSetWorkspace_v2", api.cublasSetWorkspace_v2);
            find(blas, "cublasGemmEx", api.cublasGemmEx);
            find(lt, "cublasLtCreate", api.cublasLtCreate);
            find(lt, "cublasLtDestroy", api.cublasLtDestroy);
            find(lt, "cublasLtMatmulDescCreate", api.cublasLtMatmulDescCreate);
            find(lt, "cublasLtMatmulDescSetAttribute", api.cublasLtMatmulDescSetAttribute);
            find(lt, "cublasLtMatmulDescDestroy", api.cublasLtMatmulDescDestroy);
            find(lt, "cublasLtMatrixLayoutCreate", api.cublasLtMatrixLayoutCreate);
            find(lt, "cublasLtMatrixLayoutDestroy", api.cublasLtMatrixLayoutDestroy);
            find(lt, "cublasLtMatmulPreferenceCreate", api.cublasLtMatmulPreferenceCreate);
            find(lt, "cublasLtMatmulPreferenceSetAttribute", api.cublasLtMatmulPreferenceSetAttribute);
            find(lt, "cublasLtMatmulPreferenceDestroy", api.cublasLtMatmulPreferenceDestroy);
            find(lt, "cublasLtMatmulAlgoGetHeuristic", api.cublasLtMatmulAlgoGetHeuristic);
            find(lt, "cublasLtMatmul", api.cublasLtMatmul);
            return true;
        }
    }
    return false;
}

Cublas::Cublas(const CublasApi& api, cudaStream_t stream) : api_(api), stream_(stream) {
    if (cudaMalloc(&workspace_, kWorkspace) != cudaSuccess) throw std::runtime_error("no memory for cuBLAS's workspace");
    check(api_.cublasCreate_v2(&handle_), "cublasCreate");
    check(api_.cublasGetVersion_v2(handle_, &version_), "cublasGetVersion");
    check(api_.cublasSetStream_v2(handle_, stream_), "cublasSetStream");
    check(api_.cublasSetWorkspace_v2(handle_, workspace_, kWorkspace),
          "cublasSetWorkspace");  // after the stream, which resets it
    check(api_.cublasLtCreate(&lt_), "cublasLtCreate");
}

Cublas::~Cublas() {
    if (lt_) api_.cublasLtDestroy(lt_);
    if (handle_) api_.cublasDestroy_v2(handle_);
    cudaFree(workspace_);
}

void Cublas::gemm(const Problem& p, const void* x, const void* w, void* y) const {
    int M = int(p.M), N = int(p.N), K = int(p.K);
    check(api_.cublasGemmEx(handle_, kTransposed, kAsStored, N, M, K, &kOne, w, p.dtype, K, x, p.dtype, K, &kZero, y, p.dtype, N,
                            kComputeFloat32, kDefaultAlgorithm),
          "cublasGemmEx");
}

Cublas::Search::Search(const Cublas& owner, const Problem& p, int most) : owner_(owner), candidates_(size_t(most)) {
    const CublasApi& api = owner.api_;
    check(api.cublasLtMatmulDescCreate(&description_, kComputeFloat32, CUDA_R_32F), "cublasLtMatmulDescCreate");
    int32_t transposed = kTransposed;
    check(api.cublasLtMatmulDescSetAttribute(description_, kDescriptionTransA, &transposed, sizeof transposed), "transa");
    check(api.cublasLtMatrixLayoutCreate(&w_, p.dtype, uint64_t(p.K), uint64_t(p.N), p.K), "cublasLtMatrixLayoutCreate");
    check(api.cublasLtMatrixLayoutCreate(&x_, p.dtype, uint64_t(p.K), uint64_t(p.M), p.K), "cublasLtMatrixLayoutCreate");
    check(api.cublasLtMatrixLayoutCreate(&y_, p.dtype, uint64_t(p.N), uint64_t(p.M), p.N), "cublasLtMatrixLayoutCreate");

    CublasApi::Handle preference = nullptr;
    check(api.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    uint64_t workspace = kWorkspace;
    check(api.cublasLtMatmulPreferenceSetAttribute(preference, kPreferenceWorkspace, &workspace, sizeof workspace), "workspace");
    int found = 0;
    int status =
        api.cublasLtMatmulAlgoGetHeuristic(owner.lt_, description_, w_, x_, y_, y_, preference, most, candidates_.data(), &found);
    api.cublasLtMatmulPreferenceDestroy(preference);
    candidates_.resize(status == kSuccess ? size_t(found) : 0);
    std::erase_if(candidates_, [](const LtCandidate& candidate) { return candidate.state != kSuccess; });
}

Cublas::Search::~Search() {
    const CublasApi& api = owner_.api_;
    for (CublasApi::Handle layout : {w_, x_, y_}) api.cublasLtMatrixLayoutDestroy(layout);
    api.cublasLtMatmulDescDestroy(description_);
}

int Cublas::Search::run(size_t candidate, const void* x, const void* w, void* y) const {
    return owner_.api_.cublasLtMatmul(owner_.lt_, description_, &kOne, w, w_, x, x_, &kZero, y, y_, y, y_,
                                      &candidates_[candidate].algorithm, owner_.workspace_, kWorkspace, owner_.stream_);
}

}  // namespace warpsight::bench
