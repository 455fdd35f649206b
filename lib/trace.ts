import type { DType } from './dtype';
import { WarpsightError } from './errors';
import {
  type NativeOperand,
  type NativeProgramDescription,
  type NativeSlot,
  type NativeStep,
  type NativeTensor,
  native,
} from './native';
import { queueRun } from './queue-run';
import type { Shape } from './shape';
import { kFixed, type Leading, letGo, type Stored, Tensor } from './tensor';
import { Weight } from './weight';

/** An input of an operation: numbers that are computed, weights, or nothing. */
export type Operand = Tensor | Weight | undefined;

/** What an operation makes. `like`: the input whose varying first dimension the output follows; `times`: by how much it is larger. */
export interface OutputSpec<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: Shape;
  readonly like?: Tensor;
  readonly times?: number;
  /** Instead of `like`: the varying first dimension itself; its value must be given at each run. */
  readonly dim?: Dim | undefined;
}

/** A size that may be smaller at each run: the first dimension of inputs that share it, up to `max` (times `multiple`). */
export interface Dim {
  readonly name: string;
  readonly max: number;
  readonly multiple: number;
}

export type Params = NativeStep['params'];

/** The operations that a function calls, recorded in order: the description of a program. */
export class Trace {
  readonly slots: NativeSlot[] = [];
  readonly steps: NativeStep[] = [];
  readonly inputs: number[] = [];
  /** Stored tensors that the function uses without being given them, where they lie. Each counts as a view of them: the function may dispose its own. */
  readonly #bound = new Map<Stored, number>();

  readonly #dims: string[] = [];

  constructor(readonly device: string) {}

  /** The names of the sizes that vary, in the order of the symbols' values. */
  get dims(): readonly string[] {
    return this.#dims;
  }

  leadingOf({ name, multiple }: Dim): Leading {
    if (!this.#dims.includes(name)) this.#dims.push(name);
    return { symbol: this.#dims.indexOf(name), multiple };
  }

  input<D extends DType>(dtype: D, shape: Shape, leading: Leading): Tensor<D> {
    const slot = this.#addSlot(dtype, shape, leading);
    this.inputs.push(slot);
    return Tensor.traced(this, slot, leading, dtype, shape);
  }

  record(op: string, params: Params, inputs: readonly Operand[], outputs: readonly OutputSpec[]): Tensor[] {
    const operands = inputs.map((input) => this.#operand(input));
    const made = outputs.map((output) => {
      const leading = this.#outputLeading(output);
      return Tensor.traced(this, this.#addSlot(output.dtype, output.shape, leading), leading, output.dtype, output.shape);
    });
    this.steps.push({ op, params, inputs: operands, outputs: made.map((tensor) => this.#operand(tensor)) });
    return made;
  }

  describe(outputs: readonly Tensor[]): NativeProgramDescription {
    const made = new Set(
      this.steps.flatMap((step) => step.outputs.map((output) => (output && 'slot' in output ? output.slot : -1))),
    );
    const outputSlots = outputs.map((output) => {
      const { source } = output;
      if (source.kind !== 'traced' || source.trace !== this || !made.has(source.slot)) {
        throw new WarpsightError('ERR_ARGUMENT', 'compile: the function must return tensors that its operations made');
      }
      return source.slot;
    });
    return {
      symbols: this.#dims.length,
      slots: this.slots,
      inputs: this.inputs,
      outputs: outputSlots,
      bound: Array.from(this.#bound, ([{ handle }, slot]) => ({ slot, tensor: handle })),
      steps: this.steps,
      record: this.device !== 'cpu',
    };
  }

  /** To be called once the program is made, which keeps what it needs by itself. */
  release(): void {
    for (const source of this.#bound.keys()) letGo(source);
    this.#bound.clear();
  }

  #addSlot(dtype: DType, shape: Shape, leading: Leading): number {
    this.slots.push({ dtype, shape, ...leading });
    return this.slots.length - 1;
  }

  #outputLeading({ like, times = 1, dim }: OutputSpec): Leading {
    if (dim) return this.leadingOf(dim);
    const source = like?.source;
    if (source?.kind !== 'traced' || source.leading.symbol < 0) return kFixed;
    return { symbol: source.leading.symbol, multiple: source.leading.multiple * times };
  }

  #operand(operand: Operand): NativeOperand {
    if (!operand) return null;
    if (operand instanceof Weight) return operand.handle;
    const { source } = operand;
    if (source.kind === 'traced') {
      if (source.trace !== this) throw new WarpsightError('ERR_ARGUMENT', 'a tensor of another compiled function was used');
      return { slot: source.slot, shape: operand.shape, ...source.leading };
    }
    let slot = this.#bound.get(source);
    if (slot === undefined) {
      slot = this.#addSlot(operand.dtype, operand.shape, kFixed);
      this.#bound.set(source, slot);
      source.views++;
    }
    return { slot, shape: operand.shape, ...kFixed };
  }
}

/**
 * Calls an operation: recorded if one of its tensors belongs to a trace; otherwise queued at once, as a program of length one.
 * Shapes and dtypes have been checked by the caller in lib/ops.
 */
export function call(op: string, params: Params, inputs: readonly Operand[], outputs: readonly OutputSpec[]): Tensor[] {
  const tensors = inputs.filter((input) => input instanceof Tensor);
  const [first] = tensors;
  if (!first) throw new WarpsightError('ERR_ARGUMENT', `${op}: at least one tensor is needed`);
  for (const operand of inputs) {
    if (operand && operand.device !== first.device) {
      throw new WarpsightError(
        'ERR_DEVICE',
        `${op}: everything must be on one device: one input is on ${first.device}, another on ${operand.device}`,
      );
    }
  }
  const traced = tensors.map(({ source }) => source).find((source) => source.kind === 'traced');
  if (traced) return traced.trace.record(op, params, inputs, outputs);

  const trace = new Trace(first.device);
  const handles: NativeTensor[] = [];
  const operands = inputs.map((input) => {
    if (!(input instanceof Tensor) || input.source.kind !== 'stored') return input;
    handles.push(input.source.handle);
    return trace.input(input.dtype, input.shape, kFixed);
  });
  const made = trace.record(op, params, operands, outputs);
  const program = native.compile(first.device, { ...trace.describe(made), record: false });
  const results = queueRun(first.device, program, false, [], handles, null, null, null);
  native.dispose(program);
  return results.map((handle, i) => Tensor.stored(handle, outputs[i]!.dtype, outputs[i]!.shape, first.device));
}
