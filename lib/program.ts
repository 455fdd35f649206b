import type { DType } from './dtype';
import { abortError, WarpsightError } from './errors';
import {
  type NativeFlag,
  type NativeInput,
  type NativeProgram,
  type NativeTensor,
  native,
  type StepInfo,
  type TypedArray,
} from './native';
import { rated, type StepProfile, writeTrace } from './profile';
import { queueRun } from './queue-run';
import { elements, type Shape } from './shape';
import { kFixed, type Leading, Tensor } from './tensor';
import { type Dim, Trace } from './trace';

/** A first dimension that varies between runs: `dim('n', 8)` is any n <= 8; `dim('n', 8, 50)` is 50·n rows of the same n. */
export function dim(name: string, max: number, multiple = 1): Dim {
  return { name, max, multiple };
}

export interface InputSpec {
  readonly shape: readonly [first: number | Dim, ...rest: number[]] | readonly number[];
  /** float32 by default */
  readonly dtype?: DType;
}

export type ProgramResult = Tensor | readonly Tensor[] | Readonly<Record<string, Tensor>>;

export interface LaunchOptions {
  /** Value of each dimension that varies; those of inputs given as tensors or arrays of one piece are known from their lengths. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** Long work that may let short calls of other lanes go first between steps. */
  readonly bulk?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Tensors that receive the outputs, in the order in which the function returns them; nothing is allocated then. */
  readonly out?: readonly Tensor[];
}

export interface ProfileOptions extends Pick<LaunchOptions, 'sizes'> {
  /** A file for the times as a Chrome trace, which chrome://tracing and ui.perfetto.dev show. */
  readonly trace?: string;
}

/** Arrays that are read later where they lie: nobody may change them until the run is done. */
export class Borrowed {
  /** @param done told when that is; once for each run that was queued */
  constructor(
    readonly pieces: readonly TypedArray[],
    readonly done?: () => void,
  ) {}
}

export type ProgramInput = Tensor | TypedArray | Borrowed;

interface InputSlot {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly leading: Leading;
}

/** A traced function, replayed with one native call. */
export class Program<R extends ProgramResult = ProgramResult> {
  /** The planned steps in order: operation, kernel chosen, floating-point operations and bytes at the largest sizes. */
  readonly steps: readonly StepInfo[];
  readonly #device: string;
  readonly #inputs: readonly InputSlot[];
  readonly #names: readonly string[];
  readonly #outputs: readonly Tensor[];
  readonly #rebuild: (tensors: readonly Tensor[]) => R;
  #handle: NativeProgram | undefined;

  /** @internal */
  constructor(
    device: string,
    handle: NativeProgram,
    inputs: readonly InputSlot[],
    names: readonly string[],
    outputs: readonly Tensor[],
    rebuild: (tensors: readonly Tensor[]) => R,
  ) {
    this.#device = device;
    this.#handle = handle;
    this.#inputs = inputs;
    this.#names = names;
    this.#outputs = outputs;
    this.#rebuild = rebuild;
    this.steps = native.programSteps(handle);
  }

  /**
   * Queues one run and returns its outputs; what goes wrong later shows when they are read.
   *
   * @param inputs tensors of the program's device, or typed arrays (copied before the call returns), in the order of the function's parameters
   * @throws {WarpsightError} ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_DISPOSED
   */
  async run(inputs: readonly ProgramInput[], options: LaunchOptions = {}): Promise<R> {
    return this.launch(inputs, options);
  }

