import type { Float } from '../dtype';
import { shapeError, WarpsightError } from '../errors';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import { requireFinite, requireFloat, requireInteger } from './operands';

export interface ScaledLogitsOptions {
  /** Added to every logit: SigLIP's learned bias. 0 by default */
  readonly bias?: number;
  /** The rows of y have unit length already. */
  readonly unit?: boolean;
}

/**
 * exp(logitScale)·cos(x_i, y_j) + bias.
 *
 * @param x [n, D]
 * @param y [m, D]
 * @param logitScale as checkpoints store it, before exp(): about ln 100
 * @returns [n, m] float32
 * @throws {WarpsightError} ERR_ARGUMENT if exp(logitScale) is not a finite float32
 * @see Radford et al. 2021, figure 3; Zhai et al. 2023 for the bias
 */
export function scaledLogits(
  x: Tensor<Float>,
  y: Tensor<Float>,
  logitScale: number,
  options: ScaledLogitsOptions = {},
): Tensor<'float32'> {
  const { bias = 0, unit = false } = options;
  const [n, m] = checkPairs('scaledLogits', x, y);
  const params = { multiplier: scaleOf('scaledLogits', logitScale), bias, yUnit: unit };
  const [logits] = call('scaledLogits', params, [x, y], [{ dtype: 'float32', shape: [n, m], like: x }]);
  return logits as Tensor<'float32'>;
}

export interface ZeroShotHeadOptions extends ScaledLogitsOptions {
  /** Each class by itself (SigLIP) instead of a softmax over the classes. */
  readonly sigmoid?: boolean;
  /** How many of the best classes; 1 by default */
  readonly k?: number;
}

/**
 * The k best classes of each row with their probabilities: softmax (or sigmoid) of {@link scaledLogits} over all classes, then top-k.
 *
 * @param x [n, D]
 * @param classes [m, D]
 * @returns scores [n, k] float32, falling, and indices [n, k] int32; of equal scores the smaller index comes first
 */
export function zeroShotHead(
  x: Tensor<Float>,
  classes: Tensor<Float>,
  logitScale: number,
  options: ZeroShotHeadOptions = {},
): { scores: Tensor<'float32'>; indices: Tensor<'int32'> } {
  const { bias = 0, unit = false, sigmoid = false, k = 1 } = options;
  const [n, m] = checkPairs('zeroShotHead', x, classes);
  requireInteger('zeroShotHead', 'k', k, 1, m);
  const params = { multiplier: scaleOf('zeroShotHead', logitScale), bias, yUnit: unit, sigmoid, k };
  const shape = [n, k];
  const [scores, indices] = call(
    'zeroShotHead',
    params,
    [x, classes],
    [
      { dtype: 'float32', shape, like: x },
      { dtype: 'int32', shape, like: x },
    ],
  );
  return { scores: scores as Tensor<'float32'>, indices: indices as Tensor<'int32'> };
}

function checkPairs(op: string, x: Tensor<Float>, y: Tensor<Float>): [n: number, m: number] {
  requireFloat(op, { x, y });
  if (x.shape.length !== 2 || y.shape.length !== 2 || x.shape[1] !== y.shape[1]) {
    throw shapeError(op, 'x must be [n, D] and y [m, D]', { x: x.shape, y: y.shape });
  }
  return [x.shape[0]!, y.shape[0]!];
}

function scaleOf(op: string, logitScale: number): number {
  requireFinite(op, 'logitScale', logitScale);
  const multiplier = Math.fround(Math.exp(logitScale));
  if (!Number.isFinite(multiplier)) {
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `${op}: exp(logitScale) overflows float32: logitScale is ${logitScale}; CLIP's is about 4.6`,
    );
  }
  return multiplier;
}
