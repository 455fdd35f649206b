import { WarpsightError } from '../errors';
import { elements, type Shape, sameShape } from '../shape';
import type { CheckpointTensor } from './folder';

/** A tensor that a model needs, by canonical name. A scalar, [], may be stored as [1]. */
export type ExpectedTensor = readonly [name: string, shape: Shape];

/** Layers whose tensors are named `${prefix}0.…`, `${prefix}1.…`. */
export interface LayerStack {
  /** As messages name it. */
  readonly name: string;
  readonly prefix: string;
  readonly layers: number;
}

/**
 * Compares a checkpoint with what its config needs, so that nothing stays unfilled and nothing is read that isn't there.
 *
 * @param hint said behind the message of a missing tensor
 * @throws {WarpsightError} ERR_CHECKPOINT: a tensor is missing, of another shape, no float, or of a layer that the config doesn't have
 */
export function checkTensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  expected: Iterable<ExpectedTensor>,
  stacks: readonly LayerStack[],
  hint: (missing: string) => string = () => '',
): void {
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (!tensor) throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no tensor "${name}"${hint(name)}`);
    const { stored, fileName } = tensor;
    const says = `checkpoint "${fileName}": "${stored.name}" is`;
    const same = shape.length === 0 ? stored.shape.length <= 1 && elements(stored.shape) === 1 : sameShape(stored.shape, shape);
    if (!same) {
      throw new WarpsightError('ERR_CHECKPOINT', `${says} [${stored.shape.join(', ')}], the config says [${shape.join(', ')}]`);
    }
    if (!['F32', 'F16', 'BF16'].includes(stored.dtype)) {
      throw new WarpsightError('ERR_CHECKPOINT', `${says} ${stored.dtype}; weights must be F32, F16 or BF16`);
    }
  }
  // A config with too few layers would give plausible, wrong numbers.
  for (const [name, { stored, fileName }] of tensors) {
    const stack = stacks.find(({ prefix }) => name.startsWith(prefix));
    if (!stack || !(Number.parseInt(name.slice(stack.prefix.length), 10) >= stack.layers)) continue;
    throw new WarpsightError(
      'ERR_CHECKPOINT',
      `checkpoint "${fileName}": it has "${stored.name}", but the config says that ${stack.name} has ${stack.layers} layers`,
    );
  }
}
