import type { Float } from '../dtype';
import { attentionRows, gatherRows, linear } from '../ops';
import type { Tensor } from '../tensor';
import { type LayerNorm, type Linear, type Mlp, mlp, norm, type Sequences } from './encoder-layer';

/** Queries of one stream, keys and values of another: [D, D] and [2·D, width of the other]. */
export interface CrossAttention {
  readonly q: Linear;
  readonly kv: Linear;
  readonly out: Linear;
  readonly norm: LayerNorm;
}

/** What both forms of a layer whose norms stand behind the sums have: BERT's, with cross-attention in the middle. */
interface PostNormParts {
  readonly heads: number;
  /** Of one head. */
  readonly headWidth: number;
  readonly out: Linear;
  readonly norm1: LayerNorm;
  readonly cross: CrossAttention;
  readonly mlp: Mlp;
  readonly norm2: LayerNorm;
}

/** A layer that computes every row: queries, keys and values in one product, [3·D, D]. */
export interface PostNormLayer extends PostNormParts {
  readonly qkv: Linear;
}

/** The last layer of a stack of which only some rows are read: queries apart from keys and values, [2·D, D]. */
export interface PooledPostNormLayer extends PostNormParts {
  readonly q: Linear;
  readonly kv: Linear;
}

/** The other stream, and which of its rows each sequence attends to. */
export interface Context<F extends Float> {
  /** [Rc, Dc] */
  readonly rows: Tensor<F>;
  readonly sequences: Sequences;
}

/**
 * x = norm₁(x + attention(x)); with a context x = norm(x + cross-attention(x, context)); x = norm₂(x + mlp(x)).
 *
 * @param x [R, D], sequences one after the other
 * @see Devlin et al. 2019; Li et al. 2022 for the cross-attention
 */
export function postNormLayer<F extends Float>(
  x: Tensor<F>,
  layer: PostNormLayer,
  sequences: Sequences,
  context: Context<F> | undefined,
): Tensor<F> {
  const { heads, headWidth, qkv } = layer;
  const D = heads * headWidth;
  const packed = linear(x, qkv.weight, { bias: qkv.bias }); // [R, 3·D]
  const attended = attentionRows(packed, packed, packed, { ...sequences, heads, headWidth, offsets: [0, D, 2 * D] });
  return behindAttention(x, attended, layer, context);
}

/**
 * The same for the rows that are read only; keys and values of all rows.
 *
 * @param rows [m] int32
 * @param sequences, context with the m gathered rows as queries
 * @returns [m, D]
 */
export function pooledPostNormLayer<F extends Float>(
  x: Tensor<F>,
  layer: PooledPostNormLayer,
  rows: Tensor<'int32'>,
  sequences: Sequences,
  context: Context<F> | undefined,
): Tensor<F> {
  const { heads, headWidth, q, kv } = layer;
  const read = gatherRows(x, rows); // [m, D]
  const queries = linear(read, q.weight, { bias: q.bias });
  const keysValues = linear(x, kv.weight, { bias: kv.bias }); // [R, 2·D]
  const offsets = [0, 0, heads * headWidth] as const;
  const attended = attentionRows(queries, keysValues, keysValues, { ...sequences, heads, headWidth, offsets });
  return behindAttention(read, attended, layer, context);
}

function behindAttention<F extends Float>(
  x: Tensor<F>,
  attended: Tensor<F>,
  layer: PostNormParts,
  context: Context<F> | undefined,
): Tensor<F> {
  const { out, norm1, cross, heads, headWidth, norm2 } = layer;
  let y = norm(linear(attended, out.weight, { bias: out.bias, residual: x }), norm1);
  if (context) {
    const queries = linear(y, cross.q.weight, { bias: cross.q.bias }); // [R, D]
    const keysValues = linear(context.rows, cross.kv.weight, { bias: cross.kv.bias }); // [Rc, 2·D]
    const offsets = [0, 0, heads * headWidth] as const;
    const crossed = attentionRows(queries, keysValues, keysValues, { ...context.sequences, heads, headWidth, offsets });
    y = norm(linear(crossed, cross.out.weight, { bias: cross.out.bias, residual: y }), cross.norm);
  }
  return norm(mlp(y, layer.mlp, y), norm2);
}
