import { type Counters, counters } from '../../lib';

/** What `fn` added to the counters. */
export async function executed(fn: () => Promise<unknown>): Promise<Counters> {
  const before = counters();
  await fn();
  return difference(counters(), before);
}

/**
 * The same once `fn` takes no more memory from the system, or at the latest of ten tries. A block is free again some moments after the promise of
 * what read it: where other programs want the cores it happens that one more is needed, but not for ever.
 */
export async function executedWarm(fn: () => Promise<unknown>): Promise<Counters> {
  let counts = await executed(fn);
  for (let i = 1; i < 10 && counts.deviceAllocations > 0; i++) counts = await executed(fn);
  return counts;
}

export function difference(after: Counters, before: Counters): Counters {
  const keys = Object.keys(before) as (keyof Counters)[];
  return Object.fromEntries(keys.map((key) => [key, after[key] - before[key]])) as Record<keyof Counters, number>;
}
