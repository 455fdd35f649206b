// Every launcher, in the order of a forward pass. A launcher takes what ops.h describes: tensors as views with their planned
// shapes, weights as matrices or float32 vectors, and how many rows there really are. Each puts its kernels on the stream and
// returns.
#pragma once

#include <cuda_runtime.h>

#include "device.h"
#include "dtype.h"
#include "ops.h"
#include "primitives/dependent_launch.h"
#include "primitives/rows.h"

namespace warpsight::cuda {

struct Launch {
    Device& device;
    cudaStream_t stream;
};

struct Grid {
    dim3 blocks, threads;
    size_t shared = 0;     // bytes of dynamic shared memory
    unsigned cluster = 1;  // blocks along x that share their shared memory (sm_90)
};

/// Allows the kernel more than 48 KB of dynamic shared memory.
void allow_shared(const Launch& launch, const void* kernel, size_t bytes);

/// Throws ERR_SHAPE where the device has no such grid.
void check_grid(const Launch& launch, const char* op, const Grid& grid);

/// Puts a kernel on the stream; throws, naming the operation, if it cannot start. Where the device can, it is placed while the
/// kernel before it still runs: every kernel begins with follow_previous() (primitives/dependent_launch.h).
template <typename... P, typename... A>
void start_kernel(const Launch& launch, const char* op, void (*kernel)(P...), const Grid& grid, A&&... arguments) {
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config{.gridDim = grid.blocks, .blockDim = grid.threads, .dynamicSmemBytes = grid.shared};
    config.stream = launch.stream;
    config.attrs = attributes;
    if (launch.device.dependent_launch) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (grid.cluster > 1) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs].val.clusterDim = {grid.cluster, 1, 1};
        ++config.numAttrs;
    }
    check_grid(launch, op, grid);
    if (grid.shared > 48 << 10) allow_shared(launch, reinterpret_cast<const void*>(kernel), grid.shared);
    launch.device.check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), op);
    ++counters().kernels;
}

/// A weight matrix or table, or a tensor used as one; `pitch` elements from row to row.
struct Matrix {
    const void* data = nullptr;
    DType dtype = DType::float32;
    int64_t rows = 0, columns = 0, pitch = 0;
};

// convert.cu
/// Rows of another dtype into `to`, zeros behind its columns. overflow (on the device, may be null) gets 1 if a finite number
/// became infinite.
void convert_rows(const Launch& launch, const void* from, DType from_dtype, const Matrix& to, int* overflow);
void cast(const Launch& launch, const TensorView& x, const TensorView& y, Rows elements);

// resize.cu
void resize_horizontal(const Launch& launch, const ResizeHorizontal& op, const TensorView& pixels, const TensorView& images,
                       const TensorView& taps, const TensorView& scratch, Rows n);
void resize_vertical(const Launch& launch, const ResizeVertical& op, const TensorView& scratch, const TensorView& images,
                     const TensorView& taps, const float* lut, const TensorView& out, Rows n);

// patch_embed.cu, embed.cu
void patch_embed(const Launch& launch, const PatchEmbed& op, const TensorView& pixels, const Matrix& weight, const float* bias,
                 const float* class_token, const float* positions, const TensorView& y, Rows rows);
/// The patches of pixels in y's dtype, a row for each token: a row of zeros for a class token, zeros behind the last column. In
/// bfloat16 as GemmOperands::halves says.
void patches(const Launch& launch, const PatchEmbed& op, const TensorView& pixels, bool class_token, const TensorView& y,
             Rows rows);
void embed(const Launch& launch, const TensorView& ids, const Matrix& table, const TensorView& positions,
           const Matrix& position_table, const TensorView& y, Rows rows);

// norm.cu
void layer_norm(const Launch& launch, float eps, const TensorView& x, const float* weight, const float* bias,
                const TensorView& residual, const TensorView& y, const TensorView& sum, Rows rows);
void rms_norm(const Launch& launch, float eps, const TensorView& x, const float* weight, const TensorView& residual,
              const TensorView& y, const TensorView& sum, Rows rows);
void l2_normalize(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows);

// gemm_simt.cu
void gemm_simt(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
               const TensorView& residual, const TensorView& y, Rows rows);

// gemv.cu
constexpr int kMostGemvRows = 8;  // of x; one of float32, whose larger batches must have the bits of gemm_simt
void gemv(const Launch& launch, const Linear& op, const TensorView& x, const Matrix& weight, const float* bias,
          const TensorView& residual, const TensorView& y, Rows rows);

// rope.cu, attention.cu
void rope(const Launch& launch, const Rope& op, const TensorView& x, const TensorView& positions, const float* frequencies,
          const TensorView& y, Rows tokens);
