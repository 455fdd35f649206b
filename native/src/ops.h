// The one list of operations. Each is a plain parameter struct; a backend gives each a plan and a run (backend.h).
//
// Conventions
//   inputs, outputs  named in order in each comment; "?" may be absent. Shapes and dtypes were checked in lib/ops; a backend
//                    checks only what its memory accesses rely on.
//   float            the activation dtype: float32 on the CPU; float32, float16 or bfloat16 on CUDA, the same for all float
//                    tensors of one operation unless said otherwise. Sums, means and softmax are float32 whatever the storage.
//   rows             x [..., D] is treated as [rows, D].
//   W                a Weight (backend.h): a matrix in the backend's own layout, a float32 vector, or a table of rows.
//   NaN              propagates. Integer inputs that index (ids, positions, rows, segments) may be wrong when they were
//                    computed on the device: an index out of range must not touch memory outside; such a row reads as NaN.
#pragma once

#include <cstdint>
#include <variant>

namespace warpsight {

enum class Activation : uint8_t { none, gelu, gelu_tanh, quick_gelu, silu, relu, tanh, sigmoid, silu_gate };

/// y = act(x·Wᵀ + b) + r; with silu_gate, which is no function of one number and only here: y = silu(g)·u, the first N columns of
/// x·Wᵀ + b being g and the other N u.
/// in: x float [M, K] · weight W matrix [N, K], or a float tensor [N, K] · bias? W vector [N] · residual? float [M, N]
///     with silu_gate a W matrix [2·N, K] · bias? W vector [2·N]
/// out: y float [M, N]
struct Linear {
    Activation activation = Activation::none;
};

/// A convolution whose stride is its kernel, class token in front and positions added (each where given).
/// y[i·T + t] = (t < c ? class : pixels' patch (t − c)·Wᵀ + b) + positions[t], with c = 1 where there is a class token, else 0;
/// T = c + (H/p)·(W/p)
/// in: pixels float32 [n, C, H, W] · weight W matrix [D, C·p·p] · bias? W vector [D] · class? W vector [D] ·
///     positions? W vector [T·D]
/// out: y float [n·T, D]. Patches row by row; pixels beyond the last whole patch are not read.
struct PatchEmbed {
    int patch = 0;
};

/// y[r] = table[ids[r]] + positionTable[positions[r]]
/// in: ids int32 [R] · table W table or matrix [V, D] · positions? int32 [R] · positionTable? W table [P, D]; out: y float [R, D]
struct Embed {};

/// sum = x + residual; y = (sum − mean) / sqrt(var + eps) · weight + bias, biased variance by a second pass over sum − mean
/// in: x float [R, D] · weight W vector [D] · bias? W vector [D] · residual? float [R, D]
/// out: y float [R, D] · sum? float [R, D]
struct LayerNorm {
    float eps = 1e-5f;
};

/// sum = x + residual; y = sum / sqrt(mean(sum²) + eps) · weight;
/// in: x · weight W vector [D] · residual?; out: y · sum?
struct RmsNorm {
    float eps = 1e-5f;
};

/// softmax(scale·q·kᵀ + mask)·v for each segment and head; a query that sees no key gives zeros.
/// A row of q holds `heads` heads of headDim from column qOffset on; k and v hold kvHeads, each serving heads/kvHeads
/// neighbouring query heads. Packed QKV is the same tensor three times with offsets 0, D, 2·D.
/// segments? int32 [S, 6]: qStart, qCount, kStart, kCount, prefixStart, prefixCount (rows). Query i of a segment sees all prefix
/// rows and the own rows kStart + j, j < kCount; if causal only j <= i + kCount − qCount. Without segments: sequences of exactly
/// maxQueries query rows and maxKeys key rows, one after the other. Keys are taken in the order prefix, own: results are bit for
/// bit those of a contiguous layout.
/// in: q float [Rq, ≥] · k float [Rk, ≥] · v float [Rk, ≥] · segments? · mask? int32 [Rk] (keys with 0 are not seen)
/// out: float [Rq, heads·headDim]. Rows of q that no segment names keep no defined value.
struct Attention {
    int heads = 1, kv_heads = 1, head_dim = 1;
    int q_offset = 0, k_offset = 0, v_offset = 0;
    int max_queries = 1, max_keys = 1;  // of one segment, prefix included in max_keys
    bool causal = false;
    float scale = 1.f;
};

/// y = x / max(‖x‖₂, tiny) per row: a zero row stays zero, and the norm does not overflow (scale by the row's largest magnitude
/// where the plain sum of squares is not a normal float32).
/// in: x float [R, D]; out: y float [R, D]
struct L2Normalize {};

/// y[i, j] = multiplier·cos(x_i, y_j) + bias, float32 out.
/// in: x float [n, D] · y float [m, D]; out: float32 [n, m]
struct ScaledLogits {
    float multiplier = 1.f, bias = 0.f;  // multiplier = exp(logit scale)
    bool y_unit = false;                 // rows of y have unit length already
};

/// Softmax over all classes (or sigmoid each) of ScaledLogits, then the k largest; the logits are not written where the
/// backend can do without.
/// in: x float [n, D] · classes float [m, D]; out: scores float32 [n, k] falling · indices int32 [n, k], equal scores: the
///     smaller index first
struct ZeroShotHead {
    float multiplier = 1.f, bias = 0.f;
    bool y_unit = false, sigmoid = false;
    int k = 1;
};

/// Over the last dimension, maximum subtracted first.
/// in: x float [R, D]; out: float [R, D]
struct Softmax {};

/// Elementwise.
/// in: x float [...]; out: float [...]
struct Activate {
    Activation activation = Activation::none;
};

/// silu(gate)·up, elementwise. Without up the first half of each row of x [R, 2·D] is the gate, the second half up.
/// in: gate float · up? float of the same shape; out: float, or [R, D]
struct SiluGate {};

enum class Arithmetic : uint8_t { add, multiply, maximum };

/// Elementwise; y has the shape of x, or is one row [D] that is used for each row of x, or has one number for each row of x:
/// [..., 1]. The maximum with a NaN is NaN.
/// in: x float [..., D] · y float; out float
struct Binary {
    Arithmetic arithmetic = Arithmetic::add;
};

/// The index of the largest value of each row: the first of equal ones; NaN is larger than everything and the first NaN
/// wins (as torch.argmax).
/// in: x float [R, D]; out: int32 [R]
struct Argmax {};

/// The k largest of each row, falling, equal values: the smaller index first; NaN first.
/// in: x float [R, D]; out: values float [R, k] · indices int32 [R, k]
struct TopK {
    int k = 1;
};

/// y[r] = x[rows[r]].
/// in: x float [R, D] · rows int32 [m]; out: float [m, D]
struct GatherRows {};

/// y[c] = mean of rows start … start + count − 1.
/// in: x float [R, D] · segments int32 [C, 2] (start, count; count 0 gives NaN); out: float [C, D]
struct SegmentMean {};

/// Component i turns with component i + d/2 (the Llama form on the Hub) by position·frequency[i], in the first `heads` heads of a
/// row; the others are copied.
/// in: x float [T, H, d] · positions int32 [T] · frequencies W vector [d/2]; out: float [T, H, d]
struct Rope {
    int heads = 0;  // 0: all
};

/// Writes columns offset … offset + W − 1 of row r of x into row rows[r] of `to`, in place; a row outside `to` is dropped.
/// in: x float [T, ≥ offset + W] · rows int32 [T] · to float [R, W], which changes; out: none
struct AppendRows {
    int offset = 0;
};

/// Rope of the first heads + kv_heads heads of x, its queries and keys; then keys and values of token t go into row rows[t] of
/// the cache, in place, as AppendRows does.
/// in: x float [T, heads + 2·kvHeads, d] · positions int32 [T] · frequencies W vector [d/2] · rows int32 [T] ·
///     cache float [R, 2·kvHeads·d], which changes; out: queries float [T, heads·d]
struct RopeAppend {
    int heads = 1, kv_heads = 1;
};

/// Causal attention over a paged cache: softmax(scale·q·kᵀ)·v for each sequence and head.
/// Key j of sequence s is row pages[s, j / page]·page + j mod page of the cache. Query i of a sequence, row qStart + i of q, sees
/// keys 0 … kCount − qCount + i. A row of the cache holds kv_heads heads from column k_offset on and as many from v_offset on.
/// in: q float [Tq, ≥] · cache float [R, ≥] · pages int32 [S, P] · sequences int32 [S, 3]: qStart, qCount, kCount
/// out: float [Tq, heads·headDim]; NaN where a sequence leaves q, its pages or the cache. Rows of q that no sequence names keep
///      no defined value.
struct PagedAttention {
    int heads = 1, kv_heads = 1, head_dim = 1;
    int q_offset = 0, k_offset = 0, v_offset = 0;
    int page = 1;         // rows of a page
    int max_queries = 1;  // of one sequence
    float scale = 1.f;
};

/// y[r] = index[r] < 0 ? x[r] : features[index[r]]
/// in: x float [T, D] · features float [F, D] · index int32 [T]; out: float [T, D]
struct Splice {};

/// y[r] = x₀[r], x₁[r], … side by side.
/// in: 1 to 8 floats [R, Dᵢ]; out: float [R, Σ Dᵢ]
struct Concat {};

/// The distribution that is sampled from, in this order: repetition penalty (a positive logit of a seen id is divided by it, a
/// negative one multiplied), temperature, topK (the k largest; those equal to the k-th stay; 0: off), topP (smallest set of the
/// largest whose sum reaches p, at least one), softmax.
/// in: logits float [V] · seen? int32 [L]; out: float32 [V]
struct SampleDistribution {
    float temperature = 1.f, top_p = 1.f, repetition_penalty = 1.f;
    int top_k = 0;
};

/// An id drawn from the distribution above, row by row; temperature 0 takes the largest (the first of equal ones) after the
/// penalty. The same seed and draw give the same id: u = Philox4x32-10(counter (draw, 0, 0, 0), key seed), first word / 2^32, and
/// the id is the first whose running sum of probabilities, in float64 and in the order of ids, is larger than u·sum.
/// in: logits float [n, V] · numbers float32 [n, 3]: temperature, topP, repetitionPenalty · integers int32 [n, 4]: topK, seed's
///     low and high word, draw · seen? int32 [L, 2]: row of logits, id; out: ids int32 [n]
/// source: Salmon et al. 2011 for Philox
struct Sample {};

/// First pass of the resampling (lib/preprocess/resample.ts): uint8 rows to uint8 rows of the output's width; PIL's integer
/// arithmetic, clip8((2^21 + Σ w·source) >> 22).
/// in: pixels uint8 [bytes] (RGB, HWC, pictures one after the other) · images int32 [n, 12] · taps int32 [len]
/// out: scratch uint8 [bytes]
/// images: a PictureRow each (picture_row.h).
/// taps: for output i at table + i·stride: first, count, w_0 … ; count 0 gives 0.
struct ResizeHorizontal {
    int width = 0;
};

/// Second pass and normalisation: the same arithmetic down the columns of scratch, then out[i, c, y, x] = lut[c·256 + u].
/// in: scratch uint8 · images int32 [n, 12] · taps int32 · lut W vector [3·256]; out: float32 [n, 3, height, width]
struct ResizeVertical {
    int width = 0, height = 0;
};

/// Same values in another float dtype, rounded to nearest even.
/// in: x float; out: float
struct Cast {};

using Operation =
    std::variant<Linear, PatchEmbed, Embed, LayerNorm, RmsNorm, Attention, L2Normalize, ScaledLogits, ZeroShotHead, Softmax,
                 Activate, SiluGate, Binary, Argmax, TopK, GatherRows, SegmentMean, Rope, AppendRows, RopeAppend, PagedAttention,
                 Splice, Concat, SampleDistribution, Sample, ResizeHorizontal, ResizeVertical, Cast>;

/// The operation's name in lib/ops, native code, tests and benches: "linear", "patchEmbed", …
const char* name_of(const Operation& op);

}  // namespace warpsight
