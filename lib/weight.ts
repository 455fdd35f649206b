import type { DType, Quantization } from './dtype';
import { WarpsightError } from './errors';
import { type NativeWeight, native, type TypedArray, type WeightLayout } from './native';
import { elements, type Shape } from './shape';

export interface WeightOptions {
  readonly device?: string;
  /** How `data` is stored: float32 by default; a Uint16Array holds the bits of float16 or bfloat16. */
  readonly dtype?: 'float32' | 'float16' | 'bfloat16';
  /**
   * The dtype of the activations it will meet: float32 by default. On the CPU they are float32 always; 'bfloat16' then has a matrix multiplied in
   * bfloat16 (ERR_DTYPE where the processor has no AVX-512).
   */
  readonly compute?: 'float32' | 'float16' | 'bfloat16';
}

export interface MatrixOptions extends WeightOptions {
  /** 'none' by default. 'int8' on the CPU only, and for at most 65,536 columns. */
  readonly quantization?: Quantization;
}

/**
 * Numbers that a model was trained to: made once, in the layout that the device's kernels want, and never changed. A weight is not a tensor: it can't
 * be read back. Models that load the same file share one copy, in all worker threads.
 */
export class Weight<Layout extends WeightLayout = WeightLayout> {
  readonly layout: Layout;
  /** [N, K] for a matrix, [N] for a vector, [V, D] for a table */
  readonly shape: Shape;
  readonly device: string;
  #handle: NativeWeight | undefined;

  private constructor(layout: Layout, shape: Shape, device: string, handle: NativeWeight | undefined) {
    this.layout = layout;
    this.shape = shape;
    this.device = device;
    this.#handle = handle;
  }

  /**
   * A matrix [N, K] that is multiplied as x·Wᵀ. The call packs it before it returns.
   *
   * @throws {WarpsightError} ERR_SHAPE if the data has another size; ERR_DTYPE if the device has no kernel for the quantization
   */
  static matrix(data: TypedArray, shape: Shape, options: MatrixOptions = {}): Weight<'matrix'> {
    return Weight.#create('matrix', data, shape, 2, options);
  }

  /** A vector of any shape: a bias, a norm's weight. */
  static vector(data: TypedArray | readonly number[], options: WeightOptions = {}): Weight<'vector'> {
    const array: TypedArray = Array.isArray(data) ? Float32Array.from(data) : (data as TypedArray);
    return Weight.#create('vector', array, [array.length], 1, options);
  }

  /** A table [V, D] whose rows are gathered by `ops.embed`. */
  static table(data: TypedArray, shape: Shape, options: WeightOptions = {}): Weight<'table'> {
    return Weight.#create('table', data, shape, 2, options);
  }

  static #create<L extends WeightLayout>(
    layout: L,
    data: TypedArray,
    shape: Shape,
    rank: number,
    options: MatrixOptions,
  ): Weight<L> {
    const { device = 'cpu', dtype = 'float32', compute = 'float32', quantization = 'none' } = options;
    if (shape.length !== rank || elements(shape) !== data.length) {
      throw new WarpsightError(
        'ERR_SHAPE',
        `Weight.${layout}: the data has ${data.length} elements, the shape is [${shape.join(', ')}]`,
      );
    }
    const [rows = 1, columns = 1] = shape;
    const handle = native.createWeight(device, layout, dtype, compute, quantization, rows, columns, data);
    return new Weight(layout, shape, device, handle);
  }

  /** @internal A weight that a loader fills in later. */
  static pending<L extends WeightLayout>(layout: L, shape: Shape, device: string): Weight<L> {
    return new Weight(layout, shape, device, undefined);
  }

  /** @internal */
  fill(handle: NativeWeight): void {
    this.#handle = handle;
  }

  /** @internal */
  get handle(): NativeWeight {
    if (!this.#handle)
      throw new WarpsightError(
        'ERR_DISPOSED',
        `a weight [${this.shape.join(', ')}] was used after dispose(), or before it was loaded`,
      );
    return this.#handle;
  }

  /** Size on the device and the dtype it is kept in there. */
  get info(): { readonly dtype: DType | 'int8'; readonly bytes: number } {
    return native.weightInfo(this.handle);
  }

  /** Lets go of it; the memory is freed when no model and no queued work uses it. Safe again. */
  dispose(): void {
    if (this.#handle) native.dispose(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
