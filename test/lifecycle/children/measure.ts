// What a child process measures of itself.
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { getHeapStatistics } from 'node:v8';
import { residentBytes } from '../../../bench/resident';

export { forgetPeak, peakBytes, residentBytes } from '../../../bench/resident';

declare const gc: () => void;

/** Collects garbage until finalisers have run too: they are called between turns of the event loop. */
export async function collect(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    gc();
    await sleep(5);
  }
}

export function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}

export function threadCount(): number {
  return readdirSync('/proc/self/task').length;
}

/**
 * What this process holds after collect(): its resident memory, and of JavaScript's heap the objects alone. The pages that V8 keeps for new
 * objects grow with the rate of allocation, by 8 MB at once and long after the start, and hold nothing.
 */
export function heldBytes(): number {
  const heap = getHeapStatistics();
  return residentBytes() - heap.total_physical_size + heap.used_heap_size;
}

/**
 * By how much the lowest sample rises from one quarter to the next, the lesser of the last two steps: the first quarter is the warm-up, a step
 * that doesn't come again is the allocator's, and what leaks rises in each.
 */
export function growth(samples: readonly number[]): number {
  const quarter = Math.floor(samples.length / 4);
  const [second, third, last] = [1, 2, 3].map((i) => Math.min(...samples.slice(i * quarter, (i + 1) * quarter)));
  return Math.min(third! - second!, last! - third!);
}

export function print(result: unknown): void {
  console.log(JSON.stringify(result));
}
