import { threads } from '../device';
import type { Float } from '../dtype';
import { LruCache } from '../lru';
import { cast } from '../ops';
import type { Program, ProgramResult } from '../program';
import type { Tensor } from '../tensor';

/** Sizes are rounded up to buckets, so that few programs serve all of them; programs run with the actual sizes. */
export function bucket(size: number, smallest: number, factor: number): number {
  let limit = smallest;
  while (limit < size) limit *= factor;
  return limit;
}

const kMostRows = 16_384;
const kMostRowsPerThread = 512;

/**
 * Rows of activations in one run: beyond them the work goes in several. On the CPU a short call waits for the step that runs, so a step has to
 * end soon; so many rows are multiplied as fast as more would be.
 */
export function mostRows(device: string): number {
  return device === 'cpu' ? Math.min(kMostRows, kMostRowsPerThread * threads()) : kMostRows;
}

/** Programs of one model, by what they compute and their buckets; those used last are kept. */
export type ProgramCache = LruCache<string, Program<ProgramResult>>;

export function programCache(capacity = 16): ProgramCache {
  return new LruCache(capacity, (program) => program.dispose());
}

/** 16-bit results are widened: what users get is float32. */
export function toFloat32(x: Tensor<Float>): Tensor<'float32'> {
  return x.dtype === 'float32' ? (x as Tensor<'float32'>) : cast(x, 'float32');
}
