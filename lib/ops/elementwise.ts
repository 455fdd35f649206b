import type { Float } from '../dtype';
import { shapeError } from '../errors';
import { sameShape } from '../shape';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import type { Activation } from './linear';
import { requireFloat, requireSame, widthOf } from './operands';

/** The activation by itself; inside a model `linear` carries it. */
export function activate<F extends Float>(x: Tensor<F>, activation: Activation): Tensor<F> {
  requireFloat('activate', { x });
  const [y] = call('activate', { activation }, [x], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return y as Tensor<F>;
}

export function sigmoid<F extends Float>(x: Tensor<F>): Tensor<F> {
  return activate(x, 'sigmoid');
}

/**
 * silu(gate)·up, elementwise: the middle of a SwiGLU.
 *
 * @param gate [...]; without `up` [R, 2·D], whose rows hold the gate and then up
 * @returns the shape of gate, or [R, D]
 * @see Shazeer 2020
 */
export function siluGate<F extends Float>(gate: Tensor<F>, up?: Tensor<F>): Tensor<F> {
  requireFloat('siluGate', { gate, ...(up && { up }) });
  if (!up) {
    const [R = 0, both = 0] = gate.shape;
    if (gate.shape.length !== 2 || both % 2 !== 0) throw shapeError('siluGate', 'gate must be [R, 2·D]', { gate: gate.shape });
    const [half] = call('siluGate', {}, [gate], [{ dtype: gate.dtype, shape: [R, both / 2], like: gate }]);
    return half as Tensor<F>;
  }
  requireSame(
    'siluGate',
    'gate and up must have the same shape',
    { name: 'gate', shape: gate.shape },
    { name: 'up', shape: up.shape },
  );
  const [y] = call('siluGate', {}, [gate, up], [{ dtype: gate.dtype, shape: gate.shape, like: gate }]);
  return y as Tensor<F>;
}

function binary<F extends Float>(arithmetic: 'add' | 'multiply' | 'maximum', x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  requireFloat(arithmetic, { x, y });
  const oneRow = y.shape.length === 1 && x.shape.length >= 1 && y.shape[0] === widthOf(x.shape);
  const numberEach = x.shape.length >= 1 && sameShape(y.shape, [...x.shape.slice(0, -1), 1]);
  if (!oneRow && !numberEach && !sameShape(x.shape, y.shape)) {
    const rule = 'y must have the shape of x, or be one of its rows, or have one number for each row: [..., 1]';
    throw shapeError(arithmetic, rule, { x: x.shape, y: y.shape });
  }
  const [z] = call('binary', { arithmetic }, [x, y], [{ dtype: x.dtype, shape: x.shape, like: x }]);
  return z as Tensor<F>;
}

/**
 * x + y.
 *
 * @param x [..., D]
 * @param y of the shape of x, or one row [D] that is added to each, or one number for each row: [..., 1]
 */
export function add<F extends Float>(x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  return binary('add', x, y);
}

/** x · y elementwise; y as in {@link add}. */
export function multiply<F extends Float>(x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  return binary('multiply', x, y);
}

/** The larger of x and y elementwise, NaN if either is; y as in {@link add}. */
export function maximum<F extends Float>(x: Tensor<F>, y: Tensor<F>): Tensor<F> {
  return binary('maximum', x, y);
}

/** The same values in another float dtype, rounded to the nearest, ties to even. */
export function cast<T extends Float>(x: Tensor<Float>, dtype: T): Tensor<T> {
  requireFloat('cast', { x });
  const [y] = call('cast', {}, [x], [{ dtype, shape: x.shape, like: x }]);
  return y as Tensor<T>;
}
