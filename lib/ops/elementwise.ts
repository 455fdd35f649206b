import type { Float } from '../dtype';
import { shapeError } from '../errors';
import { sameShape } from '../shape';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import type { Activation } from './linear';
import {
  requireFinite,
  requireFloat,
  requireInt32,
  requireInteger,
  requireRank,
  requireSame,
  type Vector,
  vectorOf,
  widthOf,
} from './operands';

/** The activation by itself; inside a model `linear` carries it. */
export function activate<F extends Float>(x: Tensor<F>, activation: Activation): Tensor<F> {
  requireFloat('activate', { x });
  const [y] = call('activate', { activation }, [x], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return y as Tensor<F>;
}

export function sigmoid<F extends Float>(x: Tensor<F>): Tensor<F> {
  return activate(x, 'sigmoid');
}

/** silu(gate)·up, elementwise: the middle of a SwiGLU. */
export function siluGate<F extends Float>(gate: Tensor<F>, up: Tensor<F>): Tensor<F> {
  requireFloat('siluGate', { gate, up });
  requireSame(
    'siluGate',
    'gate and up must have the same shape',
    { name: 'gate', shape: gate.shape },
    { name: 'up', shape: up.shape },
  );
  const [y] = call('siluGate', {}, [gate, up], [{ dtype: gate.dtype, shape: gate.shape, like: gate }]);
  return y as Tensor<F>;
}

function binary<F extends Float>(arithmetic: 'add' | 'multiply', x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  requireFloat(arithmetic, { x, y });
  const oneRow = y.shape.length === 1 && x.shape.length >= 1 && y.shape[0] === widthOf(x.shape);
  if (!oneRow && !sameShape(x.shape, y.shape))
    throw shapeError(arithmetic, 'y must have the shape of x, or be one of its rows', { x: x.shape, y: y.shape });
  const [z] = call('binary', { arithmetic }, [x, y], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return z as Tensor<F>;
}

/** x + y; y has the shape of x, or is one row [D] that is added to each. */
export function add<F extends Float>(x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  return binary('add', x, y);
}

/** x · y elementwise; y has the shape of x, or is one row [D]. */
export function multiply<F extends Float>(x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  return binary('multiply', x, y);
}

/** The same values in another float dtype, rounded to the nearest, ties to even. */
export function cast<T extends Float>(x: Tensor<Float>, dtype: T): Tensor<T> {
  requireFloat('cast', { x });
  const [y] = call('cast', {}, [x], [{ dtype, shape: x.shape, like: x }]);
  return y as Tensor<T>;
}

/**
 * Rotary position embedding in the form of Llama checkpoints on the Hub: component i turns with component i + d/2 by position · frequency[i].
 *
 * @param x [T, H, d], d even
 * @param positions [T] int32
 * @param frequencies [d/2], theta^(−2i/d), scaled as the checkpoint says
 * @see Su et al. 2021
 */
export function rope<F extends Float>(x: Tensor<F>, positions: Tensor<'int32'>, frequencies: Vector): Tensor<F> {
  requireFloat('rope', { x });
  requireInt32('rope', 'positions', positions);
  requireRank('rope', 'x', x, 3, '[T, H, d]');
  const [T, , d] = x.shape as [number, number, number];
  if (d % 2 !== 0 || positions.shape.length !== 1 || positions.shape[0] !== T) {
    throw shapeError('rope', 'x must be [T, H, d] with d even, positions [T]', { x: x.shape, positions: positions.shape });
  }
  const [y] = call(
    'rope',
    {},
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
