import type { Float } from '../dtype';
import { shapeError } from '../errors';
import { Tensor } from '../tensor';
import { call } from '../trace';
import { type Matrix, requireFloat, requireSame, type Vector, vectorOf, widthOf } from './operands';

/** Names as in the literature; `gelu` is the erf form, `geluTanh` its tanh approximation, `quickGelu` x·σ(1.702·x). */
export type Activation = 'none' | 'gelu' | 'geluTanh' | 'quickGelu' | 'silu' | 'relu' | 'tanh' | 'sigmoid';

export interface LinearOptions<F extends Float> {
  /** [N] */
  readonly bias?: Vector | undefined;
  /** 'none' by default; 'siluGate' for a weight [2·N, K] of gate and up */
  readonly activation?: Activation | 'siluGate' | undefined;
  /** [..., N], added after the activation */
  readonly residual?: Tensor<F> | undefined;
}

/**
 * act(x·Wᵀ + b) + r, in one kernel. With 'siluGate', the middle of a SwiGLU: silu(g)·u, the first N columns of x·Wᵀ + b being g and the other N u.
 *
 * @param x [..., K]
 * @param weight [N, K], a Weight (packed once) or a Tensor; with 'siluGate' a Weight [2·N, K]
 * @returns [..., N], the dtype of x
 * @throws {WarpsightError} ERR_SHAPE, ERR_DTYPE
 */
export function linear<F extends Float>(x: Tensor<F>, weight: Matrix, options: LinearOptions<F> = {}): Tensor<F> {
  const { bias, activation = 'none', residual } = options;
  requireFloat('linear', { x, ...(weight instanceof Tensor && { weight }), ...(residual && { residual }) });
  const [N, K] = weight.shape;
  if (weight.shape.length !== 2 || N === undefined || K === undefined)
    throw shapeError('linear', 'weight must be [N, K]', { weight: weight.shape });
  if (x.shape.length < 1 || widthOf(x.shape) !== K)
    throw shapeError('linear', 'inner dimensions must agree', { x: x.shape, weight: weight.shape });
  const gated = activation === 'siluGate';
  if (gated && (weight instanceof Tensor || N % 2 !== 0 || residual))
    throw shapeError('linear', 'siluGate takes a Weight [2·N, K] of gate and up, and no residual', { weight: weight.shape });
  const shape = [...x.shape.slice(0, -1), gated ? N / 2 : N];
  if (residual)
    requireSame(
      'linear',
      'residual must have the shape of the output',
      { name: 'residual', shape: residual.shape },
      { name: 'output', shape },
    );
  const inputs = [x, weight, vectorOf('linear', 'bias', bias, N, x.device), residual];
  const [y] = call('linear', { activation }, inputs, [{ dtype: x.dtype, shape, like: x }]);
  return y as Tensor<F>;
}
