// Pairs of images and texts: how they are split into runs, and put back in order.
import { Tensor } from '../tensor';

export interface Pair {
  /** Which of the run's images. */
  readonly image: number;
  /** Which of the call's texts. */
  readonly text: number;
  /** Where its row goes in the result. */
  readonly at: number;
}

/** Rows of a result, and where they go. */
export interface PairPart {
  readonly at: readonly number[];
}

/** Groups of pairs that have at most so many rows, or of one pair. */
export function groupPairs(pairs: readonly Pair[], rowsOf: (pair: Pair) => number, most: number): Pair[][] {
  const groups: Pair[][] = [];
  let rows = most;
  for (const pair of pairs) {
    const more = rowsOf(pair);
    if (rows + more > most) {
      groups.push([]);
      rows = 0;
    }
    groups.at(-1)!.push(pair);
    rows += more;
  }
  return groups;
}

/**
 * One tensor [n, width] of the parts' rows, each where it goes; the parts' tensors are given up.
 *
 * @throws {WarpsightError} the first failure of a part
 */
export async function inOrder<P extends PairPart>(
  parts: readonly P[],
  tensorOf: (part: P) => Tensor<'float32'>,
  width: number,
  device: string,
): Promise<Tensor<'float32'>> {
  const [only] = parts;
  if (only && parts.length === 1 && only.at.every((at, i) => at === i)) return tensorOf(only);
  const tensors = parts.map(tensorOf);
  try {
    const arrays = await Promise.all(tensors.map((tensor) => tensor.read()));
    const count = parts.reduce((sum, { at }) => sum + at.length, 0);
    const all = new Float32Array(count * width);
    parts.forEach(({ at }, p) => {
      at.forEach((row, i) => {
        all.set(arrays[p]!.subarray(i * width, (i + 1) * width), row * width);
      });
    });
    return Tensor.from(all, [count, width], { device });
  } finally {
    for (const tensor of tensors) tensor.dispose();
  }
}
