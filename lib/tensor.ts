import type { ArrayOf, DType } from './dtype';
import { WarpsightError } from './errors';
import { type NativeTensor, native, type TypedArray } from './native';
import { elements, type Shape } from './shape';
import type { Trace } from './trace';

/** A leading dimension that is known only when a program runs: size = multiple · the symbol's value. symbol −1: a fixed size. */
export interface Leading {
  readonly symbol: number;
  readonly multiple: number;
}

export const kFixed: Leading = { symbol: -1, multiple: 1 };

/** @internal Memory that the addon owns, shared by a tensor and its reshaped views; freed with the last of them. */
export interface Stored {
  readonly kind: 'stored';
  readonly handle: NativeTensor;
  views: number;
}

/** A value inside a function that is being traced: it has no numbers yet. */
interface Traced {
  readonly kind: 'traced';
  readonly trace: Trace;
  readonly slot: number;
  readonly leading: Leading;
}

export interface TensorOptions {
  /** 'cpu' by default, or 'cuda:0' … */
  readonly device?: string;
  /** By default what the array's type says: Float32Array float32, Int32Array int32, Uint8Array uint8. Uint16Array holds the bits of float16 or bfloat16. */
  readonly dtype?: DType;
}

let openScopes: Tensor[][] = [];

/**
 * A handle to numbers on a device: dtype, shape and a reference to memory that the addon owns. Operations on it return at once and are queued in
 * order; only {@link Tensor.read} waits. A failure that comes later (out of memory, a lost device) is inherited by everything computed from the
 * tensor, and `read()` rejects with it.
 */
export class Tensor<D extends DType = DType> {
  readonly shape: Shape;
  readonly dtype: D;
  /** 'cpu', 'cuda:0' */
  readonly device: string;
  #source: Stored | Traced | undefined;

  private constructor(source: Stored | Traced, dtype: D, shape: Shape, device: string) {
    this.#source = source;
    this.dtype = dtype;
    this.shape = shape;
    this.device = device;
    openScopes.at(-1)?.push(this as Tensor);
  }

  /**
   * Copies numbers to a device.
   *
   * @param data a typed array of prod(shape) elements; it may be changed as soon as the call has returned
   * @throws {WarpsightError} ERR_SHAPE if the length disagrees with the shape, ERR_DTYPE if the array can't hold the dtype, ERR_DEVICE
   */
  static from<D extends DType = DType>(
    data: TypedArray | readonly number[],
    shape: Shape,
    options: TensorOptions & { dtype: D },
  ): Tensor<D>;
  static from(data: Float32Array | readonly number[], shape: Shape, options?: TensorOptions): Tensor<'float32'>;
  static from(data: Int32Array, shape: Shape, options?: TensorOptions): Tensor<'int32'>;
  static from(data: Uint8Array, shape: Shape, options?: TensorOptions): Tensor<'uint8'>;
  static from(data: TypedArray, shape: Shape, options?: TensorOptions): Tensor;
  static from(data: TypedArray | readonly number[], shape: Shape, options: TensorOptions = {}): Tensor {
    const { device = 'cpu' } = options;
    checkShape(shape);
    const { array, dtype } = toTypedArray(data, options.dtype);
    if (array.length !== elements(shape)) {
      throw new WarpsightError(
        'ERR_SHAPE',
        `Tensor.from: the data has ${array.length} elements, the shape [${shape.join(', ')}] needs ${elements(shape)}`,
      );
    }
    return Tensor.stored(native.createTensor(device, dtype, shape, array), dtype, shape, device);
  }

  /** @internal Memory for `shape` whose numbers are not defined until operations write them in place. */
  static reserve<D extends DType>(dtype: D, shape: Shape, device: string): Tensor<D> {
    checkShape(shape);
    return Tensor.stored(native.createTensor(device, dtype, shape, null), dtype, shape, device);
  }

  /** @internal */
  static stored<D extends DType>(handle: NativeTensor, dtype: D, shape: Shape, device: string): Tensor<D> {
    return new Tensor({ kind: 'stored', handle, views: 1 }, dtype, shape, device);
  }

  /** @internal */
  static traced<D extends DType>(trace: Trace, slot: number, leading: Leading, dtype: D, shape: Shape): Tensor<D> {
    return new Tensor({ kind: 'traced', trace, slot, leading }, dtype, shape, trace.device);
  }

