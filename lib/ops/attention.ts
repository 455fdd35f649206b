import type { Float } from '../dtype';
import { shapeError, WarpsightError } from '../errors';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import { requireFloat, requireInt32, requireInteger, requireRank } from './operands';

export interface AttentionOptions {
  readonly causal?: boolean;
  /** 1/√head width by default */
  readonly scale?: number;
  /** int32 [keys]: keys with 0 are not seen; a query that sees none gives zeros */
  readonly mask?: Tensor<'int32'>;
}

/** Where the heads lie in the rows of q, k and v, and which rows belong together. */
export interface AttentionLayout extends AttentionOptions {
  readonly heads: number;
  /** `heads` by default; fewer: each serves heads / kvHeads neighbouring query heads */
  readonly kvHeads?: number;
  readonly headWidth: number;
  /** Column of the first head in a row; packed QKV is the same tensor three times with 0, D, 2·D. */
  readonly offsets?: readonly [q: number, k: number, v: number];
  /**
   * int32 [S, 6]: qStart, qCount, kStart, kCount, prefixStart, prefixCount, in rows. Query i of a segment sees the prefix and its own keys (if causal,
   * those up to i + kCount − qCount). Without it: sequences of exactly maxQueries and maxKeys rows.
   */
  readonly segments?: Tensor<'int32'>;
  /** Of one segment, prefix included. */
  readonly maxQueries: number;
  readonly maxKeys: number;
}

/**
 * softmax(q·kᵀ·scale + mask)·v for one sequence.
 *
 * @param q [queries, heads, d]
 * @param k [keys, kvHeads, d]
 * @param v [keys, kvHeads, d]; causal: query i sees keys 0 … i + keys − queries
 * @returns [queries, heads, d]
 * @see Vaswani et al. 2017; Ainslie et al. 2023 for kvHeads < heads
 */
export function attention<F extends Float>(q: Tensor<F>, k: Tensor<F>, v: Tensor<F>, options: AttentionOptions = {}): Tensor<F> {
  requireRank('attention', 'q', q, 3, '[queries, heads, d]');
  requireRank('attention', 'k', k, 3, '[keys, kvHeads, d]');
  requireRank('attention', 'v', v, 3, '[keys, kvHeads, d]');
  const [queries, heads, headWidth] = q.shape as [number, number, number];
  const [keys, kvHeads, kWidth] = k.shape as [number, number, number];
  if (kWidth !== headWidth || v.shape.some((size, i) => size !== k.shape[i])) {
    throw shapeError('attention', 'k and v must be [keys, kvHeads, d] with the d of q', { q: q.shape, k: k.shape, v: v.shape });
  }
  const rows = (t: Tensor<F>) => t.reshape([t.shape[0]!, t.shape[1]! * t.shape[2]!]);
  const parts = [rows(q), rows(k), rows(v)] as const;
  const out = attentionRows(...parts, { ...options, heads, kvHeads, headWidth, maxQueries: queries, maxKeys: keys });
  const result = out.reshape(q.shape);
  for (const view of [...parts, out]) view.dispose();
  return result;
}

/**
 * The general form over rows: packed, ragged, with shared prefixes, or cross attention.
 *
 * @param q [rows of queries, >= heads·headWidth], likewise k and v over rows of keys
 * @returns [rows of q, heads·headWidth]
 */
export function attentionRows<F extends Float>(q: Tensor<F>, k: Tensor<F>, v: Tensor<F>, layout: AttentionLayout): Tensor<F> {
  const { heads, kvHeads = heads, headWidth, offsets = [0, 0, 0], segments, mask, maxQueries, maxKeys, causal = false } = layout;
  const { scale = 1 / Math.sqrt(headWidth) } = layout;
  requireFloat('attention', { q, k, v });
  requireInteger('attention', 'heads', heads, 1, 65535);
  requireInteger('attention', 'headWidth', headWidth, 1, 65535);
  if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) {
    throw new WarpsightError('ERR_SHAPE', `attention: ${heads} query heads can't share ${kvHeads} key/value heads evenly`);
  }
  for (const [name, t, offset, count] of [
    ['q', q, offsets[0], heads],
    ['k', k, offsets[1], kvHeads],
    ['v', v, offsets[2], kvHeads],
  ] as const) {
    requireRank('attention', name, t, 2, '[rows, width]');
    if (offset < 0 || offset + count * headWidth > t.shape[1]!) {
      throw shapeError('attention', `${name} must hold ${count} heads of ${headWidth} from column ${offset} on`, {
        [name]: t.shape,
      });
    }
  }
  if (k.shape[0] !== v.shape[0])
    throw shapeError('attention', 'k and v must have the same number of rows', { k: k.shape, v: v.shape });
  if (segments) {
    requireInt32('attention', 'segments', segments);
    if (segments.shape.length !== 2 || segments.shape[1] !== 6)
      throw shapeError('attention', 'segments must be [S, 6]', { segments: segments.shape });
  } else if (maxQueries > 0 && (q.shape[0]! % maxQueries !== 0 || (q.shape[0]! / maxQueries) * maxKeys !== k.shape[0])) {
    throw shapeError('attention', `sequences of ${maxQueries} queries and ${maxKeys} keys must fill the rows`, {
      q: q.shape,
      k: k.shape,
    });
  }
  if (mask) {
    requireInt32('attention', 'mask', mask);
    if (mask.shape.length !== 1 || mask.shape[0] !== k.shape[0])
      throw shapeError('attention', 'mask must have one number for each key', { mask: mask.shape, k: k.shape });
  }
  const params = {
    heads,
    kvHeads,
    headDim: headWidth,
    qOffset: offsets[0],
    kOffset: offsets[1],
    vOffset: offsets[2],
    maxQueries,
    maxKeys,
    causal,
    scale,
  };
  const [out] = call(
    'attention',
    params,
    [q, k, v, segments, mask],
    [{ dtype: q.dtype, shape: [q.shape[0]!, heads * headWidth], like: q }],
  );
  return out as Tensor<F>;
}
