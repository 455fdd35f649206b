// Operations of language models: rotary positions, the paged cache of keys and values, spliced embeddings, sampling.
import type { Float } from '../dtype';
import { shapeError, WarpsightError } from '../errors';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import { requireFinite, requireFloat, requireInt32, requireInteger, requireRank, type Vector, vectorOf } from './operands';

/**
 * Rotary position embedding in the form of Llama checkpoints on the Hub: component i turns with component i + d/2 by position · frequency[i].
 *
 * @param x [T, H, d], d even
 * @param positions [T] int32
 * @param frequencies [d/2], theta^(−2i/d), scaled as the checkpoint says
 * @param options heads: how many of the first heads turn; the others are copied. All by default
 * @see Su et al. 2021
 */
export function rope<F extends Float>(
  x: Tensor<F>,
  positions: Tensor<'int32'>,
  frequencies: Vector,
  options: { readonly heads?: number } = {},
): Tensor<F> {
  requireFloat('rope', { x });
  requireInt32('rope', 'positions', positions);
  requireRank('rope', 'x', x, 3, '[T, H, d]');
  const [T, H, d] = x.shape as [number, number, number];
  const { heads = 0 } = options;
  requireInteger('rope', 'heads', heads, 0, H);
  if (d % 2 !== 0 || positions.shape.length !== 1 || positions.shape[0] !== T) {
    throw shapeError('rope', 'x must be [T, H, d] with d even, positions [T]', { x: x.shape, positions: positions.shape });
  }
  const [y] = call(
    'rope',
    { heads },
    [x, positions, vectorOf('rope', 'frequencies', frequencies, d / 2, x.device)],
    [{ dtype: x.dtype, shape: x.shape, like: x }],
  );
  return y as Tensor<F>;
}

export interface SampleOptions {
  /** 1 by default, > 0 */
  readonly temperature?: number;
  /** The k largest; those equal to the k-th stay. 0 (default): all */
  readonly topK?: number;
  /** The smallest set of the largest whose sum reaches p, at least one. 1 by default */
  readonly topP?: number;
  /** A positive logit of a seen id is divided by it, a negative one multiplied. 1 by default */
  readonly repetitionPenalty?: number;
  /** [L] int32 */
  readonly seen?: Tensor<'int32'>;
}

/**
 * The distribution that sampling draws from: repetition penalty, temperature, top-k, top-p, softmax, in this order.
 *
 * @param logits [V]
 * @returns [V] float32
 */
export function sampleDistribution(logits: Tensor<Float>, options: SampleOptions = {}): Tensor<'float32'> {
  const { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1, seen } = options;
  requireFloat('sampleDistribution', { logits });
  requireRank('sampleDistribution', 'logits', logits, 1, '[V]');
  requireInteger('sampleDistribution', 'topK', topK, 0, 2 ** 30);
  for (const [name, value] of Object.entries({ temperature, topP, repetitionPenalty }))
    requireFinite('sampleDistribution', name, value);
  if (temperature <= 0 || topP <= 0 || repetitionPenalty <= 0) {
    throw shapeError(
      'sampleDistribution',
      `temperature, topP and repetitionPenalty must be above 0, not ${temperature}, ${topP}, ${repetitionPenalty}`,
      { logits: logits.shape },
    );
  }
  if (seen) requireInt32('sampleDistribution', 'seen', seen);
  const [out] = call(
    'sampleDistribution',
    { temperature, topK, topP, repetitionPenalty },
    [logits, seen],
    [{ dtype: 'float32', shape: logits.shape, like: logits }],
  );
  return out as Tensor<'float32'>;
}

export interface DrawOptions {
  /** [L, 2] int32, what the repetition penalty is for: row of logits, id */
  readonly seen?: Tensor<'int32'> | undefined;
}

/**
 * One id of each row, drawn from the distribution of {@link sampleDistribution}; temperature 0 takes the largest, the first of equal ones.
 *
 * @param logits [n, V]
 * @param numbers [n, 3] float32: temperature, topP, repetitionPenalty
 * @param integers [n, 4] int32: topK (0: all), the seed's low and high word, the number of the draw; the same seed and draw give the same id
 * @returns [n] int32
 * @see Salmon et al. 2011 for the generator, Philox4x32-10
 */
