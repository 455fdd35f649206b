import { type Native, native, type StepInfo } from './native';

/** A run while somebody observes, with the times that are still to come. */
export interface ObservedRun {
  readonly device: string;
  readonly steps: readonly StepInfo[];
  /** Milliseconds of each step. */
  readonly times: Promise<readonly number[]>;
}

let observed: ObservedRun[] | undefined;

/** Every run of a program, or of an operation that is called by itself, goes through here. */
export function queueRun(device: string, ...run: Parameters<Native['run']>): ReturnType<Native['run']> {
  const [program, bulk, symbols, inputs] = run;
  // In front of the run, on the same lane: there it finds the same numbers.
  observed?.push({ device, steps: native.programSteps(program), times: native.profile(program, bulk, symbols, inputs) });
  return native.run(...run);
}

/** Times the steps of every run that `work` queues; not two works at a time. */
export async function observeRuns(work: () => Promise<unknown>): Promise<ObservedRun[]> {
  const runs: ObservedRun[] = [];
  observed = runs;
  try {
    await work();
  } finally {
    observed = undefined;
    await Promise.allSettled(runs.map(({ times }) => times));
  }
  return runs;
}
