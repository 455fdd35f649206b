import type { Float } from '../dtype';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import { requireAtLeastOne, requireFinite, requireFloat, requireSame, type Vector, vectorOf, widthOf } from './operands';

export interface LayerNormOptions {
  /** [D] */
  readonly bias?: Vector | undefined;
  /** 1e-5 by default */
  readonly eps?: number | undefined;
}

/**
 * (x − mean) / √(var + eps) · weight + bias over the last dimension; the variance is the biased one.
 *
 * @param x [..., D]
 * @param weight [D]
 * @see Ba et al. 2016
 */
export function layerNorm<F extends Float>(x: Tensor<F>, weight: Vector, options: LayerNormOptions = {}): Tensor<F> {
  return layerNormOp('layerNorm', x, undefined, weight, options).y;
}

/** layerNorm(x + residual), and the sum itself: one pass over memory. */
export function addLayerNorm<F extends Float>(
  x: Tensor<F>,
  residual: Tensor<F>,
  weight: Vector,
  options: LayerNormOptions = {},
): { y: Tensor<F>; sum: Tensor<F> } {
  const { y, sum } = layerNormOp('layerNorm', x, residual, weight, options);
  return { y, sum: sum! };
}

/**
 * x / √(mean(x²) + eps) · weight over the last dimension.
 *
 * @see Zhang & Sennrich 2019
 */
export function rmsNorm<F extends Float>(x: Tensor<F>, weight: Vector, options: Pick<LayerNormOptions, 'eps'> = {}): Tensor<F> {
  return layerNormOp('rmsNorm', x, undefined, weight, options).y;
}

/** rmsNorm(x + residual), and the sum itself. */
export function addRmsNorm<F extends Float>(
  x: Tensor<F>,
  residual: Tensor<F>,
  weight: Vector,
  options: Pick<LayerNormOptions, 'eps'> = {},
): { y: Tensor<F>; sum: Tensor<F> } {
  const { y, sum } = layerNormOp('rmsNorm', x, residual, weight, options);
  return { y, sum: sum! };
}

function layerNormOp<F extends Float>(
  op: 'layerNorm' | 'rmsNorm',
  x: Tensor<F>,
  residual: Tensor<F> | undefined,
  weight: Vector,
  { bias, eps = 1e-5 }: LayerNormOptions,
): { y: Tensor<F>; sum: Tensor<F> | undefined } {
  requireFloat(op, { x, ...(residual && { residual }) });
  requireAtLeastOne(op, 'x', x);
  requireFinite(op, 'eps', eps);
  if (residual)
    requireSame(
      op,
      'residual must have the shape of x',
      { name: 'x', shape: x.shape },
      { name: 'residual', shape: residual.shape },
    );
  const D = widthOf(x.shape);
  const vectors = [
    vectorOf(op, 'weight', weight, D, x.device),
    ...(op === 'layerNorm' ? [vectorOf(op, 'bias', bias, D, x.device)] : []),
  ];
  const output = { dtype: x.dtype, shape: x.shape, like: x };
  const [y, sum] = call(op, { eps }, [x, ...vectors, residual], residual ? [output, output] : [output]);
  return { y: y as Tensor<F>, sum: sum as Tensor<F> | undefined };
}

/** x / ‖x‖₂ over the last dimension; a zero row stays zero. */
export function l2Normalize<F extends Float>(x: Tensor<F>): Tensor<F> {
  requireFloat('l2Normalize', { x });
  requireAtLeastOne('l2Normalize', 'x', x);
  const [y] = call('l2Normalize', {}, [x], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return y as Tensor<F>;
}