export function sample(
  logits: Tensor<Float>,
  numbers: Tensor<'float32'>,
  integers: Tensor<'int32'>,
  options: DrawOptions = {},
): Tensor<'int32'> {
  const { seen } = options;
  requireFloat('sample', { logits });
  requireRank('sample', 'logits', logits, 2, '[n, V]');
  requireInt32('sample', 'integers', integers);
  const [n, V] = logits.shape as [number, number];
  if (V === 0) throw shapeError('sample', 'a row needs a logit', { logits: logits.shape });
  const fits = (t: Tensor, width: number) => t.shape.length === 2 && t.shape[0] === n && t.shape[1] === width;
  if (numbers.dtype !== 'float32' || !fits(numbers, 3) || !fits(integers, 4)) {
    const shapes = { logits: logits.shape, numbers: numbers.shape, integers: integers.shape };
    throw shapeError('sample', 'numbers must be [n, 3] float32 and integers [n, 4]', shapes);
  }
  if (seen) {
    requireInt32('sample', 'seen', seen);
    if (seen.shape.length !== 2 || seen.shape[1] !== 2) throw shapeError('sample', 'seen must be [L, 2]', { seen: seen.shape });
  }
  const [ids] = call('sample', {}, [logits, numbers, integers, seen], [{ dtype: 'int32', shape: [n], like: logits }]);
  return ids as Tensor<'int32'>;
}

/**
 * Writes columns offset … offset + W − 1 of row r of x into row rows[r] of `cache`, in place; a row outside the cache is dropped.
 *
 * @param x [T, >= offset + W]
 * @param rows [T] int32
 * @param cache [R, W], which changes
 */
export function appendRows<F extends Float>(x: Tensor<F>, rows: Tensor<'int32'>, cache: Tensor<F>, offset = 0): void {
  requireFloat('appendRows', { x, cache });
  requireInt32('appendRows', 'rows', rows);
  requireRank('appendRows', 'x', x, 2, '[T, width]');
  requireRank('appendRows', 'cache', cache, 2, '[R, W]');
  requireInteger('appendRows', 'offset', offset, 0, x.shape[1]!);
  if (rows.shape.length !== 1 || rows.shape[0] !== x.shape[0] || offset + cache.shape[1]! > x.shape[1]!) {
    const shapes = { x: x.shape, rows: rows.shape, cache: cache.shape };
    throw shapeError(
      'appendRows',
      `x must hold the cache's columns from ${offset} on, and rows one number for each row of x`,
      shapes,
    );
  }
  call('appendRows', { offset }, [x, rows, cache], []);
}

/**
 * {@link rope} of queries and keys, and {@link appendRows} of keys and values, in one.
 *
 * @param x [T, heads + 2·kvHeads, d]: queries, keys, values of each token; d even
 * @param positions [T] int32
 * @param frequencies [d/2]
 * @param rows [T] int32, where in the cache each token's keys and values go; those of a row outside are dropped
 * @param cache [R, 2·kvHeads·d], which changes: the turned keys, then the values
 * @returns [T, heads·d], the turned queries
 */
export function ropeAppend<F extends Float>(
  x: Tensor<F>,
  positions: Tensor<'int32'>,
  frequencies: Vector,
  rows: Tensor<'int32'>,
  cache: Tensor<F>,
  { heads, kvHeads }: { readonly heads: number; readonly kvHeads: number },
): Tensor<F> {
  requireFloat('ropeAppend', { x, cache });
  requireInt32('ropeAppend', 'positions', positions);
  requireInt32('ropeAppend', 'rows', rows);
  requireRank('ropeAppend', 'x', x, 3, '[T, heads + 2·kvHeads, d]');
  requireRank('ropeAppend', 'cache', cache, 2, '[R, 2·kvHeads·d]');
  requireInteger('ropeAppend', 'heads', heads, 1, 2 ** 24);
  requireInteger('ropeAppend', 'kvHeads', kvHeads, 1, 2 ** 24);
  const [T, H, d] = x.shape as [number, number, number];
  if (d % 2 !== 0 || H !== heads + 2 * kvHeads || cache.shape[1] !== 2 * kvHeads * d) {
    const rule = `x must be [T, ${heads + 2 * kvHeads}, d] with d even, and cache [R, ${2 * kvHeads}·d]`;
    throw shapeError('ropeAppend', rule, { x: x.shape, cache: cache.shape });
  }
  if (![positions, rows].every(({ shape }) => shape.length === 1 && shape[0] === T)) {
    const shapes = { x: x.shape, positions: positions.shape, rows: rows.shape };
    throw shapeError('ropeAppend', 'positions and rows must have one number for each token of x', shapes);
  }
  const [queries] = call(
    'ropeAppend',
    { heads, kvHeads },
    [x, positions, vectorOf('ropeAppend', 'frequencies', frequencies, d / 2, x.device), rows, cache],
    [{ dtype: x.dtype, shape: [T, heads * d], like: x }],
  );
  return queries as Tensor<F>;
}