  /** @internal The same without a promise. */
  launch(inputs: readonly ProgramInput[], options: LaunchOptions = {}): R {
    const { signal, out } = options;
    if (signal?.aborted) throw abortError(signal);
    const symbols = this.#symbols(inputs, options.sizes ?? {});
    const flag = signal ? flagOf(signal) : null;
    const outHandles = out?.map((tensor) => storedHandle(tensor, this.#device));
    const handles = queueRun(
      this.#device,
      this.#live(),
      options.bulk ?? false,
      symbols,
      this.#nativeInputs(inputs),
      outHandles ?? null,
      flag,
      inputs.find((input) => input instanceof Borrowed)?.done ?? null,
    );
    if (out) return this.#rebuild(out);
    return this.#rebuild(handles.map((handle, i) => this.#wrap(handle, i, symbols)));
  }

  /**
   * Runs once and says what the device took for each step: on CUDA the time between events around it, launches and not a
   * graph, so that no kernel starts before the one in front of it has ended. The first run of a kernel is slower: run the program before.
   *
   * @returns the steps in order, with times and the share of the roofline; {@link Device.peaks} says what that is measured against
   * @throws {WarpsightError} as run(); ERR_ARGUMENT if the trace can't be written
   */
  async profile(inputs: readonly ProgramInput[], options: ProfileOptions = {}): Promise<StepProfile[]> {
    const symbols = this.#symbols(inputs, options.sizes ?? {});
    const times = await native.profile(this.#live(), false, symbols, this.#nativeInputs(inputs));
    const steps = await rated(this.#device, this.steps, times);
    if (options.trace !== undefined) await writeTrace(options.trace, [{ name: 'program', device: this.#device, steps }]);
    return steps;
  }

  dispose(): void {
    if (this.#handle) native.dispose(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): NativeProgram {
    if (!this.#handle) throw new WarpsightError('ERR_DISPOSED', 'the program was used after dispose()');
    return this.#handle;
  }

  #nativeInputs(inputs: readonly ProgramInput[]): NativeInput[] {
    return inputs.map((input): NativeInput => {
      if (input instanceof Tensor) return storedHandle(input, this.#device);
      return input instanceof Borrowed ? input.pieces : input;
    });
  }

  #symbols(inputs: readonly ProgramInput[], sizes: Readonly<Record<string, number>>): number[] {
    if (inputs.length !== this.#inputs.length) {
      throw new WarpsightError('ERR_ARGUMENT', `the program takes ${this.#inputs.length} inputs, ${inputs.length} were given`);
    }
    const values = this.#names.map((name) => sizes[name]);
    inputs.forEach((input, i) => {
      const { shape, leading, dtype } = this.#inputs[i]!;
      if (input instanceof Tensor && input.dtype !== dtype) {
        throw new WarpsightError('ERR_DTYPE', `input ${i} is ${input.dtype}, the program takes ${dtype}`);
      }
      const fixed = leading.symbol < 0;
      if (input instanceof Tensor) {
        const fits =
          input.shape.length === shape.length && input.shape.every((size, d) => (d === 0 && !fixed) || size === shape[d]);
        if (!fits) {
          const planned = fixed ? shape.join(', ') : [`<=${shape[0]}`, ...shape.slice(1)].join(', ');
          throw new WarpsightError('ERR_SHAPE', `input ${i} is [${input.shape.join(', ')}], the program takes [${planned}]`);
        }
      }
      if (fixed || values[leading.symbol] !== undefined) return;
      const inner = elements(shape.slice(1)) * leading.multiple;
      values[leading.symbol] = lengthOf(input) / Math.max(inner, 1);
    });
    return values.map((value, symbol) => {
      if (value === undefined || !Number.isInteger(value) || value < 0) {
        throw new WarpsightError('ERR_SHAPE', `the size "${this.#names[symbol]}" must be a whole number: it is ${value}`);
      }
      return value;
    });
  }

  #wrap(handle: NativeTensor, index: number, symbols: readonly number[]): Tensor {
    const output = this.#outputs[index]!;
    const { source } = output;
    const leading = source.kind === 'traced' ? source.leading : kFixed;
    const shape = leading.symbol < 0 ? output.shape : [leading.multiple * symbols[leading.symbol]!, ...output.shape.slice(1)];
    return Tensor.stored(handle, output.dtype, shape, this.#device);
  }
}

// One flag and one listener for each signal, however many runs it governs.
const flags = new WeakMap<AbortSignal, NativeFlag>();

/** @internal The native flag that is set when the signal fires. */
export function flagOf(signal: AbortSignal): NativeFlag {
  let flag = flags.get(signal);
  if (!flag) {
    const made = native.abortFlag();
    const abort = (): void => {
      flags.delete(signal); // the runs hold it: a reason that leads back to its signal must not keep both alive
      native.abort(made, { cause: signal.reason });
    };
    signal.addEventListener('abort', abort, { once: true });
    flags.set(signal, made);
    flag = made;
  }
  return flag;
}

function lengthOf(input: ProgramInput): number {
  if (input instanceof Tensor) return elements(input.shape);
  if (input instanceof Borrowed) return input.pieces.reduce((sum, piece) => sum + piece.length, 0);
  return input.length;
}

function storedHandle(tensor: Tensor, device: string): NativeTensor {
  const { source } = tensor;
  if (source.kind === 'traced')
    throw new WarpsightError('ERR_ARGUMENT', 'a tensor inside a compiled function has no numbers yet');
  if (tensor.device !== device)
    throw new WarpsightError('ERR_DEVICE', `the tensor is on ${tensor.device}, the program on ${device}`);
  return source.handle;
}

/** @internal */
export function compile<R extends ProgramResult>(
  device: string,
  fn: (...inputs: Tensor[]) => R,
  specs: readonly InputSpec[],
): Program<R> {
  const trace = new Trace(device);
  const inputs = specs.map(({ shape: [first, ...rest], dtype = 'float32' }): InputSlot => {
    const inner = rest as readonly number[];
    if (typeof first === 'object')
      return { dtype, shape: [first.max * first.multiple, ...inner], leading: trace.leadingOf(first) };
    return { dtype, shape: first === undefined ? [] : [first, ...inner], leading: kFixed };
  });
  try {
    const result = fn(...inputs.map(({ dtype, shape, leading }) => trace.input(dtype, shape, leading)));
    const { outputs, rebuild } = flatten(result);
    const handle = native.compile(device, trace.describe(outputs));
    return new Program(device, handle, inputs, trace.dims, outputs, rebuild);
  } finally {
    trace.release();
  }
}

function flatten<R extends ProgramResult>(result: R): { outputs: readonly Tensor[]; rebuild: (tensors: readonly Tensor[]) => R } {
  if (result instanceof Tensor) return { outputs: [result], rebuild: ([only]) => only as unknown as R };
  if (Array.isArray(result)) return { outputs: result, rebuild: (tensors) => [...tensors] as unknown as R };
  const keys = Object.keys(result);
  return {
    outputs: Object.values(result as Readonly<Record<string, Tensor>>),
    rebuild: (tensors) => Object.fromEntries(keys.map((key, i) => [key, tensors[i]])) as unknown as R,
  };
}
