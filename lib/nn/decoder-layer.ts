import type { Float } from '../dtype';
import { linear, rmsNorm } from '../ops';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import type { Linear } from './encoder-layer';

export interface RmsNorm {
  readonly weight: Weight<'vector'>;
  readonly eps: number;
}

/** A pre-norm layer of a Llama: grouped-query attention with rotary positions, and a SwiGLU. */
export interface DecoderLayer {
  readonly heads: number;
  /** Each serves heads / kvHeads neighbouring query heads. */
  readonly kvHeads: number;
  /** Of one head. */
  readonly headWidth: number;
  readonly norm1: RmsNorm;
  /** Queries, keys and values in one product: [(heads + 2·kvHeads)·headWidth, D] */
  readonly qkv: Linear;
  readonly out: Linear;
  readonly norm2: RmsNorm;
  /** Gate and up in one product: [2·I, D] */
  readonly gateUp: Linear;
  readonly down: Linear;
}

/**
 * x += attention(norm₁(x)); x += down(silu(gate)·up).
 *
 * @param x [T, D]
 * @param attend queries, keys and values [T, heads + 2·kvHeads, headWidth] to [T, heads·headWidth]: turns queries and keys by their positions first
 * @see Touvron et al. 2023; Ainslie et al. 2023; Su et al. 2021; Shazeer 2020
 */
export function decoderLayer(
  x: Tensor<Float>,
  layer: DecoderLayer,
  attend: (packed: Tensor<Float>) => Tensor<Float>,
): Tensor<Float> {
  const { heads, kvHeads, headWidth, norm1, qkv, out, norm2, gateUp, down } = layer;
  const packed = linear(rmsNorm(x, norm1.weight, norm1), qkv.weight, { bias: qkv.bias });
  const perHead = packed.reshape([packed.shape[0]!, heads + 2 * kvHeads, headWidth]);
  const y = linear(attend(perHead), out.weight, { bias: out.bias, residual: x });
  const inner = linear(rmsNorm(y, norm2.weight, norm2), gateUp.weight, { bias: gateUp.bias, activation: 'siluGate' });
  return linear(inner, down.weight, { bias: down.bias, residual: y });
}
