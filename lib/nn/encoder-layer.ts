import type { Float } from '../dtype';
import type { Activation, AttentionLayout } from '../ops';
import { attentionRows, gatherRows, layerNorm, linear } from '../ops';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';

/** x·Wᵀ + b */
export interface Linear {
  readonly weight: Weight<'matrix'>;
  readonly bias?: Weight<'vector'> | undefined;
}

export interface LayerNorm {
  readonly weight: Weight<'vector'>;
  readonly bias: Weight<'vector'>;
  readonly eps: number;
}

export interface Mlp {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly activation: Activation;
}

/** What both forms of a pre-norm transformer encoder layer have. */
interface EncoderLayerParts {
  readonly heads: number;
  /** Of one head. */
  readonly headWidth: number;
  readonly norm1: LayerNorm;
  readonly out: Linear;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
}

/** A layer that computes every row: queries, keys and values in one product, [3·D, D]. */
export interface EncoderLayer extends EncoderLayerParts {
  readonly qkv: Linear;
}

/** The last layer of a tower of which only some rows are read: queries apart from keys and values, [2·D, D]. */
export interface PooledLayer extends EncoderLayerParts {
  readonly q: Linear;
  readonly kv: Linear;
}

/** Which rows attend to which; see {@link AttentionLayout}. */
export type Sequences = Pick<AttentionLayout, 'segments' | 'maxQueries' | 'maxKeys' | 'causal' | 'mask'>;

export function norm<F extends Float>(x: Tensor<F>, { weight, bias, eps }: LayerNorm): Tensor<F> {
  return layerNorm(x, weight, { bias, eps });
}

/** act(x·W₁ᵀ + b₁)·W₂ᵀ + b₂ + residual */
export function mlp<F extends Float>(x: Tensor<F>, { fc1, fc2, activation }: Mlp, residual: Tensor<F>): Tensor<F> {
  const hidden = linear(x, fc1.weight, { bias: fc1.bias, activation });
  return linear(hidden, fc2.weight, { bias: fc2.bias, residual });
}

/**
 * x += attention(norm₁(x)); x += mlp(norm₂(x)).
 *
 * @param x [R, D], sequences one after the other
 * @see Vaswani et al. 2017; Xiong et al. 2020 for the norm in front
 */
export function encoderLayer<F extends Float>(x: Tensor<F>, layer: EncoderLayer, sequences: Sequences): Tensor<F> {
  const { heads, headWidth, norm1, qkv, out, norm2 } = layer;
  const D = heads * headWidth;
  const packed = linear(norm(x, norm1), qkv.weight, { bias: qkv.bias }); // [R, 3·D]
  const attended = attentionRows(packed, packed, packed, { ...sequences, heads, headWidth, offsets: [0, D, 2 * D] }); // [R, D]
  const y = linear(attended, out.weight, { bias: out.bias, residual: x });
  return mlp(norm(y, norm2), layer.mlp, y);
}

/**
 * The same for the rows that are read only: their queries, projection and MLP; keys and values of all rows. Same numbers, less work.
 *
 * @param x [R, D]
 * @param rows [m] int32
 * @param sequences with the m gathered rows as queries
 * @returns [m, D]
 */
export function pooledLayer<F extends Float>(
  x: Tensor<F>,
  layer: PooledLayer,
  rows: Tensor<'int32'>,
  sequences: Sequences,
): Tensor<F> {
  const { heads, headWidth, norm1, q, kv, out, norm2 } = layer;
  const normed = norm(x, norm1); // [R, D]
  const queries = linear(gatherRows(normed, rows), q.weight, { bias: q.bias }); // [m, D]
  const keysValues = linear(normed, kv.weight, { bias: kv.bias }); // [R, 2·D]
  const offsets = [0, 0, heads * headWidth] as const;
  const attended = attentionRows(queries, keysValues, keysValues, { ...sequences, heads, headWidth, offsets });
  const y = linear(attended, out.weight, { bias: out.bias, residual: gatherRows(x, rows) });
  return mlp(norm(y, norm2), layer.mlp, y);
}
