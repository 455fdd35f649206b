import { writeFile } from 'node:fs/promises';
import { WarpsightError } from './errors';
import type { StepInfo } from './native';
import { observeRuns } from './queue-run';
import { boundOf, peaksOf } from './roofline';

/** What the device took for one step. `flops`, `bytes` and with them the roofline are those of the planned sizes: profile the largest. */
export interface StepProfile extends StepInfo {
  readonly ms: number;
  /** Whether its bytes or its operations take longer at the device's peaks; null where those are not known. */
  readonly bound: 'memory' | 'compute' | null;
  /** That time in proportion to `ms`: 1 is as fast as can be, more than 1 means that operands lay in a cache. Null as `bound`. */
  readonly roofline: number | null;
}

/** One run of a program, or of an operation that was called by itself. */
export interface RunProfile {
  readonly name: string;
  readonly device: string;
  readonly steps: readonly StepProfile[];
}

/** @internal The steps of a run with their times, against the peaks of the device. */
export async function rated(device: string, steps: readonly StepInfo[], times: readonly number[]): Promise<StepProfile[]> {
  const peaks = await peaksOf(device);
  return steps.map((step, i) => {
    const ms = times[i] ?? 0;
    if (!peaks || ms === 0) return { ...step, ms, bound: null, roofline: null };
    const { bound, seconds } = boundOf(step, peaks);
    return { ...step, ms, bound, roofline: (1000 * seconds) / ms };
  });
}

/** @internal Profiles every run that `work` queues; not two at a time. */
export async function profileRuns(name: string, work: () => Promise<unknown>): Promise<RunProfile[]> {
  const runs = await observeRuns(work);
  return Promise.all(
    runs.map(async ({ device, steps, times }) => ({ name, device, steps: await rated(device, steps, await times) })),
  );
}

/**
 * Writes runs one after the other, as if nothing lay between their steps, for chrome://tracing or ui.perfetto.dev.
 *
 * @throws {WarpsightError} ERR_ARGUMENT if the file can't be written
 * @see the "Trace Event Format": complete events ("X"), times in microseconds
 */
export async function writeTrace(path: string, runs: readonly RunProfile[]): Promise<void> {
  const events: object[] = [];
  let at = 0;
  for (const { name, device, steps } of runs) {
    const start = at;
    const place = { ph: 'X', pid: device, tid: 'steps' } as const;
    const inside = steps.map(({ op, ms, ...args }) => {
      const event = { name: op, cat: 'step', ...place, ts: at, dur: 1000 * ms, args };
      at += 1000 * ms;
      return event;
    });
    events.push({ name, cat: 'run', ...place, ts: start, dur: at - start, args: { steps: steps.length } }, ...inside);
  }
  try {
    await writeFile(path, `${JSON.stringify({ displayTimeUnit: 'ms', traceEvents: events })}\n`);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new WarpsightError('ERR_ARGUMENT', `the trace cannot be written: ${why}`, { cause });
  }
}