void rope_append(const Launch& launch, const RopeAppend& op, const TensorView& x, const TensorView& positions,
                 const float* frequencies, const TensorView& rows, const TensorView& cache, const TensorView& y, Rows tokens);

/// The kernel that takes a shape (attention.cu, attention_mma.cu, attention_split.cu) and its bytes of workspace.
struct AttentionPlan {
    const char* kernel;
    size_t workspace_bytes;
};
AttentionPlan plan_attention(const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v, int64_t count);
void attention(const Launch& launch, const Attention& op, const TensorView& q, const TensorView& k, const TensorView& v,
               const TensorView& segments, const TensorView& mask, const TensorView& y, void* workspace, Rows q_rows, Rows k_rows,
               Rows segment_rows);

/// The cache's rows hold keys and values; sequences are [S, 3], pages [S, P].
AttentionPlan plan_paged_attention(const PagedAttention& op, const TensorView& q, const TensorView& cache,
                                   const TensorView& pages);
void paged_attention(const Launch& launch, const PagedAttention& op, const TensorView& q, const TensorView& cache,
                     const TensorView& pages, const TensorView& sequences, const TensorView& y, void* workspace, Rows q_rows,
                     Rows sequence_rows);

// elementwise.cu
void activate(const Launch& launch, const Activate& op, const TensorView& x, const TensorView& y, Rows elements);
/// Without up, rows of gate hold both halves.
void silu_gate(const Launch& launch, const TensorView& gate, const TensorView& up, const TensorView& y, Rows elements);
/// y of x's shape, one row for all, or a number for each row: x [..., D], y [..., 1].
inline bool number_for_each_row(const Shape& x, const Shape& y) { return x.rank == y.rank && y.last() == 1 && x.last() != 1; }
void binary(const Launch& launch, const Binary& op, const TensorView& x, const TensorView& y, const TensorView& out,
            Rows elements);

// gather.cu
void gather_rows(const Launch& launch, const TensorView& x, const TensorView& rows, const TensorView& y, Rows x_rows,
                 Rows y_rows);
void append_rows(const Launch& launch, const AppendRows& op, const TensorView& x, const TensorView& rows, const TensorView& to,
                 Rows x_rows);
void splice(const Launch& launch, const TensorView& x, const TensorView& features, const TensorView& index, const TensorView& y,
            Rows rows, Rows feature_rows);
/// Columns offset … of y, from all of x.
void copy_columns(const Launch& launch, const TensorView& x, const TensorView& y, int64_t offset, Rows rows);
void segment_mean(const Launch& launch, const TensorView& x, const TensorView& segments, const TensorView& y, Rows x_rows,
                  Rows y_rows);

// logits_mma.cu
/// Whether tensor cores take rows of D elements.
bool has_logits_mma(DType dtype, int64_t D);
void scaled_logits_mma(const Launch& launch, const ScaledLogits& op, const TensorView& x, const TensorView& y,
                       const TensorView& out, Rows rows);
constexpr int kMostBest = 32;  // the largest k of zero_shot_head_mma: one in each lane of a warp
/// Bytes of workspace for n images and m classes.
size_t zero_shot_head_workspace(const Device& device, int64_t n, int64_t m, int D, int k);
void zero_shot_head_mma(const Launch& launch, const ZeroShotHead& op, const TensorView& x, const TensorView& y,
                        const TensorView& scores, const TensorView& indices, void* workspace, Rows rows);

// logits.cu, softmax.cu, topk.cu, argmax.cu, sample.cu
/// Bytes of workspace for the norms of n + m rows.
size_t logits_workspace(int64_t n, int64_t m);
void scaled_logits(const Launch& launch, const ScaledLogits& op, const TensorView& x, const TensorView& y, const TensorView& out,
                   void* workspace, Rows rows);
void softmax(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows);
void top_k(const Launch& launch, const TensorView& x, const TensorView& values, const TensorView& indices, Rows rows);
/// The k largest of each row of logits as probabilities: of a softmax over the row, or by a sigmoid each.
void top_k_scores(const Launch& launch, bool sigmoid, const TensorView& logits, const TensorView& scores,
                  const TensorView& indices, Rows rows);
void argmax(const Launch& launch, const TensorView& x, const TensorView& y, Rows rows);
/// Bytes of workspace for n rows of V logits.
size_t sample_workspace(int64_t n, int64_t V);
void sample(const Launch& launch, const TensorView& logits, const TensorView& numbers, const TensorView& integers,
            const TensorView& seen, const TensorView& ids, void* workspace, Rows rows, Rows seen_count);
void sample_distribution(const Launch& launch, const SampleDistribution& op, const TensorView& logits, const TensorView& seen,
                         const TensorView& y, Rows seen_count);

}  // namespace warpsight::cuda
