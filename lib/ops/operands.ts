import { type DType, type Float, isFloat } from '../dtype';
import { shapeError, WarpsightError } from '../errors';
import type { TypedArray } from '../native';
import { elements, type Shape, sameShape } from '../shape';
import { Tensor } from '../tensor';
import { Weight } from '../weight';

/** A bias, a norm's weight and the like: a weight, or numbers that become one at the call. */
export type Vector = Weight<'vector'> | Float32Array | readonly number[];

/** A matrix [N, K]: a weight, or a tensor that an operation made. */
export type Matrix = Weight<'matrix'> | Tensor<Float>;

export function toVector(vector: Vector, device: string): Weight<'vector'> {
  return vector instanceof Weight ? vector : Weight.vector(vector as TypedArray | readonly number[], { device });
}

/** The vector of `length` numbers that an operation wants, or undefined where none was given. */
export function vectorOf(
  op: string,
  name: string,
  vector: Vector | undefined,
  length: number,
  device: string,
): Weight<'vector'> | undefined {
  if (vector === undefined) return undefined;
  const weight = toVector(vector, device);
  if (weight.layout !== 'vector' || elements(weight.shape) !== length) {
    throw shapeError(op, `${name} must be a vector of ${length}`, { [name]: weight.shape });
  }
  return weight;
}

/** All dimensions but the last as one: [2, 77, 512] has 154 rows of 512. */
export function rowsOf(shape: Shape): number {
  return elements(shape.slice(0, -1));
}

export function widthOf(shape: Shape): number {
  return shape.at(-1) ?? 1;
}

export function requireFloat(op: string, tensors: Readonly<Record<string, Tensor>>): void {
  let first: DType | undefined;
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!(tensor instanceof Tensor)) throw new WarpsightError('ERR_ARGUMENT', `${op}: ${name} must be a Tensor`);
    if (!isFloat(tensor.dtype))
      throw new WarpsightError('ERR_DTYPE', `${op}: ${name} must be a float tensor: it is ${tensor.dtype}`);
    first ??= tensor.dtype;
    if (tensor.dtype !== first)
      throw new WarpsightError(
        'ERR_DTYPE',
        `${op}: all tensors must have one dtype: ${name} is ${tensor.dtype}, the first is ${first}`,
      );
    if (tensor.device === 'cpu' && tensor.dtype !== 'float32' && op !== 'cast') {
      throw new WarpsightError('ERR_DTYPE', `${op}: the CPU computes in float32: ${name} is ${tensor.dtype}; use ops.cast`);
    }
  }
}

export function requireInt32(op: string, name: string, tensor: Tensor): void {
  if (!(tensor instanceof Tensor)) throw new WarpsightError('ERR_ARGUMENT', `${op}: ${name} must be a Tensor`);
  if (tensor.dtype !== 'int32') throw new WarpsightError('ERR_DTYPE', `${op}: ${name} must be int32: it is ${tensor.dtype}`);
}

export function requireRank(op: string, name: string, tensor: Tensor, rank: number, form: string): void {
  if (tensor.shape.length !== rank) throw shapeError(op, `${name} must be ${form}`, { [name]: tensor.shape });
}

export function requireAtLeastOne(op: string, name: string, tensor: Tensor): void {
  if (tensor.shape.length < 1) throw shapeError(op, `${name} must have at least one dimension`, { [name]: tensor.shape });
}

export function requireSame(
  op: string,
  rule: string,
  a: { name: string; shape: Shape },
  b: { name: string; shape: Shape },
): void {
  if (!sameShape(a.shape, b.shape)) throw shapeError(op, rule, { [a.name]: a.shape, [b.name]: b.shape });
}

export function requireFinite(op: string, name: string, value: number): void {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw new WarpsightError('ERR_ARGUMENT', `${op}: ${name} must be a finite number: it is ${value}`);
}

export function requireInteger(op: string, name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new WarpsightError('ERR_ARGUMENT', `${op}: ${name} must be a whole number from ${min} to ${max}: it is ${value}`);
  }
}