  /** @internal The value inside a trace, or the memory; throws once disposed. */
  get source(): Stored | Traced {
    if (!this.#source)
      throw new WarpsightError('ERR_DISPOSED', `a tensor [${this.shape.join(', ')}] ${this.dtype} was used after dispose()`);
    return this.#source;
  }

  get disposed(): boolean {
    return this.#source === undefined;
  }

  /**
   * Waits for the numbers and copies them out; 16-bit floats are widened to float32.
   *
   * @returns a new array of prod(shape) elements, row-major; below 1 MiB its buffer can be transferred to another thread, above only copied
   * @throws {WarpsightError} the first failure that this tensor depends on
   */
  async read(): Promise<ArrayOf<D>> {
    const { source } = this;
    if (source.kind === 'traced')
      throw new WarpsightError('ERR_ARGUMENT', 'read: a tensor inside a compiled function has no numbers yet');
    return (await native.readTensor(source.handle)) as ArrayOf<D>;
  }

  /** Like {@link Tensor.read}, one array for each row of the last dimension. */
  async rows(): Promise<ArrayOf<D>[]> {
    const all = await this.read();
    const width = this.shape.at(-1) ?? 1;
    const count = width === 0 ? 0 : all.length / width;
    return Array.from({ length: count }, (_, row) => all.subarray(row * width, (row + 1) * width) as ArrayOf<D>);
  }

  /** The same numbers in another shape; both handles share the memory, and each is disposed by itself. */
  reshape(shape: Shape): Tensor<D> {
    checkShape(shape);
    if (elements(shape) !== elements(this.shape)) {
      throw new WarpsightError('ERR_SHAPE', `reshape: [${this.shape.join(', ')}] can't become [${shape.join(', ')}]`);
    }
    const { source } = this;
    if (source.kind === 'stored') {
      source.views++;
      return new Tensor(source, this.dtype, shape, this.device);
    }
    return new Tensor({ ...source, leading: regroup(source.leading, this.shape, shape) }, this.dtype, shape, this.device);
  }

  /** Lets the memory go once everything that was queued before has run. Safe at any time, and again. */
  dispose(): void {
    const source = this.#source;
    this.#source = undefined;
    if (source?.kind === 'stored') letGo(source);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @internal One view fewer. */
export function letGo(source: Stored): void {
  if (--source.views === 0) native.dispose(source.handle);
}

function regroup(leading: Leading, from: Shape, to: Shape): Leading {
  if (leading.symbol < 0) return leading;
  const multiple = ((to[0] ?? 1) * leading.multiple) / (from[0] ?? 1);
  if (!Number.isInteger(multiple)) {
    throw new WarpsightError(
      'ERR_SHAPE',
      `reshape: the size that varies in [${from.join(', ')}] must stay in the first dimension of [${to.join(', ')}]`,
    );
  }
  return { symbol: leading.symbol, multiple };
}

function checkShape(shape: Shape): void {
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0) || shape.length > 6) {
    throw new WarpsightError('ERR_SHAPE', `a shape is at most 6 whole numbers >= 0: it is [${shape.join(', ')}]`);
  }
}

function toTypedArray(data: TypedArray | readonly number[], dtype: DType | undefined): { array: TypedArray; dtype: DType } {
  if (Array.isArray(data)) {
    const of = dtype ?? 'float32';
    if (of === 'float32') return { array: Float32Array.from(data), dtype: of };
    if (of === 'int32') return { array: Int32Array.from(data), dtype: of };
    if (of === 'uint8') return { array: Uint8Array.from(data), dtype: of };
    throw new WarpsightError('ERR_DTYPE', `Tensor.from: ${of} needs a Uint16Array that holds the bits`);
  }
  const array = data as TypedArray;
  // By name, not instanceof: an array of another realm (jest, vm) is as good.
  const name = Object.prototype.toString.call(array).slice(8, -1);
  const natural: Partial<Record<string, readonly DType[]>> = {
    Float32Array: ['float32'],
    Int32Array: ['int32'],
    Uint8Array: ['uint8'],
    Uint8ClampedArray: ['uint8'],
    Uint16Array: ['float16', 'bfloat16'],
  };
  const fits = natural[name];
  if (!fits)
    throw new WarpsightError('ERR_DTYPE', `Tensor.from: data must be a typed array or an array of numbers: it is ${name}`);
  const chosen = dtype ?? (name === 'Uint16Array' ? undefined : fits[0]);
  if (!chosen || !fits.includes(chosen)) {
    throw new WarpsightError(
      'ERR_DTYPE',
      `Tensor.from: a ${name} holds ${fits.join(' or ')}, the dtype asked for is ${chosen ?? 'not given'}`,
    );
  }
  return { array, dtype: chosen };
}

type Scoped = Tensor | readonly Tensor[] | Readonly<Record<string, Tensor>> | undefined;

/**
 * Runs `fn` and disposes every tensor made in it but what it returns (a tensor, an array or an object of tensors).
 * `fn` is synchronous: operations return at once.
 */
export function scope<R extends Scoped>(fn: () => R): R {
  const made: Tensor[] = [];
  openScopes = [...openScopes, made];
  let kept: readonly Tensor[] = [];
  try {
    const result = fn();
    kept = tensorsOf(result);
    return result;
  } finally {
    openScopes = openScopes.slice(0, -1);
    for (const tensor of made) if (!kept.includes(tensor)) tensor.dispose();
    openScopes.at(-1)?.push(...kept.filter((tensor) => made.includes(tensor)));
  }
}

function tensorsOf(result: Scoped): readonly Tensor[] {
  if (result instanceof Tensor) return [result];
  if (result && typeof result === 'object') return Object.values(result).filter((value) => value instanceof Tensor);
  return [];
}
