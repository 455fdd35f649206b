import type { Float } from '../dtype';
import { shapeError } from '../errors';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import type { Weight } from '../weight';
import { requireAtLeastOne, requireFloat, requireInt32, requireInteger, requireRank, rowsOf, widthOf } from './operands';

/** exp(x − max) / Σ over the last dimension. */
export function softmax<F extends Float>(x: Tensor<F>): Tensor<F> {
  requireFloat('softmax', { x });
  requireAtLeastOne('softmax', 'x', x);
  const [y] = call('softmax', {}, [x], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return y as Tensor<F>;
}

/**
 * The index of the largest value of each row: the first of equal ones; NaN counts as the largest, as in torch.argmax.
 *
 * @param x [..., D], D >= 1
 * @returns [...] int32
 */
export function argmax(x: Tensor<Float>): Tensor<'int32'> {
  requireFloat('argmax', { x });
  requireAtLeastOne('argmax', 'x', x);
  if (widthOf(x.shape) === 0) throw shapeError('argmax', 'rows must not be empty', { x: x.shape });
  const [index] = call('argmax', {}, [x], [{ dtype: 'int32', shape: x.shape.slice(0, -1), like: x }]);
  return index as Tensor<'int32'>;
}

/**
 * The k largest of each row, falling; of equal values the smaller index comes first, NaN before everything.
 *
 * @param x [..., D]
 * @returns values and int32 indices, [..., k]
 */
export function topK<F extends Float>(x: Tensor<F>, k: number): { values: Tensor<F>; indices: Tensor<'int32'> } {
  requireFloat('topK', { x });
  requireAtLeastOne('topK', 'x', x);
  requireInteger('topK', 'k', k, 1, widthOf(x.shape));
  const shape = [...x.shape.slice(0, -1), k];
  const [values, indices] = call(
    'topK',
    { k },
    [x],
    [
      { dtype: x.dtype, shape, like: x },
      { dtype: 'int32', shape, like: x },
    ],
  );
  return { values: values as Tensor<F>, indices: indices as Tensor<'int32'> };
}

/**
 * y[r] = x[rows[r]]; a row that does not exist reads as NaN.
 *
 * @param x [R, D]
 * @param rows [m] int32
 */
export function gatherRows<F extends Float>(x: Tensor<F>, rows: Tensor<'int32'>): Tensor<F> {
  requireFloat('gatherRows', { x });
  requireInt32('gatherRows', 'rows', rows);
  requireRank('gatherRows', 'x', x, 2, '[R, D]');
  requireRank('gatherRows', 'rows', rows, 1, '[m]');
  const [y] = call('gatherRows', {}, [x, rows], [{ dtype: x.dtype, shape: [rows.shape[0]!, x.shape[1]!], like: rows }]);
  return y as Tensor<F>;
}

/**
 * The mean of runs of rows: y[c] = mean of x[start …, start + count − 1].
 *
 * @param x [R, D]
 * @param segments [C, 2] int32: start, count
 */
export function segmentMean<F extends Float>(x: Tensor<F>, segments: Tensor<'int32'>): Tensor<F> {
  requireFloat('segmentMean', { x });
  requireInt32('segmentMean', 'segments', segments);
  requireRank('segmentMean', 'x', x, 2, '[R, D]');
  if (segments.shape.length !== 2 || segments.shape[1] !== 2)
    throw shapeError('segmentMean', 'segments must be [C, 2]', { segments: segments.shape });
  const [y] = call(
    'segmentMean',
    {},
    [x, segments],
    [{ dtype: x.dtype, shape: [segments.shape[0]!, x.shape[1]!], like: segments }],
  );
  return y as Tensor<F>;
}

/**
 * Tensors side by side: y[r] = x₀[r], x₁[r], …
 *
 * @param tensors 1 to 8, each [R, Dᵢ]
 * @returns [R, Σ Dᵢ]
 */
export function concat<F extends Float>(tensors: readonly Tensor<F>[]): Tensor<F> {
  requireInteger('concat', 'the number of tensors', tensors.length, 1, 8);
  requireFloat('concat', Object.fromEntries(tensors.map((x, i) => [`tensors[${i}]`, x])));
  for (const x of tensors) requireRank('concat', 'each tensor', x, 2, '[R, D]');
  const [first] = tensors as readonly [Tensor<F>];
  const odd = tensors.find((x) => x.shape[0] !== first.shape[0]);
  if (odd) throw shapeError('concat', 'all tensors must have as many rows', { first: first.shape, another: odd.shape });
  const width = tensors.reduce((sum, x) => sum + x.shape[1]!, 0);
  const like = tensors.find(({ source }) => source.kind === 'traced' && source.leading.symbol >= 0) ?? first;
  const [y] = call('concat', {}, tensors, [{ dtype: first.dtype, shape: [first.shape[0]!, width], like }]);
  return y as Tensor<F>;
}

/**
 * Rows of a table, and rows of a second table of positions added.
 *
 * @param ids [R] int32
 * @param table [V, D]; a matrix too, where a language model's head is its embedding
 * @param positions [R] int32, rows of `positionTable` [P, D]
 * @returns [R, D]; an id that does not exist gives NaN
 */
export function embed(
  ids: Tensor<'int32'>,
  table: Weight<'table' | 'matrix'>,
  options: { readonly positions?: Tensor<'int32'>; readonly positionTable?: Weight<'table'>; readonly dtype?: Float } = {},
): Tensor<Float> {
  const { positions, positionTable, dtype = 'float32' } = options;
  requireInt32('embed', 'ids', ids);
  const D = table.shape[1]!;
  if (positions) {
    requireInt32('embed', 'positions', positions);
    if (rowsOf([...positions.shape, 1]) !== rowsOf([...ids.shape, 1]))
      throw shapeError('embed', 'a position for each id is needed', { ids: ids.shape, positions: positions.shape });
    if (positionTable?.shape[1] !== D)
      throw shapeError('embed', 'both tables must be equally wide', {
        table: table.shape,
        positionTable: positionTable?.shape ?? [],
      });
  }
  const [y] = call('embed', {}, [ids, table, positions, positionTable], [{ dtype, shape: [...ids.shape, D], like: ids }]);
  return y as Tensor<Float>;
}