/** Where the heads lie in rows of q and of the cache. */
export interface PagedLayout {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  /** Column of the first head: of the queries in q, of the keys and of the values in the cache. */
  readonly offsets: readonly [q: number, k: number, v: number];
  /** Rows of a page. */
  readonly page: number;
  /** Of one sequence. */
  readonly maxQueries: number;
  /** 1/√head width by default */
  readonly scale?: number;
}

/**
 * Causal attention over a paged cache: key j of sequence s is row pages[s, ⌊j / page⌋]·page + j mod page of the cache, and query i sees the keys up
 * to i + kCount − qCount.
 *
 * @param q [Tq, >= heads·headWidth]
 * @param cache [R, >= ...]: keys and values of a token in one row
 * @param pages [S, P] int32
 * @param sequences [S, 3] int32: qStart, qCount, kCount
 * @returns [Tq, heads·headWidth]
 * @see Kwon et al. 2023
 */
export function pagedAttention<F extends Float>(
  q: Tensor<F>,
  cache: Tensor<F>,
  pages: Tensor<'int32'>,
  sequences: Tensor<'int32'>,
  layout: PagedLayout,
): Tensor<F> {
  const { heads, kvHeads, headWidth, offsets, page, maxQueries, scale = 1 / Math.sqrt(headWidth) } = layout;
  requireFloat('pagedAttention', { q, cache });
  requireInt32('pagedAttention', 'pages', pages);
  requireInt32('pagedAttention', 'sequences', sequences);
  for (const [name, value] of Object.entries({ heads, kvHeads, headWidth, page })) {
    requireInteger('pagedAttention', name, value, 1, 2 ** 24);
  }
  if (heads % kvHeads !== 0) {
    throw new WarpsightError('ERR_SHAPE', `pagedAttention: ${heads} query heads can't share ${kvHeads} key/value heads evenly`);
  }
  const places = [
    ['q', q, offsets[0], heads],
    ['cache', cache, offsets[1], kvHeads],
    ['cache', cache, offsets[2], kvHeads],
  ] as const;
  for (const [name, t, offset, count] of places) {
    requireRank('pagedAttention', name, t, 2, '[rows, width]');
    if (offset >= 0 && offset + count * headWidth <= t.shape[1]!) continue;
    throw shapeError('pagedAttention', `${name} must hold ${count} heads of ${headWidth} from column ${offset} on`, {
      [name]: t.shape,
    });
  }
  const [S] = sequences.shape;
  if (sequences.shape.length !== 2 || sequences.shape[1] !== 3 || pages.shape.length !== 2 || pages.shape[0] !== S) {
    const shapes = { pages: pages.shape, sequences: sequences.shape };
    throw shapeError('pagedAttention', 'sequences must be [S, 3] and pages [S, P]', shapes);
  }
  const params = {
    heads,
    kvHeads,
    headDim: headWidth,
    qOffset: offsets[0],
    kOffset: offsets[1],
    vOffset: offsets[2],
    page,
    maxQueries,
    scale,
  };
  const [y] = call(
    'pagedAttention',
    params,
    [q, cache, pages, sequences],
    [{ dtype: q.dtype, shape: [q.shape[0]!, heads * headWidth], like: q }],
  );
  return y as Tensor<F>;
}

/**
 * Rows of `features` in the place of some of x: y[r] = index[r] < 0 ? x[r] : features[index[r]].
 *
 * @param x [T, D]
 * @param features [F, D]
 * @param index [T] int32
 * @returns [T, D]; an index that does not exist gives NaN
 */
export function splice<F extends Float>(x: Tensor<F>, features: Tensor<F>, index: Tensor<'int32'>): Tensor<F> {
  requireFloat('splice', { x, features });
  requireInt32('splice', 'index', index);
  requireRank('splice', 'x', x, 2, '[T, D]');
  requireRank('splice', 'features', features, 2, '[F, D]');
  if (features.shape[1] !== x.shape[1] || index.shape.length !== 1 || index.shape[0] !== x.shape[0]) {
    const shapes = { x: x.shape, features: features.shape, index: index.shape };
    throw shapeError('splice', 'features must be as wide as x, and index have one number for each row of x', shapes);
  }
  const [y] = call('splice', {}, [x, features, index], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return y as Tensor<F>;
}
